package http1

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/httpdate"
	"hansa.dev/hansa/internal/x/sweep"
)

// Timeouts bound what a client may take its time for. Zero values mean the defaults.
type Timeouts struct {
	// Idle is how long a connection may wait for a request. Default: 75s.
	Idle time.Duration
	// Head is how long a head may take from its first byte to its last. Default: 10s.
	Head time.Duration
	// Body is how long a request's body may be silent. Default: 30s.
	Body time.Duration
	// MinRate is how many bytes a second of a request's body must come on average once Body has passed; time in which the
	// backend is waited for does not count. Default: 128; negative: any rate will do.
	MinRate int
	// Write is how long the client may take to accept a piece of the response. Default: 30s.
	Write time.Duration
	// Park is how long an idle connection keeps its buffers where it cannot give them back at once. Default: 5s.
	Park time.Duration
}

// Options configure a Server.
type Options struct {
	// Handler serves the exchanges.
	Handler exchange.Handler
	// Sweeper keeps the deadlines. Whoever made it runs it.
	Sweeper *sweep.Sweeper
	// Bodies is buffers for bodies, best shared with the backends. Default: its own.
	Bodies *h1.Pool
	// Log receives what happens to connections. Default: nothing is logged.
	Log *slog.Logger
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
	// Limits bound the head of a request. Default: h1.DefaultLimits.
	Limits h1.Limits
	// Timeouts bound waiting.
	Timeouts Timeouts
	// Rules tell what of a client is believed and what backends are told of it.
	ingress.Rules
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

func (o *Options) setDefaults() error {
	if o.Handler == nil || o.Sweeper == nil {
		return errors.New("http1: Options need a Handler and a Sweeper")
	}
	if o.Bodies == nil {
		o.Bodies = new(h1.Pool)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d, l := h1.DefaultLimits, &o.Limits
	setDefault(&l.Target, d.Target)
	setDefault(&l.Head, d.Head)
	setDefault(&l.Fields, d.Fields)
	if l.Fields > exchange.MaxFields-reservedFields || l.Head > 1<<20 {
		return errors.New("http1: the limits of heads exceed what the engine can do: 240 fields, 1 MiB")
	}
	t := &o.Timeouts
	setDefault(&t.Idle, 75*time.Second)
	setDefault(&t.Head, 10*time.Second)
	setDefault(&t.Body, 30*time.Second)
	setDefault(&t.MinRate, 128)
	setDefault(&t.Write, 30*time.Second)
	setDefault(&t.Park, 5*time.Second)
	return nil
}

// reservedFields is how many fields the engine adds to a head at most.
const reservedFields = 10

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Server serves connections. Make it with New. Its methods may be called by any goroutine.
type Server struct {
	Options
	metrics  *metrics
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
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Server{Options: o, conns: map[*conn]struct{}{}, empty: make(chan struct{})}
	s.metrics = newMetrics(o.Registerer)
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
