package http3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	qhttp3 "github.com/quic-go/quic-go/http3"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// Timeouts bound what a client may take its time for. Zero values mean the defaults.
type Timeouts struct {
	// Handshake is how long a connection may take to be established. Default: 10s.
	Handshake time.Duration
	// Idle is how long a connection may wait for a request. Default: 75s.
	Idle time.Duration
	// Head is how long a request without a body may take to say that it has none. Default: 10s.
	Head time.Duration
	// Body is how long a request's body may be silent. Default: 30s.
	Body time.Duration
	// Write is how long the client may take to accept a piece of the response. Default: 30s.
	Write time.Duration
}

// Options configure a Server.
type Options struct {
	// Address is the UDP address to listen on, host:port. Required.
	Address string
	// TLS are the certificates and what else there is to say of TLS; the protocol is added to it. Required.
	TLS *tls.Config
	// Handler serves the exchanges. Required.
	Handler exchange.Handler
	// Rules tell what of a client is believed and what backends are told of it.
	ingress.Rules
	// MaxConns bounds the connections that are open at once, handshakes included. Default: 65536.
	MaxConns int
	// MaxStreams bounds the requests that are under way at once on one connection. Default: 100.
	MaxStreams int
	// MaxHead bounds the fields of a request, in bytes as RFC 9114, section 4.2.2, counts them. Default: 64 kB.
	MaxHead int
	// Timeouts bound waiting.
	Timeouts Timeouts
	// Log receives what happens to connections. Default: nothing is logged.
	Log *slog.Logger
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
}

const (
	// receiveWindow is how much of one request's body may lie in memory, connectionWindow of all requests of a connection.
	receiveWindow, connectionWindow = 256 << 10, 1 << 20
	// verifyAbove is the number of new connections in a second from which on clients must prove their address first,
	// which costs them a round trip (RFC 9000, section 8.1.2).
	verifyAbove = 200
	// maxFields is how many fields a request may have; the rules add to them.
	maxFields = exchange.MaxFields - 10
)

func (o *Options) setDefaults() error {
	if o.Handler == nil || o.TLS == nil || o.Address == "" {
		return errors.New("http3: Options need an Address, TLS and a Handler")
	}
	setDefault(&o.MaxConns, 1<<16)
	setDefault(&o.MaxStreams, 100)
	setDefault(&o.MaxHead, 64<<10)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &o.Timeouts
	setDefault(&t.Handshake, 10*time.Second)
	setDefault(&t.Idle, 75*time.Second)
	setDefault(&t.Head, 10*time.Second)
	setDefault(&t.Body, 30*time.Second)
	setDefault(&t.Write, 30*time.Second)
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Server serves HTTP/3 on one UDP socket. Make it with New and run it with Run. Its methods may be called by any
// goroutine.
type Server struct {
	opts    Options
	metrics *metrics
	socket  net.PacketConn
	quic    *quic.Transport
	accept  *quic.Listener
	http    *qhttp3.Server
	works   sync.Pool // of *stream
	open    atomic.Int64
	arrived arrivals

	mu      sync.Mutex
	clients map[*client]struct{} // guarded by mu
}

// New binds the socket.
func New(ctx context.Context, o Options) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, metrics: newMetrics(o.Registerer), clients: map[*client]struct{}{}}
	var lc net.ListenConfig
	var err error
	if s.socket, err = lc.ListenPacket(ctx, "udp", o.Address); err != nil {
		return nil, fmt.Errorf("listen for http3 on %q: %w", o.Address, err)
	}
	s.quic = &quic.Transport{
		Conn:                s.socket,
		VerifySourceAddress: func(net.Addr) bool { return s.arrived.count(time.Now()) > verifyAbove },
		ConnContext:         s.admit,
	}
	s.http = &qhttp3.Server{
		Handler: http.HandlerFunc(s.serve), MaxHeaderBytes: o.MaxHead, IdleTimeout: o.Timeouts.Idle,
		Logger: slog.New(slog.DiscardHandler), ConnContext: s.connContext,
	}
	s.accept, err = s.quic.Listen(qhttp3.ConfigureTLSConfig(o.TLS), &quic.Config{
		HandshakeIdleTimeout:           o.Timeouts.Handshake,
		MaxIdleTimeout:                 o.Timeouts.Idle,
		MaxIncomingStreams:             int64(o.MaxStreams),
		MaxIncomingUniStreams:          8, // the client's control stream and the two of QPACK, and some to ignore
		InitialStreamReceiveWindow:     64 << 10,
		MaxStreamReceiveWindow:         receiveWindow,
		InitialConnectionReceiveWindow: 128 << 10,
		MaxConnectionReceiveWindow:     connectionWindow,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for http3 on %q: %w", o.Address, err), s.socket.Close())
	}
	return s, nil
}

// errTooMany refuses a connection.
var errTooMany = errors.New("there are too many connections")

// admit is called for every connection that is begun. The context ends with it.
func (s *Server) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if s.open.Add(1) > int64(s.opts.MaxConns) {
		s.open.Add(-1)
		s.metrics.refused.Inc()
		return nil, errTooMany
	}
	s.metrics.conns.Inc()
	context.AfterFunc(ctx, func() {
		s.open.Add(-1)
		s.metrics.conns.Dec()
	})
	return ctx, nil
}

// clientKey finds the *client of a connection in its context.
type clientKey struct{}

// client is what the requests of one connection share.
type client struct {
	ingress.Client
	conn   *quic.Conn
	active atomic.Int32 // requests that are under way
	ended  atomic.Int64 // when the last one ended, in Unix nanoseconds
	mu     sync.Mutex
	ids    exchange.IDGenerator // guarded by mu
}

func (s *Server) connContext(ctx context.Context, c *quic.Conn) context.Context {
	peer := client{conn: c}
	if a, ok := c.RemoteAddr().(*net.UDPAddr); ok {
		peer.Client = s.opts.Rules.Client(a.AddrPort())
	}
	peer.ids.Seed(rand.Uint64(), rand.Uint64())
	s.mu.Lock()
	s.clients[&peer] = struct{}{}
	s.mu.Unlock()
	context.AfterFunc(c.Context(), func() {
		s.mu.Lock()
		delete(s.clients, &peer)
		s.mu.Unlock()
	})
	return context.WithValue(ctx, clientKey{}, &peer)
}

// Addr returns the address that the socket is bound to.
func (s *Server) Addr() net.Addr { return s.socket.LocalAddr() }

// AltSvc returns the value of Alt-Svc (RFC 7838) by which other protocols tell of this one.
func (s *Server) AltSvc() string {
	port := 0
	if a, ok := s.Addr().(*net.UDPAddr); ok {
		port = a.Port
	}
	return `h3=":` + strconv.Itoa(port) + `"; ma=86400`
}

// Run serves until Drain or Close.
func (s *Server) Run(context.Context) error {
	if err := s.http.ServeListener(s.accept); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("accept http3 connections: %w", err)
	}
	return nil
}

// The times of draining: how long a connection without requests stays open after GOAWAY, for requests that were on their
// way to be told that they are safe to repeat, and after its last request, for the rest of the response to arrive, which
// closing the connection would throw away; and how often is looked for such connections.
const (
	goAwayGrace = 500 * time.Millisecond
	drainLook   = 50 * time.Millisecond
)

// Drain ends the service: clients are told to open no more requests here (GOAWAY), those that are under way end, and
// connections without any are closed. What is left when ctx ends is cut off. The error is the context's.
func (s *Server) Drain(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.http.Shutdown(ctx) }()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for began := time.Now(); ; {
		select {
		case err := <-ended:
			return errors.Join(err, s.Close())
		case now := <-look.C:
			if now.Sub(began) > goAwayGrace {
				s.closeIdle(now)
			}
		}
	}
}

// closeIdle closes the connections that have been without requests for a while.
func (s *Server) closeIdle(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		if c.active.Load() == 0 && now.Sub(time.Unix(0, c.ended.Load())) > goAwayGrace {
			_ = c.conn.CloseWithError(quic.ApplicationErrorCode(qhttp3.ErrCodeNoError), "the gateway shuts down")
		}
	}
}

// Close ends everything at once. It may be called again.
func (s *Server) Close() error {
	return errors.Join(s.http.Close(), s.accept.Close(), s.quic.Close(), ignoreClosed(s.socket.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// arrivals counts what happens within a second.
type arrivals struct {
	mu     sync.Mutex
	second int64 // guarded by mu
	n      int   // guarded by mu
}

// count counts one more and returns how many there have been in this second.
func (a *arrivals) count(now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if second := now.Unix(); second != a.second {
		a.second, a.n = second, 0
	}
	a.n++
	return a.n
}
