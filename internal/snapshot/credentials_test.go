package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func credential(i int) Credential {
	return Credential{
		Hash:         HashCredential(fmt.Appendf(nil, "key %d", i)),
		ID:           fmt.Sprintf("%012x", i*7919),
		Organization: "acme",
		Subscription: fmt.Sprintf("app-%04d-gold", i/10),
		Application:  fmt.Sprintf("app-%04d", i/10),
		Product:      "gold",
		Slot:         Slot(i % 3),
		CreatedAt:    1_800_000_000 + int64(i),
	}
}

// TestCredentialsAgainstMap drives tables with random changes and compares them with a plain map.
func TestCredentialsAgainstMap(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		table, model := NewCredentials(), map[CredentialHash]Credential{}
		history := []*Credentials{table}
		for range 30 {
			var changes []CredentialChange
			for range rnd.IntN(40) {
				c := CredentialChange{Credential: credential(rnd.IntN(300)), Remove: rnd.IntN(3) == 0}
				c.Credential.State = State(rnd.IntN(3))
				changes = append(changes, c)
				if c.Remove {
					delete(model, c.Credential.Hash)
				} else {
					model[c.Credential.Hash] = c.Credential
				}
			}
			batch := table.Batch()
			for _, c := range changes {
				if err := batch.Add(c); err != nil {
					t.Fatal(err)
				}
			}
			table = table.With(changes)
			if b := batch.Table(); b.Root() != table.Root() || b.Len() != table.Len() || b.Bytes() != table.Bytes() {
				t.Fatalf("Batch gives root %v, With %v", b.Root(), table.Root())
			}
			history = append(history, table)
		}
		compareTable(t, table, model)
		old := history[rnd.IntN(len(history))]
		if got := old.With(slices.Collect(table.Changes(old))); got.Root() != table.Root() || got.Bytes() != table.Bytes() {
			t.Fatalf("seed %d: old.With(new.Changes(old)) has root %v, want %v", seed, got.Root(), table.Root())
		}
	}
}

func compareTable(t *testing.T, table *Credentials, model map[CredentialHash]Credential) {
	t.Helper()
	want := slices.SortedFunc(maps.Values(model), func(a, b Credential) int { return a.Hash.Compare(b.Hash) })
	if diff := cmp.Diff(want, slices.Collect(table.All())); diff != "" {
		t.Fatalf("credentials (-want +got)\n%s", diff)
	}
	if table.Len() != len(model) {
		t.Fatalf("Len = %d, want %d", table.Len(), len(model))
	}
	shards := map[int]*Shard{}
	for i := range CredentialShards {
		s, err := ParseShard(i, table.Shard(i).AppendTo(nil))
		if err != nil {
			t.Fatal(err)
		}
		shards[i] = s
	}
	if again := NewCredentials().WithShards(shards); again.Root() != table.Root() {
		t.Fatalf("root %v, after a round trip of all segments %v", table.Root(), again.Root())
	}
	for i := range 300 {
		c := credential(i)
		got, ok := table.Lookup(c.Hash)
		if want, wantOK := model[c.Hash]; ok != wantOK || got != want {
			t.Fatalf("Lookup(%v) = %v, %v; want %v, %v", c.Hash, got, ok, want, wantOK)
		}
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table := NewCredentials()
	for i := range 1000 {
		table = table.With([]CredentialChange{{Credential: credential(i)}})
	}
	hash := credential(77).Hash
	if n := testing.AllocsPerRun(100, func() {
		if c, ok := table.Lookup(hash); !ok || c.Application != "app-0007" {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}

func TestCredentialLimits(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Credential){
		"text":    func(c *Credential) { c.Product = string(make([]byte, maxCredentialText+1)) },
		"slot":    func(c *Credential) { c.Slot = 3 },
		"state":   func(c *Credential) { c.State = 3 },
		"created": func(c *Credential) { c.CreatedAt = -1 },
		"expires": func(c *Credential) { c.ExpiresAt = -1 },
	} {
		c := credential(1)
		change(&c)
		if err := NewCredentials().Batch().Add(CredentialChange{Credential: c}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

// A segment of one shard must not pass for another one, or a look-up would miss what is there.
func TestParseShardOfOtherNumber(t *testing.T) {
	t.Parallel()
	s := new(shardMaker).encode([]Credential{credential(1)})
	at := credential(1).Hash.Shard()
	if _, err := ParseShard(at^1, s.AppendTo(nil)); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want ErrMalformed", err)
	}
}

func FuzzParseShard(f *testing.F) {
	at := credential(1).Hash.Shard()
	two := credential(2)
	two.Hash = credential(1).Hash
	two.Hash[31]++
	f.Add(new(shardMaker).encode([]Credential{credential(1)}).AppendTo(nil))
	f.Add(new(shardMaker).encode([]Credential{credential(1), two}).AppendTo(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ParseShard(at, in)
		if err != nil || s == nil {
			return
		}
		for c := range s.All() {
			if got, ok := s.Lookup(c.Hash); !ok || got != c {
				t.Fatalf("Lookup(%v) = %v, %v; All has %v", c.Hash, got, ok, c)
			}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzParseCredentialChange(f *testing.F) {
	f.Add(AppendCredentialChange(nil, CredentialChange{Credential: credential(1)}))
	f.Add(AppendCredentialChange(nil, CredentialChange{Credential: credential(1), Remove: true}))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, rest, err := ParseCredentialChange(in)
		if err != nil {
			return
		}
		if out := AppendCredentialChange(nil, c); !bytes.Equal(out, in[:len(in)-len(rest)]) {
			t.Fatalf("parsed %x and wrote %x", in[:len(in)-len(rest)], out)
		}
		if c.Remove {
			return
		}
		if err := NewCredentials().Batch().Add(c); err != nil {
			t.Fatal(err)
		}
	})
}
