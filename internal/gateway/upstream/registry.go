package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/guard"
	"hansa.dev/hansa/internal/x/sweep"
)

// Options configure a Registry.
type Options struct {
	// Sweeper keeps the deadlines. Whoever made it runs it.
	Sweeper *sweep.Sweeper
	// Bodies is buffers for bodies, best shared with the engines. Default: its own.
	Bodies *h1.Pool
	// Log receives what happens to endpoints. Default: nothing is logged.
	Log *slog.Logger
	// Guard is told of what panics in the background, which then costs one connection, copy or check. Default: one that logs.
	Guard *guard.Guard
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
	// Dial makes connections. Default: that of a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Random returns random numbers. Default: those of math/rand/v2.
	Random func() uint64
	// Certificates are what to show to backends that ask for one. Default: there are none.
	Certificates Certificates
	// Limits bound the head of a response. Default: a head of 64 KiB with 200 fields.
	Limits h1.Limits
}

// Registry holds backends. Make it with New, and run it with Run.
type Registry struct {
	opts Options

	mu       sync.Mutex
	backends map[key]*Backend // guarded by mu
	site     string           // guarded by mu; where the gateway stands
	closed   bool             // guarded by mu

	tasks   sync.WaitGroup // checks, resolutions, copies of requests
	shadows sync.Pool      // of *shadow
}

type key struct{ organization, name string }

// New returns a Registry without backends.
func New(o Options) (*Registry, error) {
	if o.Sweeper == nil {
		return nil, errors.New("upstream: Options need a Sweeper")
	}
	if o.Bodies == nil {
		o.Bodies = new(h1.Pool)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Guard == nil {
		o.Guard = guard.New(o.Log, nil)
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Random == nil {
		o.Random = rand.Uint64
	}
	o.Limits.Head = cmp.Or(o.Limits.Head, 64<<10)
	o.Limits.Fields = cmp.Or(o.Limits.Fields, 200)
	r := &Registry{opts: o, backends: map[key]*Backend{}}
	if o.Registerer != nil {
		if err := o.Registerer.Register(&collector{r}); err != nil {
			return nil, fmt.Errorf("register the metrics of backends: %w", err)
		}
	}
	return r, nil
}

// try runs f, which is named by what; if it panics that is an error.
func (r *Registry) try(what string, f func() error) (err error) {
	err = errPanicked
	defer r.opts.Guard.Catch(what, nil)
	return f()
}

// shadow returns memory for a copy of a request.
func (r *Registry) shadow() *shadow {
	if s, ok := r.shadows.Get().(*shadow); ok {
		return s
	}
	return new(shadow)
}

// keepShadow takes a shadow back that nobody uses any more. Hedging lends the call of the winner to the exchange that the copy was
// made of: whoever gets the shadow next must find neither that exchange nor its client.
func (r *Registry) keepShadow(s *shadow) {
	if s.call != nil {
		s.call.x, s.call.down = &s.x, &s.down
	}
	r.shadows.Put(s)
}

// Run closes connections that have been idle for too long and judges outliers, until ctx ends. Then it ends the checks,
// waits for all that is done in the background and closes all idle connections; those in use are closed when their
// exchange ends.
func (r *Registry) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			r.close()
			r.tasks.Wait()
			return nil
		case <-ticker.C:
			now := r.opts.Sweeper.Now()
			for _, b := range r.list() {
				_ = r.try("tending a backend", func() error { b.tend(now); return nil }) // what failed is tried again
			}
		}
	}
}

// tend closes connections that have been idle for too long, and judges outliers.
func (b *Backend) tend(now time.Duration) {
	t := b.table.Load()
	for _, p := range t.places {
		p.pool.prune(now, t.settings.idleTimeout)
		p.muxes.prune(now, t.settings.idleTimeout, t.settings.maxAge)
	}
	if t.settings.content.Outliers != nil {
		b.judge(now)
	}
}

func (r *Registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, b := range r.backends {
		b.letGo()
	}
}

// list returns the backends in order of organization and name.
func (r *Registry) list() []*Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Backend, 0, len(r.backends))
	for _, b := range r.backends {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b *Backend) int {
		return cmp.Or(cmp.Compare(a.key.organization, b.key.organization), cmp.Compare(a.key.name, b.key.name))
	})
	return all
}

// Plan is a complete set of backends, checked and ready to be put in force.
type Plan struct {
	registry *Registry
	site     string
	backends map[key]planned
}

type planned struct {
	backend  *Backend
	settings *settings
}

// Prepare makes a plan of all backends of a configuration, for a gateway that stands in a site. It changes nothing: a plan
// that is not committed is forgotten. Between Prepare and Commit no other plan may be committed.
func (r *Registry) Prepare(site string, all []snapshot.Backend) (*Plan, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &Plan{registry: r, site: site, backends: make(map[key]planned, len(all))}
	var errs []error
	for i := range all {
		k := key{all[i].Organization, all[i].Name}
		b := r.backends[k]
		var old *settings
		if b == nil {
			b = &Backend{registry: r, key: k}
		} else {
			old = b.table.Load().settings
		}
		if old != nil && reflect.DeepEqual(old.content, all[i]) {
			p.backends[k] = planned{b, old}
			continue
		}
		s, err := newSettings(&all[i], old, &r.opts)
		if err != nil {
			errs = append(errs, fmt.Errorf("backend %q of organization %q: %w", k.name, k.organization, err))
			continue
		}
		p.backends[k] = planned{b, s}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// Backend returns the handle of a backend of the plan, or nil if there is none of that name. It must not be called before
// the plan is committed.
func (p *Plan) Backend(organization, name string) *Backend {
	return p.backends[key{organization, name}].backend
}

// Commit puts the plan in force. Backends and endpoints that are not part of it any more finish what they have begun.
func (p *Plan) Commit() {
	r := p.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, b := range r.backends {
		if _, stays := p.backends[k]; !stays {
			delete(r.backends, k)
			b.letGo()
		}
	}
	moved := r.site != p.site
	r.site = p.site
	for k, planned := range p.backends {
		b := planned.backend
		if t := b.table.Load(); moved || t == nil || t.settings != planned.settings {
			b.apply(planned.settings, p.site)
		}
		r.backends[k] = b
	}
}
