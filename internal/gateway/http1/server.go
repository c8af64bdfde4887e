package http1

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/guard"
	"hansa.dev/hansa/internal/x/httpdate"
	"hansa.dev/hansa/internal/x/sweep"
)

// Options configure a Server.
type Options struct {
	ingress.Options
	// HTTP2 serves connections whose clients begin with the preface of HTTP/2, until they end. Default: they are refused.
	HTTP2 func(HandOver)
}

// HandOver is a connection that another engine goes on with. It is closed when that one returns.
type HandOver struct {
	Conn
	// TCP is the connection with its deadlines, and Stream what requests are read from, on top of it or TCP itself.
	TCP    *sweep.Conn
	Stream io.ReadWriter
	// Read is what has been read already.
	Read []byte
}

// Server serves connections. Make it with New. Its methods may be called by any goroutine.
type Server struct {
	Options
	metrics  *metrics
	guard    *guard.Guard
	date     httpdate.Clock
	works    sync.Pool // of *work
	leaving  atomic.Bool
	draining atomic.Bool
	handed   atomic.Int64 // connections that another engine serves

	mu    sync.Mutex
	conns map[*conn]struct{} // guarded by mu
	over  bool               // guarded by mu; what was left has been cut off
	ended bool               // guarded by mu; empty is closed
	empty chan struct{}      // closed when conns is empty while draining
}

// New returns a Server.
func New(o Options) (*Server, error) {
	if err := o.SetDefaults(); err != nil {
		return nil, fmt.Errorf("http1: %w", err)
	}
	s := &Server{Options: o, conns: map[*conn]struct{}{}, empty: make(chan struct{})}
	s.metrics = newMetrics(o.Registerer)
	s.guard = guard.New(s.Log, s.metrics.panics)
	return s, nil
}

// Conn tells the engine what it cannot see on the connection itself.
type Conn struct {
	// Net is the TCP connection.
	Net net.Conn
	// Upgrade, if there is one, makes the stream that requests are read from, on top of Net: TLS. It may take its
	// time; the engine calls it from the goroutine that serves the connection, within the time-out for heads.
	Upgrade func(net.Conn) (net.Conn, error)
	// Scheme is http or https. Default: http.
	Scheme string
	// TLS is what is known of the connection, if it is one of TLS.
	TLS *exchange.TLS
	// Peer is the client, if it is not the other end of Net.
	Peer netip.AddrPort
}

// Serve serves one connection until it ends, and closes it.
func (s *Server) Serve(info Conn) {
	c := newConn(s, info)
	if !s.add(c) {
		c.close()
		return
	}
	defer s.remove(c)
	defer c.close()
	c.serve()
	if c.http2 {
		c.handOver()
	}
}

// Refuse answers 503 overloaded, whatever the client asks, and closes the connection. Of a connection that needs Upgrade
// first it only does the latter.
func (s *Server) Refuse(info Conn) {
	c := newConn(s, info)
	defer c.close()
	if info.Upgrade != nil || !s.add(c) {
		return
	}
	defer s.remove(c)
	c.refuse(exchange.Overloaded)
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.conns[c] = struct{}{} // also while draining: it may have been accepted just before
	s.metrics.conns.Inc()
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.metrics.conns.Dec()
	if s.draining.Load() {
		s.endIfEmpty()
	}
}

// endIfEmpty requires mu.
func (s *Server) endIfEmpty() {
	if len(s.conns) == 0 && !s.ended {
		s.ended = true
		close(s.empty)
	}
}

// Leave has every response from now on end its connection, so that clients that are active go elsewhere and none of them
// loses a request; or it has connections kept again.
func (s *Server) Leave(on bool) { s.leaving.Store(on) }

// CloseIdle closes the connections that have had a response and wait for another request, and others with the response that
// is under way, if its client can still be told. Together with Leave it leaves only those that are busy and those that have
// not had their first request.
func (s *Server) CloseIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.dismissed.Store(true)
		c.tcp.Interrupt()
	}
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns) - int(s.handed.Load())
}

// Drain ends the service: idle connections are closed at once, the others with the response that they are waiting for.
// It returns when none is left, or, with the context's error, when ctx ends; then those that are left are cut off.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.leaving.Store(true)
	s.draining.Store(true)
	for c := range s.conns {
		c.tcp.Interrupt()
	}
	s.endIfEmpty()
	s.mu.Unlock()
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.over = true
	for c := range s.conns {
		c.cut()
	}
	s.mu.Unlock()
	<-s.empty
	return ctx.Err()
}

// Draining tells whether Drain was called.
func (s *Server) Draining() bool { return s.draining.Load() }

func (s *Server) work() *work {
	if w, ok := s.works.Get().(*work); ok {
		return w
	}
	b := make([]byte, bufferSize)
	return &work{buf: b, small: b, out: make([]byte, 0, bufferSize)}
}

func seed(g *exchange.IDGenerator) { g.Seed(rand.Uint64(), rand.Uint64()) }
