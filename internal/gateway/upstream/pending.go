package upstream

import (
	"sync"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// queue is the requests that wait for a connection to a backend, in the order in which they came.
type queue struct {
	mu      sync.Mutex
	waiters []*waiter // guarded by mu
}

// waiter is one of them. Who gives it something takes it out of the queue first.
type waiter struct {
	endpoint *endpoint
	given    chan *conn    // one connection; or nil: there may be room for a new one
	woken    chan struct{} // the exchange may have been cancelled
}

// Interrupt implements exchange.Interrupter.
func (w *waiter) Interrupt() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// hand gives a connection to the first who waits for one to that endpoint.
func (q *queue) hand(e *endpoint, c *conn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiters {
		if w.endpoint == e && !c.client.IsValid() {
			q.remove(i)
			w.given <- c
			return true
		}
	}
	return false
}

// room tells one who waits that a connection has been closed: the first who waits for that endpoint, or else the first,
// since the bound may have been that of the backend.
func (q *queue) room(e *endpoint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiters) == 0 {
		return
	}
	at := 0
	for i, w := range q.waiters {
		if w.endpoint == e {
			at = i
			break
		}
	}
	w := q.waiters[at]
	q.remove(at)
	w.given <- nil
}

func (q *queue) remove(i int) {
	copy(q.waiters[i:], q.waiters[i+1:])
	q.waiters[len(q.waiters)-1] = nil
	q.waiters = q.waiters[:len(q.waiters)-1]
}

// leave takes w out, and tells whether it was still in. If not, something has been given to it.
func (q *queue) leave(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.waiters {
		if q.waiters[i] == w {
			q.remove(i)
			return true
		}
	}
	return false
}

// pend counts one more request that waits, in b.pending, if the circuit breaker lets it.
func (b *Backend) pend(s *settings) *exchange.Fault {
	if b.pending.Add(1) <= int64(s.breaker.Pending) {
		return nil
	}
	b.pending.Add(-1)
	if s.breaker.Pending > 0 {
		b.refused[breakPending].Add(1)
		return errBreakPending
	}
	return errAllBusy
}

// wait waits until there is a connection to e, or, again, until there may be room for one.
func (e *endpoint) wait(c *call) (got *conn, again bool, f *exchange.Fault) {
	b, s := e.backend, c.settings
	if f := b.pend(s); f != nil {
		return nil, false, f
	}
	defer b.pending.Add(-1)
	w := &waiter{endpoint: e, given: make(chan *conn, 1), woken: make(chan struct{}, 1)}
	b.queue.mu.Lock()
	b.queue.waiters = append(b.queue.waiters, w)
	b.queue.mu.Unlock()
	// Between the look at the pool and now a connection may have come back that nobody was told of.
	if conn, busy := e.pool.take(c, false); busy == nil {
		b.returnGift(w, s)
		return conn, false, nil
	}
	if got, f = c.await(w); f == nil {
		if got != nil {
			got.reused = true
		}
		return got, got == nil, nil
	}
	b.returnGift(w, s)
	return nil, false, f
}

// returnGift takes w out of the queue and passes on what it was given meanwhile.
func (b *Backend) returnGift(w *waiter, s *settings) {
	if b.queue.leave(w) {
		return
	}
	if conn := <-w.given; conn != nil {
		conn.uses--
		w.endpoint.pool.put(conn, s, b.registry.opts.Sweeper.Now())
		return
	}
	b.queue.room(w.endpoint)
}

// await waits until something is given to w, and no longer than the time for that.
func (c *call) await(w *waiter) (*conn, *exchange.Fault) {
	var i exchange.Interrupter = w
	if !c.x.WaitOn(&i) {
		return nil, errClientGone
	}
	defer c.x.WaitOn(nil)
	if c.waiting.IsZero() {
		c.waiting = time.Now()
	}
	limit := c.settings.pending - time.Since(c.waiting) // all times together
	if left, bounded := c.left(); bounded {
		limit = min(limit, left)
	}
	over := time.NewTimer(limit)
	defer over.Stop()
	look := time.NewTicker(firstLook)
	defer look.Stop()
	for {
		select {
		case conn := <-w.given:
			return conn, nil
		case <-over.C:
			return nil, errPendingTimeout
		case <-w.woken:
		case <-look.C:
			if c.down.Gone() {
				return nil, errClientGone
			}
		}
		if c.x.Cancelled() {
			return nil, errClientGone
		}
	}
}
