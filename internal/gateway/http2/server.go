package http2

import (
	"cmp"
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
	// MaxStreams bounds the streams of a connection that are served at a time. Default: 128.
	MaxStreams int
}

// Server serves connections. Make it with New. Its methods may be called by any goroutine.
type Server struct {
	Options
	metrics *metrics
	guard   *guard.Guard
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
	if err := o.SetDefaults(); err != nil {
		return nil, fmt.Errorf("http2: %w", err)
	}
	o.MaxStreams = cmp.Or(o.MaxStreams, 128)
	s := &Server{Options: o, conns: map[*conn]struct{}{}, empty: make(chan struct{})}
	s.metrics = newMetrics(o.Registerer)
	s.guard = guard.New(s.Log, s.metrics.panics)
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
