package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/upstream/mux"
)

// pingAfter is after how long a silence a backend is asked whether it is still there while calls wait for it, and pongWithin how
// long it may take to answer.
const (
	pingAfter  = 5 * time.Second
	pongWithin = 15 * time.Second
)

// muxes are the connections of HTTP/2 to an endpoint.
type muxes struct {
	endpoint *endpoint
	changed  chan struct{} // holds something when it is worth looking again

	mu      sync.Mutex // guards what follows
	conns   []*muxConn // never changed in place
	dialing bool
	closed  bool
	http1   bool // the endpoint has chosen HTTP/1.1
}

type muxConn struct {
	*mux.Conn
	made time.Duration
}

func (p *muxes) speaksHTTP1() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.http1
}

// open opens the stream of a call, on a connection that there is or on a new one.
func (p *muxes) open(c *call, m *muxCall, auto, end bool) error {
	s := c.settings
	limit := c.now() + max(s.pending, s.connect)
	waits := false // for others to end, and is counted
	defer func() {
		if waits {
			c.backend.pending.Add(-1)
		}
	}()
	for fresh := false; ; {
		p.mu.Lock()
		conns, dialing := p.conns, p.dialing
		p.mu.Unlock()
		for _, conn := range conns {
			err := m.stream.Open(conn.Conn, m.block, end, string(c.x.Method) == "HEAD", m.stop)
			if errors.Is(err, mux.ErrAway) {
				p.remove(conn)
			}
			if err == nil {
				if !fresh {
					p.endpoint.reused.Add(1)
				}
				p.change() // for others that wait
				return nil
			}
		}
		if !dialing {
			switch p.begin(c, len(conns)) {
			case dialNow:
				if err := p.dial(c, m, auto); err != nil {
					return err
				}
				fresh = true
				continue
			case lookAgain:
				continue
			case noRoom:
				if !c.mayWait {
					return errAllBusy
				}
				if !waits {
					if f := c.backend.pend(s); f != nil {
						return f
					}
					waits = true
				}
			}
		}
		if c.late() || c.now() >= limit {
			return errPendingTimeout
		}
		if err := p.wait(c, limit); err != nil {
			return err
		}
	}
}

// wait waits until it is worth looking again.
func (p *muxes) wait(c *call, limit time.Duration) error {
	w := &waiter{woken: make(chan struct{}, 1)}
	var i exchange.Interrupter = w
	if !c.x.WaitOn(&i) {
		return mux.ErrCancelled
	}
	defer c.x.WaitOn(nil)
	t := time.NewTimer(max(min(limit-c.now(), time.Second), time.Millisecond))
	defer t.Stop()
	select {
	case <-p.changed:
	case <-w.woken:
	case <-t.C:
		if c.down.Gone() {
			return mux.ErrCancelled
		}
	}
	if c.x.Cancelled() {
		return mux.ErrCancelled
	}
	return nil
}

// What begin finds.
const (
	dialNow = iota
	lookAgain
	noRoom
)

// begin tells whether the call is to make a connection, and makes room for it. have is how many the call knows.
func (p *muxes) begin(c *call, have int) int {
	s := c.settings
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.dialing || len(p.conns) != have:
		return lookAgain
	case have >= s.maxConns || !c.backend.connect(s.breaker.Connections):
		return noRoom
	}
	p.dialing = true
	pool := &p.endpoint.pool
	pool.mu.Lock()
	pool.open++
	pool.mu.Unlock()
	return dialNow
}

// dial makes a connection. begin has made room for it.
func (p *muxes) dial(c *call, m *muxCall, auto bool) error {
	e, s := p.endpoint, c.settings
	o := &e.backend.registry.opts
	defer p.dialled()
	conn, err := e.dialWith(c, s.tls2)
	if err == nil && !conn.plain {
		switch t := conn.stream.(*tls.Conn); {
		case t.ConnectionState().NegotiatedProtocol == "h2":
		case auto:
			m.fallback = true
		default:
			e.pool.drop(conn)
			err = fmt.Errorf("the endpoint does not offer HTTP/2 (ALPN %q)", t.ConnectionState().NegotiatedProtocol)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		e.backend.cannotConnect(e, err)
		return errConnect
	}
	if m.fallback {
		p.http1 = true
		e.pool.put(conn, s, c.now())
		return errConnect // try sees that it is the fallback
	}
	n := &muxConn{made: c.now()}
	n.Conn = mux.New(mux.Options{
		TCP: &conn.tcp, Stream: conn.stream, Sweeper: o.Sweeper, Bodies: o.Bodies, Limits: s.limits, Write: s.idle, Ping: pingAfter, Pong: pongWithin,
		Changed: p.change, Guard: o.Guard,
	})
	if p.closed {
		n.Close()
	}
	p.conns = append(slices.Clone(p.conns), n)
	e.backend.registry.tasks.Go(func() {
		defer e.pool.forget()
		defer p.remove(n)
		defer o.Guard.Catch("reading a connection to a backend", func() { _ = conn.tcp.Close() })
		n.Serve()
	})
	return nil
}

// dialled says that nobody is making a connection any more.
func (p *muxes) dialled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialing = false
	p.change()
}

func (p *muxes) remove(conn *muxConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.conns, conn); i >= 0 {
		p.conns = slices.Delete(slices.Clone(p.conns), i, i+1)
		p.change()
	}
}

// change has somebody who waits look again.
func (p *muxes) change() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// prune closes the connections that have been without calls for longer than timeout, and has those that are too old take no
// more.
func (p *muxes) prune(now, timeout, maxAge time.Duration) {
	p.mu.Lock()
	conns := p.conns
	p.mu.Unlock()
	for _, c := range conns {
		st := c.State()
		if st.Streams == 0 && now-max(st.Idle, c.made) > timeout || maxAge > 0 && now-c.made > maxAge {
			c.Close()
		}
	}
}

// close lets the connections end with the calls on them.
func (p *muxes) close() {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
