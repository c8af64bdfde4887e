package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/localstore"
	"hansa.dev/hansa/internal/snapshot"
)

// Sink is what runs from the content: the gateway. Each method returns when the content is in force. An error leaves
// what was in force before; a *snapshot.Refusal in its chain tells the control node what is to blame. Calls of one
// method do not overlap; those of different methods may.
type Sink interface {
	// Apply takes a whole configuration and the keys under which it differs from the one before.
	Apply(ctx context.Context, c snapshot.Checkpoint, set *snapshot.Set, changed []string) error
	// ApplyCredentials takes a whole table of credentials.
	ApplyCredentials(ctx context.Context, c snapshot.Checkpoint, table *snapshot.Credentials) error
}

// Connections are the connections of the gateway to a control node, one for each class of traffic.
type Connections struct {
	Control, Events, Bulk grpc.ClientConnInterface
}

// Options configure a Fetcher. All fields are required but those that have a default.
type Options struct {
	// Cluster, Organization and Group say what the gateway follows.
	Cluster, Organization, Group string
	// Role, Version and Abilities tell the control node about the gateway. Role: "gateway" by default.
	Role, Version string
	Abilities     []string

	// Verify checks the signature of a checkpoint, and that its epoch is one that the root allows. Held says that it
	// was accepted before and is now read from the disk, so that a key that has expired since is fine.
	Verify func(c snapshot.Checkpoint, held bool) error
	// Learn takes the trust document that a control node hands out. It keeps what it has if the new one is not signed
	// by the root, and says so.
	Learn func(trust []byte) error
	// Disk is where the content survives a restart.
	Disk *localstore.Store
	// Sink runs from the content.
	Sink Sink

	// WelcomeTimeout is how long a control node may take to answer. Default 5 min: several of the longest round trips.
	WelcomeTimeout time.Duration
	// Retry bounds the pause after a failure: it begins at RetryMin (default 200 ms) and doubles up to RetryMax
	// (default 5 s), each time a random part of it.
	RetryMin, RetryMax time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o *Options) validate() error {
	if o.Cluster == "" || o.Organization == "" || o.Group == "" {
		return errors.New("feed follower: Cluster, Organization and Group are required")
	}
	if o.Verify == nil || o.Learn == nil || o.Sink == nil || o.Logger == nil || o.Registerer == nil {
		return errors.New("feed follower: Verify, Learn, Sink, Logger and Registerer are required")
	}
	def(&o.Role, "gateway")
	def(&o.WelcomeTimeout, 5*time.Minute)
	def(&o.RetryMin, 200*time.Millisecond)
	def(&o.RetryMax, 5*time.Second)
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

// Fetcher keeps the two views of one gateway current.
type Fetcher struct {
	config      *follower[*snapshot.Set]
	credentials *follower[*snapshot.Credentials]
}

// credentialShards is the name of the credentials on the disk.
const credentialShards = "credentials"

// New makes a Fetcher. It does nothing until LoadLocal, Offer or Run is called.
func New(opts Options) (*Fetcher, error) {
	if opts.Disk == nil {
		return nil, errors.New("feed follower: Disk is required")
	}
	shards, err := opts.Disk.Shards(credentialShards)
	if err != nil {
		return nil, fmt.Errorf("feed follower: %w", err)
	}
	return newFetcher(opts, opts.Disk, shards)
}

func newFetcher(opts Options, disk generations, shards shards) (*Fetcher, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	codec, err := wire.NewCodec()
	if err != nil {
		return nil, err
	}
	shared := &shared{
		opts:  opts,
		codec: codec,
		log:   opts.Logger.With("component", "feed.fetch"),
		hello: &linkv1.Hello{
			Protocols: []uint32{wire.Protocol}, Version: opts.Version, Reader: snapshot.ReaderVersion,
			Abilities: opts.Abilities, Role: opts.Role, Incarnation: incarnation(),
		},
		withCredentials: make(chan struct{}),
	}
	f := &Fetcher{
		config: newFollower[*snapshot.Set](shared, &configKind{
			sink: opts.Sink, view: snapshot.ConfigView(opts.Organization, opts.Group),
			disk: configDisk{store: disk, codec: codec, now: opts.Now},
		}),
		credentials: newFollower[*snapshot.Credentials](shared, &credentialKind{
			sink: opts.Sink, view: snapshot.CredentialView(opts.Organization),
			disk: credentialDisk{store: shards, codec: codec},
		}),
	}
	f.credentials.applied = func() { shared.once.Do(func() { close(shared.withCredentials) }) }
	// A gateway that never had any credentials would refuse every key, so its first configuration waits for them.
	f.config.before = func(ctx context.Context) error {
		select {
		case <-shared.withCredentials:
			return nil
		default:
		}
		shared.log.InfoContext(ctx, "the first configuration waits for the credentials")
		select {
		case <-shared.withCredentials:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := registerMetrics(opts.Registerer, f); err != nil {
		return nil, err
	}
	return f, nil
}

// LoadLocal hands the newest good content of the disk to the sink: the credentials first, so that no key is refused for
// want of them. It is no error if there is nothing, or nothing that can be used; Status tells. The error is that of ctx.
func (f *Fetcher) LoadLocal(ctx context.Context) error {
	f.credentials.load(ctx)
	f.config.load(ctx)
	return ctx.Err()
}

// Offer gives content that came another way than over the link, such as from a bundle. It is checked, persisted and
// applied like any other. What is not newer than what the gateway has is passed over without an error: a bundle stays
// in place for the next start.
func (f *Fetcher) Offer(ctx context.Context, c snapshot.Checkpoint, set *snapshot.Set, cc snapshot.Checkpoint, table *snapshot.Credentials) error {
	if err := f.credentials.offer(ctx, cc, table); err != nil {
		return fmt.Errorf("take credentials: %w", err)
	}
	if err := f.config.offer(ctx, c, set); err != nil {
		return fmt.Errorf("take configuration: %w", err)
	}
	return nil
}

// Run follows a control node until ctx ends, and returns its error. It reconnects and retries by itself.
func (f *Fetcher) Run(ctx context.Context, conns Connections) error {
	g, ctx := errgroup.WithContext(ctx)
	bulk := linkv1.NewBulkClient(conns.Bulk)
	g.Go(func() error {
		client := linkv1.NewFeedClient(conns.Control)
		return f.config.run(ctx, client.Follow, bulk)
	})
	g.Go(func() error {
		client := linkv1.NewEventsClient(conns.Events)
		return f.credentials.run(ctx, client.FollowCredentials, bulk)
	})
	return g.Wait()
}

// Status is what the gateway knows of its own content.
type Status struct {
	Configuration, Credentials ViewStatus
}

// ViewStatus is the state of one view.
type ViewStatus struct {
	// Have tells whether there is any content; the rest of the first group speaks of it.
	Have       bool
	Epoch, Seq uint64
	Root       snapshot.Hash
	Count      uint32
	IssuedAt   time.Time
	// Generation is the number of the content on the disk (of credentials: 1); 0: it is not there.
	Generation uint64
	// Link tells whether a control node answers.
	Link bool
	// Confirmed is up to when the content is known to be the newest, as long as Link is false; zero: never since the
	// start.
	Confirmed time.Time
	// Frozen: two contents of one version were seen, nothing is taken any more.
	Frozen bool
	// Degraded is what does not work as it should; empty: nothing.
	Degraded string
	// Refusal is why the newest version that was offered is not in force; nil: it is.
	Refusal *snapshot.Refusal

	checkpoint snapshot.Checkpoint // of what is in force
}

// Status returns the state of both views.
func (f *Fetcher) Status() Status {
	return Status{Configuration: f.config.snapshotStatus(), Credentials: f.credentials.snapshotStatus()}
}

// LinkConnections returns the connections of a link.
func LinkConnections(l *link.Link) Connections {
	return Connections{Control: l.Conn(link.Control), Events: l.Conn(link.Events), Bulk: l.Conn(link.Bulk)}
}
