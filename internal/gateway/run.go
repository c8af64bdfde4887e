package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/gateway/http1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/gateway/listen"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/upstream"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// Options configure a Gateway. The zero value listens where gateways do and logs nothing.
type Options struct {
	// HTTPAddr is where requests come in. Default: ":8080".
	HTTPAddr string
	// HTTPSAddr is where requests come in over TLS, with the certificate in CertFile and KeyFile, which may be replaced
	// while the gateway runs. Default: "", nowhere.
	HTTPSAddr, CertFile, KeyFile string
	// AdminAddr is where the gateway is watched and switched; whoever can reach it may. Default: "127.0.0.1:8085".
	AdminAddr string
	// MaxConns bounds the connections of each listener. Default: 65,536.
	MaxConns int
	// Timeouts bound the time that clients may take.
	Timeouts http1.Timeouts
	// Trusted are the proxies whose X-Forwarded-For is believed.
	Trusted []netip.Prefix
	// AccessLog is the file of the access log: "-" for standard output, "" for none.
	AccessLog string
	// CountsFile is where the counts of quotas are kept over a restart. What was admitted in the last ten seconds before
	// the process is killed is not in it; before a Stop everything is. Default: "", a restart begins new counts.
	CountsFile string
	// DrainDelay is how long the health checks say that the gateway is draining before it stops taking connections:
	// the time that load balancers need to notice. Default: 0.
	DrainDelay time.Duration
	// Engine decides about limits. Default: quota.Local, which counts in this gateway alone.
	Engine policy.Engine
	// Checks are what /readyz asks beside its own.
	Checks []Check
	// Version is the version of the program.
	Version string
	// Log receives what happens. Default: nothing is logged.
	Log *slog.Logger
	// Metrics is where metrics are registered and what /metrics shows. Default: one of its own.
	Metrics *prometheus.Registry
}

func (o *Options) setDefaults() {
	if o.HTTPAddr == "" {
		o.HTTPAddr = ":8080"
	}
	if o.AdminAddr == "" {
		o.AdminAddr = "127.0.0.1:8085"
	}
	if o.Engine == nil {
		o.Engine = quota.Local{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
}

// Gateway is the data plane of one node. Make it with New.
type Gateway struct {
	opts    Options
	core    *core
	access  *accesslog.Writer
	sweeper *sweep.Sweeper
	pool    *upstream.Registry
	engine  *http1.Server
	admin   *http.Server
	counts  countsFile
	drain   draining
	started time.Time

	listeners map[string]*listen.Listener // by the name of their address; set by Start
	adminAddr net.Addr                    // set by Start

	serving    sync.WaitGroup // what ends when listening ends
	background sync.WaitGroup // what ends last
	stopServe  context.CancelFunc
	stopRest   context.CancelFunc
}

// New makes a gateway that runs nothing yet. It opens the access log and no more; Stop closes it.
func New(o Options) (*Gateway, error) {
	o.setDefaults()
	g := &Gateway{opts: o, sweeper: sweep.New()}
	var err error
	g.access, err = accesslog.New(accesslog.Options{Path: o.AccessLog, Log: o.Log.With("component", "accesslog"), Metrics: o.Metrics})
	if err != nil {
		return nil, err
	}
	if err := g.assemble(); err != nil {
		return nil, errors.Join(err, g.access.Close())
	}
	g.counts = countsFile{path: o.CountsFile, subjects: g.core.subjects}
	if err := g.counts.load(time.Now()); err != nil {
		o.Log.Warn("the counts of quotas cannot be read; they begin anew", "err", err)
	}
	return g, nil
}

// assemble puts the parts together.
func (g *Gateway) assemble() (err error) {
	o := &g.opts
	bodies := new(h1.Pool)
	g.pool, err = upstream.New(upstream.Options{
		Sweeper: g.sweeper, Bodies: bodies, Log: o.Log.With("component", "gateway.upstream"), Registerer: o.Metrics,
	})
	if err != nil {
		return err
	}
	g.core, err = newCore(coreOptions{
		log: o.Log.With("component", "gateway"), now: time.Now, access: g.access,
		register: o.Metrics, engine: o.Engine, backends: upstreams{g.pool},
	})
	if err != nil {
		return err
	}
	g.engine, err = http1.New(http1.Options{
		Handler: g.core, Sweeper: g.sweeper, Bodies: bodies, Log: o.Log.With("component", "gateway.http1"), Registerer: o.Metrics,
		Timeouts: o.Timeouts, Rules: ingress.Rules{Trusted: o.Trusted},
	})
	if err != nil {
		return err
	}
	g.admin = newAdmin(g)
	return nil
}

// upstreams are the backends that upstream keeps.
type upstreams struct{ *upstream.Registry }

// Prepare implements backends.
func (u upstreams) Prepare(all []snapshot.Backend) (backendPlan, error) {
	p, err := u.Registry.Prepare(all)
	if err != nil {
		return nil, err
	}
	return upstreamPlan{p}, nil
}

type upstreamPlan struct{ *upstream.Plan }

// Backend implements backendPlan.
func (p upstreamPlan) Backend(organization, name string) exchange.Backend {
	if b := p.Plan.Backend(organization, name); b != nil {
		return b
	}
	return nil // and not an interface with nothing in it
}

// Apply brings a configuration into force; it is half of the sink of feed/fetch. The error of one that cannot be run
// has a *snapshot.Refusal in its chain, and what was in force before stays. The gateway finds out for itself what has
// changed.
func (g *Gateway) Apply(ctx context.Context, c snapshot.Checkpoint, set *snapshot.Set, changed []string) error {
	return g.core.Apply(ctx, c, set, changed)
}

// ApplyCredentials brings a table of credentials into force; it is the other half of the sink.
func (g *Gateway) ApplyCredentials(ctx context.Context, c snapshot.Checkpoint, table *snapshot.Credentials) error {
	return g.core.ApplyCredentials(ctx, c, table)
}

// ReopenLog opens the access log anew, after its file was moved away.
func (g *Gateway) ReopenLog() error { return g.access.Reopen() }

// Start binds the listeners and begins to serve. It returns when connections are taken. If it fails, nothing runs.
func (g *Gateway) Start(ctx context.Context) error {
	o := &g.opts
	g.started = time.Now()
	g.listeners = make(map[string]*listen.Listener)
	err := g.listen(ctx, "http", o.HTTPAddr, http1.Conn{})
	if err == nil && o.HTTPSAddr != "" {
		err = g.listenTLS(ctx)
	}
	var adminListener net.Listener
	if err == nil {
		adminListener, err = new(net.ListenConfig).Listen(ctx, "tcp", o.AdminAddr)
	}
	if err != nil {
		for _, l := range g.listeners {
			err = errors.Join(err, l.Close())
		}
		return fmt.Errorf("start gateway: %w", err)
	}
	g.adminAddr = adminListener.Addr()
	var serve, rest context.Context
	serve, g.stopServe = context.WithCancel(context.WithoutCancel(ctx))
	rest, g.stopRest = context.WithCancel(context.WithoutCancel(ctx))
	for name, l := range g.listeners {
		g.serving.Go(func() { g.run(serve, name, l.Run) })
	}
	g.background.Go(func() { g.run(rest, "sweeper", g.sweeper.Run) })
	g.background.Go(func() { g.run(rest, "upstream", g.pool.Run) })
	g.background.Go(func() { g.core.tidy(rest) })
	g.background.Go(func() { g.counts.run(rest, o.Log) })
	g.background.Go(func() {
		if err := g.admin.Serve(adminListener); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("the admin listener has ended", "err", err)
		}
	})
	return nil
}

// run runs a loop that ends only when it is told to.
func (g *Gateway) run(ctx context.Context, name string, loop func(context.Context) error) {
	if err := loop(ctx); err != nil && ctx.Err() == nil {
		g.opts.Log.Error("a part of the gateway has ended", "part", name, "err", err)
	}
}

func (g *Gateway) listen(ctx context.Context, name, addr string, how http1.Conn) error {
	l, err := listen.New(ctx, listen.Options{
		Name: name, Address: addr, MaxConns: g.opts.MaxConns,
		Serve: func(c net.Conn) {
			how := how
			how.Net = c
			g.engine.Serve(how)
		},
		Refuse: func(c net.Conn) {
			how := how
			how.Net = c
			g.engine.Refuse(how)
		},
		Log: g.opts.Log.With("component", "gateway.listen"), Registerer: g.opts.Metrics,
	})
	if err != nil {
		return err
	}
	g.listeners[name] = l
	return nil
}

func (g *Gateway) listenTLS(ctx context.Context) error {
	cert, err := listen.LoadCertificate(g.opts.CertFile, g.opts.KeyFile, g.opts.Log)
	if err != nil {
		return err
	}
	const handshake = 10 * time.Second
	return g.listen(ctx, "https", g.opts.HTTPSAddr, http1.Conn{Scheme: "https", Upgrade: listen.Handshake(cert.Config(), handshake)})
}

// Addresses returns what the gateway listens on, by name: http, https if there is one, admin.
func (g *Gateway) Addresses() map[string]string {
	all := map[string]string{"admin": g.adminAddr.String()}
	for name, l := range g.listeners {
		all[name] = l.Addr().String()
	}
	return all
}
