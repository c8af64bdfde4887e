package upstream

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Times are counted in buckets that are a quarter of a power of two wide, from a microsecond to about a minute.
const (
	finest  = 2 // bits below the highest one that tell buckets apart
	buckets = 26 << finest
	// turnOver is how often the older half of what is counted is forgotten.
	turnOver = 30 * time.Second
	// leastTimes is how many times must have been counted before a percentile means anything.
	leastTimes = 100
)

// latencies counts how long responses took in the last half or whole minute. The zero value is ready.
type latencies struct {
	halves [2][buckets]atomic.Uint32
	now    atomic.Uint32 // the half that is counted in

	mu     sync.Mutex
	turned time.Duration // guarded by mu; when the halves last changed places
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d/time.Microsecond, 1))
	top := bits.Len64(us) - 1
	if top < finest {
		return int(us) // exact
	}
	return min((top-finest)<<finest+int(us>>(top-finest)), buckets-1)
}

// ceilingOf is the longest time in a bucket.
func ceilingOf(bucket int) time.Duration {
	if bucket < 1<<(finest+1) {
		return time.Duration(bucket+1) * time.Microsecond
	}
	shift := bucket>>finest - 1
	return time.Duration(uint64(bucket&(1<<finest-1)+1<<finest+1)<<shift) * time.Microsecond
}

// observe counts a time.
func (l *latencies) observe(d time.Duration) { l.halves[l.now.Load()&1][bucketOf(d)].Add(1) }

// percentile returns the time that so many percent took at most, rounded up; false if too few have been counted.
func (l *latencies) percentile(percent int, now time.Duration) (time.Duration, bool) {
	l.turn(now)
	var sums [buckets]uint64
	var total uint64
	for i := range sums {
		sums[i] = uint64(l.halves[0][i].Load()) + uint64(l.halves[1][i].Load())
		total += sums[i]
	}
	if total < leastTimes {
		return 0, false
	}
	rank := (total*uint64(percent) + 99) / 100
	for i, n := range sums {
		if rank <= n {
			return ceilingOf(i), true
		}
		rank -= n
	}
	return ceilingOf(buckets - 1), true
}

// turn forgets the older half if it is time to.
func (l *latencies) turn(now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now-l.turned < turnOver {
		return
	}
	old := (l.now.Load() + 1) & 1
	if now-l.turned >= 2*turnOver { // both are old
		clear32(&l.halves[old^1])
	}
	clear32(&l.halves[old])
	l.now.Store(old)
	l.turned = now
}

func clear32(half *[buckets]atomic.Uint32) {
	for i := range half {
		half[i].Store(0)
	}
}
