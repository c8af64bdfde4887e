package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

type rig struct {
	t      *testing.T
	server *Server
	conn   *grpc.ClientConn
	set    *snapshot.Set
	seq    uint64
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	o.Peer = func(ctx context.Context) (Peer, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		parts := strings.Split(strings.Join(md.Get("peer"), ""), "/")
		if len(parts) != 3 {
			return Peer{}, status.Error(codes.PermissionDenied, "who are you")
		}
		return Peer{Organization: parts[0], Group: parts[1], Name: parts[2]}, nil
	}
	o.Logger, o.Registerer = slog.New(slog.DiscardHandler), prometheus.NewPedanticRegistry()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer()
	s.Register(g)
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///feed", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
		g.Stop()
	})
	return &rig{t: t, server: s, conn: conn, set: snapshot.NewSet()}
}

func entry(t *testing.T, key, content string) snapshot.Entry {
	t.Helper()
	e, err := snapshot.NewEntry(key, 1, 1, true, content)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func checkpoint(view string, seq uint64, content snapshot.Content) snapshot.Checkpoint {
	c := snapshot.Checkpoint{Cluster: "c", Epoch: 1, Seq: seq, View: view, KeyID: "k"}
	c.Describe(content)
	return c
}

// publish publishes one changed entry in the view acme/eu.
func (r *rig) publish(key, content string) snapshot.Checkpoint {
	r.t.Helper()
	r.seq++
	r.set = r.set.With([]snapshot.Entry{entry(r.t, key, content)}, nil)
	c := checkpoint("acme/eu", r.seq, r.set)
	if err := r.server.Publish(c, r.set); err != nil {
		r.t.Fatal(err)
	}
	r.server.Advance(1, r.seq)
	return c
}

func as(t *testing.T, peer string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "peer", peer)
}

type follower struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[linkv1.FollowUp, linkv1.FollowDown]
}

// follow opens a stream and takes the Welcome.
func (r *rig) follow(peer string, have wire.Position) (*follower, *linkv1.Welcome) {
	r.t.Helper()
	stream, err := linkv1.NewFeedClient(r.conn).Follow(as(r.t, peer))
	if err != nil {
		r.t.Fatal(err)
	}
	f := &follower{r.t, stream}
	f.send(&linkv1.FollowUp{Message: &linkv1.FollowUp_Hello{Hello: &linkv1.Hello{Protocols: []uint32{7, wire.Protocol}, Role: "gateway", Version: "v9", Have: have.Proto()}}})
	m, err := stream.Recv()
	if err != nil || m.GetWelcome() == nil {
		r.t.Fatalf("Recv = %v, %v, want a Welcome", m, err)
	}
	return f, m.GetWelcome()
}

func (f *follower) send(m *linkv1.FollowUp) {
	f.t.Helper()
	if err := f.stream.Send(m); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) applied(c snapshot.Checkpoint) {
	f.t.Helper()
	f.send(&linkv1.FollowUp{Message: &linkv1.FollowUp_Applied{Applied: &linkv1.Applied{Position: wire.PositionOf(c).Proto(), Generation: 1}}})
}

// head takes the next head.
func (f *follower) head() (*linkv1.Head, snapshot.Checkpoint) {
	f.t.Helper()
	m, err := f.stream.Recv()
	if err != nil || m.GetHead() == nil {
		f.t.Fatalf("Recv = %v, %v, want a Head", m, err)
	}
	c, err := wire.ParseCheckpoint(m.GetHead().Checkpoint)
	if err != nil {
		f.t.Fatal(err)
	}
	return m.GetHead(), c
}

// changes returns the keys that a head changes.
func changes(t *testing.T, packed []byte) []string {
	t.Helper()
	c, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.Unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	puts, dels, err := wire.ParseEntries(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range puts {
		dels = append(dels, e.Key)
	}
	slices.Sort(dels)
	return dels
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestHeadCarriesTheChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	first := r.publish("api/a", "1")
	f, w := r.follow("acme/eu/gw", wire.Position{})
	if w.StateSeconds != 30 {
		t.Errorf("StateSeconds = %d, want 30", w.StateSeconds)
	}
	if h, c := f.head(); c.Seq != first.Seq || h.From != nil {
		t.Errorf("the first head is %d with changes from %v, want %d with none: nothing is known of the gateway", c.Seq, h.From, first.Seq)
	}
	second := r.publish("api/b", "1")
	if h, c := f.head(); c.Seq != second.Seq || h.From.GetSeq() != first.Seq || !slices.Equal(changes(t, h.Changes), []string{"api/b"}) {
		t.Errorf("head %d from %d with %v", c.Seq, h.From.GetSeq(), changes(t, h.Changes))
	}
	// Who reconnects with a version in the window gets everything since in one message.
	third := r.publish("api/c", "1")
	g, _ := r.follow("acme/eu/gw2", wire.PositionOf(first))
	if h, c := g.head(); c.Seq != third.Seq || h.From.GetSeq() != first.Seq || !slices.Equal(changes(t, h.Changes), []string{"api/b", "api/c"}) {
		t.Errorf("head %d from %d with %v", c.Seq, h.From.GetSeq(), changes(t, h.Changes))
	}
	// A version that never was, as after a fork, has no changes.
	g, _ = r.follow("acme/eu/gw3", wire.Position{Epoch: 1, Seq: first.Seq, Root: snapshot.Hash{1}})
	if h, _ := g.head(); h.From != nil || h.Changes != nil {
		t.Error("changes from a version that never was")
	}
}

// TestRefusedVersionIsTheBaseNoMore: after a refusal the next changes start from what the gateway has.
func TestRefusedVersionIsTheBaseNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	first := r.publish("api/a", "1")
	f, _ := r.follow("acme/eu/gw", wire.PositionOf(first))
	f.head()
	bad := r.publish("api/bad", "1")
	f.head()
	f.send(&linkv1.FollowUp{Message: &linkv1.FollowUp_Refused{Refused: wire.RefusedProto(bad, wire.PositionOf(first), &snapshot.Refusal{Code: "x", Detail: "d"})}})
	missing := r.server.WaitApplied(t.Context(), []string{"acme/eu"}, 1, bad.Seq)
	if !slices.Equal(missing, []string{"gw"}) {
		t.Errorf("WaitApplied = %v, want the gateway that refused for good", missing)
	}
	r.publish("api/c", "1")
	if h, _ := f.head(); h.From.GetSeq() != first.Seq || !slices.Equal(changes(t, h.Changes), []string{"api/bad", "api/c"}) {
		t.Errorf("head from %d with %v", h.From.GetSeq(), changes(t, h.Changes))
	}
	if n := len(r.server.Gateways()); n != 1 {
		t.Errorf("%d gateways", n)
	}
}

// TestOwnViewOnly: a gateway sees the view of its group and the credentials of its organization, whatever it asks for.
func TestOwnViewOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.publish("api/secret", "1")
	table := snapshot.NewCredentials().With([]snapshot.CredentialChange{{Credential: snapshot.Credential{Organization: "acme"}}})
	if err := r.server.PublishCredentials(checkpoint(snapshot.CredentialView("acme"), 1, table), table); err != nil {
		t.Fatal(err)
	}
	for _, peer := range []string{"acme/us/gw", "zeta/eu/gw"} {
		f, _ := r.follow(peer, wire.Position{})
		sync, err := linkv1.NewBulkClient(r.conn).Sync(as(t, peer))
		if err != nil {
			t.Fatal(err)
		}
		if err := sync.Send(start(linkv1.View_VIEW_CONFIGURATION)); err != nil {
			t.Fatal(err)
		}
		_, err = sync.Recv()
		wantCode(t, err, codes.Unavailable)
		own := snapshot.NewSet()
		parts := strings.Split(peer, "/")
		if err := r.server.Publish(checkpoint(parts[0]+"/"+parts[1], 4, own), own); err != nil {
			t.Fatal(err)
		}
		if _, c := f.head(); c.View != parts[0]+"/"+parts[1] {
			t.Errorf("%s got %q", peer, c.View)
		}
	}
	sync, err := linkv1.NewBulkClient(r.conn).Sync(as(t, "zeta/eu/gw"))
	if err != nil {
		t.Fatal(err)
	}
	if err := sync.Send(start(linkv1.View_VIEW_CREDENTIALS)); err != nil {
		t.Fatal(err)
	}
	_, err = sync.Recv()
	wantCode(t, err, codes.Unavailable)
	stranger, err := linkv1.NewFeedClient(r.conn).Follow(as(t, "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = stranger.Recv()
	wantCode(t, err, codes.PermissionDenied)
}

func start(v linkv1.View) *linkv1.SyncUp {
	return &linkv1.SyncUp{Message: &linkv1.SyncUp_Start{Start: &linkv1.Start{View: v}}}
}

func TestHowCallsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.publish("api/a", "1")
	feed := linkv1.NewFeedClient(r.conn)
	hasty := newRig(t, Options{IdleTimeout: 100 * time.Millisecond})
	hasty.publish("api/a", "1")

	t.Run("no common protocol", func(t *testing.T) {
		f, err := feed.Follow(as(t, "acme/eu/a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Send(&linkv1.FollowUp{Message: &linkv1.FollowUp_Hello{Hello: &linkv1.Hello{Protocols: []uint32{99}}}}); err != nil {
			t.Fatal(err)
		}
		_, err = f.Recv()
		wantCode(t, err, codes.FailedPrecondition)
	})
	t.Run("no Hello", func(t *testing.T) {
		f, err := linkv1.NewFeedClient(hasty.conn).Follow(as(t, "acme/eu/b"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Recv()
		wantCode(t, err, codes.DeadlineExceeded)
	})
	t.Run("called again", func(t *testing.T) {
		old, _ := r.follow("acme/eu/c", wire.Position{})
		old.head()
		again, _ := r.follow("acme/eu/c", wire.Position{})
		_, err := old.stream.Recv()
		wantCode(t, err, codes.Aborted)
		again.head()
		if n := len(connected(r.server, "c")); n != 1 {
			t.Errorf("%d connected gateways of that name, want 1", n)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		f, _ := r.follow("acme/eu/d", wire.Position{})
		f.head()
		r.server.Disconnect("acme", "d")
		_, err := f.stream.Recv()
		wantCode(t, err, codes.PermissionDenied)
	})
	t.Run("nonsense", func(t *testing.T) {
		f, _ := r.follow("acme/eu/e", wire.Position{})
		f.head()
		f.send(&linkv1.FollowUp{Message: &linkv1.FollowUp_Applied{Applied: &linkv1.Applied{Position: &linkv1.Position{Root: []byte("short")}}}})
		_, err := f.stream.Recv()
		wantCode(t, err, codes.InvalidArgument)
	})
	t.Run("idle transfer", func(t *testing.T) {
		_, err := syncWith(t, hasty, start(linkv1.View_VIEW_CONFIGURATION))
		wantCode(t, err, codes.DeadlineExceeded)
	})
	t.Run("view is gone", func(t *testing.T) {
		set := snapshot.NewSet()
		if err := r.server.Publish(checkpoint("acme/gone", 1, set), set); err != nil {
			t.Fatal(err)
		}
		f, _ := r.follow("acme/gone/f", wire.Position{})
		f.head()
		r.server.Drop("acme/gone")
		_, err := f.stream.Recv()
		wantCode(t, err, codes.NotFound)
	})
	t.Run("shutdown", func(t *testing.T) {
		f, _ := r.follow("acme/eu/g", wire.Position{})
		f.head()
		r.server.Close()
		_, err := f.stream.Recv()
		wantCode(t, err, codes.Unavailable)
		late, err := feed.Follow(as(t, "acme/eu/h"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = late.Recv()
		wantCode(t, err, codes.Unavailable)
	})
}

func connected(s *Server, name string) (all []Status) {
	for _, g := range s.Gateways() {
		if g.Name == name && g.Link {
			all = append(all, g)
		}
	}
	return all
}

// syncWith sends messages and receives until the call ends.
func syncWith(t *testing.T, r *rig, up ...*linkv1.SyncUp) (parts []*linkv1.SyncDown, err error) {
	t.Helper()
	stream, err := linkv1.NewBulkClient(r.conn).Sync(as(t, "acme/eu/sync"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range up {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return parts, err
		}
		parts = append(parts, m)
	}
}

func TestSyncRefusesNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.publish("api/a", "1")
	buckets := func(n int) *linkv1.SyncUp {
		return &linkv1.SyncUp{Message: &linkv1.SyncUp_Buckets{Buckets: &linkv1.Buckets{Digests: make([]byte, n)}}}
	}
	fetch := func(keys ...string) *linkv1.SyncUp {
		return &linkv1.SyncUp{Message: &linkv1.SyncUp_Fetch{Fetch: &linkv1.Fetch{Keys: keys}}}
	}
	begin := start(linkv1.View_VIEW_CONFIGURATION)
	for name, up := range map[string][]*linkv1.SyncUp{
		"no start":       {buckets(8 * snapshot.Buckets)},
		"no view":        {start(linkv1.View_VIEW_UNSPECIFIED)},
		"bad position":   {{Message: &linkv1.SyncUp_Start{Start: &linkv1.Start{View: linkv1.View_VIEW_CONFIGURATION, Have: &linkv1.Position{Root: []byte("x")}}}}},
		"no buckets":     {begin, fetch("api/a")},
		"short digests":  {begin, buckets(9)},
		"second start":   {begin, buckets(8 * snapshot.Buckets), begin},
		"too many keys":  {begin, buckets(8 * snapshot.Buckets), fetch(make([]string, wire.MaxFetchKeys+1)...)},
		"too long a key": {begin, buckets(8 * snapshot.Buckets), fetch(strings.Repeat("k", snapshot.MaxKeyBytes+1))},
	} {
		if _, err := syncWith(t, r, up...); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error %v, want InvalidArgument", name, err)
		}
	}
	// What is not there is answered as a removal, not as an error: it may have gone since the listing.
	parts, err := syncWith(t, r, begin, buckets(8*snapshot.Buckets),
		&linkv1.SyncUp{Message: &linkv1.SyncUp_Fetch{Fetch: &linkv1.Fetch{Keys: []string{"api/none"}, Last: true}}})
	if len(parts) != 3 || parts[0].GetPlan().GetKind() != linkv1.Plan_KIND_COMPARE || !slices.Equal(changes(t, parts[1].GetPart().Changes), []string{"api/a"}) ||
		!slices.Equal(changes(t, parts[2].GetPart().Changes), []string{"api/none"}) || !errors.Is(err, io.EOF) {
		t.Errorf("parts %v, end %v", parts, err)
	}
}

func TestWaitApplied(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	first := r.publish("api/a", "1")
	view := []string{"acme/eu"}
	if missing := r.server.WaitApplied(t.Context(), view, 1, 99); len(missing) != 0 {
		t.Errorf("without gateways %v are missing", missing)
	}
	f, _ := r.follow("acme/eu/gw", wire.PositionOf(first))
	f.head()
	second := r.publish("api/b", "1")
	f.head()

	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if missing := r.server.WaitApplied(soon, view, 1, second.Seq); !slices.Equal(missing, []string{"gw"}) {
		t.Errorf("WaitApplied = %v, want the gateway that has not acknowledged", missing)
	}
	if missing := r.server.WaitApplied(t.Context(), []string{"acme/us"}, 1, second.Seq); len(missing) != 0 {
		t.Errorf("of another view %v are missing", missing)
	}
	done := make(chan []string)
	go func() { done <- r.server.WaitApplied(t.Context(), view, 1, second.Seq) }()
	f.applied(second)
	if missing := <-done; len(missing) != 0 {
		t.Errorf("WaitApplied = %v after the acknowledgement", missing)
	}
	// A version that changes nothing in the view is applied as soon as it is published.
	r.server.Advance(1, second.Seq+5)
	if missing := r.server.WaitApplied(t.Context(), view, 1, second.Seq+5); len(missing) != 0 {
		t.Errorf("WaitApplied = %v for a version without changes", missing)
	}
	gw := connected(r.server, "gw")
	if len(gw) != 1 || gw[0].Seq != second.Seq || gw[0].Digest != second.Root || gw[0].Role != "gateway" || gw[0].Version != "v9" || !gw[0].Current {
		t.Errorf("Gateways() = %+v", gw)
	}
}

func TestSiteOfGateways(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	e, err := snapshot.NewEntry(snapshot.EntryKey(snapshot.ClassSite, "acme"), 1, 1, true, snapshot.Site{Name: "eu-west"})
	if err != nil {
		t.Fatal(err)
	}
	r.set = r.set.With([]snapshot.Entry{e}, nil)
	r.publish("api/a", "1")
	f, _ := r.follow("acme/eu/gw", wire.Position{})
	f.head()
	if gw := connected(r.server, "gw"); len(gw) != 1 || gw[0].Site != "eu-west" {
		t.Errorf("Gateways() = %+v", gw)
	}
}

func TestTrustIsPushed(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.server.SetTrust([]byte("one"))
	r.publish("api/a", "1")
	f, w := r.follow("acme/eu/gw", wire.Position{})
	if h, _ := f.head(); string(w.Trust) != "one" || h.Trust != nil {
		t.Errorf("trust %q in the Welcome and %q in the Head", w.Trust, h.Trust)
	}
	r.server.SetTrust([]byte("two"))
	if h, _ := f.head(); string(h.Trust) != "two" {
		t.Errorf("trust %q in the Head", h.Trust)
	}
}

func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	c := r.publish("api/a", "1")
	r.publish("api/a", "2")
	one, two := snapshot.NewSet(), r.set
	for name, tt := range map[string]struct {
		c    snapshot.Checkpoint
		set  *snapshot.Set
		want error
	}{
		"older":    {checkpoint("acme/eu", 1, one), one, ErrOlder},
		"forked":   {checkpoint("acme/eu", 2, one), one, ErrForked},
		"mismatch": {c, two, snapshot.ErrMismatch},
		"again":    {checkpoint("acme/eu", 2, two), two, nil},
	} {
		if err := r.server.Publish(tt.c, tt.set); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", name, err, tt.want)
		}
	}
	// Another signature of the same takes its place, so that a gateway which comes later can check it.
	again := checkpoint("acme/eu", 2, two)
	again.KeyID = "k2"
	if err := r.server.Publish(again, two); err != nil {
		t.Fatal(err)
	}
	f, _ := r.follow("acme/eu/gw", wire.Position{})
	if _, c := f.head(); c.KeyID != "k2" {
		t.Errorf("signed with %q, want k2", c.KeyID)
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	at := func(seq uint64) wire.Position { return wire.Position{Epoch: 1, Seq: seq} }
	begin := time.Unix(0, 0)
	fill := func(b Window) *window {
		w := &window{bounds: b}
		for seq := range uint64(10) {
			w.add(at(seq), []string{"common", fmt.Sprint("key", seq)}, begin.Add(time.Duration(seq)*time.Second))
		}
		return w
	}
	wide := Window{Age: time.Hour, Changes: 100, Bytes: 1 << 20}
	w := fill(wide)
	if keys, ok := w.since(at(7)); !ok || !slices.Equal(keys, []string{"common", "key7", "key8", "key9"}) {
		t.Errorf("since 7: %v, %v", keys, ok)
	}
	if _, ok := w.since(at(10)); ok {
		t.Error("a version that the window does not begin from was found")
	}
	for name, tt := range map[string]struct {
		bounds Window
		oldest uint64
	}{
		"wide":    {wide, 0},
		"age":     {Window{Age: 3 * time.Second, Changes: 100, Bytes: 1 << 20}, 6},
		"changes": {Window{Age: time.Hour, Changes: 6, Bytes: 1 << 20}, 7},
		"bytes":   {Window{Age: time.Hour, Changes: 100, Bytes: 3 * (stepBytes + 2*keyBytes + 10)}, 7},
	} {
		w := fill(tt.bounds)
		var found []uint64
		for seq := range uint64(10) {
			if _, ok := w.since(at(seq)); ok {
				found = append(found, seq)
			}
		}
		if len(found) == 0 || found[0] != tt.oldest {
			t.Errorf("%s: the window holds %v, want it to begin with %d", name, found, tt.oldest)
		}
		changes, size := 0, 0
		for _, s := range w.steps {
			changes += len(s.keys)
			size += s.bytes()
		}
		if diff := cmp.Diff([2]int{changes, size}, [2]int{w.changes, w.bytes}); diff != "" {
			t.Errorf("%s: sums (-want +got)\n%s", name, diff)
		}
	}
}
