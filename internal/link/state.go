package link

import (
	"context"
	"net"
	"sync"
	"time"
)

// State is how a link is at one moment.
type State struct {
	Classes [numClasses]ClassState
}

// Up tells whether all connections are up.
func (s State) Up() bool {
	for _, c := range s.Classes {
		if !c.Up {
			return false
		}
	}
	return true
}

// ClassState is how the connection of one class is.
type ClassState struct {
	Up       bool
	Since    time.Time     // when Up last changed; zero: never up so far
	Address  string        // of the other end, of the last connection
	RTT      time.Duration // last measured round trip; 0: not measured yet
	Connects uint64        // connections that were made
	Failures uint64        // attempts that failed
	LastErr  string        // of the last attempt that failed
}

// board keeps the state of a link, in metrics too, and wakes who waits for a change.
type board struct {
	metrics *clientMetrics

	mu      sync.Mutex // guards the fields below
	current State
	changed chan struct{} // closed at the next change
}

func newBoard(m *clientMetrics) *board {
	for class := range numClasses {
		name := class.String()
		m.up.WithLabelValues(name).Set(0)
		m.roundTrip.WithLabelValues(name).Set(0)
		m.connects.WithLabelValues(name)
		m.failures.WithLabelValues(name)
	}
	return &board{metrics: m, changed: make(chan struct{})}
}

func (b *board) state() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

func (b *board) wait(ctx context.Context, condition func(State) bool) error {
	for {
		b.mu.Lock()
		s, changed := b.current, b.changed
		b.mu.Unlock()
		if condition(s) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

func (b *board) change(class Class, f func(*ClassState)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.current.Classes[class])
	close(b.changed)
	b.changed = make(chan struct{})
}

// set notes whether a connection is up, and tells whether that is news.
func (b *board) set(class Class, up bool) (news bool) {
	b.change(class, func(s *ClassState) {
		if news = s.Up != up; news {
			s.Up, s.Since = up, time.Now()
		}
	})
	value := 0.0
	if up {
		value = 1
	}
	b.metrics.up.WithLabelValues(class.String()).Set(value)
	return news
}

func (b *board) connected(class Class, remote net.Addr) {
	b.change(class, func(s *ClassState) { s.Connects, s.Address = s.Connects+1, remote.String() })
	b.metrics.connects.WithLabelValues(class.String()).Inc()
}

func (b *board) failed(class Class, err error) {
	b.change(class, func(s *ClassState) { s.Failures, s.LastErr = s.Failures+1, err.Error() })
	b.metrics.failures.WithLabelValues(class.String()).Inc()
}

func (b *board) roundTrip(class Class, d time.Duration) {
	b.change(class, func(s *ClassState) { s.RTT = d })
	b.metrics.roundTrip.WithLabelValues(class.String()).Set(d.Seconds())
}

func (b *board) count(class Class, conn net.Conn) net.Conn {
	name := class.String()
	return &countingConn{Conn: conn, received: b.metrics.received.WithLabelValues(name), sent: b.metrics.sent.WithLabelValues(name)}
}
