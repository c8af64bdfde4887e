// Package listen accepts connections for the engines of the gateway, within a limit, and makes TLS of those that ask
// for it.
//
// A [Listener] is bound when it is made, so that port 0 is a number before anything runs. Running out of file descriptors
// slows accepting down, it never ends it. Package gateway uses it and hands the connections to an engine.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/telemetry"
	"hansa.dev/hansa/internal/x/guard"
)

// Options configure a Listener.
type Options struct {
	// Name tells the listener from others in logs and metrics: http, https.
	Name string
	// Address is where to listen, host:port. Port 0 takes a free one.
	Address string
	// Inherited, if not nil, is a socket that listens already, to be used instead of binding Address. The Listener closes
	// it, also if New fails.
	Inherited net.Listener
	// MaxConns bounds the connections that are open at once. Default: 65536.
	MaxConns int
	// Proxies are networks whose connections begin with a header of the PROXY protocol, which tells whose connection it
	// is; without one they are closed. Connections from elsewhere have none. Default: none.
	Proxies []netip.Prefix
	// Serve serves one connection until it ends, and closes it. The connection's RemoteAddr is the client's, also if a
	// header told it; it is a *net.TCPConn or a *Proxied, which is as good.
	Serve func(net.Conn)
	// Refuse, if not nil, tells the client of one connection that there are too many, and closes it. It is called for a
	// few at a time; further ones are just closed.
	Refuse func(net.Conn)
	// Guard catches what panics within Serve and Refuse, at the price of the connection. Default: nothing does.
	Guard *guard.Guard
	// Log receives what happens to the listener. Default: nothing is logged.
	Log *slog.Logger
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
}

const (
	defaultMaxConns = 1 << 16
	// maxRefusing is how many connections are refused with an answer at the same time.
	maxRefusing = 64
)

// Listener accepts connections. Make it with New and run it with Run.
type Listener struct {
	opts     Options
	listener net.Listener
	open     atomic.Int64
	refusing atomic.Int64
	metrics  *metrics
	serving  sync.WaitGroup
	stopped  chan struct{} // closed when no more connections are taken
}

// New binds a listener.
func New(ctx context.Context, o Options) (*Listener, error) {
	l, err := newListener(ctx, o)
	if err != nil && o.Inherited != nil {
		err = errors.Join(err, o.Inherited.Close())
	}
	return l, err
}

func newListener(ctx context.Context, o Options) (*Listener, error) {
	if o.Serve == nil || o.Name == "" {
		return nil, errors.New("listen: Options need a Name and Serve")
	}
	if o.MaxConns <= 0 {
		o.MaxConns = defaultMaxConns
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With(slog.String("listener", o.Name))
	m := newMetrics(o.Registerer, o.Name)
	if o.Inherited != nil {
		return &Listener{opts: o, listener: o.Inherited, metrics: m, stopped: make(chan struct{})}, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %q: %w", o.Name, o.Address, err)
	}
	return &Listener{opts: o, listener: l, metrics: m, stopped: make(chan struct{})}, nil
}

// Addr returns the address that the listener is bound to.
func (l *Listener) Addr() net.Addr { return l.listener.Addr() }

// Stopped is closed when Run takes no more connections.
func (l *Listener) Stopped() <-chan struct{} { return l.stopped }

// Connections is the number of connections that were taken and have not ended, those that nobody serves yet included.
func (l *Listener) Connections() int { return int(l.open.Load()) }

// File returns the socket once more, for somebody else to listen on: who closes the one leaves the other as it is.
func (l *Listener) File() (*os.File, error) {
	s, ok := l.listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("share the socket of listener %s: %w", l.opts.Name, errors.ErrUnsupported)
	}
	return s.File()
}

// Close stops listening without having run. Run closes by itself.
func (l *Listener) Close() error { return l.listener.Close() }

// Run accepts connections until ctx ends, and returns when the last of them has ended. Who wants that to be soon drains
// the engine.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.listener.Close() })
	defer stop()
	err := l.accept(ctx)
	close(l.stopped)
	l.serving.Wait()
	return err
}

// The pauses after a failure to accept: the first, and the longest.
const (
	firstPause = 5 * time.Millisecond
	longPause  = time.Second
)

func (l *Listener) accept(ctx context.Context) error {
	pause := firstPause
	for {
		c, err := l.listener.Accept()
		if err == nil {
			pause = firstPause
			l.take(ctx, c)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept connections for %s: %w", l.opts.Name, err)
		}
		// Out of file descriptors or memory, or the client has gone already: it passes.
		l.metrics.failed.Inc()
		if pause > firstPause {
			l.opts.Log.Warn("cannot accept connections", slog.Any("err", err), slog.Duration("pause", pause))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longPause)
	}
}

// take has c served, or refused if there are too many.
func (l *Listener) take(ctx context.Context, c net.Conn) {
	if l.open.Add(1) <= int64(l.opts.MaxConns) {
		l.metrics.accepted.Inc()
		l.serving.Go(func() {
			defer l.open.Add(-1)
			defer l.opts.Guard.Catch("serving a connection", func() { _ = c.Close() })
			if c := l.introduced(ctx, c); c != nil {
				l.opts.Serve(c)
			}
		})
		return
	}
	l.open.Add(-1)
	l.metrics.refused.Inc()
	if l.opts.Refuse == nil || l.refusing.Add(1) > maxRefusing {
		if l.opts.Refuse != nil {
			l.refusing.Add(-1)
		}
		_ = c.Close()
		return
	}
	l.serving.Go(func() {
		defer l.refusing.Add(-1)
		defer l.opts.Guard.Catch("refusing a connection", func() { _ = c.Close() })
		l.opts.Refuse(c)
	})
}

type metrics struct{ accepted, refused, failed, unproxied prometheus.Counter }

func newMetrics(r prometheus.Registerer, name string) *metrics {
	conns := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_listener_connections_total",
		Help: "Connections that came in, by what became of them: accepted, or refused since there were too many.",
	}, []string{"listener", "result"})
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_listener_accept_errors_total",
		Help: "Failures to accept a connection, mostly for want of file descriptors.",
	}, []string{"listener"})
	unproxied := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_listener_proxy_header_errors_total",
		Help: "Connections of load balancers that were closed since they did not begin with a PROXY header.",
	}, []string{"listener"})
	conns, failed, unproxied = telemetry.Register(r, conns), telemetry.Register(r, failed), telemetry.Register(r, unproxied)
	return &metrics{
		accepted: conns.WithLabelValues(name, "accepted"),
		refused:  conns.WithLabelValues(name, "refused"),
		failed:   failed.WithLabelValues(name),

		unproxied: unproxied.WithLabelValues(name),
	}
}
