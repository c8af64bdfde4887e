// Package storetest is the suite that every implementation of the record passes. It imports testing and is used by
// tests only.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
)

// Open opens the record in a directory, which may be empty, and closes it when the test ends.
type Open func(t *testing.T, dir string) store.Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	tests := []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"an empty record is at epoch 1", testEmpty},
		{"put, get, list, delete", testResources},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, open)
		})
	}
}

func testEmpty(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	if got, want := s.State().Version(), (store.Version{Epoch: 1}); got != want {
		t.Errorf("version of an empty record = %v, want %v", got, want)
	}
	if s.Cluster() == "" {
		t.Error("an empty record has no cluster")
	}
	if s2 := open(t, t.TempDir()); s2.Cluster() == s.Cluster() {
		t.Errorf("two records have the same cluster %q", s.Cluster())
	}
}

func testResources(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	v := Commit(t, s, func(ctx context.Context, tx store.Tx) error {
		for _, org := range []string{"acme", "zeta"} {
			for i := range 5 {
				if err := tx.Put(ctx, Backend(org, fmt.Sprintf("b%d", i), "127.0.0.1:1")); err != nil {
					return err
				}
			}
		}
		return tx.Put(ctx, Product("acme", "b2", "one"))
	})
	if want := (store.Version{Epoch: 1, Seq: 1}); v != want {
		t.Fatalf("version = %v, want %v", v, want)
	}
	st := s.State()
	o, ok := st.Get(v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b3"})
	want := Backend("acme", "b3", "127.0.0.1:1")
	want.Metadata.Seq = 1
	if !ok || !reflect.DeepEqual(o, want) {
		t.Errorf("get b3 = %s, want %s", text(o), text(want))
	}
	if got, want := names(st.List(v1.KindBackend, "acme", "b2")), []string{"acme/b3", "acme/b4"}; !slices.Equal(got, want) {
		t.Errorf("list of acme after b2 = %v, want %v", got, want)
	}
	if got, want := names(st.List(v1.KindBackend, "", "acme/b3")), []string{"acme/b4", "zeta/b0", "zeta/b1", "zeta/b2", "zeta/b3", "zeta/b4"}; !slices.Equal(got, want) {
		t.Errorf("list of all after acme/b3 = %v, want %v", got, want)
	}
	Commit(t, s, func(ctx context.Context, tx store.Tx) error {
		if err := tx.Delete(ctx, v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "none"}); err == nil {
			t.Error("delete of an unknown key succeeded")
		}
		return tx.Delete(ctx, v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b3"})
	})
	if _, ok := s.State().Get(v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b3"}); ok {
		t.Error("b3 is there after its deletion")
	}
	if _, ok := st.Get(v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b3"}); !ok {
		t.Error("b3 is gone from the state before its deletion")
	}
}

// Commit makes one change set upon the state of s and commits it.
func Commit(t *testing.T, s store.Store, fill func(context.Context, store.Tx) error) store.Version {
	t.Helper()
	v, err := TryCommit(t.Context(), s, s.State().Version(), fill)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TryCommit makes one change set upon base and tries to commit it.
func TryCommit(ctx context.Context, s store.Store, base store.Version, fill func(context.Context, store.Tx) error) (store.Version, error) {
	tx, err := s.Begin(ctx, base)
	if err != nil {
		return store.Version{}, err
	}
	defer tx.Abort()
	if err := fill(ctx, tx); err != nil {
		return store.Version{}, err
	}
	return tx.Commit(ctx, store.Info{Principal: "test", Reason: "storetest", At: time.Unix(1_700_000_000, 0)})
}

// Backend returns a backend with one endpoint.
func Backend(organization, name, address string) *v1.Object {
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: v1.KindBackend, Metadata: v1.Metadata{Name: name, Organization: organization},
		Spec: &v1.BackendSpec{Endpoints: []v1.Endpoint{{Address: address}}},
	}
}

// Product returns a product with some APIs.
func Product(organization, name string, apis ...string) *v1.Object {
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: v1.KindProduct, Metadata: v1.Metadata{Name: name, Organization: organization},
		Spec: &v1.ProductSpec{APIs: apis},
	}
}

// names returns the organizations and names of objects.
func names(objects iter.Seq[*v1.Object]) []string {
	var out []string
	for o := range objects {
		out = append(out, o.Metadata.Organization+"/"+o.Metadata.Name)
	}
	return out
}

// text returns the JSON of v, for messages.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
