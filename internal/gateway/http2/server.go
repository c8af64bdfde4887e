package http2

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
	// Idle is how long a connection may be without streams. Default: 75s.
	Idle time.Duration
	// Head is how long a frame or a header block may take from its first byte to its last. Default: 10s.
	Head time.Duration
	// Body is how long a request's body may be silent. Default: 30s.
	Body time.Duration
	// MinRate is how many bytes a second of a request's body must come on average once Body has passed; time in which the
	// backend is waited for does not count. Default: 128; negative: any rate will do.
	MinRate int
	// Write is how long the client may take to accept a piece of the response, or to open a window for it. Default: 30s.
	Write time.Duration
	// Park is how long an idle connection keeps its buffers. Default: 5s.
	Park time.Duration
}

// Options configure a Server.
type Options struct {
	// Handler serves the exchanges.
	Handler exchange.Handler
	// Sweeper keeps the deadlines. Whoever made it runs it.
	Sweeper *sweep.Sweeper
	// Bodies is buffers for reading, best shared with the backends. Default: its own.
	Bodies *h1.Pool
	// Log receives what happens to connections. Default: nothing is logged.
	Log *slog.Logger
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
	// Limits bound the head of a request. Default: h1.DefaultLimits.
	Limits h1.Limits
	// MaxStreams bounds the streams of a connection that are served at a time. Default: 128.
	MaxStreams int
	// Timeouts bound waiting.
	Timeouts Timeouts
	// Rules tell what of a client is believed and what backends are told of it.
	ingress.Rules
}

// reservedFields is how many fields the engine adds to a head at most.
const reservedFields = 10

func (o *Options) setDefaults() error {
	if o.Handler == nil || o.Sweeper == nil {
		return errors.New("http2: Options need a Handler and a Sweeper")
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
		return errors.New("http2: the limits of heads exceed what the engine can do: 240 fields, 1 MiB")
	}
	setDefault(&o.MaxStreams, 128)
	t := &o.Timeouts
	setDefault(&t.Idle, 75*time.Second)
	setDefault(&t.Head, 10*time.Second)
	setDefault(&t.Body, 30*time.Second)
	setDefault(&t.MinRate, 128)
	setDefault(&t.Write, 30*time.Second)
	setDefault(&t.Park, 5*time.Second)
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Server serves connections. Make it with New. Its methods may be called by any goroutine.
type Server struct {
	Options
	metrics *metrics
	date    httpdate.Clock
	works   sync.Pool // of *work
	leaving atomic.Bool

	mu       sync.Mutex
	conns    map[*conn]struct{} // guarded by mu
	draining bool               // guarded by mu
	ended    bool               // guarded by mu; draining, and conns is empty
	empty    chan struct{}      // closed when that is so
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

// Conn is a connection whose client has decided for HTTP/2: one that comes from a listener, or one that another engine has
// begun to serve.
type Conn struct {
	// Net is the TCP connection.
	Net net.Conn
	// Upgrade, if there is one, makes the stream that requests are read from, on top of Net: TLS.
	Upgrade func(net.Conn) (net.Conn, error)
	// Scheme is http or https. Default: http.
	Scheme string
	// Peer is the client, if it is not the other end of Net.
	Peer netip.AddrPort
	// TLS is what is known of the connection, if it is one of TLS.
	TLS *exchange.TLS

	// TCP is a connection that is looked after already; then Net and Upgrade do not count, and Serve leaves closing it to
	// the caller. Stream is what requests are read from, on top of TCP or TCP itself, and Read what has been read already.
	TCP    *sweep.Conn
	Stream io.ReadWriter
	Read   []byte
}

// Serve serves one connection until it ends, and closes it.
func (s *Server) Serve(info Conn) {
	if info.TCP == nil {
		info.TCP = new(sweep.Conn)
		s.Sweeper.Add(info.TCP, info.Net)
		defer func() { _ = info.TCP.Close() }()
		info.TCP.ArmRead(s.Timeouts.Head)
		info.Stream = info.TCP
		if info.Upgrade != nil {
			stream, err := info.Upgrade(info.TCP)
			if err != nil {
				return
			}
			info.Stream = stream
		}
	}
	if info.Scheme == "" {
		info.Scheme = "http"
	}
	if a, ok := info.TCP.RemoteAddr().(*net.TCPAddr); ok && !info.Peer.IsValid() {
		info.Peer = a.AddrPort()
	}
	c := newConn(s, info)
	if !s.add(c) {
		return
	}
	defer s.remove(c)
	c.serve()
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.conns[c] = struct{}{}
	c.away = s.draining
	s.metrics.conns.Inc()
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.metrics.conns.Dec()
	if s.draining {
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

// Leave has connections end gracefully from now on when they are used: with the next request their clients are told to open
// another connection. Or it has connections kept again; those that were told so end all the same.
func (s *Server) Leave(on bool) { s.leaving.Store(on) }

// CloseIdle tells the clients of connections without streams to go, gracefully.
func (s *Server) CloseIdle() {
	for _, c := range s.list() {
		c.goAwayIfIdle()
	}
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// list returns the connections. Their locks are not taken within that of the server.
func (s *Server) list() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// Drain ends the service: clients are told to open no more streams, and connections end with the last one. It returns when
// none is left, or, with the context's error, when ctx ends; then those that are left are cut off.
func (s *Server) Drain(ctx context.Context) error {
	s.leaving.Store(true)
	s.mu.Lock()
	s.draining = true
	s.endIfEmpty()
	s.mu.Unlock()
	for _, c := range s.list() {
		c.goAway()
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	for _, c := range s.list() {
		c.cut()
	}
	<-s.empty
	return ctx.Err()
}

func (s *Server) work() *work {
	if w, ok := s.works.Get().(*work); ok {
		return w
	}
	b := make([]byte, bufferSize)
	return &work{buf: b, small: b, out: make([]byte, 0, bufferSize), writing: make([]byte, 0, bufferSize)}
}

func seed(g *exchange.IDGenerator) { g.Seed(rand.Uint64(), rand.Uint64()) }
