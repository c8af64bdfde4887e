package http3

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	qhttp3 "github.com/quic-go/quic-go/http3"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/guard"
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
	// MinRate is how many bytes a second of a request's body must come on average once Body has passed; time in which the
	// backend is waited for does not count. Default: 128; negative: any rate will do.
	MinRate int
	// Write is how long the client may take to accept a piece of the response. Default: 30s.
	Write time.Duration
}

// Options configure a Server.
type Options struct {
	// Address is the UDP address to listen on, host:port. Required.
	Address string
	// Patient has Run wait for an address that is in use, instead of New failing: for a process that takes over from one
	// which still has clients.
	Patient bool
	// TLS are the certificates and what else there is to say of TLS; the protocol is added to it. Required.
	TLS *tls.Config
	// Describe returns what is known of a connection. Default: nothing is.
	Describe func(tls.ConnectionState) *exchange.TLS
	// Handler serves the exchanges. Required.
	Handler exchange.Handler
	// Rules tell what of a client is believed and what backends are told of it.
	ingress.Rules
	// MaxConns bounds the connections that are open at once, handshakes included. Default: 65536.
	MaxConns int
	// MaxStreams bounds the requests that are under way at once on one connection. Default: 100.
	MaxStreams int
	// Limits bound the head of a request, Head its fields in bytes as RFC 9114, section 4.2.2, counts them.
	// Default: h1.DefaultLimits.
	Limits h1.Limits
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
)

func (o *Options) setDefaults() error {
	if o.Handler == nil || o.TLS == nil || o.Address == "" {
		return errors.New("http3: Options need an Address, TLS and a Handler")
	}
	o.MaxConns = cmp.Or(o.MaxConns, 1<<16)
	o.MaxStreams = cmp.Or(o.MaxStreams, 100)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &o.Timeouts
	t.Handshake = cmp.Or(t.Handshake, 10*time.Second)
	t.Idle = cmp.Or(t.Idle, 75*time.Second)
	t.Head = cmp.Or(t.Head, 10*time.Second)
	t.Body = cmp.Or(t.Body, 30*time.Second)
	t.MinRate = cmp.Or(t.MinRate, 128)
	t.Write = cmp.Or(t.Write, 30*time.Second)
	if err := ingress.SetLimits(&o.Limits); err != nil {
		return fmt.Errorf("http3: %w", err)
	}
	return nil
}

// Server serves HTTP/3 on one UDP socket. Make it with New and run it with Run. Its methods may be called by any
// goroutine.
type Server struct {
	opts    Options
	metrics *metrics
	guard   *guard.Guard
	http    *qhttp3.Server
	works   sync.Pool // of *stream
	terms   atomic.Pointer[terms]
	open    atomic.Int64
	arrived arrivals

	mu      sync.Mutex
	clients map[*client]struct{}  // guarded by mu
	bound   atomic.Pointer[bound] // set with mu held; nil while the address is waited for
	closed  chan struct{}         // closed with mu held

	served  chan struct{} // closed when no more connections are taken from the queue
	refusal sync.Once
	refused sync.WaitGroup
}

// bound is what there is once the socket is.
type bound struct {
	socket net.PacketConn
	quic   *quic.Transport
	accept *quic.Listener
}

// terms are what new connections are taken under.
type terms struct {
	tls      *tls.Config
	describe func(tls.ConnectionState) *exchange.TLS
	rules    ingress.Rules
}

// Reconfigure has new connections taken by the TLS, Describe and Rules of o. Those that are open stay as they are.
func (s *Server) Reconfigure(o Options) { s.terms.Store(&terms{o.TLS, o.Describe, o.Rules}) }

// New binds the socket.
func New(ctx context.Context, o Options) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, metrics: newMetrics(o.Registerer), clients: map[*client]struct{}{}, closed: make(chan struct{}), served: make(chan struct{})}
	s.guard = guard.New(o.Log, s.metrics.panics)
	s.Reconfigure(o)
	s.http = &qhttp3.Server{
		Handler: http.HandlerFunc(s.serve), MaxHeaderBytes: o.Limits.Head, IdleTimeout: o.Timeouts.Idle,
		Logger: slog.New(slog.DiscardHandler), ConnContext: s.connContext,
	}
	if err := s.bind(ctx); err != nil && (!o.Patient || !errors.Is(err, syscall.EADDRINUSE)) {
		return nil, err
	}
	return s, nil
}

// bind takes the address.
func (s *Server) bind(ctx context.Context) error {
	o := &s.opts
	var lc net.ListenConfig
	socket, err := lc.ListenPacket(ctx, "udp", o.Address)
	if err != nil {
		return fmt.Errorf("listen for http3 on %q: %w", o.Address, err)
	}
	b := &bound{socket: socket}
	b.quic = &quic.Transport{
		Conn:                socket,
		VerifySourceAddress: func(net.Addr) bool { return s.arrived.count(time.Now()) > verifyAbove },
		ConnContext:         s.admit,
	}
	current := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config := s.terms.Load().tls
		if config.GetConfigForClient != nil {
			if own, err := config.GetConfigForClient(hello); own != nil || err != nil {
				return own, err
			}
		}
		return config, nil
	}}
	b.accept, err = b.quic.Listen(qhttp3.ConfigureTLSConfig(current), &quic.Config{
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
		return errors.Join(fmt.Errorf("listen for http3 on %q: %w", o.Address, err), socket.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return errors.Join(http.ErrServerClosed, b.close())
	default:
	}
	s.bound.Store(b)
	return nil
}

func (b *bound) close() error {
	return errors.Join(b.accept.Close(), b.quic.Close(), ignoreClosed(b.socket.Close()))
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
	rules  *ingress.Rules
	tls    *exchange.TLS
	active atomic.Int32 // requests that are under way
	ended  atomic.Int64 // when the last one did, or the connection began, in Unix nanoseconds
	mu     sync.Mutex
	ids    exchange.IDGenerator // guarded by mu
}

func (s *Server) connContext(ctx context.Context, c *quic.Conn) context.Context {
	t := s.terms.Load()
	peer := client{conn: c, rules: &t.rules}
	if t.describe != nil {
		peer.tls = t.describe(c.ConnectionState().TLS)
	}
	if a, ok := c.RemoteAddr().(*net.UDPAddr); ok {
		peer.Client = peer.rules.Client(a.AddrPort())
	}
	peer.ids.Seed(rand.Uint64(), rand.Uint64())
	peer.ended.Store(time.Now().UnixNano())
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

// Addr returns the address that the socket is bound to; nil if it is not yet.
func (s *Server) Addr() net.Addr {
	b := s.bound.Load()
	if b == nil {
		return nil
	}
	return b.socket.LocalAddr()
}

// Bound tells whether the address has been taken.
func (s *Server) Bound() bool { return s.bound.Load() != nil }

// bindPause is the time between two attempts to get an address that is in use.
const bindPause = 100 * time.Millisecond

// Run serves until Drain, Close or the end of ctx. The latter only ends waiting for an address. It is called once.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.served)
	retry := time.NewTicker(bindPause)
	defer retry.Stop()
	for !s.Bound() {
		select {
		case <-ctx.Done():
			return nil
		case <-s.closed:
			return nil
		case <-retry.C:
		}
		if err := s.bind(ctx); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			return ignoreClosed(err)
		}
	}
	if err := s.http.ServeListener(s.bound.Load().accept); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("accept http3 connections: %w", err)
	}
	return nil
}

// The times of draining: how long handshakes that are under way may take to become connections that are served; how long a
// connection without requests stays open after GOAWAY, for requests that were on their way to be told that they are safe to
// repeat, and after its last request, for the rest of the response to arrive, which closing the connection would throw away;
// and how often is looked for such connections.
const (
	handshakeGrace = 200 * time.Millisecond
	goAwayGrace    = 500 * time.Millisecond
	drainLook      = 50 * time.Millisecond
)

// Drain ends the service: clients are told to open no more requests here (GOAWAY), those that are under way end, and
// connections without any are closed. What is left when ctx ends is cut off. The error is the context's.
func (s *Server) Drain(ctx context.Context) error {
	s.refuse()
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
				s.closeIdle(now, goAwayGrace)
			}
		}
	}
}

// refuse ends the taking of connections. Packets of later ones are not answered, so that whoever takes over the port finds
// their clients asking again. quic-go's server leaves alone what it finds in its queue when it shuts down: such clients would
// wait for their own time-out. So the queue is emptied before, as far as handshakes are done soon, and closed after.
func (s *Server) refuse() {
	b := s.bound.Load()
	if b == nil {
		return
	}
	s.refusal.Do(func() {
		s.refused.Go(func() { _ = b.accept.Close() }) // waits for handshakes
		soon := time.NewTimer(handshakeGrace)
		defer soon.Stop()
		select {
		case <-s.served:
			return
		case <-soon.C:
		}
		s.refused.Go(func() {
			for {
				c, err := b.accept.Accept(context.Background())
				if err != nil { // the queue is closed and empty
					return
				}
				_ = c.CloseWithError(quic.ApplicationErrorCode(qhttp3.ErrCodeNoError), "the gateway shuts down")
			}
		})
	})
}

// Leave does nothing: HTTP/3 has no way to end a connection with a response that could be taken back. CloseIdle and Drain
// end connections.
func (s *Server) Leave(bool) {}

// longIdle is how long a connection must have been without requests to be closed without a warning.
const longIdle = 3 * time.Second

// CloseIdle closes the connections that have been without requests for some seconds.
func (s *Server) CloseIdle() { s.closeIdle(time.Now(), longIdle) }

// Connections is the number of open connections, handshakes included.
func (s *Server) Connections() int { return int(s.open.Load()) }

// closeIdle closes the connections that have been without requests for that long.
func (s *Server) closeIdle(now time.Time, idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		if c.active.Load() == 0 && now.Sub(time.Unix(0, c.ended.Load())) > idle {
			_ = c.conn.CloseWithError(quic.ApplicationErrorCode(qhttp3.ErrCodeNoError), "the gateway shuts down")
		}
	}
}

// Close ends everything at once. It may be called again.
func (s *Server) Close() error {
	s.mu.Lock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	s.mu.Unlock()
	err := s.http.Close()
	if b := s.bound.Load(); b != nil {
		err = errors.Join(err, b.close())
	}
	s.refused.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
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
