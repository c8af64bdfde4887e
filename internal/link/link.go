package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/identity"
)

// Class is a kind of traffic. Each has a TCP connection of its own.
type Class uint8

// The classes.
const (
	Control Class = iota // small calls and the feed of the configuration
	Events               // what must arrive at once: revocations, verdicts on health, credentials
	Bulk                 // what is large: whole configurations, segments of credentials
	numClasses
)

// String returns the name of the class as metrics have it.
func (c Class) String() string { return [...]string{"control", "events", "bulk"}[c] }

// window returns how much may be on its way to the receiver unread. Over a round trip of 60 s a smaller window would be
// the limit of what gets through; the classes but Bulk carry little.
func (c Class) window() int32 {
	if c == Bulk {
		return 8 << 20
	}
	return 1 << 20
}

// Timeouts are all times of a link. Zero values mean the defaults, which fit round trips of 60 s.
type Timeouts struct {
	// Dial bounds the TCP connection and a proxy's answer, each. Default 75 s.
	Dial time.Duration
	// Handshake bounds the TLS handshake. Default 75 s.
	Handshake time.Duration
	// Keepalive is after how long without traffic the other end is asked for a sign of life. Default 20 s; gRPC takes
	// less than 10 s for 10 s.
	Keepalive time.Duration
	// KeepaliveTimeout is how long the sign of life may take before the connection is given up. Default 75 s.
	KeepaliveTimeout time.Duration
	// Probe is how often the round trip is measured, give or take a quarter. Default 30 s.
	Probe time.Duration
	// BackoffMin and BackoffMax bound the pause after a failed attempt, which grows by 1.6 each time, give or take a
	// fifth. After a connection that stood there is no pause. Default 100 ms and 5 s, so that a gateway is current
	// within 10 s of the return of its control node.
	BackoffMin, BackoffMax time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Dial, 75 * time.Second},
		{&t.Handshake, 75 * time.Second},
		{&t.Keepalive, 20 * time.Second},
		{&t.KeepaliveTimeout, 75 * time.Second},
		{&t.Probe, 30 * time.Second},
		{&t.BackoffMin, 100 * time.Millisecond},
		{&t.BackoffMax, 5 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return t
}

// DefaultMaxMessage is the largest message that either end accepts by default, in bytes.
const DefaultMaxMessage = 8 << 20

// Options are for Dial.
type Options struct {
	// Addresses are the host:port of the nodes to connect to; any of them will do.
	Addresses []string
	// Identity proves the own end and checks the other. Required.
	Identity Identity
	// Role is what the other end must be. Default identity.RoleControl.
	Role identity.Role
	// Dial opens a connection to an address. nil: a Dialer with the proxies of the environment and Timeouts.Dial.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Timeouts are all times.
	Timeouts Timeouts
	// MaxMessage is the largest message that is accepted, in bytes. 0: DefaultMaxMessage.
	MaxMessage int
	// Logger and Registerer are required.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock for certificates. nil: time.Now.
	Now func() time.Time
}

func (o *Options) complete() error {
	if len(o.Addresses) == 0 {
		return errors.New("no addresses of control nodes")
	}
	for _, a := range o.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("address %q: want host:port", a)
		}
	}
	if o.Identity == nil || o.Logger == nil || o.Registerer == nil {
		return errors.New("the options Identity, Logger and Registerer are required")
	}
	if o.Role == "" {
		o.Role = identity.RoleControl
	}
	o.Timeouts = o.Timeouts.withDefaults()
	if o.Dial == nil {
		o.Dial = (&Dialer{Proxy: ProxyFromEnvironment(), Timeout: o.Timeouts.Dial}).Dial
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = DefaultMaxMessage
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = o.Logger.With("component", "link")
	return nil
}

// Link is the client's end: three connections to one of the addresses each, kept up until Close.
type Link struct {
	o         Options
	classes   [numClasses]*connection
	untrusted chan struct{} // has a token after a server showed a certificate of an unknown authority
	stop      context.CancelFunc
	close     func() error
	wg        sync.WaitGroup
	board     *board
}

// connection is one class of a Link.
type connection struct {
	class Class
	cc    *grpc.ClientConn

	mu      sync.Mutex // guards the fields below
	raw     net.Conn   // of the last handshake that succeeded
	expired bool       // the own certificate had expired at that handshake
}

// Dial opens a link and returns without waiting for it to be up. The caller must close it.
func Dial(o Options) (*Link, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("dial link: %w", err)
	}
	m, err := newClientMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("dial link: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Link{o: o, untrusted: make(chan struct{}, 1), stop: cancel, board: newBoard(m)}
	l.close = sync.OnceValue(l.takeDown)
	for class := range numClasses {
		c := &connection{class: class}
		if c.cc, err = l.newConn(c); err != nil {
			return nil, errors.Join(fmt.Errorf("dial link: %w", err), l.Close())
		}
		l.classes[class] = c
		l.wg.Go(func() { l.watch(ctx, c) })
		l.wg.Go(func() { l.probe(ctx, c) })
	}
	return l, nil
}

// Close takes the link down and waits until it is. Calls under way fail.
func (l *Link) Close() error { return l.close() }

func (l *Link) takeDown() error {
	l.stop()
	var errs []error
	for _, c := range l.classes {
		if c != nil {
			errs = append(errs, c.cc.Close())
		}
	}
	l.wg.Wait()
	return errors.Join(errs...)
}

// Conn returns the connection of a class. Calls over it wait for it to be up, as long as their context lets them.
func (l *Link) Conn(class Class) grpc.ClientConnInterface { return l.classes[class].cc }

// State returns how the link is.
func (l *Link) State() State { return l.board.state() }

// Wait blocks until the state fulfils the condition, which must be quick, or the context ends.
func (l *Link) Wait(ctx context.Context, condition func(State) bool) error {
	return l.board.wait(ctx, condition)
}

// Reset cuts connections that were made with a certificate that had expired, so that they are made again with the
// one in force, and ends all pauses after failed attempts.
func (l *Link) Reset() {
	for _, c := range l.classes {
		c.mu.Lock()
		raw := c.raw
		cut := c.expired && raw != nil
		c.mu.Unlock()
		if cut {
			_ = raw.Close() // it is gone one way or the other
		}
		c.cc.ResetConnectBackoff()
	}
}

func (l *Link) newConn(c *connection) (*grpc.ClientConn, error) {
	creds := &clientCredentials{
		identity: l.o.Identity, role: l.o.Role, timeout: l.o.Timeouts.Handshake, now: l.o.Now,
		observe: func(raw net.Conn, expired bool, err error) { l.handshake(c, raw, expired, err) },
	}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := l.o.Dial(ctx, address)
		if err != nil {
			l.board.failed(c.class, err)
			l.o.Logger.Debug("dial", "class", c.class.String(), "address", address, "err", err)
			return nil, err
		}
		return l.board.count(c.class, conn), nil
	}
	t := l.o.Timeouts
	return grpc.NewClient(staticTarget, append(commonOptions(l.o.Addresses, dial, t),
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: t.Keepalive, Timeout: t.KeepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0), // the link is there whether it is used or not
		grpc.WithInitialWindowSize(c.class.window()),
		grpc.WithInitialConnWindowSize(2*c.class.window()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(l.o.MaxMessage), grpc.MaxCallSendMsgSize(l.o.MaxMessage)),
	)...)
}

const (
	staticScheme = "hansa"
	staticTarget = staticScheme + ":///link"
)

// commonOptions are those of every connection: fixed addresses, one of which is picked, own dialling, and times that
// leave room for one dial, one handshake and one more round trip.
func commonOptions(addresses []string, dial func(context.Context, string) (net.Conn, error), t Timeouts) []grpc.DialOption {
	r := manual.NewBuilderWithScheme(staticScheme)
	var state resolver.State
	for _, a := range addresses {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	r.InitialState(state)
	return []grpc.DialOption{
		grpc.WithResolvers(r),
		grpc.WithContextDialer(dial),
		grpc.WithNoProxy(), // the dialer sees to proxies
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: t.BackoffMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: t.BackoffMax},
			MinConnectTimeout: 2*t.Dial + t.Handshake + t.KeepaliveTimeout,
		}),
	}
}

// handshake is told how each handshake went.
func (l *Link) handshake(c *connection, raw net.Conn, expired bool, err error) {
	if err != nil {
		l.board.failed(c.class, err)
		l.o.Logger.Debug("handshake", "class", c.class.String(), "err", err)
		if errors.Is(err, identity.ErrUnknownAuthority) {
			select {
			case l.untrusted <- struct{}{}:
			default:
			}
		}
		return
	}
	c.mu.Lock()
	c.raw, c.expired = raw, expired
	c.mu.Unlock()
	l.board.connected(c.class, raw.RemoteAddr())
}

// watch keeps a connection up and tells its state.
func (l *Link) watch(ctx context.Context, c *connection) {
	defer l.board.set(c.class, false)
	for {
		state := c.cc.GetState()
		if l.board.set(c.class, state == connectivity.Ready) {
			l.o.Logger.Info("link "+map[bool]string{true: "up", false: "down"}[state == connectivity.Ready], "class", c.class.String())
		}
		if state == connectivity.Idle {
			c.cc.Connect() // a connection that was lost is made again at once
		}
		if !c.cc.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// probe measures the round trip, first as soon as the connection is up.
func (l *Link) probe(ctx context.Context, c *connection) {
	client := linkv1.NewProbeClient(c.cc)
	for ctx.Err() == nil {
		if err := l.board.wait(ctx, func(s State) bool { return s.Classes[c.class].Up }); err != nil {
			return
		}
		callCtx, cancel := context.WithTimeout(ctx, l.o.Timeouts.KeepaliveTimeout)
		begin := time.Now()
		_, err := client.Ping(callCtx, &linkv1.PingRequest{}, grpc.WaitForReady(false))
		cancel()
		if err == nil {
			l.board.roundTrip(c.class, time.Since(begin))
		}
		pause := l.o.Timeouts.Probe
		if err != nil {
			pause = min(pause, time.Second) // the connection changed under the call
		}
		if !sleep(ctx, pause*3/4+rand.N(pause/2+1)) {
			return
		}
	}
}

// sleep waits and tells whether the context is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
