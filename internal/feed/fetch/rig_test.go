package fetch

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/localstore"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/secret"
)

const (
	testCluster = "cluster-1"
	testOrg     = "acme"
	testGroup   = "eu"
)

// authority signs checkpoints for a cluster.
type authority struct {
	private ed25519.PrivateKey
	public  ed25519.PublicKey
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{private, public}
}

func (a *authority) sign(tb testing.TB, view string, epoch, seq uint64, content snapshot.Content) snapshot.Checkpoint {
	tb.Helper()
	c := snapshot.Checkpoint{Cluster: testCluster, Epoch: epoch, Seq: seq, View: view, IssuedAt: time.Now()}
	c.Describe(content)
	if err := c.Sign("k", func(m []byte) ([]byte, error) { return ed25519.Sign(a.private, m), nil }); err != nil {
		tb.Fatal(err)
	}
	return c
}

func (a *authority) verify(c snapshot.Checkpoint, _ bool) error {
	return c.Verify(func(_ string, m, sig []byte) error {
		if !ed25519.Verify(a.public, m, sig) {
			return errors.New("bad signature")
		}
		return nil
	})
}

// control is a control node without a record: it serves what the test publishes, on loopback.
type control struct {
	tb     testing.TB
	server *serve.Server
	grpc   *grpc.Server
	addr   string
	*authority

	mu         sync.Mutex // set, table, seq
	set        *snapshot.Set
	table      *snapshot.Credentials
	epoch, seq uint64
	registry   *prometheus.Registry
}

func newControl(tb testing.TB, a *authority, o serve.Options) *control {
	tb.Helper()
	c := &control{tb: tb, authority: a, set: snapshot.NewSet(), table: snapshot.NewCredentials(), epoch: 1, registry: prometheus.NewRegistry()}
	o.Peer = func(ctx context.Context) (serve.Peer, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return serve.Peer{Name: md.Get("node")[0], Organization: testOrg, Group: testGroup}, nil
	}
	o.Logger, o.Registerer = slog.New(slog.DiscardHandler), c.registry
	var err error
	if c.server, err = serve.New(o); err != nil {
		tb.Fatal(err)
	}
	c.listen("127.0.0.1:0")
	tb.Cleanup(c.stop)
	return c
}

func (c *control) listen(addr string) {
	c.tb.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.addr = l.Addr().String()
	c.grpc = grpc.NewServer()
	c.server.Register(c.grpc)
	go func() { _ = c.grpc.Serve(l) }()
}

func (c *control) stop() {
	c.grpc.Stop()
	c.server.Close()
}

// change publishes the next version with some entries changed.
func (c *control) change(puts []snapshot.Entry, dels ...string) snapshot.Checkpoint {
	c.tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.set = c.set.With(puts, dels)
	return c.publishLocked(c.set)
}

func (c *control) publishLocked(set *snapshot.Set) snapshot.Checkpoint {
	c.tb.Helper()
	cp := c.sign(c.tb, snapshot.ConfigView(testOrg, testGroup), c.epoch, c.seq, set)
	if err := c.server.Publish(cp, set); err != nil {
		c.tb.Fatal(err)
	}
	c.server.Advance(c.epoch, c.seq)
	return cp
}

func (c *control) changeCredentials(changes ...snapshot.CredentialChange) snapshot.Checkpoint {
	c.tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	c.table = c.table.With(changes)
	cp := c.sign(c.tb, snapshot.CredentialView(testOrg), c.epoch, c.seq, c.table)
	if err := c.server.PublishCredentials(cp, c.table); err != nil {
		c.tb.Fatal(err)
	}
	c.server.Advance(c.epoch, c.seq)
	return cp
}

// memorySink is a gateway that only remembers.
type memorySink struct {
	mu      sync.Mutex
	wake    chan struct{}
	set     *snapshot.Set
	table   *snapshot.Credentials
	cp, ccp snapshot.Checkpoint
	changed []string
	applies int
	refuse  func(*snapshot.Set) error
}

func newMemorySink() *memorySink {
	return &memorySink{wake: make(chan struct{}), set: snapshot.NewSet(), table: snapshot.NewCredentials()}
}

func (s *memorySink) Apply(_ context.Context, c snapshot.Checkpoint, set *snapshot.Set, changed []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		if err := s.refuse(set); err != nil {
			return err
		}
	}
	s.set, s.cp, s.changed = set, c, changed
	s.applies++
	s.notifyLocked()
	return nil
}

func (s *memorySink) ApplyCredentials(_ context.Context, c snapshot.Checkpoint, table *snapshot.Credentials) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table, s.ccp = table, c
	s.notifyLocked()
	return nil
}

func (s *memorySink) notifyLocked() {
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *memorySink) setRefuse(f func(*snapshot.Set) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// wait waits until the sink satisfies a condition.
func (s *memorySink) wait(tb testing.TB, what string, ok func(*memorySink) bool) {
	tb.Helper()
	deadline := time.After(3 * time.Minute)
	for {
		s.mu.Lock()
		good, wake := ok(s), s.wake
		s.mu.Unlock()
		if good {
			return
		}
		select {
		case <-wake:
		case <-deadline:
			tb.Fatalf("waited in vain for %s: the gateway has %d.%d and credentials of %d.%d", what, s.cp.Epoch, s.cp.Seq, s.ccp.Epoch, s.ccp.Seq)
		}
	}
}

func (s *memorySink) waitFor(tb testing.TB, c snapshot.Checkpoint) {
	tb.Helper()
	s.wait(tb, fmt.Sprintf("version %d.%d of %s", c.Epoch, c.Seq, c.View), func(s *memorySink) bool {
		return s.cp.Root == c.Root && s.cp.Compare(c) >= 0 || s.ccp.Root == c.Root && s.ccp.Compare(c) >= 0
	})
}

// gateway is a follower with a real disk and a sink in memory.
type gateway struct {
	tb       testing.TB
	sink     *memorySink
	fetcher  *Fetcher
	disk     *localstore.Store
	registry *prometheus.Registry
	name     string
	stop     func()
}

func openDisk(tb testing.TB, dir string) *localstore.Store {
	tb.Helper()
	sealer, err := keys.NewSealer(secret.New(make([]byte, keys.SealKeySize)))
	if err != nil {
		tb.Fatal(err)
	}
	disk, err := localstore.Open(filepath.Join(dir, "data"), sealer, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return disk
}

func testOptions(a *authority, sink Sink, registry *prometheus.Registry) Options {
	return Options{
		Cluster: testCluster, Organization: testOrg, Group: testGroup, Version: "test",
		Verify: a.verify, Learn: func([]byte) error { return nil }, Sink: sink,
		RetryMin: 5 * time.Millisecond, RetryMax: 100 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Registerer: registry,
	}
}

// newGateway opens the disk in dir and loads what is there.
func newGateway(tb testing.TB, a *authority, dir string) *gateway {
	tb.Helper()
	g := &gateway{tb: tb, sink: newMemorySink(), disk: openDisk(tb, dir), registry: prometheus.NewRegistry(), name: "gw-1"}
	opts := testOptions(a, g.sink, g.registry)
	opts.Disk = g.disk
	var err error
	if g.fetcher, err = New(opts); err != nil {
		tb.Fatal(err)
	}
	g.stop = sync.OnceFunc(func() {
		if err := g.disk.Close(); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() { g.stop() })
	if err := g.fetcher.LoadLocal(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return g
}

// run connects the gateway; it returns a function that disconnects it and waits.
func (g *gateway) run(addr string) (stop func()) {
	g.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conns, closeConns := dial(g.tb, addr, g.name)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.fetcher.Run(ctx, conns); !errors.Is(err, context.Canceled) {
			g.tb.Errorf("Run = %v, want context.Canceled", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
		closeConns()
	})
	closeDisk := g.stop
	g.stop = sync.OnceFunc(func() {
		stop()
		closeDisk()
	})
	return stop
}

func dial(tb testing.TB, addr, name string) (Connections, func()) {
	tb.Helper()
	var all []*grpc.ClientConn
	one := func() grpc.ClientConnInterface {
		withName := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return streamer(metadata.AppendToOutgoingContext(ctx, "node", name), desc, cc, method, opts...)
		}
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithStreamInterceptor(withName), grpc.WithConnectParams(fastReconnect()))
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, conn)
		return conn
	}
	conns := Connections{Control: one(), Events: one(), Bulk: one()}
	return conns, func() {
		for _, c := range all {
			if err := c.Close(); err != nil {
				tb.Error(err)
			}
		}
	}
}

func apis(tb testing.TB, from, to int, content string) []snapshot.Entry {
	tb.Helper()
	var puts []snapshot.Entry
	for i := from; i < to; i++ {
		e, err := snapshot.NewEntry(fmt.Sprintf("api/acme/prod/api-%05d", i), 1, 1, true, snapshot.API{Name: fmt.Sprintf("api-%05d", i), BasePath: content})
		if err != nil {
			tb.Fatal(err)
		}
		puts = append(puts, e)
	}
	return puts
}

func credential(i int) snapshot.Credential {
	return snapshot.Credential{
		Hash: snapshot.HashCredential(fmt.Appendf(nil, "key %d", i)), ID: fmt.Sprintf("%012x", i),
		Organization: testOrg, Subscription: fmt.Sprintf("app-%04d-gold", i/10), Application: fmt.Sprintf("app-%04d", i/10), Product: "gold",
		CreatedAt: 1_800_000_000,
	}
}

func credentials(from, to int) (changes []snapshot.CredentialChange) {
	for i := from; i < to; i++ {
		changes = append(changes, snapshot.CredentialChange{Credential: credential(i)})
	}
	return changes
}

// poll waits for a condition that nothing signals.
func poll(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain for %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
