package control

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/vault"
)

// The defaults of Options.
const (
	// DefaultMaxBody is the longest body of documents that is taken.
	DefaultMaxBody = 40 << 20
	// DefaultBodyBudget bounds the bodies that are held in memory at the same time.
	DefaultBodyBudget = 96 << 20
	// DefaultImportBatch is how many keys one change set of an import holds.
	DefaultImportBatch = 50_000
)

// Options configure a Server.
type Options struct {
	// Store is the record. Required.
	Store store.Store
	// Gateways knows the connected gateways. Nil: there are none.
	Gateways Gateways
	// Join is what join tokens tell a gateway. Nil: none can be made.
	Join *Join
	// Vault seals what the record keeps secret. Nil: gateway groups have no keys.
	Vault *vault.Vault
	// Bundles writes bundles. Nil: there are none.
	Bundles Bundles
	// Compiled returns what of the record is compiled already and at which version, to try changes upon; nil if nothing
	// is. Nil: the server compiles for itself.
	Compiled func() (store.Version, *compile.Result)
	// Log gets life events and the causes of refusals. Required.
	Log *slog.Logger
	// Registerer gets the server's metrics. Required.
	Registerer prometheus.Registerer
	// Gatherer is what /metrics shows. Required.
	Gatherer prometheus.Gatherer
	// Checks are what /readyz asks for, beside the record. May be empty.
	Checks []Check
	// Version is the version of the binary.
	Version string
	// Other answers everything outside the API, such as the console. Nil: 404.
	Other http.Handler
	// MaxBody bounds the body of an apply, in bytes. Default: DefaultMaxBody.
	MaxBody int64
	// BodyBudget bounds all such bodies together, in bytes. Default: DefaultBodyBudget, at least MaxBody.
	BodyBudget int64
	// ImportBatch is how many keys one change set of an import holds at most. It bounds the memory of an import and the
	// time that it keeps others from writing. Default: DefaultImportBatch.
	ImportBatch int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

func (o *Options) validate() error {
	switch {
	case o.Store == nil:
		return errors.New("control: Options.Store is missing")
	case o.Log == nil:
		return errors.New("control: Options.Log is missing")
	case o.Registerer == nil || o.Gatherer == nil:
		return errors.New("control: Options.Registerer and Options.Gatherer are needed")
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.BodyBudget <= 0 {
		o.BodyBudget = DefaultBodyBudget
	}
	o.BodyBudget = max(o.BodyBudget, o.MaxBody)
	if o.ImportBatch <= 0 {
		o.ImportBatch = DefaultImportBatch
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Gateways knows the gateways that are connected to this control node. internal/feed/serve implements it.
type Gateways interface {
	// WaitApplied blocks until every connected gateway of the views has acknowledged the version or a later one, or
	// until ctx ends, and returns the names of those that have not.
	WaitApplied(ctx context.Context, views []string, epoch, seq uint64) (missing []string)
	// Gateways returns what is known of those that are connected or were seen recently.
	Gateways() []serve.Status
	// Disconnect ends the calls of a gateway that was revoked.
	Disconnect(organization, name string)
}

var _ Gateways = (*serve.Server)(nil)

// Join is what join tokens tell a gateway: whom to call and by what to know the cluster.
type Join struct {
	// Root is the fingerprint of the cluster's root.
	Root keys.Fingerprint
	// Addresses are the link addresses (host:port) of control nodes. May be empty: the gateway is told otherwise.
	Addresses []string
}

// Check is one condition of readiness.
type Check struct {
	// Name is what "/readyz?verbose" shows.
	Name string
	// Run returns nil if the condition holds. It must return within a second.
	Run func(context.Context) error
}

// Server is the control API.
type Server struct {
	opts      Options
	store     store.Store
	log       *slog.Logger
	metrics   *metrics
	auth      *authenticator
	checker   *checker
	mux       *http.ServeMux
	bodies    *semaphore.Weighted // of Options.BodyBudget bytes
	writing   chan struct{}       // holds one token; whoever has it may commit
	streams   streamLimit
	ending    chan struct{} // closed when streams are to end
	endOnce   sync.Once
	panicTold atomic.Int64 // Unix seconds of the last stack that was logged
}

// New returns a control API over the record.
func New(o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opts:    o,
		store:   o.Store,
		log:     o.Log.With("component", "control"),
		metrics: newMetrics(o.Registerer),
		auth:    &authenticator{store: o.Store, now: o.Now},
		checker: &checker{store: o.Store, published: o.Compiled},
		mux:     http.NewServeMux(),
		bodies:  semaphore.NewWeighted(o.BodyBudget),
		writing: make(chan struct{}, 1),
		ending:  make(chan struct{}),
	}
	s.writing <- struct{}{}
	for _, rt := range routes() {
		s.mux.Handle(rt.pattern(), s.serve(&rt))
	}
	return s, nil
}

// HTTPServer returns a server for this API with limits and deadlines against slow and greedy clients. The caller sets
// TLSConfig and serves a listener with it. Bodies and answers have deadlines of their own, which move as long as
// bytes flow. Its Shutdown ends watches and waits, which would go on for ever, and lets other requests finish.
func (s *Server) HTTPServer() *http.Server {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.RegisterOnShutdown(func() { s.endOnce.Do(func() { close(s.ending) }) })
	return srv
}
