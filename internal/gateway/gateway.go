package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/gateway/health"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/secrets"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/guard"
)

// core is a gateway without its listeners: it applies configurations and serves exchanges.
type core struct {
	log      *slog.Logger
	now      func() time.Time
	access   *accesslog.Writer
	metrics  *metrics
	guard    *guard.Guard
	health   health.State
	streams  *streams
	subjects *quota.Subjects
	creds    *credential.Table
	secrets  *secrets.Opener      // nil: nothing that is sealed is opened
	plan     atomic.Pointer[plan] // nil: no configuration

	mu          sync.Mutex // guards what follows
	builder     *builder
	applied     time.Time
	generation  uint64
	lastRefusal *Refused
	credentials snapshot.Checkpoint
}

// Refused is a configuration that was not brought into force.
type Refused struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// coreOptions are what a core is made of.
type coreOptions struct {
	log      *slog.Logger
	now      func() time.Time
	access   *accesslog.Writer
	register prometheus.Registerer
	engine   policy.Engine
	backends backends
	secrets  *secrets.Opener
	guard    *guard.Guard
}

func newCore(o coreOptions) (*core, error) {
	g := &core{
		log: o.log, now: o.now, access: o.access, secrets: o.secrets,
		guard:   o.guard,
		streams: newStreams(), subjects: quota.NewSubjects(), builder: newBuilder(),
	}
	g.creds = credential.New(g.subjects, accesslog.ConsumerMembers, g.streams.sweep)
	g.builder.credentials, g.builder.engine, g.builder.backends = g.creds, o.engine, o.backends
	g.builder.secrets = o.secrets
	g.builder.clients, g.builder.subjects = quota.NewClients(0), g.subjects
	var err error
	if g.metrics, err = newMetrics(o.register, g.apis, g.groups, g.streams); err != nil {
		return nil, err
	}
	return g, nil
}

// Apply brings a configuration into force. The error of one that cannot be run has a *snapshot.Refusal in its chain,
// and what was in force before stays. Apply implements the sink of feed/fetch, and finds out for itself what changed.
func (g *core) Apply(ctx context.Context, c snapshot.Checkpoint, set *snapshot.Set, changed []string) error {
	if g.secrets != nil {
		g.secrets.Await(ctx, set, changed)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	began := g.now()
	ch, err := g.builder.build(c, set)
	if err != nil {
		g.refused(ctx, c, err)
		return err
	}
	// Up to here nothing has happened. From here on nothing can fail.
	if ch.backends != nil {
		ch.backends.Commit()
	}
	if ch.secrets != nil { // before the plan: hostnames have their certificates when their first request comes
		ch.secrets.Commit()
	}
	g.plan.Store(ch.plan)
	g.builder.commit(ch)
	g.health.SetConfigured()
	if len(ch.removed) > 0 {
		g.streams.sweep()
	}
	g.applied = g.now()
	g.generation++
	took := g.applied.Sub(began)
	g.metrics.inForce(c, g.applied, took)
	g.log.InfoContext(ctx, "configuration in force", slog.Uint64("epoch", c.Epoch), slog.Uint64("seq", c.Seq),
		slog.Int("entries", set.Len()), slog.Int("apis", len(g.builder.parts.apis)), slog.Duration("took", took))
	return nil
}

func (g *core) refused(ctx context.Context, c snapshot.Checkpoint, err error) {
	code := snapshot.RefusedCannotRun
	if r, ok := errors.AsType[*snapshot.Refusal](err); ok {
		code = r.Code
	}
	g.lastRefusal = &Refused{Code: code, Message: err.Error(), At: g.now()}
	g.metrics.refused.Inc()
	g.metrics.ok.Set(0)
	g.log.ErrorContext(ctx, "configuration refused", slog.Uint64("epoch", c.Epoch), slog.Uint64("seq", c.Seq), slog.Any("err", err))
}

// ApplyCredentials brings a table of credentials into force.
func (g *core) ApplyCredentials(ctx context.Context, c snapshot.Checkpoint, table *snapshot.Credentials) error {
	g.creds.Apply(table)
	g.mu.Lock()
	g.credentials = c
	g.mu.Unlock()
	g.log.DebugContext(ctx, "credentials in force", slog.Uint64("epoch", c.Epoch), slog.Uint64("seq", c.Seq), slog.Int("count", table.Len()))
	return nil
}

// apis returns the APIs that are in force.
func (g *core) apis() []*api {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*api, 0, len(g.builder.parts.apis))
	for _, a := range g.builder.parts.apis {
		all = append(all, a)
	}
	return all
}

// groups returns the environment groups that are in force.
func (g *core) groups() []*group {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.builder.parts.groups))
}

// keepCounts is how long the counts of a subscription are kept after its last credential is gone.
const keepCounts = 24 * time.Hour

// tidy forgets what nobody needs any more, every few minutes until ctx ends.
func (g *core) tidy(ctx context.Context) {
	ticker := time.NewTicker(10 * time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			g.subjects.Sweep(g.now().UnixNano(), keepCounts)
		}
	}
}
