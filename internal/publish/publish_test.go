package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

// recordingFeed checks what every gateway would check, and remembers everything.
type recordingFeed struct {
	t *testing.T

	mu      sync.Mutex
	wake    chan struct{}
	heads   map[string]snapshot.Checkpoint
	roots   map[string]snapshot.Hash // by view and version, over all publishers
	count   int
	dropped []string
	at      store.Version
}

func newFeed(t *testing.T) *recordingFeed {
	return &recordingFeed{t: t, wake: make(chan struct{}), heads: make(map[string]snapshot.Checkpoint), roots: make(map[string]snapshot.Hash)}
}

func (f *recordingFeed) Publish(c snapshot.Checkpoint, set *snapshot.Set) error {
	return f.publish(c, set)
}

func (f *recordingFeed) PublishCredentials(c snapshot.Checkpoint, table *snapshot.Credentials) error {
	return f.publish(c, table)
}

func (f *recordingFeed) publish(c snapshot.Checkpoint, content snapshot.Content) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := c.Matches(content); err != nil {
		f.t.Error(err)
	}
	version := fmt.Sprintf("%s %d.%d", c.View, c.Epoch, c.Seq)
	if root, ok := f.roots[version]; ok && root != c.Root {
		f.t.Errorf("%s was published with two roots", version)
	}
	if was, ok := f.heads[c.View]; ok && c.Compare(was) < 0 {
		f.t.Errorf("%s came after %d.%d", version, was.Epoch, was.Seq)
	}
	f.roots[version] = c.Root
	f.heads[c.View] = c
	f.count++
	f.notifyLocked()
	return nil
}

func (f *recordingFeed) Drop(view string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped = append(f.dropped, view)
	delete(f.heads, view)
	f.notifyLocked()
}

func (f *recordingFeed) Advance(epoch, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = store.Version{Epoch: epoch, Seq: seq}
	f.notifyLocked()
}

func (f *recordingFeed) notifyLocked() {
	close(f.wake)
	f.wake = make(chan struct{})
}

func (f *recordingFeed) head(view string) snapshot.Checkpoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heads[view]
}

func (f *recordingFeed) wait(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		f.mu.Lock()
		good, wake := ok(), f.wake
		f.mu.Unlock()
		if good {
			return
		}
		select {
		case <-wake:
		case <-deadline:
			f.t.Fatalf("waited in vain for %s; at %v, heads %v", what, f.at, f.heads)
		}
	}
}

// waitFor waits until everything up to a version is published.
func (f *recordingFeed) waitFor(v store.Version) {
	f.t.Helper()
	f.wait(fmt.Sprintf("version %v", v), func() bool { return !f.at.Before(v) })
}

type rig struct {
	t      *testing.T
	dir    string
	record *etcd.Store
	feed   *recordingFeed
	key    *keys.SigningKey
	mu     sync.Mutex // key
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), feed: newFeed(t)}
	var err error
	if r.record, err = etcd.Open(t.Context(), etcd.Options{Dir: filepath.Join(r.dir, "record")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.record.Close(); err != nil {
			t.Error(err)
		}
	})
	r.setKey()
	return r
}

func (r *rig) setKey() {
	r.t.Helper()
	key, err := keys.GenerateSigningKey()
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.key = key
	r.mu.Unlock()
}

// start runs a publisher; the function that it returns stops it.
func (r *rig) start() (*Publisher, func()) {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	ledger, err := OpenLedger(filepath.Join(r.dir, "ledger.json"), log)
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := New(Options{
		Record: r.record, Feed: r.feed, Ledger: ledger, Version: "test",
		Signer: func() (keys.Signer, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.key == nil {
				return nil, keys.ErrNoSigningKey
			}
			return r.key, nil
		},
		Refresh: 50 * time.Millisecond, Retry: 10 * time.Millisecond,
		Logger: log, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			r.t.Errorf("Run = %v, want context.Canceled", err)
		}
	})
	r.t.Cleanup(stop)
	return p, stop
}

func object(kind v1.Kind, name string, spec v1.Spec) *v1.Object {
	return &v1.Object{APIVersion: v1.APIVersion, Kind: kind, Metadata: v1.Metadata{Name: name, Organization: "acme"}, Spec: spec}
}

func (r *rig) put(objects ...*v1.Object) store.Version {
	r.t.Helper()
	return storetest.Commit(r.t, r.record, func(ctx context.Context, tx store.Tx) error {
		for _, o := range objects {
			if err := tx.Put(ctx, o); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *rig) putCredential(i int) store.Version {
	r.t.Helper()
	return storetest.Commit(r.t, r.record, func(ctx context.Context, tx store.Tx) error {
		return tx.PutCredential(ctx, snapshot.Credential{Hash: snapshot.HashCredential(fmt.Append(nil, i)), ID: fmt.Sprint(i), Organization: "acme"})
	})
}

// world has two gateway groups of one environment each.
func (r *rig) world() store.Version {
	return r.put(
		&v1.Object{APIVersion: v1.APIVersion, Kind: v1.KindOrganization, Metadata: v1.Metadata{Name: "acme"}, Spec: &v1.OrganizationSpec{}},
		object(v1.KindSite, "s", &v1.SiteSpec{Cloud: "aws", Region: "eu-west-1"}),
		object(v1.KindGatewayGroup, "eu", &v1.GatewayGroupSpec{Site: "s"}),
		object(v1.KindGatewayGroup, "us", &v1.GatewayGroupSpec{Site: "s"}),
		object(v1.KindEnvironment, "prod", &v1.EnvironmentSpec{Placements: []v1.Placement{{GatewayGroup: "eu"}}}),
		object(v1.KindEnvironment, "test", &v1.EnvironmentSpec{Placements: []v1.Placement{{GatewayGroup: "us"}}}),
		hosts("public", "prod", "a.example.com"),
		hosts("internal", "test", "b.example.com"),
	)
}

func hosts(name, environment string, hostnames ...string) *v1.Object {
	return object(v1.KindEnvironmentGroup, name, &v1.EnvironmentGroupSpec{Hostnames: hostnames, Environments: []string{environment}})
}

func TestPublishesTheRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.world()
	v := r.putCredential(1)
	p, stop := r.start()
	r.feed.waitFor(v)
	r.feed.wait("two groups and the credentials", func() bool { return len(r.feed.heads) == 3 })
	eu, us := r.feed.head("acme/eu"), r.feed.head("acme/us")

	v = r.put(hosts("public", "prod", "c.example.com"))
	r.feed.waitFor(v)
	if now := r.feed.head("acme/eu"); now.Seq != v.Seq || now.Root == eu.Root || now.Cluster != r.record.Cluster() {
		t.Errorf("the changed view is at %+v", now)
	}
	// The other view is told the new version a little later, with the same content.
	r.feed.wait("the refresh", func() bool { return r.feed.heads["acme/us"].Seq == v.Seq })
	if now := r.feed.head("acme/us"); now.Root != us.Root {
		t.Errorf("the root of the other view changed from %v to %v", us.Root, now.Root)
	}
	if c, ok := p.Current("acme/eu"); !ok || c.Set == nil || c.Checkpoint.Root != c.Set.Root() {
		t.Errorf("Current = %+v, %v", c, ok)
	}

	v = r.putCredential(2)
	r.feed.waitFor(v)
	if c, ok := p.Current(snapshot.CredentialView("acme")); !ok || c.Credentials.Len() != 2 || c.Checkpoint.Seq != v.Seq {
		t.Errorf("Current of the credentials = %+v, %v", c.Checkpoint, ok)
	}

	// A group that is removed takes its view along.
	v = storetest.Commit(t, r.record, func(ctx context.Context, tx store.Tx) error {
		return errors.Join(tx.Put(ctx, object(v1.KindEnvironment, "test", &v1.EnvironmentSpec{})),
			tx.Delete(ctx, v1.Key{Organization: "acme", Kind: v1.KindGatewayGroup, Name: "us"}))
	})
	r.feed.waitFor(v)
	if len(r.feed.dropped) != 1 || r.feed.dropped[0] != "acme/us" {
		t.Errorf("dropped %v, want acme/us", r.feed.dropped)
	}
	stop()

	// Started anew it publishes the same again, and what came meanwhile.
	v = r.put(hosts("public", "prod", "d.example.com"))
	r.start()
	r.feed.waitFor(v)
}

// TestBurst: many change sets lead to the last one, without one round for each.
func TestBurst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.feed.waitFor(store.Version{})
	r.world()
	r.start()
	var v store.Version
	for i := range 100 {
		v = r.put(hosts("public", "prod", fmt.Sprintf("h%d.example.com", i)))
	}
	r.feed.waitFor(v)
	if head := r.feed.head("acme/eu"); head.Seq != v.Seq {
		t.Errorf("the head is %d, want %d", head.Seq, v.Seq)
	}
}

// TestNewCompiler simulates a release that compiles a published version to something else.
func TestNewCompiler(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.world()
	_, stop := r.start()
	r.feed.waitFor(v)
	stop()
	path := filepath.Join(r.dir, "ledger.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head := r.feed.head("acme/eu")
	other := head.Root
	other[0]++
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), head.Root.String(), other.String(), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	before := r.feed.count
	p, _ := r.start()
	r.feed.waitFor(store.Version{Epoch: v.Epoch, Seq: v.Seq + 1})
	if now := r.feed.head("acme/eu"); now.Seq <= head.Seq {
		t.Errorf("published as %d, after %d with another root", now.Seq, head.Seq)
	}
	if r.feed.count == before || p.Err() != nil {
		t.Errorf("%d checkpoints, error %v", r.feed.count-before, p.Err())
	}
}

// TestOlderRecord simulates a record that was replaced by an old copy without raising the epoch.
func TestOlderRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.world()
	_, stop := r.start()
	r.feed.waitFor(v)
	stop()
	path := filepath.Join(r.dir, "ledger.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.ReplaceAll(string(b), fmt.Sprintf(`"seq":%d`, v.Seq), `"seq":900`)
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	count := r.feed.count
	p, _ := r.start()
	waitErr(t, p, errOlder)
	if r.feed.count != count {
		t.Error("an older version was published")
	}
}

func waitErr(t *testing.T, p *Publisher, want error) {
	t.Helper()
	waitFault(t, p, want, func(err error) bool { return errors.Is(err, want) })
}

// waitFault waits until Err is what is wanted: a round publishes before it tells of its fault.
func waitFault(t *testing.T, p *Publisher, want any, is func(error) bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is(p.Err()) {
		if time.Now().After(deadline) {
			t.Fatalf("Err = %v, want %v", p.Err(), want)
		}
		<-time.After(time.Millisecond)
	}
}

// TestStateThatDoesNotCompile: the views stay, keys are revoked all the same, and the next good change set heals it.
func TestStateThatDoesNotCompile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.world()
	p, _ := r.start()
	r.feed.waitFor(v)
	eu := r.feed.head("acme/eu")
	r.put(hosts("public", "no-such-environment", "a.example.com"))
	v = r.putCredential(1)
	r.feed.wait("the credentials", func() bool { return r.feed.heads[snapshot.CredentialView("acme")].Seq == v.Seq })
	waitFault(t, p, "compile", func(err error) bool { return err != nil && strings.Contains(err.Error(), "compile") })
	if now := r.feed.head("acme/eu"); now.Root != eu.Root {
		t.Error("a state that does not compile changed a view")
	}
	v = r.put(hosts("public", "prod", "z.example.com"))
	r.feed.waitFor(v)
	waitErr(t, p, nil)
	if now := r.feed.head("acme/eu"); now.Root == eu.Root || now.Seq != v.Seq {
		t.Errorf("after the repair the view is at %d", now.Seq)
	}
}

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := r.key
	r.mu.Lock()
	r.key = nil
	r.mu.Unlock()
	v := r.world()
	p, _ := r.start()
	waitErr(t, p, keys.ErrNoSigningKey)
	r.mu.Lock()
	r.key = good
	r.mu.Unlock()
	r.feed.waitFor(v)
	if r.feed.head("acme/us").KeyID != good.KeyID() {
		t.Error("signed with another key")
	}
	// Another key signs everything anew, also what did not change.
	r.setKey()
	r.put(hosts("public", "prod", "k.example.com"))
	r.feed.wait("another signature", func() bool { return r.feed.heads["acme/us"].KeyID == r.key.KeyID() })
}
