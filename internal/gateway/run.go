package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/gateway/certs"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/secrets"
	"hansa.dev/hansa/internal/gateway/upstream"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// Options configure a Gateway. The zero value listens where gateways do and logs nothing.
type Options struct {
	// HTTPAddr is where requests come in. Default: ":8080".
	HTTPAddr string
	// HTTPSAddr is where requests come in over TLS. Default: "", nowhere. CertFile and KeyFile, which may be replaced
	// while the gateway runs, are the default certificate of all listeners; without them it comes from elsewhere, or clients
	// must ask for a name.
	HTTPSAddr, CertFile, KeyFile string
	// HTTP3 has HTTPSAddr take HTTP/3 too, on the UDP port of the same number.
	HTTP3 bool
	// TLS is what holds for TLS on all listeners.
	TLS TLSOptions
	// Listeners are further places where requests come in.
	Listeners []Listener
	// AdminAddr is where the gateway is watched; whoever can reach it may. Default: "127.0.0.1:8085".
	AdminAddr string
	// Inherited are sockets that listen already, to be used instead of binding those addresses. The gateway closes
	// them, also those that it has no use for. Default: none.
	Inherited []Socket
	// MaxConns bounds the connections of each listener. Default: 65,536.
	MaxConns int
	// Timeouts bound the time that clients may take.
	Timeouts ingress.Timeouts
	// Limits bound the heads of requests. Default: h1.DefaultLimits.
	Limits h1.Limits
	// Proxies are the load balancers whose connections begin with a header of the PROXY protocol. Default: none.
	Proxies []netip.Prefix
	// Forwarded sends the field of RFC 7239 to backends beside X-Forwarded-*.
	Forwarded bool
	// Via is the name under which the gateway adds itself to Via, and knows a request that has come round in a circle.
	// Default: "hansa-" and a number that is this process's alone; "off": neither.
	Via string
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
	// RetireLimit is how long connections may go on whose listener was removed or handed over. Default: 1 h.
	RetireLimit time.Duration
	// Engine decides about limits. Default: quota.Local, which counts in this gateway alone.
	Engine policy.Engine
	// GroupKeys returns the keys of the gateway group, which open the secrets of configurations. Default: there are none.
	GroupKeys func() keys.GroupKeys
	// FetchGroupKeys asks the control plane for them. Default: there is nobody to ask.
	FetchGroupKeys func(context.Context) error
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
	if o.RetireLimit <= 0 {
		o.RetireLimit = time.Hour
	}
	switch o.Via {
	case "":
		o.Via = fmt.Sprintf("hansa-%08x", rand.Uint32()) // tells processes apart, guards nothing
	case "off":
		o.Via = ""
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
	secrets *secrets.Opener
	bodies  *h1.Pool
	admin   *http.Server
	counts  countsFile
	certs   *certs.Store
	drain   draining
	started time.Time

	doors         doors
	certFiles     *certs.Files
	adminListener net.Listener // set by Bind

	background sync.WaitGroup // what ends last
	stopRest   context.CancelFunc
}

// New makes a gateway that runs nothing yet. It opens the access log and no more; Stop closes it.
func New(o Options) (*Gateway, error) {
	o.setDefaults()
	g := &Gateway{opts: o, sweeper: sweep.New()}
	g.doors.g = g
	var err error
	g.access, err = accesslog.New(accesslog.Options{Path: o.AccessLog, Log: o.Log.With("component", "accesslog"), Metrics: o.Metrics})
	if err != nil {
		return nil, err
	}
	if err := g.assemble(); err != nil {
		return nil, errors.Join(err, g.access.Close())
	}
	g.counts.path, g.counts.subjects = o.CountsFile, g.core.subjects
	if err := g.counts.load(time.Now()); err != nil {
		o.Log.Warn("the counts of quotas cannot be read; they begin anew", "err", err)
	}
	return g, nil
}

// assemble puts the parts together.
func (g *Gateway) assemble() (err error) {
	o := &g.opts
	g.bodies = new(h1.Pool)
	if err := g.makeCertificates(); err != nil {
		return err
	}
	g.secrets, err = secrets.New(secrets.Options{
		Keys: o.GroupKeys, Fetch: o.FetchGroupKeys, Certificates: g.certs, Log: o.Log.With("component", "gateway.secrets"), Registerer: o.Metrics,
	})
	if err != nil {
		return err
	}
	if o.TLS.Secrets == nil && o.GroupKeys != nil {
		o.TLS.Secrets = g.secrets.TicketSecrets
	}
	guard := newGuard(o.Log.With("component", "gateway"), o.Metrics)
	g.sweeper.Guard = guard
	g.pool, err = upstream.New(upstream.Options{
		Guard:   guard,
		Sweeper: g.sweeper, Bodies: g.bodies, Log: o.Log.With("component", "gateway.upstream"), Registerer: o.Metrics,
		Certificates: g.secrets.ClientCertificate,
	})
	if err != nil {
		return err
	}
	g.core, err = newCore(coreOptions{
		log: o.Log.With("component", "gateway"), now: time.Now, access: g.access,
		register: o.Metrics, engine: o.Engine, backends: upstreams{g.pool}, secrets: g.secrets, guard: guard,
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
func (u upstreams) Prepare(site string, all []snapshot.Backend) (backendPlan, error) {
	p, err := u.Registry.Prepare(site, all)
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

// Start binds the listeners, unless Bind has, and begins to serve. It returns when connections are taken. If it fails,
// nothing runs.
func (g *Gateway) Start(ctx context.Context) error {
	if err := g.Bind(ctx); err != nil {
		return err
	}
	g.started = time.Now()
	var rest context.Context
	rest, g.stopRest = context.WithCancel(context.WithoutCancel(ctx))
	g.background.Go(func() { g.run(rest, "sweeper", g.sweeper.Run) })
	g.background.Go(func() { g.run(rest, "upstream", g.pool.Run) })
	g.background.Go(func() { g.run(rest, "certificates", g.certFiles.Run) })
	if !g.opts.TLS.NoStaples {
		g.background.Go(func() { g.run(rest, "OCSP", g.runStaples) })
	}
	g.background.Go(func() { g.run(rest, "secrets", g.secrets.Run) })
	g.background.Go(func() { g.core.tidy(rest) })
	g.background.Go(func() { g.counts.run(rest, g.opts.Log) })
	g.background.Go(func() {
		if err := g.admin.Serve(g.adminListener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			g.opts.Log.Error("the admin listener has ended", "err", err)
		}
	})
	g.doors.open()
	return nil
}

// run runs a loop that ends only when it is told to.
func (g *Gateway) run(ctx context.Context, name string, loop func(context.Context) error) {
	if err := loop(ctx); err != nil && ctx.Err() == nil {
		g.opts.Log.Error("a part of the gateway has ended", "part", name, "err", err)
	}
}

// SecretsFault says which secrets of the configuration the gateway cannot open; nil if it can open all of them.
func (g *Gateway) SecretsFault() error { return g.secrets.Fault() }
