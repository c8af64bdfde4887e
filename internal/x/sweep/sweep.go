// Package sweep keeps the deadlines of many connections at little cost. Setting a deadline of a net.Conn takes a few
// hundred nanoseconds, several times per request. Here arming one is a single atomic store, and one goroutine, the
// [Sweeper], looks at all of them ten times a second. Deadlines are therefore coarse: they fire up to two ticks late
// and never early.
//
// A goroutine that waits for a [Conn] is woken by a deadline in the past on the net.Conn beneath. Waking it without
// need is harmless, so nothing here has to be exact about which goroutine uses a connection at which moment: who is
// woken looks whether its deadline has passed or its owner has been cancelled, and otherwise goes on waiting.
package sweep

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Tick is how often deadlines are looked at.
const Tick = 100 * time.Millisecond

// What ends the waiting for a Conn, besides the errors of the net.Conn. ErrTimeout is a temporary net.Error, so that a
// tls.Conn on top survives it.
var (
	ErrTimeout   error = timeout{}
	ErrCancelled       = errors.New("the exchange was cancelled")
)

// errStarved tells a stream on top of a Conn, within Loop, that there is nothing to read.
var errStarved error = starved{}

type starved struct{ timeout }

func (starved) Error() string { return "there is nothing to read at present" }

type timeout struct{}

func (timeout) Error() string   { return "the connection has been silent for too long" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// Guard ends a panic, by a method that is deferred: then, if it is not nil, is called after it.
type Guard interface {
	Catch(what string, then func())
}

// shards keeps adding and removing connections from waiting for a sweep over all others.
const shards = 16

// Sweeper looks after the deadlines of connections. Make it with New and run it with Run.
type Sweeper struct {
	// Guard catches what panics when an alarm rings, so that all others are still looked after: a guard.Guard. Set it before
	// Run. Default: nothing does.
	Guard Guard

	base   time.Time
	now    atomic.Int64 // since base; as of the last tick
	next   atomic.Uint32
	shards [shards]shard
	pipes  pipes
}

type shard struct {
	mu     sync.Mutex
	conns  []*Conn  // guarded by mu
	alarms []*Alarm // guarded by mu
	due    []*Conn  // of the sweep, kept for its memory
	ring   []func() // of the sweep, too
}

// New returns a Sweeper. Its clock stands still until Run is called.
func New() *Sweeper {
	return &Sweeper{base: time.Now()}
}

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(Tick)
	defer ticker.Stop()
	defer s.pipes.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.sweep()
		}
	}
}

// Now returns the time since the Sweeper was made, as of the last tick.
func (s *Sweeper) Now() time.Duration { return time.Duration(s.now.Load()) }

// Len returns the number of connections that are looked after.
func (s *Sweeper) Len() int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.conns)
		sh.mu.Unlock()
	}
	return n
}

func (s *Sweeper) sweep() {
	now := int64(time.Since(s.base))
	s.now.Store(now)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, c := range sh.conns {
			if past(c.readBy.Load(), now) || past(c.writeBy.Load(), now) {
				sh.due = append(sh.due, c)
			}
		}
		for _, a := range sh.alarms {
			if a.due(now) {
				sh.ring = append(sh.ring, a.ring)
			}
		}
		sh.mu.Unlock()
		for _, c := range sh.due {
			c.expire(now)
		}
		for _, ring := range sh.ring {
			s.ring(ring)
		}
		clear(sh.due)
		clear(sh.ring)
		sh.due, sh.ring = sh.due[:0], sh.ring[:0]
	}
}

func (s *Sweeper) ring(ring func()) {
	if s.Guard != nil {
		defer s.Guard.Catch("an alarm", nil)
	}
	ring()
}

func past(deadline, now int64) bool { return 0 < deadline && deadline <= now }

// Owner is on whose behalf a goroutine waits for a connection.
type Owner interface {
	Cancelled() bool
}

// Conn is a net.Conn whose deadlines are kept by a Sweeper. One goroutine may read and one may write at a time. A
// tls.Conn goes on top of it, not beneath: it does not survive being woken without need.
type Conn struct {
	net.Conn
	sweeper *Sweeper
	shard   *shard
	index   int // in shard.conns; guarded by shard.mu

	// The deadlines, on the clock of the sweeper: 0 is none, and one that has fired is negative.
	readBy, writeBy atomic.Int64

	// Owner ends the waiting of Read when it is cancelled; nil for none. It belongs to the goroutine that reads.
	Owner Owner

	// Starved, if set, is called by Loop before it waits, where the system allows to know that. It may give back what
	// buffer returned.
	Starved func()

	raw    raw
	sender sender
}

// Add starts looking after nc.
func (s *Sweeper) Add(c *Conn, nc net.Conn) {
	c.Conn, c.sweeper = nc, s
	sh := &s.shards[s.next.Add(1)%shards]
	sh.mu.Lock()
	c.shard, c.index = sh, len(sh.conns)
	sh.conns = append(sh.conns, c)
	sh.mu.Unlock()
}

// Close stops looking after c and closes it.
func (c *Conn) Close() error {
	sh := c.shard
	sh.mu.Lock()
	if last := len(sh.conns) - 1; c.index >= 0 {
		sh.conns[c.index] = sh.conns[last]
		sh.conns[c.index].index = c.index
		sh.conns[last] = nil
		sh.conns = sh.conns[:last]
		c.index = -1
	}
	sh.mu.Unlock()
	return c.Conn.Close()
}

// ArmRead gives the reads that follow d from now on, together. 0 gives them all the time there is. There is no need to
// disarm it: a deadline that passes while nobody waits does nothing.
func (c *Conn) ArmRead(d time.Duration) { c.arm(&c.readBy, d) }

// ArmWrite is ArmRead for writes.
func (c *Conn) ArmWrite(d time.Duration) { c.arm(&c.writeBy, d) }

// arm counts from the end of the present tick, so that nothing fires early.
func (c *Conn) arm(deadline *atomic.Int64, d time.Duration) {
	var at int64
	if d > 0 {
		at = c.sweeper.now.Load() + int64(Tick+d)
	}
	if deadline.Load() != at { // a load is much cheaper, and most requests are shorter than a tick
		deadline.Store(at)
	}
}

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

func (c *Conn) expire(now int64) {
	// Errors say that the connection is closed, and then nobody waits for it. Marking the deadline as fired fails if
	// it has just been armed anew: then there was no need to wake.
	if at := c.readBy.Load(); past(at, now) && c.readBy.CompareAndSwap(at, -at) {
		_ = c.Conn.SetReadDeadline(aLongTimeAgo)
	}
	if at := c.writeBy.Load(); past(at, now) && c.writeBy.CompareAndSwap(at, -at) {
		_ = c.Conn.SetWriteDeadline(aLongTimeAgo)
	}
}

// Interrupt wakes whoever waits in Read, so that it looks at its owner.
func (c *Conn) Interrupt() { _ = c.Conn.SetReadDeadline(aLongTimeAgo) }

func (c *Conn) read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err == nil || n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := c.woken(); err != nil {
			return 0, err
		}
	}
}

// woken is called by who was woken from waiting to read. It returns why to give up, or nil.
func (c *Conn) woken() error {
	// Clear first: a wake-up from now on is not lost.
	if err := c.Conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if c.Owner != nil && c.Owner.Cancelled() {
		return ErrCancelled
	}
	if c.readBy.Load() < 0 {
		return ErrTimeout
	}
	return nil
}

// write writes p[n:].
func (c *Conn) write(p []byte, n int) (int, error) {
	for {
		m, err := c.Conn.Write(p[n:])
		n += m
		if err == nil {
			return n, nil
		}
		if err := c.writeWoken(err); err != nil {
			return n, err
		}
	}
}

// writeWoken is called with the error that ended waiting to write. It returns why to give up, or nil.
func (c *Conn) writeWoken(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err := c.Conn.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	if c.writeBy.Load() < 0 {
		return ErrTimeout
	}
	return nil
}

// writeAll writes three pieces from the nth byte of all of them on.
func (c *Conn) writeAll(p, q, r []byte, n int) (int, error) {
	done := 0
	for _, piece := range [...][]byte{p, q, r} {
		skip := min(max(n-done, 0), len(piece))
		if skip < len(piece) {
			m, err := c.write(piece, skip)
			if err != nil {
				return done + m, err
			}
		}
		done += len(piece)
	}
	return done, nil
}
