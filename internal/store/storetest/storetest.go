// Package storetest is the suite that every implementation of the record passes, and what tests with a record need
// to fill it. It is used by tests only.
package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

// Store is a record that can be closed.
type Store interface {
	store.Store
	Close() error
}

// Open opens the record in a directory, which is empty or holds what an earlier Open made. It closes the record when
// the test ends, if that has not been done.
type Open func(t *testing.T, dir string) Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	tests := []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"an empty record is at epoch 1", testEmpty},
		{"resources are put, listed and deleted", testResources},
		{"what is put is a copy", testCopy},
		{"changes of one key are one change", testOneKey},
		{"credentials are put and removed", testCredentials},
		{"an aborted change set leaves nothing", testAbort},
		{"only one of two change sets upon one base commits", testConflict},
		{"a context that has ended commits nothing", testCommitContext},
		{"a closed record refuses everything but reading", testClosed},
		{"what was committed is there after opening again", testReopen},
		{"a watch yields every change set with its state", testWatch},
		{"a slow watch misses nothing", testSlowWatch},
		{"a watch ends with its context and with the record", testWatchEnds},
		{"the log yields what lies between two versions", testLog},
		{"the audit yields records from the newest on", testAudit},
		{"concurrent committers and watchers agree", testConcurrent},
		{"10,000 resources are one change set", testManyResources},
		{"a resource may take 13 MB", testLargeResource},
		{"20,000 credentials and a resource are one change set", testManyCredentials},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, open)
		})
	}
}

// Fill puts changes into a change set.
type Fill func(context.Context, store.Tx) error

// Put returns the Fill that puts objects.
func Put(objects ...*v1.Object) Fill {
	return func(ctx context.Context, tx store.Tx) error {
		for _, o := range objects {
			if err := tx.Put(ctx, o); err != nil {
				return err
			}
		}
		return nil
	}
}

// Delete returns the Fill that deletes the resources with some keys.
func Delete(keys ...v1.Key) Fill {
	return func(ctx context.Context, tx store.Tx) error {
		for _, k := range keys {
			if err := tx.Delete(ctx, k); err != nil {
				return err
			}
		}
		return nil
	}
}

// PutCredentials returns the Fill that puts credentials.
func PutCredentials(credentials ...snapshot.Credential) Fill {
	return func(ctx context.Context, tx store.Tx) error {
		for _, c := range credentials {
			if err := tx.PutCredential(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
}

// Commit commits a change set upon the state of s.
func Commit(t *testing.T, s store.Store, fills ...Fill) store.Version {
	t.Helper()
	v, err := TryCommit(t.Context(), s, s.State().Version(), fills...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TryCommit tries to commit a change set upon base.
func TryCommit(ctx context.Context, s store.Store, base store.Version, fills ...Fill) (store.Version, error) {
	tx, err := s.Begin(ctx, base)
	if err != nil {
		return store.Version{}, err
	}
	defer tx.Abort()
	for _, fill := range fills {
		if err := fill(ctx, tx); err != nil {
			return store.Version{}, err
		}
	}
	return tx.Commit(ctx, Info())
}

// Info returns who commits in tests.
func Info() store.Info {
	return store.Info{Principal: "tester", Reason: "test", RequestID: "r1", At: time.Unix(1_700_000_000, 0).UTC()}
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

// Credential returns the i-th credential of a subscription. Its application and product are named after it.
func Credential(organization, subscription string, i int) snapshot.Credential {
	return snapshot.Credential{
		Hash:         sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", organization, subscription, i)),
		ID:           fmt.Sprintf("key-%07d", i),
		Organization: organization, Subscription: subscription,
		Application: subscription + "-app", Product: subscription + "-product",
		Slot: snapshot.SlotImported, CreatedAt: 1_700_000_000 + int64(i),
	}
}

// Address returns the address of the backend with that name, "" if there is none.
func Address(s store.State, organization, name string) string {
	o, ok := s.Get(v1.Key{Organization: organization, Kind: v1.KindBackend, Name: name})
	if !ok {
		return ""
	}
	return o.Spec.(*v1.BackendSpec).Endpoints[0].Address
}

// text returns the JSON of v, for messages.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
