package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

// keys returns the keys of the embedded etcd with a prefix.
func keys(t *testing.T, s *etcd.Store, prefix string) []string {
	t.Helper()
	resp, err := s.Client().Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		out[i] = string(kv.Key)
	}
	return out
}

func maintain(t *testing.T, s *etcd.Store) {
	t.Helper()
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestImageIsEnough(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s, 120)
	maintain(t, s)
	// What the image holds must not be needed any more.
	if _, err := s.Client().Delete(t.Context(), "change/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 5)
	want := contents(s.State())
	closeStore(t, s)
	s = open(t, dir)
	if diff := cmp.Diff(want, contents(s.State())); diff != "" {
		t.Errorf("content after opening again (-want +got):\n%s", diff)
	}
	fill(t, s, 5)
	maintain(t, s)
	want = contents(s.State())
	closeStore(t, s)
	if diff := cmp.Diff(want, contents(open(t, dir).State())); diff != "" {
		t.Errorf("content after the second image (-want +got):\n%s", diff)
	}
}

func TestImageIsWrittenWhenDue(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := openWith(t, etcd.Options{Dir: t.TempDir(), Registerer: reg})
	storetest.Commit(t, s, func(ctx context.Context, tx store.Tx) error {
		for i := range 50_000 { // more than 4 MiB
			if err := tx.PutCredential(ctx, storetest.Credential("acme", "gold", i)); err != nil {
				return err
			}
		}
		return nil
	})
	deadline := time.Now().Add(30 * time.Second)
	for gauge(reg, "hansa_store_image_age_seconds") == 0 {
		if time.Now().After(deadline) {
			t.Fatal("no image was written")
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestImageWritesWhatChanged(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := openWith(t, etcd.Options{Dir: t.TempDir(), Registerer: reg})
	storetest.Commit(t, s, func(ctx context.Context, tx store.Tx) error {
		for i := range 10_000 {
			if err := tx.PutCredential(ctx, storetest.Credential("acme", "gold", i)); err != nil {
				return err
			}
		}
		return nil
	})
	maintain(t, s)
	storetest.Commit(t, s, storetest.PutCredentials(storetest.Credential("acme", "silver", 1)))
	before := counter(reg, "hansa_store_pieces_written_total")
	maintain(t, s)
	if got := counter(reg, "hansa_store_pieces_written_total") - before; got != 2 {
		t.Errorf("an image after one change wrote %v pieces, want 2: a part and the list", got)
	}
}

func TestUnusedPiecesAreCollected(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	large := func(ctx context.Context, tx store.Tx) error {
		for i := range 10_000 {
			if err := tx.PutCredential(ctx, storetest.Credential("acme", "gold", i)); err != nil {
				return err
			}
		}
		return nil
	}
	begin := func() store.Tx {
		t.Helper()
		tx, err := s.Begin(t.Context(), s.State().Version())
		if err != nil {
			t.Fatal(err)
		}
		if err := large(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	maintain(t, s)
	clean := len(keys(t, s, "piece/"))
	open, aborted := begin(), begin()
	if n := len(keys(t, s, "piece/")); n <= clean {
		t.Fatalf("%d pieces while change sets are open, want more than %d", n, clean)
	}
	aborted.Abort()
	maintain(t, s)
	if _, err := open.Commit(t.Context(), storetest.Info()); err != nil {
		t.Fatal(err)
	}
	maintain(t, s)
	if got := s.State().CredentialTable("acme").Len(); got != 10_000 {
		t.Errorf("%d credentials, want 10000: maintenance took pieces of an open change set", got)
	}
	// The same change set again, and given up: its pieces are those of the first, which must stay.
	begin().Abort()
	maintain(t, s)
	n := 0
	for cs, err := range s.Log(t.Context(), store.Version{Epoch: 1}, s.State().Version()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range cs.Credentials(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if n != 10_000 {
		t.Errorf("the log has %d changes of credentials, want 10000", n)
	}
	// What nothing names goes.
	stray := "piece/" + fmt.Sprintf("%064x", 7)
	if _, err := s.Client().Put(t.Context(), stray, "x"); err != nil {
		t.Fatal(err)
	}
	maintain(t, s)
	if got := keys(t, s, stray); len(got) != 0 {
		t.Errorf("%v is there after collection", got)
	}
}

func TestOldChangesAreForgotten(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Unix(1_700_000_000, 0)
	s := openWith(t, etcd.Options{Dir: t.TempDir(), Now: func() time.Time { return now }})
	origin := s.State()
	fill(t, s, 300)
	maintain(t, s)
	pieces := len(keys(t, s, "piece/"))
	now = now.Add(8 * day)
	fill(t, s, 2)
	maintain(t, s)
	if got := len(keys(t, s, "piece/")); got > pieces-200 {
		t.Errorf("%d pieces after 8 days, there were %d", got, pieces)
	}
	for _, err := range s.Log(t.Context(), store.Version{Epoch: 1}, s.State().Version()) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("log from the beginning: %v, want ErrCompacted", err)
		}
	}
	n := 0
	for _, err := range s.Log(t.Context(), store.Version{Epoch: 1, Seq: 300}, s.State().Version()) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("the log has %d change sets of today, want 2", n)
	}
	for _, err := range s.Watch(t.Context(), origin) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("watch from the beginning: %v, want ErrCompacted", err)
		}
		break
	}
	if got := audited(t, s); got != 302 {
		t.Errorf("%d audit records after 8 days, want 302", got)
	}
	now = now.Add(401 * day)
	fill(t, s, 1)
	maintain(t, s)
	if got := audited(t, s); got > 2 {
		t.Errorf("%d audit records after 409 days, want at most 2", got)
	}
	if _, ok := s.State().Get(v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b7"}); !ok {
		t.Error("a resource is gone with its history")
	}
}

func audited(t *testing.T, s store.Store) int {
	t.Helper()
	n := 0
	for _, err := range s.Audit(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestCollectWhileCommitting lets maintenance run all the time while change sets with common pieces are staged,
// aborted and committed.
func TestCollectWhileCommitting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			if err := s.Maintain(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	}()
	for i := range 20 {
		for _, commit := range []bool{false, true} {
			tx, err := s.Begin(t.Context(), s.State().Version())
			if err != nil {
				t.Fatal(err)
			}
			for j := range 6_000 { // more than one piece, and the same twice
				if err := tx.PutCredential(t.Context(), storetest.Credential("acme", "gold", i/2*100+j)); err != nil {
					t.Fatal(err)
				}
			}
			if commit {
				if _, err := tx.Commit(t.Context(), storetest.Info()); err != nil {
					t.Fatal(err)
				}
			}
			tx.Abort()
		}
	}
	stop()
	<-stopped
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	want := contents(s.State())
	for cs, err := range s.Log(t.Context(), store.Version{Epoch: 1}, s.State().Version()) {
		if err != nil {
			t.Fatalf("after %v: %v", cs.Version, err)
		}
	}
	closeStore(t, s)
	if diff := cmp.Diff(want, contents(open(t, dir).State())); diff != "" {
		t.Errorf("content after opening again (-want +got):\n%s", diff)
	}
}

// TestQuota fills the record until etcd refuses, and expects that reading goes on and that, once something is
// deleted, so does writing.
func TestQuota(t *testing.T) {
	t.Parallel()
	s := openWith(t, etcd.Options{Dir: t.TempDir(), Quota: 24 << 20})
	fill(t, s, 1)
	tx, err := s.Begin(t.Context(), s.State().Version())
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil && i < 1_000_000; i++ {
		err = tx.PutCredential(t.Context(), storetest.Credential("acme", "gold", i))
	}
	if !errors.Is(err, store.ErrStorageFull) {
		t.Fatalf("staging until the quota: %v, want ErrStorageFull", err)
	}
	if _, err := tx.Commit(t.Context(), storetest.Info()); !errors.Is(err, store.ErrStorageFull) {
		t.Errorf("commit after that: %v, want ErrStorageFull", err)
	}
	tx.Abort()
	if n := audited(t, s); n != 1 || s.State().Version().Seq != 1 {
		t.Errorf("%d change sets can be read at %v, want 1", n, s.State().Version())
	}
	deadline := time.Now().Add(30 * time.Second)
	for { // maintenance collects the pieces and makes room by itself
		_, err := storetest.TryCommit(t.Context(), s, s.State().Version(), storetest.Put(storetest.Backend("acme", "b", "127.0.0.1:1")))
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrStorageFull) || time.Now().After(deadline) {
			t.Fatalf("commit after the change set was given up: %v", err)
		}
		<-time.After(50 * time.Millisecond)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}
