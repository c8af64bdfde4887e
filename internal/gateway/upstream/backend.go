package upstream

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// Backend is the handle of a backend. It implements exchange.Backend and stays the same whatever happens to the settings.
type Backend struct {
	registry *Registry
	key      key

	table atomic.Pointer[table]
	stale atomic.Bool // the table is out of date
	turn  atomic.Uint32

	requests atomic.Int64 // admitted by the circuit breaker and under way; counted only if that bounds them
	retrying atomic.Int64 // tries-again under way
	hedged   atomic.Int64 // second requests under way
	open     atomic.Int64 // connections to all endpoints
	pending  atomic.Int64 // requests that wait for a connection
	queue    queue
	took     latencies // for hedging by percentile
	mirror   mirrorCounts

	mu        sync.Mutex     // guards what follows, and the making of tables
	settings  *settings      //
	places    []place        // the endpoints that are there, by rank
	discovery *discoveryTask // nil if the endpoints are static
	answered  chan struct{}  // closed when discovery has given its first answer; nil if there is none
	judged    time.Duration  // when outliers were last judged

	// For the metrics.
	refused      [numBreaks]atomic.Uint64
	retries      atomic.Uint64
	noBudget     atomic.Uint64
	hedges, wins atomic.Uint64
	resolutions  [2]atomic.Uint64 // failed and good ones
}

// The bounds of the circuit breaker.
const (
	breakConnections = iota
	breakPending
	breakRequests
	breakRetries
	numBreaks
)

var breakNames = [numBreaks]string{"connections", "pending", "requests", "retries"}

// Name returns the name of the backend within its organization.
func (b *Backend) Name() string { return b.key.name }

// outdated says that the table must be made anew before it is used again.
func (b *Backend) outdated() { b.stale.Store(true) }

// current returns the table to use now.
func (b *Backend) current() *table {
	t := b.table.Load()
	if b.stale.Load() || t.expires <= b.registry.opts.Sweeper.Now() {
		return b.renew()
	}
	return t
}

// renew makes the table anew.
func (b *Backend) renew() *table {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.renewLocked()
}

func (b *Backend) renewLocked() *table {
	b.stale.Store(false) // first: what changes from now on makes it stale again
	t := newTable(b.settings, b.places, b.registry.opts.Sweeper.Now())
	b.table.Store(t)
	return t
}

// Call implements exchange.Backend.
func (b *Backend) Call(x *exchange.Exchange, d exchange.Down) (exchange.Source, exchange.Verdict) {
	c, ok := x.Call.(*call)
	if !ok {
		c = newCall(x)
		x.Call = c
	}
	t := b.current()
	s := t.settings
	c.begin(b, s, d)
	x.Backend = b.key.name
	if len(t.places) == 0 {
		if t = b.awaitEndpoints(x); len(t.places) == 0 {
			return nil, x.Refuse(exchange.UpstreamNone, "")
		}
	}
	if !c.admit() {
		return nil, x.Refuse(errBreakRequests.Code, errBreakRequests.Detail)
	}
	if v := c.takeBody(); v != exchange.Continue {
		c.over()
		return nil, v
	}
	begin := time.Since(x.Start)
	var src exchange.Source
	var f *exchange.Fault
	if s.content.Hedging != nil && c.mayHedge() {
		src, f = b.hedge(c, t)
	} else {
		src, f = b.run(c, t)
	}
	x.Upstream = time.Since(x.Start) - begin
	if f == nil && s.maxBytes > 0 {
		src, f = c.limited.of(c, src)
	}
	if f == nil {
		return src, exchange.Continue
	}
	c.over()
	if f.Code == exchange.ClientGone {
		x.Code, x.Status = f.Code, f.Code.Status()
		return nil, exchange.Abort
	}
	return nil, x.Refuse(f.Code, f.Detail)
}

// awaitEndpoints waits for the first answer of DNS, no longer than for a connection, and returns the table after that.
func (b *Backend) awaitEndpoints(x *exchange.Exchange) *table {
	b.mu.Lock()
	answered, limit := b.answered, b.settings.connect
	b.mu.Unlock()
	if answered != nil {
		w := &waiter{woken: make(chan struct{}, 1)}
		var i exchange.Interrupter = w
		if x.WaitOn(&i) {
			defer x.WaitOn(nil)
			timer := time.NewTimer(limit)
			defer timer.Stop()
			select {
			case <-answered:
			case <-w.woken:
			case <-timer.C:
			}
		}
	}
	return b.current()
}

// run sends the request until there is the head of a response, or no sense in trying again.
func (b *Backend) run(c *call, t *table) (exchange.Source, *exchange.Fault) {
	r := &t.settings.retries
	var last *exchange.Fault = errNone
	var e *endpoint
	if c.n == 0 {
		e = t.pick(b, c)
	} else {
		e = t.another(b, c) // a second copy does not go where the first one is
	}
	for e != nil {
		src, sent, f := b.try(c, e)
		if f == nil && !r.anyStatus {
			return src, nil
		}
		var next *endpoint
		if f != nil {
			last = f
			next = b.again(c, f, sent)
		} else {
			if next = b.instead(c, src); next == nil {
				return src, nil
			}
		}
		e = next
	}
	return nil, last
}

// try tries one endpoint once.
func (b *Backend) try(c *call, e *endpoint) (exchange.Source, bool, *exchange.Fault) {
	s := c.settings
	c.enter(e)
	c.x.Endpoint = e.address
	timed := s.balance.method == responseTime
	var begin time.Time
	if timed {
		begin = time.Now()
	}
	src, sent, f := s.transport.try(c, e)
	if f == nil {
		c.tryBy = 0
		if timed {
			e.rtt.observe(time.Since(begin), c.now(), s.balance.decay)
		}
		if s.content.Outliers != nil {
			e.outlier.status(e, s, c.x.Status)
		}
		return src, sent, nil
	}
	c.leave()
	if f.Code == exchange.ClientGone || f.Code < exchange.UpstreamConnect || f.Code > exchange.UpstreamTooLarge {
		return nil, sent, f // not the endpoint's fault
	}
	e.count(f.Code)
	if timed && f != errAllBusy {
		e.rtt.observe(time.Since(begin), c.now(), s.balance.decay)
	}
	if s.content.Outliers != nil && f.Code != exchange.UpstreamBusy {
		e.outlier.failure(e, s)
	}
	return nil, sent, f
}

// again returns the endpoint to try next after a fault, once it is time; nil if there is no sense in it.
func (b *Backend) again(c *call, f *exchange.Fault, sent bool) *endpoint {
	r := &c.settings.retries
	if !r.on(f.Code) || c.retried >= r.max || c.late() || sent && !c.mayRepeat(true) || c.stream && c.pump.begun() {
		return nil
	}
	t := b.current()
	next := t.another(b, c)
	if !sent && next != nil {
		// Nothing was asked of anybody yet: there is no load to bound, and no need to wait.
		c.retried++
		b.retries.Add(1)
		return next
	}
	if next == nil && f == errAllBusy && c.settings.breaker.Pending > 0 && !c.mayWait {
		c.mayWait = true // every endpoint is busy
		c.forgetTried()
		return t.pick(b, c)
	}
	if !r.explicit || !b.budget(c, t) {
		return nil
	}
	c.retrying = true
	if !c.pause(r.pause(c.retried, b.registry.opts.Random)) {
		c.endRetry()
		return nil
	}
	c.retried++
	if next == nil {
		c.forgetTried()
		return b.current().pick(b, c)
	}
	return next
}

// instead returns the endpoint to ask instead of the one that gave the response in c.x; nil if that is to be passed on.
func (b *Backend) instead(c *call, src exchange.Source) *endpoint {
	r, x := &c.settings.retries, c.x
	if x.Status >= len(r.statuses) || !r.statuses[x.Status] || c.retried >= r.max || !c.mayRepeat(true) || x.Upgrade != nil {
		return nil
	}
	pause := r.pause(c.retried, b.registry.opts.Random)
	if after, ok := retryAfter(&x.Resp); ok {
		if after > r.maxBackoff {
			return nil
		}
		pause = max(pause, after)
	}
	if left, bounded := c.left(); bounded && left <= pause {
		return nil
	}
	t := b.current()
	if !b.budget(c, t) {
		return nil
	}
	c.discard(src)
	c.retrying = true
	if !c.pause(pause) {
		c.endRetry()
		return nil
	}
	c.retried++
	if e := t.another(b, c); e != nil {
		return e
	}
	c.forgetTried()
	return t.pick(b, c)
}

// budget tells whether one more request may be tried again at present, and counts it.
func (b *Backend) budget(c *call, t *table) bool {
	s := t.settings
	var active int64
	for _, p := range t.places {
		active += p.active.Load()
	}
	n := b.retrying.Add(1)
	if n > max(s.retries.budgetMin, active*s.retries.budgetPercent/100) {
		b.retrying.Add(-1)
		b.noBudget.Add(1)
		return false
	}
	if most := s.breaker.Retries; most > 0 && n > int64(most) {
		b.retrying.Add(-1)
		b.refused[breakRetries].Add(1)
		return false
	}
	b.retries.Add(1)
	return true
}

// pause returns how long to wait before a try again: half to all of the backoff, which doubles each time.
func (r *retries) pause(retried int, random func() uint64) time.Duration {
	d := min(r.backoff<<min(retried, 16), r.maxBackoff)
	hi, _ := bits.Mul64(random(), uint64(d/2)+1)
	return d/2 + time.Duration(hi)
}

// retryAfter returns what a response says about when to ask again, if that is a number of seconds.
func retryAfter(h *exchange.Head) (time.Duration, bool) {
	v := h.Known(exchange.IDRetryAfter)
	if len(v) == 0 || len(v) > 9 {
		return 0, false
	}
	n := 0
	for _, d := range v {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = 10*n + int(d-'0')
	}
	return time.Duration(n) * time.Second, true
}

// connect counts a connection that is to be made, if the circuit breaker lets it.
func (b *Backend) connect(most int) bool {
	if n := b.open.Add(1); most > 0 && n > int64(most) {
		b.open.Add(-1)
		return false
	}
	return true
}

// reclaim closes an idle connection of any endpoint, to make room for one to another, and tells whether there was one.
func (b *Backend) reclaim() bool {
	for _, p := range b.table.Load().places {
		if c := p.pool.oldest(); c != nil {
			p.pool.drop(c)
			return true
		}
	}
	return false
}

// The faults of a call.
var (
	errConnect          = &exchange.Fault{Code: exchange.UpstreamConnect}
	errAllBusy          = &exchange.Fault{Code: exchange.UpstreamBusy, Detail: "connections.max is reached"}
	errBreakConnections = &exchange.Fault{Code: exchange.UpstreamBusy, Detail: "circuitBreaker.maxConnections is reached"}
	errBreakPending     = &exchange.Fault{Code: exchange.UpstreamBusy, Detail: "circuitBreaker.maxPending is reached"}
	errBreakRequests    = &exchange.Fault{Code: exchange.UpstreamBusy, Detail: "circuitBreaker.maxRequests is reached"}
	errPendingTimeout   = &exchange.Fault{Code: exchange.UpstreamBusy, Detail: "no connection came free in time"}
	errInternal         = &exchange.Fault{Code: exchange.Internal}
	errNone             = &exchange.Fault{Code: exchange.UpstreamNone, Detail: "no endpoint is healthy"}
	errTimeout          = &exchange.Fault{Code: exchange.UpstreamTimeout}
	errReset            = &exchange.Fault{Code: exchange.UpstreamReset}
	errProtocol         = &exchange.Fault{Code: exchange.UpstreamProtocol}
	errResponseTooLarge = &exchange.Fault{Code: exchange.UpstreamTooLarge}
	errClientGone       = &exchange.Fault{Code: exchange.ClientGone}
	errTooLarge         = &exchange.Fault{Code: exchange.BadRequestBodyTooLarge, Detail: "the body is longer than this API takes"}
	errBuffer           = &exchange.Fault{Code: exchange.BadRequestBodyTooLarge, Detail: "the body is longer than can be sent without telling its length first"}
	errPanicked         = errors.New("it panicked, which is a fault of the gateway")
	errIncomplete       = errors.New("the response ended before its head was complete")
	errSwitch           = errors.New("the backend switched protocols without being asked to")
	errBackwards        = errors.New("the backend sent too many informational responses")
)
