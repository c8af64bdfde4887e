package etcd_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

// alter changes the value of the only key with a prefix, or of the last one.
func alter(t *testing.T, s *etcd.Store, prefix string, change func(string) string) {
	t.Helper()
	all := keys(t, s, prefix)
	alterAll(t, s, all[len(all)-1], change)
}

// alterAll changes the values of all keys with a prefix.
func alterAll(t *testing.T, s *etcd.Store, prefix string, change func(string) string) {
	t.Helper()
	resp, err := s.Client().Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) == 0 {
		t.Fatalf("there is no %s (err %v)", prefix, err)
	}
	for _, kv := range resp.Kvs {
		value := change(string(kv.Value))
		if value == string(kv.Value) {
			t.Fatalf("%s was not altered: %s", kv.Key, value)
		}
		if _, err := s.Client().Put(t.Context(), string(kv.Key), value); err != nil {
			t.Fatal(err)
		}
	}
}

func replace(old, with string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, with, 1) }
}

func remove(t *testing.T, s *etcd.Store, prefix string) {
	t.Helper()
	resp, err := s.Client().Delete(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil || resp.Deleted == 0 {
		t.Fatalf("there is no %s (err %v)", prefix, err)
	}
}

// TestDamageIsFoundAtStart damages a record in a way that etcd cannot notice, and expects that it does not open.
func TestDamageIsFoundAtStart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		image bool
		harm  func(*testing.T, *etcd.Store)
		want  string
	}{
		{"altered piece", false, func(t *testing.T, s *etcd.Store) {
			alter(t, s, "piece/", func(v string) string { return v[:len(v)-1] + "x" })
		}, "other content than its name says"},
		{"missing piece", false, func(t *testing.T, s *etcd.Store) { remove(t, s, "piece/") }, "piece"},
		{"altered record", false, func(t *testing.T, s *etcd.Store) {
			alter(t, s, "change/00000000000000000002", replace("tester", "nobody"))
		}, "the chain is broken between the change sets 2 and 3"},
		{"altered last record", false, func(t *testing.T, s *etcd.Store) { alter(t, s, "change/", replace("tester", "nobody")) }, "is not the hash of the last change set"},
		{"record under another key", false, func(t *testing.T, s *etcd.Store) { alter(t, s, "change/", replace(`"seq":3`, `"seq":7`)) }, "holds change set 7"},
		{"record that is not JSON", false, func(t *testing.T, s *etcd.Store) { alter(t, s, "change/", func(string) string { return "{" }) }, "read change/"},
		{"missing record", false, func(t *testing.T, s *etcd.Store) { remove(t, s, "change/00000000000000000002") }, "change set 2"},
		{"missing last record", false, func(t *testing.T, s *etcd.Store) { remove(t, s, "change/00000000000000000003") }, "change set 3"},
		{"older head", false, func(t *testing.T, s *etcd.Store) { alter(t, s, "head", replace(`"seq":3`, `"seq":2`)) }, "is not the hash of the last change set"},
		{"head without epoch", false, func(t *testing.T, s *etcd.Store) { alter(t, s, "head", replace(`"epoch":1`, `"epoch":0`)) }, "the head went"},
		{"missing head", false, func(t *testing.T, s *etcd.Store) { remove(t, s, "head") }, "there is no head"},
		{"altered meta", false, func(t *testing.T, s *etcd.Store) { alter(t, s, "meta", replace(`"cluster":"`, `"cluster":"f`)) }, "the chain is broken"},
		{"altered part of the image", true, func(t *testing.T, s *etcd.Store) { alterAll(t, s, "piece/", func(v string) string { return v + "x" }) }, "other content than its name says"},
		{"missing image piece", true, func(t *testing.T, s *etcd.Store) { remove(t, s, "piece/") }, "of the image"},
		{"image of another record", true, func(t *testing.T, s *etcd.Store) { alter(t, s, "image", replace(`"hash":"`, `"hash":"00`)) }, "image"},
		{"image of another change set", true, func(t *testing.T, s *etcd.Store) { alter(t, s, "image", replace(`"seq":3`, `"seq":2`)) }, "the chain is broken"},
		{"image of the future", true, func(t *testing.T, s *etcd.Store) { alter(t, s, "image", replace(`"seq":3`, `"seq":4`)) }, "the head went"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, err := etcd.Open(t.Context(), etcd.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			storetest.Commit(t, s, storetest.Put(storetest.Backend("acme", "a", "1")))
			storetest.Commit(t, s, storetest.Put(storetest.Backend("acme", "b", "1")))
			storetest.Commit(t, s, storetest.PutCredentials(storetest.Credential("acme", "gold", 1)))
			if tt.image {
				maintain(t, s)
			}
			tt.harm(t, s)
			s.Close() // it fails if the record noticed
			_, err = etcd.Open(t.Context(), etcd.Options{Dir: dir})
			if !errors.Is(err, etcd.ErrCorrupt) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("open: %v, want ErrCorrupt with %q", err, tt.want)
			}
		})
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	alter(t, s, "meta", replace(`"format":1`, `"format":2`))
	closeStore(t, s)
	_, err := etcd.Open(t.Context(), etcd.Options{Dir: dir})
	if err == nil || errors.Is(err, etcd.ErrCorrupt) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("open: %v, want a refusal that names format 2", err)
	}
}

// TestDamageIsFoundWhileRunning moves the head to a change set that does not continue the chain, as a member with
// another history would.
func TestDamageIsFoundWhileRunning(t *testing.T) {
	t.Parallel()
	s, err := etcd.Open(t.Context(), etcd.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Commit(t, s, storetest.Put(storetest.Backend("acme", "a", "1")))
	base := s.State().Version()
	_, err = s.Client().Txn(t.Context()).Then(
		clientv3.OpPut("change/00000000000000000002", `{"epoch":1,"seq":2}`),
		clientv3.OpPut("head", `{"epoch":1,"seq":2}`)).Commit()
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Failed():
	case <-time.After(30 * time.Second):
		t.Fatal("the record did not fail")
	}
	for what, err := range map[string]error{
		"Err":   s.Err(),
		"Begin": func() error { _, err := s.Begin(t.Context(), base); return err }(),
		"Watch": func() (end error) {
			for _, err := range s.Watch(t.Context(), s.State()) {
				end = err
			}
			return end
		}(),
		"Close": s.Close(),
	} {
		if !errors.Is(err, etcd.ErrCorrupt) || !strings.Contains(err.Error(), "chain is broken") {
			t.Errorf("%s: %v, want ErrCorrupt and the broken chain", what, err)
		}
	}
	if s.State().Version() != base {
		t.Errorf("the state went to %v", s.State().Version())
	}
}

// flakyKV is a connection to etcd that loses requests or answers of transactions that move the head.
type flakyKV struct {
	clientv3.KV
	lose atomic.Int64 // how many go wrong
	sent bool         // whether those reach etcd
}

var errLost = errors.New("the answer is lost")

// Txn implements clientv3.KV.
func (f *flakyKV) Txn(ctx context.Context) clientv3.Txn { return &flakyTxn{Txn: f.KV.Txn(ctx), kv: f} }

type flakyTxn struct {
	clientv3.Txn
	kv    *flakyKV
	moves bool
}

// If implements clientv3.Txn.
func (x *flakyTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	x.moves = len(cs) == 1 && string(cs[0].KeyBytes()) == "head"
	x.Txn = x.Txn.If(cs...)
	return x
}

// Then implements clientv3.Txn.
func (x *flakyTxn) Then(ops ...clientv3.Op) clientv3.Txn { x.Txn = x.Txn.Then(ops...); return x }

// Else implements clientv3.Txn.
func (x *flakyTxn) Else(ops ...clientv3.Op) clientv3.Txn { x.Txn = x.Txn.Else(ops...); return x }

// Commit implements clientv3.Txn.
func (x *flakyTxn) Commit() (*clientv3.TxnResponse, error) {
	if !x.moves || x.kv.lose.Add(-1) < 0 {
		return x.Txn.Commit()
	}
	if x.kv.sent {
		if _, err := x.Txn.Commit(); err != nil {
			return nil, err
		}
	}
	return nil, errLost
}

// openFlaky opens a record whose connection to etcd can be made to lose things.
func openFlaky(t *testing.T) (*etcd.Store, *flakyKV) {
	t.Helper()
	kv := &flakyKV{}
	opts := etcd.Options{Dir: t.TempDir()}
	opts.Wrap(func(inner clientv3.KV) clientv3.KV { kv.KV = inner; return kv })
	return openWith(t, opts), kv
}

func TestLostAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lose int64
		sent bool
		want error
		seq  uint64
	}{
		{"request lost", 1, false, nil, 1},
		{"answer lost", 1, true, nil, 1},
		{"answers lost", 3, true, nil, 1},
		{"every request lost", 1 << 20, false, store.ErrUnknown, 0},
		{"every answer lost", 1 << 20, true, store.ErrUnknown, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, kv := openFlaky(t)
			empty := s.State()
			if tt.want != nil {
				s.SetCommitTimeout(500 * time.Millisecond)
			}
			kv.sent = tt.sent
			kv.lose.Store(tt.lose)
			v, err := storetest.TryCommit(t.Context(), s, empty.Version(), storetest.Put(storetest.Backend("acme", "a", "1")))
			if !errors.Is(err, tt.want) || err == nil && v != s.State().Version() {
				t.Errorf("commit = %v, %v, want %v", v, err, tt.want)
			}
			kv.lose.Store(0)
			s.SetCommitTimeout(time.Minute)
			if tt.seq == 1 { // the watch may be about to show it
				for range s.Watch(t.Context(), empty) {
					break
				}
			}
			if got := s.State().Version().Seq; got != tt.seq {
				t.Errorf("seq = %d, want %d", got, tt.seq)
			}
			fill(t, s, 1)
			if n := audited(t, s); n != int(tt.seq)+1 {
				t.Errorf("%d change sets, want %d", n, tt.seq+1)
			}
		})
	}
}

// TestLostAnswerThenConflict loses the request of a change set, and lets another be first before it is sent again.
func TestLostAnswerThenConflict(t *testing.T) {
	t.Parallel()
	s, kv := openFlaky(t)
	tx, err := s.Begin(t.Context(), s.State().Version())
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1)
	kv.lose.Store(1)
	if v, err := tx.Commit(t.Context(), storetest.Info()); !errors.Is(err, store.ErrConflict) {
		t.Errorf("commit = %v, %v, want ErrConflict", v, err)
	}
}
