package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/x/sweep"
)

const (
	// peekAfter is how long a connection must have been idle to be looked at before it is used again. The look costs a
	// system call, and a connection that was used just now is hardly ever closed.
	peekAfter = time.Second
	// passOver is for how long an endpoint that could not be connected to is passed over at first; each further failure
	// doubles it, up to 16 times.
	passOver = time.Second
)

var errBusy = errors.New("all connections are in use")

// endpoint is one address of a backend with the connections to it.
type endpoint struct {
	address string

	mu     sync.Mutex
	idle   []*conn // guarded by mu; the last one was used last
	open   int     // guarded by mu; connections, idle or not, and those being made
	closed bool    // guarded by mu

	failures  atomic.Int32 // to connect, in a row
	downUntil atomic.Int64 // on the sweeper's clock

	// For the metrics.
	requests, reused, dials atomic.Uint64
	connectNanos            atomic.Uint64
	errors                  [len(errorCodes)]atomic.Uint64
}

// conn is a connection to an endpoint.
type conn struct {
	tcp    sweep.Conn
	stream io.ReadWriter // on top of tcp
	plain  bool          // stream is tcp
	since  time.Duration // idle since, on the sweeper's clock
	reused bool
}

// errorCodes are the codes that count as errors of an endpoint.
var errorCodes = [...]exchange.Code{
	exchange.UpstreamConnect, exchange.UpstreamBusy, exchange.UpstreamTimeout, exchange.UpstreamReset, exchange.UpstreamProtocol,
}

func (e *endpoint) count(code exchange.Code) {
	for i, c := range errorCodes {
		if c == code {
			e.errors[i].Add(1)
		}
	}
}

// take returns an idle connection, or nil after having made room for a new one, or errBusy. fresh asks for a new one, once
// for one that is looked at in any case, since the request cannot be repeated.
func (e *endpoint) take(s *settings, now time.Duration, fresh, once bool) (*conn, error) {
	for {
		e.mu.Lock()
		n := len(e.idle)
		if (n == 0 || fresh) && e.open < s.maxConns {
			e.open++
			e.mu.Unlock()
			return nil, nil
		}
		if n == 0 {
			e.mu.Unlock()
			return nil, errBusy
		}
		c := e.idle[n-1]
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		idle := now - c.since
		if !fresh && (idle < peekAfter && !once || idle < s.idleTimeout && c.tcp.Quiet()) {
			c.reused = true
			return c, nil
		}
		e.drop(c)
	}
}

// put takes back a connection that can be used again.
func (e *endpoint) put(c *conn, s *settings, now time.Duration) {
	c.since = now
	c.tcp.Owner = nil
	e.mu.Lock()
	if e.closed || len(e.idle) >= s.maxIdle || e.open > s.maxConns {
		e.mu.Unlock()
		e.drop(c)
		return
	}
	e.idle = append(e.idle, c)
	e.mu.Unlock()
}

// drop closes a connection that was taken.
func (e *endpoint) drop(c *conn) {
	_ = c.tcp.Close() // nothing is lost that was not lost before
	e.forget()
}

// forget gives back the room of a connection that was not made.
func (e *endpoint) forget() {
	e.mu.Lock()
	e.open--
	e.mu.Unlock()
}

// prune closes the connections that have been idle for longer than timeout.
func (e *endpoint) prune(now, timeout time.Duration) {
	var old []*conn
	e.mu.Lock()
	n := 0
	for n < len(e.idle) && now-e.idle[n].since > timeout {
		n++
	}
	if n > 0 {
		old = append(old, e.idle[:n]...)
		rest := copy(e.idle, e.idle[n:])
		clear(e.idle[rest:])
		e.idle = e.idle[:rest]
	}
	e.mu.Unlock()
	for _, c := range old {
		e.drop(c)
	}
}

// close closes all idle connections, and lets those in use be closed when they are put back.
func (e *endpoint) close() {
	e.mu.Lock()
	e.closed = true
	idle := e.idle
	e.idle = nil
	e.mu.Unlock()
	for _, c := range idle {
		e.drop(c)
	}
}

// counts returns the numbers of connections that are in use and idle.
func (e *endpoint) counts() (used, idle int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open - len(e.idle), len(e.idle)
}

// available tells whether the endpoint is not passed over.
func (e *endpoint) available(now time.Duration) bool { return e.downUntil.Load() <= int64(now) }

// dial makes a connection, TLS included. take has made room for it.
func (e *endpoint) dial(o *Options, s *settings) (*conn, error) {
	begin := time.Now()
	e.dials.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), s.connect)
	defer cancel()
	c, err := e.connect(ctx, o, s)
	e.connectNanos.Add(uint64(time.Since(begin)))
	if err != nil {
		e.forget()
		n := min(e.failures.Add(1)-1, 4)
		e.downUntil.Store(int64(o.Sweeper.Now() + passOver<<n))
		return nil, err
	}
	if e.failures.Load() != 0 {
		e.failures.Store(0)
		e.downUntil.Store(0)
	}
	return c, nil
}

func (e *endpoint) connect(ctx context.Context, o *Options, s *settings) (*conn, error) {
	nc, err := o.Dial(ctx, "tcp", e.address)
	if err != nil {
		return nil, err
	}
	c := new(conn)
	o.Sweeper.Add(&c.tcp, nc)
	c.stream, c.plain = &c.tcp, true
	if s.tls == nil {
		return c, nil
	}
	cfg := s.tls
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName, _, _ = net.SplitHostPort(e.address)
	}
	tc := tls.Client(&c.tcp, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = c.tcp.Close()
		return nil, err
	}
	c.stream, c.plain = tc, false
	return c, nil
}
