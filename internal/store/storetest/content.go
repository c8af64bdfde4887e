package storetest

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

func testEmpty(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	if got, want := s.State().Version(), (store.Version{Epoch: 1}); got != want {
		t.Errorf("version of an empty record = %v, want %v", got, want)
	}
	if s.Cluster() == "" {
		t.Error("an empty record has no cluster")
	}
	if other := open(t, t.TempDir()); other.Cluster() == s.Cluster() {
		t.Errorf("two records have the same cluster %q", s.Cluster())
	}
	if got := s.State().CredentialTable("acme").Len(); got != 0 {
		t.Errorf("an empty record has %d credentials", got)
	}
}

func testResources(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	var objects []*v1.Object
	for _, org := range []string{"acme", "zeta"} {
		for i := range 5 {
			objects = append(objects, Backend(org, fmt.Sprintf("b%d", i), "127.0.0.1:1"))
		}
	}
	v := Commit(t, s, Put(objects...), Put(Product("acme", "b2", "one")))
	if want := (store.Version{Epoch: 1, Seq: 1}); v != want || s.State().Version() != want {
		t.Fatalf("version = %v and %v in the state, want %v", v, s.State().Version(), want)
	}
	before := s.State()
	b3 := v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b3"}
	want := Backend("acme", "b3", "127.0.0.1:1")
	want.Metadata.Seq = 1
	if got, ok := before.Get(b3); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("get b3 = %s, want %s", text(got), text(want))
	}
	lists := []struct {
		organization, after string
		want                []string
	}{
		{"acme", "", []string{"acme/b0", "acme/b1", "acme/b2", "acme/b3", "acme/b4"}},
		{"acme", "b2", []string{"acme/b3", "acme/b4"}},
		{"acme", "b22", []string{"acme/b3", "acme/b4"}},
		{"acme", "b4", nil},
		{"none", "", nil},
		{"", "acme/b3", []string{"acme/b4", "zeta/b0", "zeta/b1", "zeta/b2", "zeta/b3", "zeta/b4"}},
	}
	for _, l := range lists {
		if got := names(before.List(v1.KindBackend, l.organization, l.after)); !slices.Equal(got, l.want) {
			t.Errorf("list of %q after %q = %v, want %v", l.organization, l.after, got, l.want)
		}
	}
	none := v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "none"}
	if _, err := TryCommit(t.Context(), s, v, Delete(none)); err == nil {
		t.Error("delete of an unknown key succeeded")
	}
	Commit(t, s, Delete(b3), Put(Backend("acme", "b4", "127.0.0.1:2")))
	if _, ok := s.State().Get(b3); ok {
		t.Error("b3 is there after its deletion")
	}
	if got, want := Address(s.State(), "acme", "b4"), "127.0.0.1:2"; got != want {
		t.Errorf("address of b4 = %q, want %q", got, want)
	}
	if _, ok := before.Get(b3); !ok || Address(before, "acme", "b4") != "127.0.0.1:1" {
		t.Error("a state changed when the record did")
	}
}

func testCopy(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	o := Backend("acme", "b", "127.0.0.1:1")
	o.Metadata.Seq = 77
	v := Commit(t, s, Put(o))
	if o.Metadata.Seq != 77 {
		t.Errorf("Put changed the seq of what it was given to %d", o.Metadata.Seq)
	}
	o.Spec.(*v1.BackendSpec).Endpoints[0].Address = "changed"
	got, _ := s.State().Get(o.Key())
	if got.Metadata.Seq != v.Seq || Address(s.State(), "acme", "b") != "127.0.0.1:1" {
		t.Errorf("stored is %s, want seq %d and the address as it was in Put", text(got), v.Seq)
	}
}

func testOneKey(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	Commit(t, s, Put(Backend("acme", "old", "127.0.0.1:1")))
	from := s.State()
	a, made := Backend("acme", "a", "127.0.0.1:1"), Backend("acme", "made", "127.0.0.1:1")
	old := Backend("acme", "old", "127.0.0.1:2")
	Commit(t, s, Put(a, old, made), Put(Backend("acme", "a", "127.0.0.1:3")), Delete(made.Key(), old.Key()), Put(old))
	for cs, err := range s.Watch(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		got := make([]string, 0, len(cs.Changes))
		for _, c := range cs.Changes {
			got = append(got, fmt.Sprintf("%s %t", c.Key.Name, c.Object != nil))
		}
		if want := []string{"a true", "old true", "made false"}; !slices.Equal(got, want) {
			t.Errorf("changes = %v, want %v", got, want)
		}
		break
	}
	if got, want := Address(s.State(), "acme", "a"), "127.0.0.1:3"; got != want {
		t.Errorf("address of a = %q, want %q", got, want)
	}
	for r, err := range s.Audit(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		want := []store.AuditEntry{{Key: a.Key(), Action: "created"}, {Key: old.Key(), Action: "updated"}}
		if !slices.Equal(r.Changes, want) {
			t.Errorf("audit = %v, want %v", r.Changes, want)
		}
		break
	}
}

func testCredentials(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	gold0, gold1 := Credential("acme", "gold", 0), Credential("acme", "gold", 1)
	silver, zeta := Credential("acme", "silver", 0), Credential("zeta", "gold", 0)
	shared := gold0 // the same value may be a key in two organizations
	shared.Organization = "zeta"
	Commit(t, s, PutCredentials(gold0, gold1, silver, zeta, shared))
	before := s.State()
	if got, ok := before.Credential("acme", gold0.Hash); !ok || got != gold0 {
		t.Errorf("credential = %+v, want %+v", got, gold0)
	}
	if got, ok := before.Credential("zeta", gold0.Hash); !ok || got != shared {
		t.Errorf("credential = %+v, want %+v", got, shared)
	}
	revoked := gold1
	revoked.State = snapshot.StateRevoked
	Commit(t, s, Put(Backend("acme", "b", "127.0.0.1:1")))
	Commit(t, s, PutCredentials(revoked), func(ctx context.Context, tx store.Tx) error {
		if err := tx.RemoveCredential(ctx, "acme", gold0.Hash); err != nil {
			return err
		}
		return tx.RemoveCredential(ctx, "nobody", gold0.Hash)
	})
	after := s.State()
	if got, want := slices.Collect(after.CredentialsOf("acme", "gold")), []snapshot.Credential{revoked}; !slices.Equal(got, want) {
		t.Errorf("credentials of acme/gold = %+v, want %+v", got, want)
	}
	if _, ok := after.Credential("acme", gold0.Hash); ok {
		t.Error("a removed credential is there")
	}
	want := []snapshot.Credential{revoked, silver}
	byHash := func(a, b snapshot.Credential) int { return a.Hash.Compare(b.Hash) }
	slices.SortFunc(want, byHash)
	if got := slices.Collect(after.Credentials("acme")); !slices.Equal(got, want) {
		t.Errorf("credentials of acme = %+v, want %+v", got, want)
	}
	of := []snapshot.Credential{zeta, shared}
	slices.SortFunc(of, byHash)
	if got := slices.Collect(after.Credentials("")); !slices.Equal(got, append(want, of...)) {
		t.Errorf("all credentials = %+v, want those of acme and then of zeta", got)
	}
	if got := after.CredentialTable("acme").Len(); got != 2 {
		t.Errorf("table of acme has %d credentials, want 2", got)
	}
	for org, want := range map[string]uint64{"acme": 3, "zeta": 1, "none": 0} {
		if got := after.CredentialSeq(org); got != want {
			t.Errorf("credential seq of %s = %d, want %d", org, got, want)
		}
	}
	if got, ok := before.Credential("acme", gold0.Hash); !ok || got != gold0 {
		t.Error("a state changed when the record did")
	}
}

func testManyResources(t *testing.T, open Open) {
	const n = 10_000
	dir := t.TempDir()
	s := open(t, dir)
	objects := make([]*v1.Object, n)
	for i := range objects {
		objects[i] = Backend("acme", fmt.Sprintf("b%05d", i), fmt.Sprintf("127.0.0.1:%d", i))
	}
	Commit(t, s, Put(objects...))
	check := func(s store.Store) {
		t.Helper()
		i := 0
		for o := range s.State().List(v1.KindBackend, "acme", "") {
			if o.Metadata.Name != objects[i].Metadata.Name || o.Metadata.Seq != 1 || !reflect.DeepEqual(o.Spec, objects[i].Spec) {
				t.Fatalf("resource %d = %s, want %s", i, text(o), text(objects[i]))
			}
			i++
		}
		if i != n {
			t.Errorf("%d resources are there, want %d", i, n)
		}
	}
	check(s)
	for r, err := range s.Audit(t.Context(), 0) {
		if err != nil || len(r.Changes) != 1000 || r.Omitted != n-1000 {
			t.Errorf("audit has %d changes and omits %d (err %v), want 1000 and %d", len(r.Changes), r.Omitted, err, n-1000)
		}
		break
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir))
}

func testLargeResource(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	noise := make([]byte, 1<<10)
	source := rand.NewChaCha8([32]byte{1})
	spec := &v1.APISpec{BasePath: "/large"}
	for i := range 6_000 { // about 13 MB that do not compress well
		source.Read(noise) // never fails
		spec.Operations = append(spec.Operations, v1.Operation{Name: fmt.Sprintf("op%d", i), Method: "GET", Path: "/" + hex.EncodeToString(noise)})
	}
	o := &v1.Object{APIVersion: v1.APIVersion, Kind: v1.KindAPI, Metadata: v1.Metadata{Name: "large", Organization: "acme"}, Spec: spec}
	Commit(t, s, Put(Backend("acme", "before", "127.0.0.1:1"), o, Backend("acme", "after", "127.0.0.1:1")))
	check := func(s store.Store) {
		t.Helper()
		got, ok := s.State().Get(o.Key())
		if !ok || !reflect.DeepEqual(got.Spec, o.Spec) || Address(s.State(), "acme", "after") == "" {
			t.Error("the large resource is not what was put")
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir))
}

func testManyCredentials(t *testing.T, open Open) {
	const n = 20_000
	dir := t.TempDir()
	s := open(t, dir)
	from := s.State()
	Commit(t, s, func(ctx context.Context, tx store.Tx) error {
		for i := range n {
			if err := tx.PutCredential(ctx, Credential("acme", "gold", i)); err != nil {
				return err
			}
		}
		return tx.Put(ctx, Backend("acme", "b", "127.0.0.1:1"))
	})
	check := func(s store.Store) {
		t.Helper()
		if got := s.State().CredentialTable("acme").Len(); got != n {
			t.Fatalf("%d credentials are there, want %d", got, n)
		}
		for i := range n {
			want := Credential("acme", "gold", i)
			if got, ok := s.State().Credential("acme", want.Hash); !ok || got != want {
				t.Fatalf("credential %d = %+v, want %+v", i, got, want)
			}
		}
	}
	check(s)
	for cs, err := range s.Watch(t.Context(), from) {
		if err != nil || cs.NumCredentials != n || len(cs.Changes) != 1 {
			t.Fatalf("change set has %d credentials and %d resources (err %v), want %d and 1", cs.NumCredentials, len(cs.Changes), err, n)
		}
		i := 0
		for c, err := range cs.Credentials(t.Context()) {
			if want := Credential("acme", "gold", i); err != nil || c.Remove || c.Credential != want {
				t.Fatalf("change %d = %+v (err %v), want %+v", i, c, err, want)
			}
			i++
		}
		if i != n {
			t.Errorf("%d changes of credentials, want %d", i, n)
		}
		break
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir))
}

// names returns the organizations and names of objects.
func names(objects iter.Seq[*v1.Object]) []string {
	var out []string
	for o := range objects {
		out = append(out, o.Metadata.Organization+"/"+o.Metadata.Name)
	}
	return out
}
