package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// Peer is the gateway at the other end of a call, as its certificate names it.
type Peer struct {
	Name         string
	Organization string
	Group        string
}

// Options configure a Server.
type Options struct {
	// Peer tells who calls; its error refuses the call. Required.
	Peer func(context.Context) (Peer, error)
	// Window bounds how far back changes can be sent instead of comparing. Zero fields have the defaults.
	Window Window
	// StateInterval is how often gateways are to report. Default 30 s.
	StateInterval time.Duration
	// IdleTimeout ends a call whose other end neither sends what it should nor takes what it is sent. It must be
	// larger than any round trip. Default 10 min.
	IdleTimeout time.Duration
	// Logger gets the rare events. Required.
	Logger *slog.Logger
	// Registerer gets the metrics. Required.
	Registerer prometheus.Registerer
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Window bounds the memory of what changed. For each view the oldest changes are forgotten when any bound is passed.
type Window struct {
	Age     time.Duration // default 7 days
	Changes int           // changed keys; default 65,536
	Bytes   int           // of the keys; default 256 MB
}

func (o *Options) validate() error {
	if o.Peer == nil || o.Logger == nil || o.Registerer == nil {
		return errors.New("feed server: Peer, Logger and Registerer are required")
	}
	def(&o.Window.Age, 7*24*time.Hour)
	def(&o.Window.Changes, 1<<16)
	def(&o.Window.Bytes, 256<<20)
	def(&o.StateInterval, 30*time.Second)
	def(&o.IdleTimeout, 10*time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// What Publish refuses.
var (
	// ErrOlder: a newer version of the view was published already.
	ErrOlder = errors.New("older than what was published")
	// ErrForked: another content was published for the same version.
	ErrForked = errors.New("another content was published for this version")
)

// Server is the feed of one control node.
type Server struct {
	linkv1.UnimplementedFeedServer
	linkv1.UnimplementedEventsServer
	linkv1.UnimplementedBulkServer

	opts    Options
	log     *slog.Logger
	codec   *wire.Codec
	metrics *metrics
	closed  chan struct{}
	workers sync.WaitGroup // of calls

	mu       sync.Mutex // views, trust, gateways, advanced, changed, closing
	views    map[string]*view
	trust    *trust
	gateways map[gatewayID]*gateway
	advanced version
	changed  chan struct{} // closed and replaced when anything changes that WaitApplied looks at
	closing  bool
}

// version is a state of the record.
type version struct{ epoch, seq uint64 }

func (v version) before(w version) bool {
	return v.epoch < w.epoch || v.epoch == w.epoch && v.seq < w.seq
}

// trust is a trust document, and a channel that is closed when another one takes its place.
type trust struct {
	encoded []byte
	next    chan struct{}
}

// New makes a server. It serves when Register was called, and must be closed.
func New(opts Options) (*Server, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts:     opts,
		log:      opts.Logger.With("component", "feed.serve"),
		codec:    codec,
		closed:   make(chan struct{}),
		views:    make(map[string]*view),
		trust:    &trust{next: make(chan struct{})},
		gateways: make(map[gatewayID]*gateway),
		changed:  make(chan struct{}),
	}
	if s.metrics, err = newMetrics(opts.Registerer, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Register adds the services of the feed to a gRPC server. Messages go up to wire.MaxMessageBytes downwards; upwards
// the default of gRPC is enough.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	linkv1.RegisterFeedServer(r, s)
	linkv1.RegisterEventsServer(r, s)
	linkv1.RegisterBulkServer(r, s)
}

// Publish makes set the newest content of the view that the checkpoint names and starts to send it. The error is
// ErrOlder or ErrForked, or says that the checkpoint does not fit the set; nothing is sent then. Publishing the same
// again does nothing, unless another key has signed it: then that checkpoint takes the place of the other.
func (s *Server) Publish(c snapshot.Checkpoint, set *snapshot.Set) error {
	return s.publish(c, configSource{set})
}

// PublishCredentials is Publish for the credentials of an organization.
func (s *Server) PublishCredentials(c snapshot.Checkpoint, table *snapshot.Credentials) error {
	return s.publish(c, credentialSource{table})
}

func (s *Server) publish(c snapshot.Checkpoint, content source) error {
	if err := c.Matches(content); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	v := s.view(c.View)
	if err := v.publish(c, content, s.opts.Now()); err != nil {
		return fmt.Errorf("publish %d.%d of %q: %w", c.Epoch, c.Seq, c.View, err)
	}
	s.metrics.headSeq.WithLabelValues(c.View).Set(float64(c.Seq))
	s.notify()
	return nil
}

// Drop forgets a view whose group or organization is gone. Its followers keep what they have.
func (s *Server) Drop(viewName string) {
	s.mu.Lock()
	v := s.views[viewName]
	delete(s.views, viewName)
	s.mu.Unlock()
	if v == nil {
		return
	}
	v.drop()
	s.metrics.headSeq.DeleteLabelValues(viewName)
	s.notify()
}

// Advance says that everything that the record holds up to that version is published: the views that did not change
// since are up to date as they are.
func (s *Server) Advance(epoch, seq uint64) {
	s.mu.Lock()
	if v := (version{epoch, seq}); s.advanced.before(v) {
		s.advanced = v
	}
	s.mu.Unlock()
	s.notify()
}

// SetTrust sets the trust document (keys.Trust.Encoded) that followers are given, and sends it to those that are
// connected.
func (s *Server) SetTrust(encoded []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Equal(encoded, s.trust.encoded) {
		return
	}
	close(s.trust.next)
	s.trust = &trust{encoded: encoded, next: make(chan struct{})}
}

// Close ends all calls and waits for them.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.closed)
	}
	s.mu.Unlock()
	s.workers.Wait()
}

// enter counts a call that Close has to wait for; it reports false if the server is closing.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.workers.Add(1)
	return true
}

// view returns the view of that name, which may have no content yet.
func (s *Server) view(name string) *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[name]
	if v == nil {
		v = newView(name, s.opts.Window)
		s.views[name] = v
	}
	return v
}

func (s *Server) currentTrust() *trust {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trust
}

// notify wakes WaitApplied.
func (s *Server) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notifyLocked()
}

func (s *Server) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}
