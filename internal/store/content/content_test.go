package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/content"
	"hansa.dev/hansa/internal/store/storetest"
)

// apply derives the state after the changes in ops.
func apply(t *testing.T, s *content.State, ops []byte) *content.State {
	t.Helper()
	b := s.Derive(store.Version{Epoch: 1, Seq: s.Version().Seq + 1})
	for op, err := range content.Ops(iotest.OneByteReader(bytes.NewReader(ops))) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Apply(op); err != nil {
			t.Fatal(err)
		}
	}
	return b.State()
}

// model is the content as the simplest of data structures.
type model struct {
	resources   map[v1.Key]*v1.Object
	credentials map[string]map[snapshot.CredentialHash]snapshot.Credential
	seqs        map[string]uint64
}

// randomChanges makes a change set of up to 20 changes, and does the same to the model.
func (m *model) randomChanges(t *testing.T, rng *rand.Rand, seq uint64) []byte {
	t.Helper()
	var ops []byte
	var err error
	for range 1 + rng.IntN(20) {
		org := fmt.Sprintf("org%d", rng.IntN(3))
		o := storetest.Backend(org, fmt.Sprintf("b%d", rng.IntN(200)), fmt.Sprint(rng.Uint64()))
		o.Metadata.Seq = seq
		c := storetest.Credential(org, "gold", rng.IntN(500))
		c.ExpiresAt = rng.Int64N(1 << 40)
		switch rng.IntN(4) {
		case 0:
			if _, ok := m.resources[o.Key()]; ok {
				ops = content.AppendDelete(ops, o.Key())
				delete(m.resources, o.Key())
			}
		case 1:
			ops, err = content.AppendPut(ops, o)
			m.resources[o.Key()] = o
		case 2:
			ops, err = content.AppendCredential(ops, store.CredentialChange{Credential: c, Remove: true})
			if _, ok := m.credentials[org][c.Hash]; ok {
				m.seqs[org] = seq
			}
			delete(m.credentials[org], c.Hash)
		case 3:
			ops, err = content.AppendCredential(ops, store.CredentialChange{Credential: c})
			if m.credentials[org] == nil {
				m.credentials[org] = make(map[snapshot.CredentialHash]snapshot.Credential)
			}
			m.credentials[org][c.Hash] = c
			m.seqs[org] = seq
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return ops
}

// check compares a state with the model.
func (m *model) check(t *testing.T, s *content.State) {
	t.Helper()
	if s.Len() != len(m.resources) {
		t.Errorf("%d resources in state %v, want %d", s.Len(), s.Version(), len(m.resources))
	}
	for k, want := range m.resources {
		got, ok := s.Get(k)
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("%s (-want +got):\n%s", k, diff)
		}
	}
	all := 0
	for org, want := range m.credentials {
		got := make(map[snapshot.CredentialHash]snapshot.Credential)
		for c := range s.Credentials(org) {
			got[c.Hash] = c
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("credentials of %s (-want +got):\n%s", org, diff)
		}
		all += len(want)
	}
	if s.NumCredentials() != all {
		t.Errorf("%d credentials in state %v, want %d", s.NumCredentials(), s.Version(), all)
	}
	for org, want := range m.seqs {
		if got := s.CredentialSeq(org); got != want {
			t.Errorf("credential seq of %s = %d, want %d", org, got, want)
		}
	}
}

// TestImages changes a state at random and writes images now and then, each time only the parts that changed. A
// state that is made from the parts must be what the changes made.
func TestImages(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			m := model{
				resources: make(map[v1.Key]*v1.Object), seqs: make(map[string]uint64),
				credentials: make(map[string]map[snapshot.CredentialHash]snapshot.Credential),
			}
			s := content.New(store.Version{Epoch: 1})
			var basis *content.Image
			stored := make(map[content.PartID][]byte)
			unchanged := 0
			for range 25 {
				for range rng.IntN(4) {
					s = apply(t, s, m.randomChanges(t, rng, s.Version().Seq+1))
				}
				m.check(t, s)
				var parts []content.Part
				parts, basis = s.Parts(basis)
				ids := make([]content.PartID, 0, len(parts))
				for _, p := range parts {
					ids = append(ids, p.ID)
					if !p.Changed {
						unchanged++
						continue
					}
					b, err := p.Append(nil)
					if err != nil {
						t.Fatal(err)
					}
					stored[p.ID] = b
				}
				loaded := load(t, s.Version(), ids, stored)
				m.check(t, loaded)
				if got, want := loaded.Bytes(), s.Bytes(); got != want {
					t.Errorf("a loaded state has %d bytes, want %d", got, want)
				}
				if rng.IntN(4) == 0 { // as after opening again
					s, basis = loaded, loaded.Loaded(ids)
					if parts, _ := s.Parts(basis); slices.ContainsFunc(parts, func(p content.Part) bool { return p.Changed }) {
						t.Error("a part of a state that was just loaded has changed")
					}
				}
			}
			if unchanged == 0 {
				t.Error("every image wrote every part")
			}
		})
	}
}

// load makes a state from the parts of its image.
func load(t *testing.T, v store.Version, ids []content.PartID, stored map[content.PartID][]byte) *content.State {
	t.Helper()
	l := content.New(v).Load()
	for _, id := range ids {
		if err := id.Validate(); err != nil {
			t.Error(err)
		}
		for op, err := range content.Ops(bytes.NewReader(stored[id])) {
			if err == nil {
				err = l.Apply(op)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return l.State()
}

// TestPartsGrow checks that a larger state has more parts, and that one change then changes one of them.
func TestPartsGrow(t *testing.T) {
	t.Parallel()
	var ops []byte
	var err error
	for i := range 5000 {
		o := storetest.Backend("acme", fmt.Sprintf("b%d", i), "127.0.0.1:1")
		o.Metadata.Seq = 1
		if ops, err = content.AppendPut(ops, o); err != nil {
			t.Fatal(err)
		}
		c := store.CredentialChange{Credential: storetest.Credential("acme", "gold", i)}
		if ops, err = content.AppendCredential(ops, c); err != nil {
			t.Fatal(err)
		}
	}
	s := apply(t, content.New(store.Version{Epoch: 1}), ops)
	parts, basis := s.Parts(nil)
	if len(parts) < 10 {
		t.Errorf("%d bytes are in %d parts, want more", s.Bytes(), len(parts))
	}
	o := storetest.Backend("acme", "b77", "127.0.0.1:2")
	o.Metadata.Seq = 2
	ops, err = content.AppendPut(nil, o)
	if err != nil {
		t.Fatal(err)
	}
	ops, err = content.AppendCredential(ops, store.CredentialChange{Credential: storetest.Credential("acme", "gold", 77), Remove: true})
	if err != nil {
		t.Fatal(err)
	}
	s = apply(t, s, ops)
	parts, basis = s.Parts(basis)
	if got := changed(parts); got != 2 {
		t.Errorf("%d parts changed with a resource and a credential, want 2", got)
	}
	s = apply(t, s, content.AppendDelete(nil, o.Key()))
	if parts, _ = s.Parts(basis); changed(parts) != 1 {
		t.Errorf("%d parts changed with a deletion, want 1", changed(parts))
	}
}

// TestSuperseded derives a state from another and checks what only the older one needs.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	credential := func(s *content.State, product string, remove bool, numbers ...int) *content.State {
		t.Helper()
		var ops []byte
		var err error
		for _, n := range numbers {
			c := store.CredentialChange{Credential: storetest.Credential("acme", "shop", n), Remove: remove}
			c.Credential.Product = product
			if ops, err = content.AppendCredential(ops, c); err != nil {
				t.Fatal(err)
			}
		}
		return apply(t, s, ops)
	}
	a := credential(content.New(store.Version{Epoch: 1}), "gold", false, 1, 2, 3)
	tests := []struct {
		name string
		next *content.State
		want int64
	}{
		{"nothing changed", a, 0},
		{"another credential", credential(a, "gold", false, 4), 0},
		{"all credentials changed", credential(a, "silver", false, 1, 2, 3), a.Bytes()},
		{"all credentials removed", credential(a, "gold", true, 1, 2, 3), a.Bytes()},
	}
	for _, tt := range tests {
		if got := a.Superseded(tt.next); got != tt.want {
			t.Errorf("%s: %d bytes are superseded, want %d", tt.name, got, tt.want)
		}
	}
	one := a.CredentialTable("acme").Shard(storetest.Credential("acme", "shop", 1).Hash.Shard())
	if got, want := a.Superseded(credential(a, "silver", false, 1)), int64(one.Size()); got != want {
		t.Errorf("one credential changed: %d bytes are superseded, want %d", got, want)
	}
}

func changed(parts []content.Part) int {
	n := 0
	for _, p := range parts {
		if p.Changed {
			n++
		}
	}
	return n
}

func TestOpsRefuseDamage(t *testing.T) {
	t.Parallel()
	good, err := content.AppendPut(nil, storetest.Backend("acme", "b", "127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		in   []byte
	}{
		{"cut in the length", []byte{0x80}},
		{"cut in the change", good[:len(good)-1]},
		{"nothing after the length", []byte{5}},
		{"length 0", []byte{0}},
		{"length beyond the limit", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
		{"length beyond numbers", bytes.Repeat([]byte{0xff}, 11)},
		{"code of the future", []byte{2, 99, 0}},
		{"delete of what is not there", content.AppendDelete(nil, v1.Key{Kind: v1.KindSite, Name: "a"})},
		{"unknown kind", []byte("\x11\x01" + `{"kind":"Planet"}`)},
		{"delete with a rest", append([]byte{6, 2, 0, 0, 0, 0, 0}, 0)},
		{"credential without a hash", []byte{4, 3, 0, 0, 1}},
	}
	for _, tt := range tests {
		b := content.New(store.Version{}).Derive(store.Version{Seq: 1})
		var end error
		for op, err := range content.Ops(bytes.NewReader(tt.in)) {
			if err == nil {
				_, err = b.Apply(op)
			}
			if err != nil {
				end = err
				break
			}
		}
		if end == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

func TestOpsReadError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, err := range content.Ops(io.MultiReader(bytes.NewReader([]byte{200, 1, 1}), iotest.ErrReader(broken))) {
		if !errors.Is(err, broken) {
			t.Errorf("error = %v, want that of the reader", err)
		}
	}
}

func FuzzOps(f *testing.F) {
	put, err := content.AppendPut(nil, storetest.Backend("acme", "b", "127.0.0.1:1"))
	if err != nil {
		f.Fatal(err)
	}
	credential, err := content.AppendCredential(nil, store.CredentialChange{Credential: storetest.Credential("acme", "gold", 1)})
	if err != nil {
		f.Fatal(err)
	}
	remove, err := content.AppendCredential(nil, store.CredentialChange{Remove: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Concat(put, credential, remove, content.AppendDelete(nil, v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b"})))
	f.Add(put[:7])
	f.Fuzz(func(t *testing.T, in []byte) {
		b := content.New(store.Version{}).Derive(store.Version{Seq: 1})
		l := content.New(store.Version{}).Load()
		for op, err := range content.Ops(bytes.NewReader(in)) {
			if err != nil {
				break
			}
			if op.IsCredential() {
				if c, err := op.CredentialChange(); err == nil {
					again, err := content.AppendCredential(nil, c)
					if err != nil || !bytes.Contains(in, again[1:]) {
						t.Errorf("%+v was read, and is written as %x (err %v)", c, again, err)
					}
				}
			}
			b.Apply(op) // it must not panic
			l.Apply(op) // it must not panic
		}
		s, loaded := b.State(), l.State()
		parts, _ := s.Parts(nil)
		for i := range parts {
			if _, err := parts[i].Append(nil); err != nil {
				t.Error(err)
			}
		}
		for range loaded.Credentials("") {
		}
	})
}
