package sweep

import (
	"sync/atomic"
	"time"
)

// Alarm is a deadline of something that is no connection: a stream on one, for example. Add it to a Sweeper.
type Alarm struct {
	sweeper *Sweeper
	shard   *shard
	index   int // in shard.alarms; guarded by shard.mu
	by      atomic.Int64
	ring    func()
}

// AddAlarm starts looking after a. The sweeper calls ring when the deadline has passed, once for each time that the alarm
// was armed, and perhaps once when it has just been disarmed or removed. ring must not block.
func (s *Sweeper) AddAlarm(a *Alarm, ring func()) {
	a.sweeper, a.ring = s, ring
	sh := &s.shards[s.next.Add(1)%shards]
	sh.mu.Lock()
	a.shard, a.index = sh, len(sh.alarms)
	sh.alarms = append(sh.alarms, a)
	sh.mu.Unlock()
}

// Arm has the alarm ring after d, unless it is armed anew or disarmed.
func (a *Alarm) Arm(d time.Duration) {
	at := a.sweeper.now.Load() + int64(Tick+d)
	if a.by.Load() != at {
		a.by.Store(at)
	}
}

// Disarm keeps the alarm from ringing.
func (a *Alarm) Disarm() {
	if a.by.Load() != 0 {
		a.by.Store(0)
	}
}

// Remove stops looking after a. It may be added again.
func (a *Alarm) Remove() {
	a.Disarm()
	sh := a.shard
	sh.mu.Lock()
	last := len(sh.alarms) - 1
	sh.alarms[a.index] = sh.alarms[last]
	sh.alarms[a.index].index = a.index
	sh.alarms[last] = nil
	sh.alarms = sh.alarms[:last]
	sh.mu.Unlock()
}

// due tells whether the alarm must ring, and disarms it then.
func (a *Alarm) due(now int64) bool {
	at := a.by.Load()
	return past(at, now) && a.by.CompareAndSwap(at, 0)
}
