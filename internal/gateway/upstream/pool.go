package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/x/proxyproto"
	"hansa.dev/hansa/internal/x/sweep"
)

// pool is the connections of HTTP/1 to an endpoint.
type pool struct {
	endpoint *endpoint

	mu     sync.Mutex
	idle   []*conn // guarded by mu; the last one was used last
	open   int     // guarded by mu; connections, idle or not, and those being made
	closed bool    // guarded by mu
}

// conn is a connection to an endpoint.
type conn struct {
	tcp    sweep.Conn
	base   *base                // between tcp and TLS; nil without
	stream io.ReadWriter        // on top of tcp
	plain  bool                 // stream is tcp
	waker  exchange.Interrupter // tcp; it never changes, since who cancels an exchange may look at it late
	made   time.Duration        // when, on the sweeper's clock
	since  time.Duration        // idle since, on the sweeper's clock
	uses   int
	reused bool
	doubt  bool           // more than the last response may have been sent
	client netip.AddrPort // that the PROXY header has told
}

// take returns an idle connection, or nil after having made room for a new one, or why there is neither. fresh asks for a
// new one.
func (e *endpoint) take(c *call, fresh bool) (*conn, *exchange.Fault) {
	for {
		conn, busy := e.pool.take(c, fresh)
		if busy == nil {
			return conn, nil
		}
		if !c.mayWait {
			return nil, busy
		}
		if conn, again, f := e.wait(c); f != nil || !again {
			return conn, f
		}
	}
}

// take is take without waiting.
func (p *pool) take(c *call, fresh bool) (*conn, *exchange.Fault) {
	s, b, now := c.settings, c.backend, c.now()
	once := !c.mayRepeat(true)
	for {
		p.mu.Lock()
		at := p.find(c.client)
		if at < 0 || fresh {
			if p.open < s.maxConns && b.connect(s.breaker.Connections) {
				p.open++
				p.mu.Unlock()
				return nil, nil
			}
			// Room is made by one that is of no use here.
			if at < 0 && len(p.idle) > 0 {
				at = 0
			}
		}
		if at < 0 {
			full := p.open >= s.maxConns
			p.mu.Unlock()
			if full {
				return nil, errAllBusy
			}
			if b.reclaim() {
				continue
			}
			b.refused[breakConnections].Add(1)
			return nil, errBreakConnections
		}
		conn := p.idle[at]
		copy(p.idle[at:], p.idle[at+1:])
		p.idle[len(p.idle)-1] = nil
		p.idle = p.idle[:len(p.idle)-1]
		p.mu.Unlock()
		// What the backend has sent without being asked would be taken for the response, and what it has closed fails. A look
		// finds both; it costs a system call, so most connections that were used in this very tick are spared it. Those of
		// TLS are not: what comes with a response is read with it, and nobody else would ever find it.
		idle := now - conn.since
		if !fresh && conn.client == c.client && (s.maxAge <= 0 || now-conn.made < s.maxAge) &&
			(idle <= 0 && !once && !conn.doubt && conn.plain || idle < s.idleTimeout && conn.quiet()) {
			conn.reused = true
			return conn, nil
		}
		p.drop(conn)
	}
}

// find returns the index of the idle connection that was used last, of those for the client if they are for one each.
func (p *pool) find(client netip.AddrPort) int {
	at := len(p.idle) - 1
	for at >= 0 && p.idle[at].client != client {
		at--
	}
	return at
}

// put takes back a connection that can be used again.
func (p *pool) put(c *conn, s *settings, now time.Duration) {
	c.since = now
	c.tcp.Owner = nil
	c.uses++
	b := p.endpoint.backend
	if (c.doubt || !c.plain) && b.pending.Load() > 0 && !c.quiet() {
		p.drop(c)
		return
	}
	p.mu.Lock()
	if p.closed || len(p.idle) >= s.maxIdle || p.open > s.maxConns ||
		s.maxUses > 0 && c.uses >= s.maxUses || s.maxAge > 0 && now-c.made >= s.maxAge {
		p.mu.Unlock()
		p.drop(c)
		return
	}
	if b.pending.Load() > 0 && b.queue.hand(p.endpoint, c) {
		p.mu.Unlock()
		return
	}
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// drop closes a connection that was taken.
func (p *pool) drop(c *conn) {
	_ = c.tcp.Close() // nothing is lost that was not lost before
	p.forget()
}

// forget gives back the room of a connection that was not made.
func (p *pool) forget() {
	b := p.endpoint.backend
	p.mu.Lock()
	p.open--
	p.mu.Unlock()
	b.open.Add(-1)
	if b.pending.Load() > 0 {
		b.queue.room(p.endpoint)
	}
}

// oldest takes out the connection that has been idle for longest; nil if there is none.
func (p *pool) oldest() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	c := p.idle[0]
	copy(p.idle, p.idle[1:])
	p.idle[len(p.idle)-1] = nil
	p.idle = p.idle[:len(p.idle)-1]
	return c
}

// prune closes the connections that have been idle for longer than timeout.
func (p *pool) prune(now, timeout time.Duration) {
	var old []*conn
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now-p.idle[n].since > timeout {
		n++
	}
	if n > 0 {
		old = append(old, p.idle[:n]...)
		rest := copy(p.idle, p.idle[n:])
		clear(p.idle[rest:])
		p.idle = p.idle[:rest]
	}
	p.mu.Unlock()
	for _, c := range old {
		p.drop(c)
	}
}

// close closes all idle connections, and lets those in use be closed when they are put back.
func (p *pool) close() {
	p.endpoint.muxes.close()
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		p.drop(c)
	}
}

// counts returns the numbers of connections that are in use and idle.
func (p *pool) counts() (used, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open - len(p.idle), len(p.idle)
}

// dial makes a connection for a call, TLS included. take has made room for it.
func (e *endpoint) dial(c *call) (*conn, error) { return e.dialWith(c, c.settings.tls) }

// dialWith is dial with settings of TLS; nil is no TLS.
func (e *endpoint) dialWith(c *call, cfg *tls.Config) (*conn, error) {
	s := c.settings
	timeout := s.connect
	if left, bounded := c.left(); bounded {
		timeout = min(timeout, max(left, time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	begin := time.Now()
	e.dials.Add(1)
	o := &e.backend.registry.opts
	made := false
	defer func() {
		if !made {
			e.pool.forget()
		}
	}()
	conn, err := e.connect(ctx, s, cfg, c.client)
	e.connectNanos.Add(uint64(time.Since(begin)))
	if err != nil {
		e.refused(o.Sweeper.Now())
		return nil, err
	}
	made = true
	conn.made = o.Sweeper.Now()
	e.connected()
	return conn, nil
}

// connect makes a connection on behalf of a client, which a PROXY header names if there is to be one.
func (e *endpoint) connect(ctx context.Context, s *settings, cfg *tls.Config, client netip.AddrPort) (*conn, error) {
	o := &e.backend.registry.opts
	nc, err := o.Dial(ctx, "tcp", e.address)
	if err != nil {
		return nil, err
	}
	if s.content.ProxyProtocol != "" {
		if err := introduce(ctx, nc, s.content.ProxyProtocol, client); err != nil {
			_ = nc.Close()
			return nil, err
		}
	}
	c := &conn{client: client}
	o.Sweeper.Add(&c.tcp, nc)
	c.stream, c.plain, c.waker = &c.tcp, true, &c.tcp
	if cfg == nil {
		return c, nil
	}
	c.base = &base{Conn: &c.tcp}
	tc := tls.Client(c.base, e.tlsConfig(cfg))
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = c.tcp.Close()
		return nil, err
	}
	c.stream, c.plain = tc, false
	return c, nil
}

// base is what a connection of TLS reads from.
type base struct {
	*sweep.Conn
	dry bool // there is nothing to read
	one [1]byte
}

// Read implements io.Reader.
func (b *base) Read(p []byte) (int, error) {
	if b.dry {
		return 0, sweep.ErrTimeout // which TLS survives
	}
	return b.Conn.Read(p)
}

// quiet tells whether there is nothing to read, not even the end: neither on the connection nor in what TLS has read of it.
func (c *conn) quiet() bool {
	if !c.tcp.Quiet() {
		return false
	}
	if c.plain {
		return true
	}
	c.base.dry = true
	n, err := c.stream.Read(c.base.one[:])
	c.base.dry = false
	return n == 0 && errors.Is(err, sweep.ErrTimeout)
}

// tlsConfig returns the settings of TLS for the endpoint.
func (e *endpoint) tlsConfig(cfg *tls.Config) *tls.Config {
	if cfg.ServerName != "" {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.ServerName, _, _ = net.SplitHostPort(e.name)
	return cfg
}

// introduce writes the PROXY header that begins a connection. Without a client it says that the connection is the
// gateway's own.
func introduce(ctx context.Context, nc net.Conn, version string, client netip.AddrPort) error {
	h := proxyproto.Header{Source: client}
	if to, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		h.Destination = to.AddrPort()
	}
	var out []byte
	if version == "v1" {
		out = h.AppendV1(nil)
	} else {
		out = h.AppendV2(nil)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetWriteDeadline(deadline) // if it fails so does the write
	}
	if _, err := nc.Write(out); err != nil {
		return err
	}
	return nc.SetWriteDeadline(time.Time{})
}

// clientOf returns whose connection it is that a PROXY header speaks of.
func clientOf(x *exchange.Exchange) netip.AddrPort {
	ip, err := netip.ParseAddr(string(x.ClientIP))
	if err != nil || ip == x.Peer.Addr().Unmap() {
		return x.Peer
	}
	return netip.AddrPortFrom(ip, 0) // behind a proxy that is trusted; its port is not the client's
}

// appendConnection appends what is to be said about the connection: that it is to be closed after this request, or, in
// HTTP/1.0, that it need not be; and that trailers are wanted (RFC 9110, section 10.1.4).
func (c *conn) appendConnection(out []byte, s *settings, trailers bool) []byte {
	last := s.maxUses > 0 && c.uses+1 >= s.maxUses
	switch {
	case last && trailers:
		return append(out, "TE: trailers\r\nConnection: close, TE\r\n"...)
	case trailers:
		return append(out, "TE: trailers\r\nConnection: TE\r\n"...)
	case last && !s.http10:
		return append(out, "Connection: close\r\n"...)
	case !last && s.http10:
		return append(out, "Connection: keep-alive\r\n"...)
	}
	return out
}
