// Package etcd keeps the record in an embedded etcd: it implements store.Store.
//
// The record is one log. Under the key "head" stands the version of the last change set and the hash of its record;
// "change/<seq>" holds the small record of each change set, with the hash of the one before it; "piece/<sha256>" a
// run of the changes themselves, compressed and named by its digest; "image" the list of the pieces that hold the
// whole content at one version, so that start-up reads that and the few change sets after it; "meta" the identity
// of the cluster.
//
// A change set is staged as pieces, which nobody sees, and becomes visible by one transaction that compares the head
// and moves it. Every store, also the one that committed, learns of a change set in the same way: it watches the
// head, reads the record and the pieces, checks hashes and chain, and derives the next content. What it read is held
// in memory; reading the state asks etcd nothing.
//
// A [Store] is safe for any number of goroutines, and any number of stores live in one process, on directories of
// their own. No network port is opened. The package is used by app and by the commands backup and restore.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
)

// Options say where the record is and how it behaves. Only Dir is needed.
type Options struct {
	// Dir is the directory of the record; it is made if it is missing.
	Dir string
	// Logger gets what the store and its etcd have to say. Default: nothing is logged.
	Logger *slog.Logger
	// Registerer gets the metrics. Default: none are registered.
	Registerer prometheus.Registerer
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Quota is how large etcd's database may become, in bytes. Default: 8 GiB, which is also etcd's advice for the
	// most.
	Quota int64
	// Reserve is how many bytes of the disk are left alone: with less free than that, change sets are refused with
	// ErrStorageFull while etcd, which cannot survive a failed write, goes on. Default: 128 MiB, two of the segments
	// that etcd allocates ahead. Negative: no reserve.
	Reserve int64

	wrap func(clientv3.KV) clientv3.KV // lets tests lose requests and answers
}

func (o *Options) setDefaults() error {
	if o.Dir == "" {
		return errors.New("the record needs a directory: Options.Dir is empty")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("component", "store")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Quota == 0 {
		o.Quota = 8 << 30
	}
	if o.Reserve == 0 {
		o.Reserve = 128 << 20
	}
	return nil
}

// Store is the record on one node.
type Store struct {
	opts    Options
	log     *slog.Logger
	lock    *os.File
	server  *server
	client  *clientv3.Client
	pieces  *codec
	metrics *metrics
	cluster string
	origin  headRecord // the head of the empty record
	state   atomic.Pointer[view]
	staged  stagedPieces

	cancel context.CancelFunc // stops the goroutines
	done   chan struct{}      // closed when the state follows the record no longer
	wait   sync.WaitGroup     // for the goroutines

	commitTimeout time.Duration // defaultCommitTimeout, except in tests

	kick        chan struct{} // wakes maintenance
	maintenance sync.Mutex    // held by maintenance; guards image
	image       image

	dead     atomic.Bool   // etcd gave up
	failed   chan struct{} // closed once err is set
	failOnce sync.Once
	err      error // why the record can no longer be written; read only after failed is closed

	gate   sync.RWMutex // held by users of etcd; guards closed
	closed bool

	mu      sync.Mutex        // guards what follows
	recent  []store.ChangeSet // the last change sets, oldest first
	weights []int64           // the bytes that each keeps in memory: of its changes, and of what the next one replaced
	weight  int64             // their sum
	changed chan struct{}     // closed and replaced when recent grows

	sinceImage struct { // what came after the last image
		changes int
		bytes   int64
	}
}

var _ store.Store = (*Store)(nil)

// Open starts the record in a directory, which it makes and fills if it is empty. It fails if another process has
// the directory open, and with ErrCorrupt if what it finds does not fit together.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, opts.Dir)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, opts)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open record in %s: %w", opts.Dir, err)
	}
	s.lock = lock
	return s, nil
}

func open(ctx context.Context, opts Options) (_ *Store, err error) {
	s := &Store{
		opts:   opts,
		log:    opts.Logger,
		failed: make(chan struct{}),

		commitTimeout: defaultCommitTimeout,
		done:          make(chan struct{}),
		kick:          make(chan struct{}, 1),
		changed:       make(chan struct{}),
	}
	if s.pieces, err = newCodec(); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(opts.Registerer, s); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.metrics.unregister()
		}
	}()
	if err := create(ctx, opts); err != nil {
		return nil, err
	}
	if s.server, err = startServer(ctx, serverOptions{
		dir:    filepath.Join(opts.Dir, etcdDir),
		quota:  opts.Quota,
		logger: s.log,
		onDeath: func(err error) {
			s.dead.Store(true)
			if errors.Is(err, syscall.ENOSPC) {
				err = fmt.Errorf("%w: %w", store.ErrStorageFull, err)
			}
			s.fail(fmt.Errorf("etcd gave up: %w", err))
		},
	}); err != nil {
		return nil, err
	}
	s.client = s.server.client
	if opts.wrap != nil {
		s.client.KV = opts.wrap(s.client.KV)
	}
	begin := time.Now()
	rev, err := s.load(ctx)
	if err != nil {
		s.server.stop()
		return nil, err
	}
	st := s.state.Load()
	s.log.InfoContext(ctx, "record is open", "cluster", s.cluster, "epoch", st.Version().Epoch, "seq", st.Version().Seq,
		"resources", st.Len(), "credentials", st.NumCredentials(), "took", time.Since(begin))

	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.wait.Go(func() { s.follow(run, rev) })
	s.wait.Go(func() { s.maintain(run) })
	return s, nil
}

// Close stops the record and waits until everything that it started has ended. If etcd itself gave up, its parts may
// hang for ever: then Close leaves them and the lock on the directory behind, and the process ought to end. Close
// returns why the record failed, if it did.
func (s *Store) Close() error {
	if s.dead.Load() {
		s.cancel()
		s.metrics.unregister()
		return s.Err()
	}
	s.gate.Lock()
	was := s.closed
	s.closed = true
	s.gate.Unlock()
	if was {
		return s.Err()
	}
	s.cancel()
	s.wait.Wait()
	s.server.stop()
	s.metrics.unregister()
	return errors.Join(s.Err(), s.lock.Close())
}

// Failed is closed when the record can no longer be written or followed, because the disk or what is on it is bad.
// Err says why. State still answers, but it no longer changes; the process ought to end.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err returns why the record failed, an error that is store.ErrFailed; nil if it did not.
func (s *Store) Err() error {
	select {
	case <-s.failed:
		return s.err
	default:
		return nil
	}
}

// fail makes the record refuse everything from now on.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.err = fmt.Errorf("%w: %w", store.ErrFailed, err)
		close(s.failed)
		s.log.Error("record has failed", "err", err)
	})
}

// Cluster implements store.Store.
func (s *Store) Cluster() string { return s.cluster }

// State implements store.Store.
func (s *Store) State() store.State { return s.state.Load() }
