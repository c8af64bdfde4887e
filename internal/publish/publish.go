package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

// Feed is where checkpoints go: *serve.Server.
type Feed interface {
	Publish(snapshot.Checkpoint, *snapshot.Set) error
	PublishCredentials(snapshot.Checkpoint, *snapshot.Credentials) error
	Drop(view string)
	Advance(epoch, seq uint64)
}

// Options configure a Publisher. All fields are required but those that have a default.
type Options struct {
	// Record is watched.
	Record store.Store
	// Feed gets the checkpoints.
	Feed Feed
	// Signer returns the key to sign with now. It is asked before every round, so that keys can change.
	Signer func() (keys.Signer, error)
	// Ledger remembers over restarts what was published.
	Ledger *Ledger
	// Version is that of this program; it stands in every checkpoint.
	Version string
	// Compile tunes the compiler.
	Compile compile.Options
	// Refresh is how long a view that did not change may stay behind the version of the record. Default 1 s.
	Refresh time.Duration
	// Retry is the pause after a failure. Default 1 s.
	Retry time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o *Options) validate() error {
	if o.Record == nil || o.Feed == nil || o.Signer == nil || o.Ledger == nil || o.Logger == nil || o.Registerer == nil {
		return errors.New("publisher: Record, Feed, Signer, Ledger, Logger and Registerer are required")
	}
	if o.Refresh == 0 {
		o.Refresh = time.Second
	}
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Publisher publishes the record of one control node.
type Publisher struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics

	// The fields up to mu belong to the goroutine of work.
	result     *compile.Result
	state      store.State // that result was compiled from
	latest     store.State // that credentials are taken from: they need no compiling
	pending    changes     // not compiled yet
	compileErr error       // why not; trying the same again would be in vain
	keyID      string      // that the last round signed with

	mu        sync.Mutex // guards what follows
	published map[string]Current
	compiled  *compile.Result // what result is, for others
	version   store.Version   // of compiled
	fault     error
}

// Current is what was published last for a view: one of Set and Credentials.
type Current struct {
	Checkpoint  snapshot.Checkpoint
	Set         *snapshot.Set
	Credentials *snapshot.Credentials
}

func (c Current) content() snapshot.Content {
	if c.Credentials != nil {
		return c.Credentials
	}
	return c.Set
}

// New makes a publisher.
func New(opts Options) (*Publisher, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	p := &Publisher{
		opts: opts, log: opts.Logger.With("component", "publish"),
		published: make(map[string]Current),
	}
	var err error
	if p.metrics, err = newMetrics(opts.Registerer, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Current returns what was published last for a view; false if nothing was.
func (p *Publisher) Current(view string) (Current, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.published[view]
	return c, ok
}

// Compiled returns the newest compiled state and its version; nil if there is none yet.
func (p *Publisher) Compiled() (store.Version, *compile.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version, p.compiled
}

// Err returns why the newest version of the record is not published; nil if it is, or will be in a moment.
func (p *Publisher) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// Run publishes until ctx ends or the record is closed, and returns why.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		err := p.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, store.ErrClosed) {
			return err
		}
		p.log.WarnContext(ctx, "the watch of the record is interrupted", "err", err)
		if err := sleep(ctx, p.opts.Retry); err != nil {
			return err
		}
	}
}

// follow publishes the record as it is, and then what a watch yields.
func (p *Publisher) follow(ctx context.Context) error {
	start := p.opts.Record.State()
	in := &inbox{changes: changes{state: start, all: true}, wake: make(chan struct{}, 1)}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for cs, err := range p.opts.Record.Watch(ctx, start) {
			if err != nil {
				return err
			}
			in.add(cs)
		}
		return errors.New("the watch of the record has ended")
	})
	g.Go(func() error { return p.work(ctx, in) })
	return g.Wait()
}

// keyCheck is how often it is looked whether there is another key to sign with.
const keyCheck = time.Minute

// work publishes what is in the inbox, round by round.
func (p *Publisher) work(ctx context.Context, in *inbox) error {
	refresh := false
	for {
		p.take(in)
		begin := p.opts.Now()
		stale, err := p.round(ctx, refresh)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.metrics.roundSeconds.Observe(p.opts.Now().Sub(begin).Seconds())
		p.note(err)
		next := keyCheck
		switch {
		case err != nil:
			next = p.opts.Retry
		case stale:
			next = p.opts.Refresh
		}
		timer := time.NewTimer(next)
		select {
		case <-in.wake:
			refresh = false
		case <-timer.C:
			refresh = true
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// take adds what came to what is pending.
func (p *Publisher) take(in *inbox) {
	if news := in.take(); news.state != nil {
		p.pending.merge(news)
		p.latest, p.compileErr = news.state, nil
	}
}

// note keeps a failure for Err and the alarm, and logs it when it is new.
func (p *Publisher) note(err error) {
	p.mu.Lock()
	was := p.fault
	p.fault = err
	p.mu.Unlock()
	if err == nil {
		return
	}
	p.metrics.failures.Inc()
	if was == nil || was.Error() != err.Error() {
		p.log.Error("the record is not published, what was published before stays", "err", err)
	}
}

// round compiles what is pending and publishes the views that changed, or with refresh all that are behind. It reports
// whether views are left behind.
func (p *Publisher) round(ctx context.Context, refresh bool) (stale bool, err error) {
	compileErr := p.compile()
	if p.result == nil {
		return false, compileErr
	}
	signer, err := p.opts.Signer()
	if err != nil {
		return false, fmt.Errorf("sign with: %w", err)
	}
	resign := p.keyID != "" && signer.KeyID() != p.keyID
	out, stale, err := p.prepare(signer, refresh || resign)
	if err != nil {
		return stale, err
	}
	if err := p.opts.Ledger.admit(out); err != nil {
		if !errors.Is(err, errForked) {
			return stale, err
		}
		p.log.WarnContext(ctx, "what was published compiles to something else now, a new version is made for it", "err", err)
		return stale, p.bump(ctx) // and the watch wakes the next round
	}
	if err := p.send(out); err != nil {
		return stale, err
	}
	p.keyID = signer.KeyID()
	if compileErr == nil {
		v := p.state.Version()
		p.opts.Feed.Advance(v.Epoch, v.Seq)
	}
	return stale, compileErr
}

// compile brings result to the newest state. What cannot be compiled stays pending.
func (p *Publisher) compile() error {
	todo := p.pending
	if todo.state == nil || p.compileErr != nil {
		return p.compileErr
	}
	version := todo.state.Version()
	var next *compile.Result
	var err error
	begin := p.opts.Now()
	if todo.all || p.result == nil {
		next, err = compile.Compile(todo.state, version.Seq, p.opts.Compile)
	} else {
		next, err = p.result.Next(todo.state, version.Seq, slices.Collect(maps.Keys(todo.keys)))
	}
	p.metrics.compileSeconds.Observe(p.opts.Now().Sub(begin).Seconds())
	if err != nil {
		p.compileErr = fmt.Errorf("compile version %d.%d: %w", version.Epoch, version.Seq, err)
		return p.compileErr
	}
	p.result, p.state, p.pending = next, todo.state, changes{}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.compiled, p.version = next, version
	return nil
}

// prepare signs what is to be published: credentials first, since a key that is revoked is more urgent than anything.
func (p *Publisher) prepare(signer keys.Signer, behind bool) (out []Current, stale bool, err error) {
	add := func(view string, c Current, v store.Version) error {
		was, ok := p.Current(view)
		same := ok && was.Checkpoint.Root == c.content().Root()
		current := same && was.Checkpoint.Epoch == v.Epoch && was.Checkpoint.Seq == v.Seq
		switch {
		case current && was.Checkpoint.KeyID == signer.KeyID():
			return nil
		case same && was.Checkpoint.Epoch == v.Epoch && !behind:
			stale = true
			return nil
		}
		c.Checkpoint = snapshot.Checkpoint{
			Cluster: p.opts.Record.Cluster(), Epoch: v.Epoch, Seq: v.Seq, View: view,
			Compiler: p.opts.Version, IssuedAt: p.opts.Now(),
		}
		c.Checkpoint.Describe(c.content())
		if err := c.Checkpoint.Sign(signer.KeyID(), func(m []byte) ([]byte, error) {
			return signer.Sign(keys.PurposeCheckpoint, m)
		}); err != nil {
			return err
		}
		out = append(out, c)
		return nil
	}
	for _, organization := range p.organizations() {
		if err := add(snapshot.CredentialView(organization), Current{Credentials: p.latest.CredentialTable(organization)}, p.latest.Version()); err != nil {
			return nil, stale, err
		}
	}
	for view, set := range p.result.Views {
		if err := add(view, Current{Set: set}, p.state.Version()); err != nil {
			return nil, stale, err
		}
	}
	return out, stale, nil
}

// organizations returns those that have gateway groups, in order.
func (p *Publisher) organizations() []string {
	names := make(map[string]bool)
	for view := range p.result.Views {
		organization, _, _ := strings.Cut(view, "/")
		names[organization] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// send hands checkpoints to the feed and drops the views that are gone.
func (p *Publisher) send(out []Current) error {
	for _, c := range out {
		var err error
		if c.Credentials != nil {
			err = p.opts.Feed.PublishCredentials(c.Checkpoint, c.Credentials)
		} else {
			err = p.opts.Feed.Publish(c.Checkpoint, c.Set)
		}
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.published[c.Checkpoint.View] = c
		p.mu.Unlock()
	}
	live := make(map[string]bool)
	for _, organization := range p.organizations() {
		live[snapshot.CredentialView(organization)] = true
	}
	p.mu.Lock()
	var gone []string
	for view, c := range p.published {
		if _, ok := p.result.Views[view]; !ok && !live[view] {
			gone = append(gone, c.Checkpoint.View)
			delete(p.published, view)
		}
	}
	p.mu.Unlock()
	for _, view := range gone {
		p.opts.Feed.Drop(view)
	}
	return nil
}

// bump commits an empty change set, so that there is a version which was never published.
func (p *Publisher) bump(ctx context.Context) error {
	base := p.state.Version()
	tx, err := p.opts.Record.Begin(ctx, base)
	if err != nil {
		if errors.Is(err, store.ErrConflict) {
			return nil // somebody else was faster, which serves as well
		}
		return fmt.Errorf("begin a new version: %w", err)
	}
	defer tx.Abort()
	_, err = tx.Commit(ctx, store.Info{
		Principal: "system:publish",
		Reason:    fmt.Sprintf("version %d.%d compiles to another content with release %s than was published", base.Epoch, base.Seq, p.opts.Version),
	})
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("commit a new version: %w", err)
	}
	return nil
}

// changes is what a state has new.
type changes struct {
	state store.State
	keys  map[v1.Key]bool
	all   bool // keys does not hold everything
}

// maxKeys is how many changed resources are kept apart. Beyond that compiling everything is as fast.
const maxKeys = 100_000

func (c *changes) merge(later changes) {
	if later.state == nil {
		return
	}
	c.state, c.all = later.state, c.all || later.all
	if c.keys == nil {
		c.keys = later.keys
	} else {
		maps.Copy(c.keys, later.keys)
	}
	if len(c.keys) > maxKeys {
		c.all = true
	}
	if c.all {
		c.keys = nil
	}
}

// inbox collects what the watch yields while a round is at work.
type inbox struct {
	wake chan struct{} // size 1: something came

	mu      sync.Mutex // guards changes
	changes changes
}

func (in *inbox) add(cs store.ChangeSet) {
	news := changes{state: cs.State, keys: make(map[v1.Key]bool, len(cs.Changes))}
	for _, c := range cs.Changes {
		news.keys[c.Key] = true
	}
	in.mu.Lock()
	in.changes.merge(news)
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default: // it is awake
	}
}

func (in *inbox) take() changes {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.changes
	in.changes = changes{}
	return c
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
