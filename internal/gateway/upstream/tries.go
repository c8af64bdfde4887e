package upstream

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// maxTried is how many different endpoints one request can be tried with.
const maxTried = 11

// tries is what a call knows of its tries.
type tries struct {
	at       *endpoint // that the request is under way at
	tried    [maxTried]*endpoint
	n        int            // of tried
	retried  int            // times
	retrying bool           // counted by the budget
	admitted bool           // counted by the circuit breaker
	mayWait  bool           // for a connection
	waiting  time.Time      // since when it does
	deadline time.Duration  // of the whole call, on the sweeper's clock; 0 is none
	tryBy    time.Duration  // of the try; 0 is none
	client   netip.AddrPort // whose connections these are, if they are for one client each
	limited  limited
	watched  bool                     // somebody else asks where it is, and may cancel it at any time
	where    atomic.Pointer[endpoint] // if watched
}

func (t *tries) reset(now time.Duration, s *settings, x *exchange.Exchange) {
	t.at, t.n, t.retried, t.retrying, t.admitted, t.waiting, t.tryBy = nil, 0, 0, false, false, time.Time{}, 0
	t.watched = false
	t.mayWait = s.breaker.Pending > 0 && len(s.static) == 1
	if t.deadline = 0; s.total > 0 {
		t.deadline = now + s.total
	}
	if d := x.GRPCTimeout(); d > 0 && (t.deadline == 0 || now+d < t.deadline) {
		t.deadline = now + d // the client waits no longer
	}
	if s.content.ProxyProtocol != "" {
		t.client = clientOf(x)
	} else if t.client.IsValid() {
		t.client = netip.AddrPort{}
	}
}

// enter says that the request is to be tried with e.
func (c *call) enter(e *endpoint) {
	e.active.Add(1)
	c.at = e
	if c.watched {
		c.where.Store(e)
	}
	if c.n < maxTried {
		c.tried[c.n] = e
		c.n++
	}
	if c.settings.try > 0 {
		c.tryBy = c.now() + c.settings.try
	}
}

// leave says that the request is under way no longer where it was.
func (c *call) leave() {
	if c.at != nil {
		c.at.active.Add(-1)
		c.at, c.tryBy = nil, 0
	}
	c.endRetry()
}

func (c *call) endRetry() {
	if c.retrying {
		c.backend.retrying.Add(-1)
		c.retrying = false
	}
}

// over says that the backend has nothing more to do with the call. It may be said more than once.
func (c *call) over() {
	c.leave()
	if c.admitted {
		c.backend.requests.Add(-1)
		c.admitted = false
	}
}

// admit tells whether the circuit breaker lets one more request pass, and counts it.
func (c *call) admit() bool {
	most := c.settings.breaker.Requests
	if most == 0 {
		return true
	}
	b := c.backend
	if b.requests.Add(1) > int64(most) {
		b.requests.Add(-1)
		b.refused[breakRequests].Add(1)
		return false
	}
	c.admitted = true
	return true
}

func (c *call) hasTried(e *endpoint) bool {
	return slices.Contains(c.tried[:c.n], e)
}

func (c *call) forgetTried() { c.n = 0 }

// left returns how much time the try and the call have left, and whether there is a bound at all.
func (c *call) left() (time.Duration, bool) {
	by := c.deadline
	if c.tryBy > 0 && (by == 0 || c.tryBy < by) {
		by = c.tryBy
	}
	if by == 0 {
		return 0, false
	}
	return by - c.now(), true
}

// late tells whether the whole call has no time left.
func (c *call) late() bool { return c.deadline > 0 && c.deadline <= c.now() }

// pause waits before a try again. It returns false if there is no sense in that any more.
func (c *call) pause(d time.Duration) bool {
	if left := c.deadline - c.now(); c.deadline > 0 && left <= d || c.down.Gone() {
		return false
	}
	w := &waiter{woken: make(chan struct{}, 1)}
	var i exchange.Interrupter = w
	if !c.x.WaitOn(&i) {
		return false
	}
	defer c.x.WaitOn(nil)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.woken:
	}
	return !c.x.Cancelled()
}

// discard lets go of a response that is not to be passed on. A short one that is at hand is read to its end, so that its
// connection can be used again.
func (c *call) discard(src exchange.Source) {
	const most = 16 << 10
	admitted := c.admitted
	c.admitted = false // the request goes on
	for n := 0; n < most && src.Ready(); {
		chunk, err := src.Next()
		if n += len(chunk.Data); err != nil || chunk.End {
			break
		}
	}
	src.Close()
	c.leave()
	c.admitted = admitted
	c.x.Code = exchange.CodeNone
}

// limited is the body of a response with a bound to its length.
type limited struct {
	exchange.Source
	call *call
	left int64
}

// of puts the bound of the backend to a body.
func (l *limited) of(c *call, src exchange.Source) (exchange.Source, *exchange.Fault) {
	most := c.settings.maxBytes
	if src.Len() > most && string(c.x.Method) != "HEAD" {
		src.Close()
		c.count(errResponseTooLarge.Code)
		return nil, errResponseTooLarge
	}
	if c.x.Status == 101 {
		return src, nil // a tunnel
	}
	l.Source, l.call, l.left = src, c, most
	return l, nil
}

// Next implements exchange.Source.
func (l *limited) Next() (exchange.Chunk, error) {
	chunk, err := l.Source.Next()
	if l.left -= int64(len(chunk.Data)); l.left < 0 && err == nil {
		l.call.count(errResponseTooLarge.Code)
		l.call.x.Code = errResponseTooLarge.Code
		return exchange.Chunk{}, errResponseTooLarge
	}
	return chunk, err
}

// Close implements exchange.Source.
func (l *limited) Close() {
	if l.Source != nil {
		l.Source.Close()
		l.Source = nil
	}
}

// count counts a fault of the endpoint that answered last.
func (c *call) count(code exchange.Code) {
	if c.n > 0 {
		c.tried[c.n-1].count(code)
	}
}
