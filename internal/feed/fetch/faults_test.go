package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/localstore"
	"hansa.dev/hansa/internal/snapshot"
)

func TestRestartWithoutControl(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials(credentials(0, 500)...)
	c.change(apis(t, 0, 100, "/a"))
	dir := t.TempDir()
	g := newGateway(t, a, dir)
	g.run(c.addr)
	for i := range 30 {
		c.change(apis(t, i, i+1, "/b"), fmt.Sprintf("api/acme/prod/api-%05d", 99-i))
		c.changeCredentials(append(credentials(500+i, 501+i), snapshot.CredentialChange{Credential: credential(i), Remove: true})...)
	}
	cp, ccp := c.change(apis(t, 0, 1, "/last")), c.changeCredentials(credentials(900, 901)...)
	g.sink.waitFor(t, cp)
	g.sink.waitFor(t, ccp)
	g.stop()
	c.stop()

	again := newGateway(t, a, dir)
	if again.sink.cp.Root != cp.Root || again.sink.set.Root() != cp.Root || again.sink.ccp.Root != ccp.Root || again.sink.table.Root() != ccp.Root {
		t.Errorf("after the restart: %d.%d and %d.%d, want %d and %d", again.sink.cp.Epoch, again.sink.cp.Seq, again.sink.ccp.Epoch, again.sink.ccp.Seq, cp.Seq, ccp.Seq)
	}
	if st := again.fetcher.Status(); st.Configuration.Degraded != "" || st.Credentials.Degraded != "" || st.Configuration.Link {
		t.Errorf("status %+v", st)
	}
}

// TestOffer starts a gateway from content that came as a file.
func TestOffer(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	set := snapshot.NewSet().With(apis(t, 0, 10, "/a"), nil)
	table := snapshot.NewCredentials().With(credentials(0, 10))
	cp := a.sign(t, snapshot.ConfigView(testOrg, testGroup), 1, 5, set)
	ccp := a.sign(t, snapshot.CredentialView(testOrg), 1, 4, table)
	dir := t.TempDir()
	g := newGateway(t, a, dir)
	if err := g.fetcher.Offer(t.Context(), cp, set, ccp, table); err != nil {
		t.Fatal(err)
	}
	if g.sink.set.Root() != cp.Root || g.sink.table.Root() != ccp.Root {
		t.Error("what was offered is not in force")
	}
	older := a.sign(t, snapshot.ConfigView(testOrg, testGroup), 1, 4, snapshot.NewSet())
	if err := g.fetcher.Offer(t.Context(), older, snapshot.NewSet(), ccp, table); err != nil || g.sink.cp.Seq != 5 {
		t.Errorf("an older offer: error %v, serves %d", err, g.sink.cp.Seq)
	}
	unknown := newAuthority(t).sign(t, snapshot.ConfigView(testOrg, testGroup), 1, 3, set)
	if err := g.fetcher.Offer(t.Context(), unknown, set, ccp, table); err != nil || g.sink.cp.Seq != 5 {
		t.Errorf("an older offer, signed with a key that has gone: error %v, serves %d", err, g.sink.cp.Seq)
	}
	forged := newAuthority(t).sign(t, snapshot.ConfigView(testOrg, testGroup), 1, 6, set)
	if err := g.fetcher.Offer(t.Context(), forged, set, ccp, table); err == nil {
		t.Error("a forged offer is taken")
	}
	g.stop()
	if again := newGateway(t, a, dir); again.sink.cp.Seq != 5 || again.sink.table.Len() != 10 {
		t.Error("what was offered does not survive a restart")
	}
}

// TestFirstConfigurationWaitsForCredentials: a gateway that has configuration but no credentials would refuse all keys.
func TestFirstConfigurationWaitsForCredentials(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.change(apis(t, 0, 3, "/a"))
	g := newGateway(t, a, t.TempDir())
	g.run(c.addr)
	poll(t, "the configuration to arrive", func() bool { return g.fetcher.config.bytes("head") > 0 })
	if g.fetcher.Status().Configuration.Have {
		t.Error("the configuration is in force without credentials")
	}
	c.changeCredentials()
	g.sink.wait(t, "the configuration", func(s *memorySink) bool { return s.set.Len() == 3 })
}

// fullDisk is a disk that can run full.
type fullDisk struct {
	*localstore.Store
	full   atomic.Bool
	failed atomic.Int64
}

func (d *fullDisk) SaveGeneration(m localstore.Meta, write func(io.Writer) error) (uint64, error) {
	if d.full.Load() {
		d.failed.Add(1)
		return 0, localstore.ErrFull
	}
	return d.Store.SaveGeneration(m, write)
}

func (d *fullDisk) AppendDelta(n uint64, m localstore.Meta, b []byte) (int64, error) {
	if d.full.Load() {
		d.failed.Add(1)
		return 0, localstore.ErrFull
	}
	return d.Store.AppendDelta(n, m, b)
}

func TestFullDiskStopsNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{StateInterval: time.Second})
	c.changeCredentials()
	disk := &fullDisk{Store: openDisk(t, t.TempDir())}
	defer disk.Close()
	credentials, err := disk.Shards(credentialShards)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{tb: t, sink: newMemorySink(), registry: prometheus.NewRegistry(), name: "gw-1", stop: func() {}}
	if g.fetcher, err = newFetcher(testOptions(a, g.sink, g.registry), disk, credentials); err != nil {
		t.Fatal(err)
	}
	stop := g.run(c.addr)
	defer stop()
	g.sink.waitFor(t, c.change(apis(t, 0, 10, "/a")))
	disk.full.Store(true)
	for i := range 5 {
		g.sink.waitFor(t, c.change(apis(t, i, i+1, "/b")))
	}
	if st := g.fetcher.Status().Configuration; st.Degraded == "" || st.Generation != 0 || st.Refusal != nil {
		t.Errorf("status with a full disk: %+v", st)
	}
	poll(t, "the control node to know", func() bool { return c.server.Gateways()[0].Degraded != "" })
	disk.full.Store(false)
	poll(t, "the disk to be written again", func() bool { return g.fetcher.Status().Configuration.Degraded == "" })
	stop()
	var got snapshot.Checkpoint
	again := configDisk{store: disk, codec: g.fetcher.config.codec, now: time.Now}
	if err := again.load(func(c snapshot.Checkpoint, set *snapshot.Set, _ uint64, _ bool) error {
		got = c
		return c.Matches(set)
	}); err != nil || got.Root != c.set.Root() {
		t.Errorf("the disk holds %d.%d, error %v", got.Epoch, got.Seq, err)
	}
}

// TestDamagedDisk destroys files one after the other: the gateway starts with what is left, says so, and is whole again
// once it has a control node.
func TestDamagedDisk(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	c := newControl(t, a, serve.Options{})
	ccp := c.changeCredentials(credentials(0, 2000)...)
	cp := c.change(apis(t, 0, 300, "/a"))
	dir := t.TempDir()
	g := newGateway(t, a, dir)
	g.run(c.addr)
	g.sink.waitFor(t, cp)
	g.sink.waitFor(t, ccp)
	g.stop()
	files, err := filepath.Glob(filepath.Join(dir, "data", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob(filepath.Join(dir, "data", "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, deeper...) {
		b, err := os.ReadFile(f)
		if errors.Is(err, syscall.EISDIR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			continue
		}
		broken := append([]byte(nil), b...)
		broken[len(broken)/3] ^= 0x40
		if err := os.WriteFile(f, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		g := newGateway(t, a, dir)
		stop := g.run(c.addr)
		g.sink.wait(t, "all to be whole after damage to "+filepath.Base(f), func(s *memorySink) bool {
			return s.set.Root() == cp.Root && s.table.Root() == ccp.Root
		})
		poll(t, "the disk to be whole", func() bool {
			st := g.fetcher.Status()
			return st.Credentials.Degraded == "" && st.Configuration.Degraded == ""
		})
		stop()
		g.stop()
		whole := newGateway(t, a, dir)
		if whole.sink.set.Root() != cp.Root || whole.sink.table.Root() != ccp.Root {
			t.Fatalf("after damage to %s and a repair, a restart has %d entries and %d credentials", filepath.Base(f), whole.sink.set.Len(), whole.sink.table.Len())
		}
		whole.stop()
	}
}

// TestKilledWhilePersisting kills a gateway again and again while changes come in. Whenever it starts, it must start
// with a version that was published, not older than what it had acknowledged.
func TestKilledWhilePersisting(t *testing.T) {
	if addr := os.Getenv("HANSA_TEST_FEED"); addr != "" {
		runChild(t, addr)
		return
	}
	t.Parallel()
	a := &authority{} // the child need not verify: the parent does
	*a = *newAuthority(t)
	c := newControl(t, a, serve.Options{})
	c.changeCredentials(credentials(0, 200)...)
	published := map[snapshot.Hash]bool{c.table.Root(): true}
	published[c.change(apis(t, 0, 400, "/a")).Root] = true
	dir := t.TempDir()
	rounds := 12
	if os.Getenv("HANSA_SLOW") != "" {
		rounds = 200
	}
	for round := range rounds {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWhilePersisting$")
		child.Env = append(os.Environ(), "HANSA_TEST_FEED="+c.addr, "HANSA_TEST_DIR="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		poll(t, "the child", func() bool { return len(c.server.Gateways()) == 1 && c.server.Gateways()[0].Link })
		until := time.Now().Add(time.Duration(20+rand.IntN(100)) * time.Millisecond)
		for i := 0; time.Now().Before(until); i++ {
			published[c.change(apis(t, i%400, i%400+1+rand.IntN(40), fmt.Sprint("/", round, i))).Root] = true
			published[c.changeCredentials(credentials(i, i+1+rand.IntN(200))...).Root] = true
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // killed
		acked := c.server.Gateways()[0]

		g := newGateway(t, a, dir)
		if g.sink.cp.View != "" && !published[g.sink.cp.Root] || g.sink.ccp.View != "" && !published[g.sink.ccp.Root] {
			t.Fatalf("round %d: starts with something that was never published", round)
		}
		if g.sink.cp.Seq < acked.Seq && g.sink.cp.Root != acked.Digest {
			t.Fatalf("round %d: starts with %d, had acknowledged %d", round, g.sink.cp.Seq, acked.Seq)
		}
		if st := g.fetcher.Status(); st.Configuration.Degraded != "" || st.Credentials.Degraded != "" {
			t.Fatalf("round %d: %+v", round, st)
		}
		g.stop()
	}
}

func runChild(t *testing.T, addr string) {
	t.Helper()
	a := newAuthority(t)
	sink := newMemorySink()
	opts := testOptions(a, sink, prometheus.NewRegistry())
	opts.Verify = func(snapshot.Checkpoint, bool) error { return nil }
	opts.Disk = openDisk(t, os.Getenv("HANSA_TEST_DIR"))
	f, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.LoadLocal(t.Context()); err != nil {
		t.Fatal(err)
	}
	conns, _ := dial(t, addr, "gw-1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.Run(ctx, conns); err != nil {
		t.Fatal(err)
	}
}

// TestAnotherKeyIsWritten: the same content, signed with another key, is written to the disk. The key before may be gone from
// the trust document at the next start, and then the disk would hold nothing that can be started from.
func TestAnotherKeyIsWritten(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	disk := openDisk(t, t.TempDir())
	t.Cleanup(func() { disk.Close() })
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	segments, err := disk.Shards(credentialShards)
	if err != nil {
		t.Fatal(err)
	}
	set := snapshot.NewSet().With(apis(t, 0, 10, "/a"), nil)
	table := snapshot.NewCredentials().With(credentials(0, 10))
	keys := credentialDisk{store: segments, codec: codec}
	d := configDisk{store: disk, codec: codec, now: time.Now}
	for seq, key := range []string{"one", "one", "other", "other"} {
		c := a.sign(t, snapshot.ConfigView(testOrg, testGroup), 1, uint64(seq+1), set)
		c.KeyID = key
		if _, err := d.save(c, set); err != nil {
			t.Fatal(err)
		}
		c = a.sign(t, snapshot.CredentialView(testOrg), 1, uint64(seq+1), table)
		c.KeyID = key
		if err := keys.save(c, table); err != nil {
			t.Fatal(err)
		}
	}
	again := configDisk{store: disk, codec: codec, now: time.Now}
	err = again.load(func(c snapshot.Checkpoint, got *snapshot.Set, _ uint64, _ bool) error {
		if c.KeyID != "other" || c.Seq != 3 || got.Root() != set.Root() {
			t.Errorf("the disk holds version %d of key %q, want 3 of the other: 2 and 4 bring nothing new", c.Seq, c.KeyID)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	keysAgain := credentialDisk{store: segments, codec: codec}
	err = keysAgain.load(func(c snapshot.Checkpoint, got *snapshot.Credentials, _ uint64, _ bool) error {
		if c.KeyID != "other" || c.Seq != 3 || got.Root() != table.Root() {
			t.Errorf("the disk holds version %d of key %q with the credentials, want 3 of the other", c.Seq, c.KeyID)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if again.keyID != "other" || keysAgain.keyID != "other" {
		t.Errorf("keys %q and %q after the start", again.keyID, keysAgain.keyID)
	}
}
