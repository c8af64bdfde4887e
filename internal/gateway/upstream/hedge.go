package upstream

import (
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// mayHedge tells whether the request may be sent twice.
func (c *call) mayHedge() bool { return c.x.Upgrade == nil && c.mayRepeat(true) }

// race is a request of hedging: up to two copies of it are sent, and the first response wins.
type race struct {
	backend *Backend
	table   *table
	limit   time.Duration // of the whole call, on the sweeper's clock
	won     atomic.Bool
	results chan runner // room for both
	woken   chan struct{}

	mu     sync.Mutex
	copies []*shadow // guarded by mu; those that are under way
}

// runner is what became of a copy.
type runner struct {
	copy *shadow
	src  exchange.Source
	f    *exchange.Fault
}

// Interrupt implements exchange.Interrupter.
func (r *race) Interrupt() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// hedge runs the request, and once more at another endpoint if there is no response in time. Both run on copies, in
// goroutines that the registry waits for, so that the one that loses can end at its leisure.
func (b *Backend) hedge(c *call, t *table) (exchange.Source, *exchange.Fault) {
	h := t.settings.content.Hedging
	after, ok := time.Duration(h.AfterMillis)*time.Millisecond, true
	if after == 0 {
		after, ok = b.took.percentile(h.Percentile, c.now())
	}
	r := &race{backend: b, table: t, limit: c.deadline, results: make(chan runner, 2), woken: make(chan struct{}, 1)}
	var i exchange.Interrupter = r
	if !c.x.WaitOn(&i) {
		return nil, errClientGone
	}
	defer c.x.WaitOn(nil)
	begin := time.Now()
	first := r.start(c, nil)
	timer := time.NewTimer(after)
	defer timer.Stop()
	if !ok || len(t.places) < 2 {
		timer.Stop()
	}
	look := time.NewTicker(firstLook)
	defer look.Stop()
	running, second := 1, false
	for {
		select {
		case res := <-r.results:
			if res.f == nil {
				r.cancel(res.copy)
				b.took.observe(time.Since(begin))
				if res.copy != first {
					b.wins.Add(1)
				}
				return r.adopt(c, res), nil
			}
			if running--; running == 0 {
				c.x.Endpoint, c.x.Tries = res.copy.x.Endpoint, c.x.Tries+res.copy.x.Tries
				b.registry.keepShadow(res.copy)
				return nil, res.f
			}
			c.x.Tries += res.copy.x.Tries
			b.registry.keepShadow(res.copy)
			continue
		case <-timer.C:
			if !second && b.mayHedgeNow(t, h.BudgetPercent) {
				second = true
				running++
				r.start(c, first)
			}
			continue
		case <-look.C:
		case <-r.woken:
		}
		if c.x.Cancelled() || c.down.Gone() {
			r.abandon()
			return nil, errClientGone
		}
	}
}

// abandon ends the race without a winner. If there is one already, whose response nobody has taken yet, that is let go of.
func (r *race) abandon() {
	for won := !r.won.CompareAndSwap(false, true); won; {
		if res := <-r.results; res.f == nil {
			res.src.Close()
			won = false
		}
	}
	r.cancel(nil)
}

// mayHedgeNow tells whether one more second request may be under way, and counts it.
func (b *Backend) mayHedgeNow(t *table, percent int) bool {
	var active int64
	for _, p := range t.places {
		active += p.active.Load()
	}
	if n := b.hedged.Add(1); n > max(1, active*int64(percent)/100) {
		b.hedged.Add(-1)
		b.noBudget.Add(1)
		return false
	}
	b.hedges.Add(1)
	return true
}

// start sends a copy; a second one not where the first is.
func (r *race) start(c *call, first *shadow) *shadow {
	b := r.backend
	s := b.registry.shadow()
	s.copyOf(c.x, c.sending, c.x.Body != nil)
	sc := s.callTo(b, r.table)
	sc.deadline, sc.sending = r.limit, nil
	if s.x.Body != nil {
		sc.takeBody() // it is in memory
	}
	sc.watched = true
	if first != nil {
		if e := first.call.where.Load(); e != nil {
			sc.tried[0], sc.n = e, 1
		}
	}
	r.mu.Lock()
	r.copies = append(r.copies, s)
	r.mu.Unlock()
	b.registry.tasks.Go(func() { r.run(s, first != nil) })
	return s
}

func (r *race) run(s *shadow, second bool) {
	b := r.backend
	src, f := r.response(s)
	if second {
		b.hedged.Add(-1)
	}
	r.mu.Lock()
	for i, other := range r.copies {
		if other == s {
			r.copies = append(r.copies[:i], r.copies[i+1:]...)
			break
		}
	}
	r.mu.Unlock()
	switch {
	case f != nil:
		s.call.over()
		r.results <- runner{s, nil, f}
	case r.won.CompareAndSwap(false, true):
		r.results <- runner{s, src, nil}
	default: // the other was faster
		src.Close()
		b.registry.keepShadow(s)
	}
}

// response gets the response to a copy.
func (r *race) response(s *shadow) (src exchange.Source, f *exchange.Fault) {
	f = errInternal // unless it comes to its end
	defer r.backend.registry.opts.Guard.Catch("a copy of a request", s.x.Abandon)
	return r.backend.run(s.call, r.table)
}

// cancel ends the copies that are still under way.
func (r *race) cancel(winner *shadow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.copies {
		if s != winner {
			s.x.Cancel()
		}
	}
}

// adopt makes the response of a copy that of the exchange.
func (r *race) adopt(c *call, res runner) exchange.Source {
	x, y := c.x, &res.copy.x
	x.Resp.Reset()
	x.Resp.AddAll(&y.Resp) // the memory of the copy may be used again before x is done with
	x.Status, x.Endpoint, x.Tries = y.Status, y.Endpoint, x.Tries+y.Tries
	sc := res.copy.call
	sc.x, sc.down = x, c.down
	return &adopted{Source: res.src, call: c, copy: res.copy}
}

// adopted is the body of the response that a copy got.
type adopted struct {
	exchange.Source
	call *call
	copy *shadow
}

// Close implements exchange.Source.
func (a *adopted) Close() {
	if a.copy == nil {
		return
	}
	a.Source.Close()
	a.call.over()
	a.call.backend.registry.keepShadow(a.copy)
	a.copy = nil
}
