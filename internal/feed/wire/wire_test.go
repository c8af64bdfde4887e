package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/snapshot"
)

func entry(tb testing.TB, key, content string) snapshot.Entry {
	tb.Helper()
	e, err := snapshot.NewEntry(key, 3, 1, true, content)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func credential(i int) snapshot.Credential {
	return snapshot.Credential{Hash: snapshot.HashCredential(fmt.Append(nil, i)), ID: fmt.Sprint(i), Organization: "acme", Product: "gold"}
}

func codec(tb testing.TB) *Codec {
	tb.Helper()
	c, err := NewCodec()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestEntriesRoundTrip(t *testing.T) {
	t.Parallel()
	c := codec(t)
	puts := []snapshot.Entry{entry(t, "api/a", "1"), entry(t, "api/b", strings.Repeat("x", 5000))}
	dels := []string{"api/c"}
	raw := AppendDelete(AppendPut(AppendPut(nil, puts[0]), puts[1]), dels[0])
	unpacked, err := c.Unpack(c.Pack(raw))
	if err != nil {
		t.Fatal(err)
	}
	gotPuts, gotDels, err := ParseEntries(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(puts, gotPuts); diff != "" {
		t.Errorf("puts (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(dels, gotDels); diff != "" {
		t.Errorf("dels (-want +got)\n%s", diff)
	}
	for n := range raw {
		if n == len(raw)-len(AppendDelete(nil, dels[0])) || n == len(AppendPut(nil, puts[0])) || n == 0 {
			continue // the end of a change
		}
		if _, _, err := ParseEntries(raw[:n]); !errors.Is(err, snapshot.ErrMalformed) {
			t.Fatalf("cut after %d bytes: error %v, want ErrMalformed", n, err)
		}
	}
}

func TestCredentialsRoundTrip(t *testing.T) {
	t.Parallel()
	table := snapshot.NewCredentials().With([]snapshot.CredentialChange{{Credential: credential(1)}})
	at := credential(1).Hash.Shard()
	changes := []snapshot.CredentialChange{
		{Credential: credential(2)},
		{Credential: snapshot.Credential{Hash: credential(3).Hash}, Remove: true},
	}
	raw := AppendSegment(nil, at, table.Shard(at))
	for _, c := range changes {
		raw = AppendCredential(raw, c)
	}
	raw = AppendSegment(raw, 7, nil)
	got, shards, err := ParseCredentials(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changes, got); diff != "" {
		t.Errorf("changes (-want +got)\n%s", diff)
	}
	if len(shards) != 2 || shards[at].Digest() != table.Shard(at).Digest() || shards[7].Len() != 0 {
		t.Errorf("shards = %v", shards)
	}
}

func TestUnpackIsBounded(t *testing.T) {
	t.Parallel()
	c := codec(t)
	if _, err := c.Unpack(c.Pack(make([]byte, MaxBatchBytes+1))); !errors.Is(err, snapshot.ErrMalformed) {
		t.Errorf("a batch over the limit: error %v, want ErrMalformed", err)
	}
	if _, err := c.Unpack(c.Pack(make([]byte, MaxBatchBytes))); err != nil {
		t.Errorf("a batch at the limit: %v", err)
	}
}

func TestListingRoundTrip(t *testing.T) {
	t.Parallel()
	var puts []snapshot.Entry
	for i := range 3000 {
		puts = append(puts, entry(t, fmt.Sprintf("api/%d", i), "x"))
	}
	set := snapshot.NewSet().With(puts, nil)
	var raw []byte
	for i := range snapshot.Buckets {
		raw = AppendListing(raw, set, i)
	}
	listings, err := ParseListing(raw)
	if err != nil {
		t.Fatal(err)
	}
	items := 0
	for _, l := range listings {
		for _, item := range l.Items {
			e, ok := set.Get(item.Key)
			if !ok || ItemOf(e) != item {
				t.Fatalf("item %v is not in the set", item)
			}
			items++
		}
	}
	if items != set.Len() || len(listings) != snapshot.Buckets {
		t.Errorf("%d items of %d buckets, want %d of %d", items, len(listings), set.Len(), snapshot.Buckets)
	}
}

func TestDigests(t *testing.T) {
	t.Parallel()
	set := snapshot.NewSet().With([]snapshot.Entry{entry(t, "api/a", "1")}, nil)
	d, err := ParseDigests(DigestsOf(set.BucketHash).Encoded())
	if err != nil {
		t.Fatal(err)
	}
	for i := range snapshot.Buckets {
		if !d.Equal(i, set.BucketHash(i)) || d.Empty(i) != set.BucketHash(i).IsZero() {
			t.Fatalf("bucket %d differs from itself", i)
		}
	}
	other := set.With([]snapshot.Entry{entry(t, "api/a", "2")}, nil)
	if at := snapshot.BucketOf("api/a"); d.Equal(at, other.BucketHash(at)) {
		t.Error("a changed bucket passes for equal")
	}
	if _, err := ParseDigests(make([]byte, 9)); !errors.Is(err, snapshot.ErrMalformed) {
		t.Errorf("error %v, want ErrMalformed", err)
	}
}

func TestRefusedIsCut(t *testing.T) {
	t.Parallel()
	m := RefusedProto(snapshot.Checkpoint{Seq: 4}, Position{}, &snapshot.Refusal{Code: "c", Detail: strings.Repeat("ä", 3000), Retryable: true})
	if len(m.Detail) > 2048 || !utf8.ValidString(m.Detail) || m.Have != nil {
		t.Errorf("detail of %d bytes, valid %v", len(m.Detail), utf8.ValidString(m.Detail))
	}
	if r := ParseRefused(m); r.Code != "c" || !r.Retryable {
		t.Errorf("ParseRefused = %+v", r)
	}
}

// FuzzMessages feeds arbitrary messages to everything that an end of the feed parses.
func FuzzMessages(f *testing.F) {
	c := codec(f)
	set := snapshot.NewSet().With([]snapshot.Entry{entry(f, "api/a", "1")}, nil)
	table := snapshot.NewCredentials().With([]snapshot.CredentialChange{{Credential: credential(1)}})
	at := credential(1).Hash.Shard()
	batches := [][]byte{
		AppendDelete(AppendPut(nil, entry(f, "api/a", "1")), "api/b"),
		AppendCredential(AppendSegment(nil, at, table.Shard(at)), snapshot.CredentialChange{Credential: credential(2)}),
		AppendListing(nil, set, snapshot.BucketOf("api/a")),
	}
	position := Position{Epoch: 1, Seq: 2, Root: set.Root()}.Proto()
	for _, b := range batches {
		for _, m := range []proto.Message{
			&linkv1.FollowDown{Message: &linkv1.FollowDown_Head{Head: &linkv1.Head{
				Checkpoint: snapshot.AppendCheckpoint(nil, snapshot.Checkpoint{Seq: 2}), From: position, Changes: c.Pack(b),
			}}},
			&linkv1.SyncDown{Message: &linkv1.SyncDown_Part{Part: &linkv1.Part{Changes: c.Pack(b), Listing: c.Pack(b)}}},
		} {
			encoded, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(encoded, b)
		}
	}
	f.Fuzz(func(t *testing.T, message, raw []byte) {
		follow, sync := new(linkv1.FollowDown), new(linkv1.SyncDown)
		if proto.Unmarshal(message, follow) == nil {
			if _, err := ParseCheckpoint(follow.GetHead().GetCheckpoint()); err == nil {
				_, _ = ParsePosition(follow.GetHead().GetFrom())
			}
			tryBatch(t, c, follow.GetHead().GetChanges())
		}
		if proto.Unmarshal(message, sync) == nil {
			tryBatch(t, c, sync.GetPart().GetChanges())
			tryBatch(t, c, sync.GetPart().GetListing())
		}
		tryRaw(t, raw)
	})
}

func tryBatch(t *testing.T, c *Codec, packed []byte) {
	t.Helper()
	if raw, err := c.Unpack(packed); err == nil {
		tryRaw(t, raw)
	}
}

// tryRaw checks that what parses is well formed: it can be put into a content and written again.
func tryRaw(t *testing.T, raw []byte) {
	t.Helper()
	if puts, dels, err := ParseEntries(raw); err == nil {
		set := snapshot.NewSet().With(puts, dels)
		if set.Len() > len(puts) {
			t.Fatalf("%d entries of %d puts", set.Len(), len(puts))
		}
	}
	if changes, shards, err := ParseCredentials(raw); err == nil {
		table := snapshot.NewCredentials().WithShards(shards).With(changes)
		var again []byte
		for i := range snapshot.CredentialShards {
			if s := table.Shard(i); s != nil {
				again = AppendSegment(again, i, s)
			}
		}
		if _, _, err := ParseCredentials(again); err != nil {
			t.Fatal(err)
		}
	}
	if listings, err := ParseListing(raw); err == nil {
		for _, l := range listings {
			if l.Bucket >= snapshot.Buckets {
				t.Fatalf("bucket %d", l.Bucket)
			}
		}
	}
	if d, err := ParseDigests(raw); err == nil && !bytes.Equal(d.Encoded(), raw) {
		t.Fatal("digests change on the way")
	}
}
