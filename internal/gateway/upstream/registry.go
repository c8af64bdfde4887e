package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/snapshot"
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
	// Registerer receives the metrics. Default: none are kept.
	Registerer prometheus.Registerer
	// Dial makes connections. Default: that of a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Limits bound the head of a response. Default: a head of 64 KiB with 200 fields.
	Limits h1.Limits
}

// Registry holds backends. Make it with New, and run it with Run.
type Registry struct {
	opts Options

	mu       sync.Mutex
	backends map[key]*Backend // guarded by mu
	closed   bool             // guarded by mu
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
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
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

// Run closes connections that have been idle for too long, until ctx ends. Then it closes all idle ones, and those in use
// are closed when their exchange ends.
func (r *Registry) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			r.close()
			return nil
		case <-ticker.C:
			now := r.opts.Sweeper.Now()
			for _, b := range r.list() {
				s := b.settings.Load()
				for _, e := range s.endpoints {
					e.prune(now, s.idleTimeout)
				}
			}
		}
	}
}

func (r *Registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, b := range r.backends {
		for _, e := range b.settings.Load().endpoints {
			e.close()
		}
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
	backends map[key]planned
}

type planned struct {
	backend  *Backend
	settings *settings
}

// Prepare makes a plan of all backends of a configuration. It changes nothing: a plan that is not committed is forgotten.
// Between Prepare and Commit no other plan may be committed.
func (r *Registry) Prepare(all []snapshot.Backend) (*Plan, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &Plan{registry: r, backends: make(map[key]planned, len(all))}
	var errs []error
	for i := range all {
		k := key{all[i].Organization, all[i].Name}
		b := r.backends[k]
		var old *settings
		if b == nil {
			b = &Backend{registry: r, key: k}
		} else {
			old = b.settings.Load()
		}
		s, err := newSettings(&all[i], old)
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
			for _, e := range b.settings.Load().endpoints {
				e.close()
			}
		}
	}
	for k, planned := range p.backends {
		old := planned.backend.settings.Swap(planned.settings)
		r.backends[k] = planned.backend
		if old == nil {
			continue
		}
		for _, e := range old.endpoints {
			if !slices.Contains(planned.settings.endpoints, e) {
				e.close()
			}
		}
	}
}

// settings is the content of a backend's entry, ready for use. It never changes.
type settings struct {
	content     snapshot.Backend
	host        string // to send; "" is the request's
	endpointOwn bool   // send the address of the endpoint as host
	tls         *tls.Config
	endpoints   []*endpoint

	connect, response, idle, tunnel, idleTimeout time.Duration
	maxConns, maxIdle                            int
}

func newSettings(content *snapshot.Backend, old *settings) (*settings, error) {
	s := &settings{
		content:     *content,
		connect:     millis(content.ConnectMillis, 5*time.Second),
		response:    millis(content.ResponseMillis, 30*time.Second),
		idle:        millis(content.IdleMillis, time.Minute),
		tunnel:      millis(content.TunnelMillis, 10*time.Minute),
		idleTimeout: millis(content.IdleTimeoutMillis, 90*time.Second),
		maxConns:    cmp.Or(content.MaxConns, 1024),
		maxIdle:     cmp.Or(content.MaxIdleConns, 128),
	}
	switch content.Host {
	case "endpoint":
		s.endpointOwn = true
	default:
		s.host = content.Host
	}
	sameTLS := old != nil && old.content.TLS == content.TLS && old.content.ServerName == content.ServerName &&
		old.content.CA == content.CA
	switch {
	case sameTLS:
		s.tls = old.tls
	case content.TLS:
		cfg, err := tlsConfig(content)
		if err != nil {
			return nil, err
		}
		s.tls = cfg
	}
	for _, ep := range content.Endpoints {
		address := ep.Address
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("endpoint %q is not host:port: %w", address, err)
		}
		e := find(s.endpoints, address) // named twice, it takes two turns
		if e == nil && sameTLS {
			e = find(old.endpoints, address)
		}
		if e == nil {
			e = &endpoint{address: address}
		}
		s.endpoints = append(s.endpoints, e)
	}
	return s, nil
}

func find(all []*endpoint, address string) *endpoint {
	for _, e := range all {
		if e.address == address {
			return e
		}
	}
	return nil
}

func millis(ms int64, fallback time.Duration) time.Duration {
	if ms <= 0 {
		return fallback
	}
	return time.Duration(ms) * time.Millisecond
}

func tlsConfig(content *snapshot.Backend) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         content.ServerName, // empty: the endpoint's host, set where the connection is made
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
		NextProtos:         []string{"http/1.1"},
	}
	if content.CA != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(content.CA)) {
			return nil, errors.New("tls.ca holds no PEM certificate")
		}
	}
	return cfg, nil
}
