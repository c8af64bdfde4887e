package upstream

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// Backend is the handle of a backend. It implements exchange.Backend and stays the same whatever happens to the settings.
type Backend struct {
	registry *Registry
	key      key
	settings atomic.Pointer[settings]
	turn     atomic.Uint32
}

// Name returns the name of the backend within its organization.
func (b *Backend) Name() string { return b.key.name }

// maxTries bounds how often one request is tried, on however many endpoints.
const maxTries = 4

// Call implements exchange.Backend.
func (b *Backend) Call(x *exchange.Exchange, d exchange.Down) (exchange.Source, exchange.Verdict) {
	c, ok := x.Call.(*call)
	if !ok {
		c = newCall(x)
		x.Call = c
	}
	s := b.settings.Load()
	c.begin(b, s, d)
	x.Backend = b.key.name
	if len(s.endpoints) == 0 {
		return nil, x.Refuse(exchange.UpstreamNone, "")
	}
	if v := c.takeBody(); v != exchange.Continue {
		return nil, v
	}
	begin := time.Since(x.Start)
	f := b.try(c, s)
	x.Upstream = time.Since(x.Start) - begin
	if f == nil {
		return c, exchange.Continue
	}
	c.abandon()
	if f.Code == exchange.ClientGone {
		x.Code, x.Status = f.Code, f.Code.Status()
		return nil, exchange.Abort
	}
	return nil, x.Refuse(f.Code, f.Detail)
}

// try sends the request until there is the head of a response, or no sense in trying again.
func (b *Backend) try(c *call, s *settings) *exchange.Fault {
	turn := int(b.turn.Add(1))
	var last *exchange.Fault
	tried, fresh := 0, false
	for range maxTries {
		e := s.pick(turn+tried, b.registry.opts.Sweeper.Now())
		f, again := b.tryEndpoint(c, s, e, fresh)
		if f == nil {
			return nil
		}
		e.count(f.Code)
		last = f
		switch again {
		case anotherEndpoint:
			if tried++; tried >= len(s.endpoints) {
				return last
			}
			fresh = false
		case newConnection:
			fresh = true
		default:
			return last
		}
	}
	return last
}

// pick returns the endpoint whose turn it is, passing over those that are down if others are not.
func (s *settings) pick(turn int, now time.Duration) *endpoint {
	n := len(s.endpoints)
	for i := range n {
		if e := s.endpoints[(turn+i)%n]; e.available(now) {
			return e
		}
	}
	return s.endpoints[turn%n]
}

// again says how to go on after a try that failed.
type again uint8

const (
	notAgain again = iota
	newConnection
	anotherEndpoint
)

// tryEndpoint tries one endpoint once.
func (b *Backend) tryEndpoint(c *call, s *settings, e *endpoint, fresh bool) (*exchange.Fault, again) {
	o := &b.registry.opts
	c.x.Endpoint = e.address
	conn, err := e.take(s, o.Sweeper.Now(), fresh, !c.mayRepeat(true))
	if err != nil {
		return errAllBusy, anotherEndpoint
	}
	if conn == nil {
		if conn, err = e.dial(o, s); err != nil {
			o.Log.Warn("cannot connect to an endpoint", slog.String("backend", b.key.name),
				slog.String("organization", b.key.organization), slog.String("endpoint", e.address), slog.Any("err", err))
			return errConnect, anotherEndpoint
		}
	}
	c.use(e, conn)
	c.x.Tries++
	e.requests.Add(1)
	if conn.reused {
		e.reused.Add(1)
	}
	sent, err := c.send()
	if err == nil {
		err = c.receive()
	}
	if err == nil {
		return nil, notAgain
	}
	f := c.fault(err)
	c.drop()
	if conn.reused && f == errReset && c.received == 0 && c.mayRepeat(sent) {
		return f, newConnection
	}
	return f, notAgain
}

// The faults of a call.
var (
	errConnect    = &exchange.Fault{Code: exchange.UpstreamConnect}
	errAllBusy    = &exchange.Fault{Code: exchange.UpstreamBusy}
	errTimeout    = &exchange.Fault{Code: exchange.UpstreamTimeout}
	errReset      = &exchange.Fault{Code: exchange.UpstreamReset}
	errProtocol   = &exchange.Fault{Code: exchange.UpstreamProtocol}
	errClientGone = &exchange.Fault{Code: exchange.ClientGone}
	errTooLarge   = &exchange.Fault{Code: exchange.BadRequestBodyTooLarge, Detail: "the body is longer than this API takes"}
	errIncomplete = errors.New("the response ended before its head was complete")
	errSwitch     = errors.New("the backend switched protocols without being asked to")
	errBackwards  = errors.New("the backend sent too many informational responses")
)
