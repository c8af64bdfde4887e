package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
)

func testAbort(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	tx, err := s.Begin(t.Context(), s.State().Version())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20_000 { // more than is held back
		if err := tx.PutCredential(t.Context(), Credential("acme", "gold", i)); err != nil {
			t.Fatal(err)
		}
	}
	tx.Abort()
	tx.Abort()
	if err := tx.Put(t.Context(), Backend("acme", "b", "127.0.0.1:1")); err == nil {
		t.Error("Put after Abort succeeded")
	}
	if _, err := tx.Commit(t.Context(), Info()); err == nil {
		t.Error("Commit after Abort succeeded")
	}
	if v := s.State().Version(); v.Seq != 0 || s.State().CredentialTable("acme").Len() != 0 {
		t.Errorf("the record is at %v with %d credentials after Abort", v, s.State().CredentialTable("acme").Len())
	}
}

func testConflict(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	base := s.State().Version()
	first, err := s.Begin(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Abort()
	second, err := s.Begin(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Abort()
	for i, tx := range []store.Tx{first, second} {
		if err := tx.Put(t.Context(), Backend("acme", "b", strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := second.Commit(t.Context(), Info()); err != nil {
		t.Fatal(err)
	}
	if v, err := first.Commit(t.Context(), Info()); !errors.Is(err, store.ErrConflict) {
		t.Errorf("commit of the later one = %v, %v, want ErrConflict", v, err)
	}
	if got, want := Address(s.State(), "acme", "b"), "1"; got != want {
		t.Errorf("address = %q, want %q of the one that committed", got, want)
	}
	if _, err := s.Begin(t.Context(), base); !errors.Is(err, store.ErrConflict) {
		t.Errorf("begin upon an old base: %v, want ErrConflict", err)
	}
	if _, err := s.Begin(t.Context(), store.Version{Epoch: 1, Seq: 9}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("begin upon a base of the future: %v, want ErrConflict", err)
	}
}

func testCommitContext(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := s.Begin(ctx, s.State().Version())
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Put(ctx, Backend("acme", "b", "127.0.0.1:1")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := tx.Commit(ctx, Info()); !errors.Is(err, context.Canceled) {
		t.Errorf("commit with a cancelled context: %v, want context.Canceled", err)
	}
	Commit(t, s, Put(Backend("acme", "c", "127.0.0.1:1")))
	if Address(s.State(), "acme", "b") != "" {
		t.Error("the change set became visible")
	}
}

func testClosed(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	Commit(t, s, Put(Backend("acme", "b", "127.0.0.1:1")))
	base := s.State().Version()
	tx, err := s.Begin(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := tx.Commit(t.Context(), Info()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("commit: %v, want ErrClosed", err)
	}
	if _, err := s.Begin(t.Context(), base); !errors.Is(err, store.ErrClosed) {
		t.Errorf("begin: %v, want ErrClosed", err)
	}
	if err := s.Backup(t.Context(), io.Discard); !errors.Is(err, store.ErrClosed) {
		t.Errorf("backup: %v, want ErrClosed", err)
	}
	for _, err := range s.Audit(t.Context(), 0) {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("audit: %v, want ErrClosed", err)
		}
	}
	if Address(s.State(), "acme", "b") == "" {
		t.Error("the state is gone")
	}
}

func testReopen(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	cluster := s.Cluster()
	for i := range 100 {
		fills := []Fill{Put(Backend("acme", fmt.Sprintf("b%d", i%10), strconv.Itoa(i))), PutCredentials(Credential("acme", "gold", i))}
		if i == 50 {
			fills = append(fills, Delete(v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b7"}))
		}
		Commit(t, s, fills...)
	}
	Commit(t, s, Delete(v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: "b7"}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if got := s.Cluster(); got != cluster {
		t.Errorf("cluster = %q, was %q", got, cluster)
	}
	if got, want := s.State().Version(), (store.Version{Epoch: 1, Seq: 101}); got != want {
		t.Fatalf("version = %v, want %v", got, want)
	}
	for i := range 10 {
		want := strconv.Itoa(90 + i)
		if i == 7 {
			want = ""
		}
		if got := Address(s.State(), "acme", fmt.Sprintf("b%d", i)); got != want {
			t.Errorf("address of b%d = %q, want %q", i, got, want)
		}
	}
	if got := s.State().CredentialTable("acme").Len(); got != 100 {
		t.Errorf("%d credentials, want 100", got)
	}
	Commit(t, s, Put(Backend("acme", "b", "127.0.0.1:1")))
}

func testWatch(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	from := s.State()
	for i := range 3 {
		Commit(t, s, Put(Backend("acme", "b", strconv.Itoa(i))))
	}
	middle := s.State()
	var wait sync.WaitGroup
	for _, from := range []store.State{from, middle} {
		wait.Go(func() {
			i := int(from.Version().Seq)
			for cs, err := range s.Watch(t.Context(), from) {
				if err != nil {
					t.Error(err)
					return
				}
				if cs.Version.Seq != uint64(i+1) || cs.State.Version() != cs.Version || Address(cs.State, "acme", "b") != strconv.Itoa(i) {
					t.Errorf("change set %v with state %v and address %q, want seq %d and address %d", cs.Version, cs.State.Version(), Address(cs.State, "acme", "b"), i+1, i)
				}
				if info := cs.Info; info != Info() {
					t.Errorf("info = %+v, want %+v", info, Info())
				}
				if i++; i == 10 {
					return
				}
			}
		})
	}
	for i := 3; i < 10; i++ {
		Commit(t, s, Put(Backend("acme", "b", strconv.Itoa(i))))
	}
	wait.Wait()
}

func testSlowWatch(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	const n = 600 // more than an implementation wants to hold for a watcher
	from := s.State()
	for i := range n {
		fills := []Fill{Put(Backend("acme", fmt.Sprintf("b%d", i%3), strconv.Itoa(i)))}
		if i%100 == 0 {
			fills = append(fills, PutCredentials(Credential("acme", "gold", i)))
		}
		Commit(t, s, fills...)
	}
	i := 0
	for cs, err := range s.Watch(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		if cs.Version.Seq != uint64(i+1) || cs.State.Version() != cs.Version || Address(cs.State, "acme", fmt.Sprintf("b%d", i%3)) != strconv.Itoa(i) {
			t.Fatalf("change set %v with state %v, want seq %d", cs.Version, cs.State.Version(), i+1)
		}
		if got, want := cs.State.CredentialTable("acme").Len(), i/100+1; got != want {
			t.Fatalf("%d credentials in state %v, want %d", got, cs.Version, want)
		}
		if i++; i == n {
			break
		}
	}
}

func testWatchEnds(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	ends := make(chan error, 2)
	for _, ctx := range []context.Context{ctx, t.Context()} {
		go func() {
			for _, err := range s.Watch(ctx, s.State()) {
				ends <- err
			}
		}()
	}
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v, want context.Canceled", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ends; !errors.Is(err, store.ErrClosed) {
		t.Errorf("watch ended with %v, want ErrClosed", err)
	}
}

func testLog(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	for i := range 10 {
		Commit(t, s, Put(Backend("acme", "b", strconv.Itoa(i))), PutCredentials(Credential("acme", "gold", i)))
	}
	at := func(seq uint64) store.Version { return store.Version{Epoch: 1, Seq: seq} }
	tests := []struct {
		after, through store.Version
		want           []uint64
		err            error
	}{
		{at(0), at(3), []uint64{1, 2, 3}, nil},
		{at(7), at(10), []uint64{8, 9, 10}, nil},
		{at(10), at(10), nil, nil},
		{at(11), at(12), nil, store.ErrCompacted},
		{store.Version{Epoch: 2, Seq: 3}, store.Version{Epoch: 2, Seq: 4}, nil, store.ErrCompacted},
	}
	for _, tt := range tests {
		var got []uint64
		var end error
		for cs, err := range s.Log(t.Context(), tt.after, tt.through) {
			if err != nil {
				end = err
				continue
			}
			got = append(got, cs.Version.Seq)
			if cs.State != nil || len(cs.Changes) != 1 || cs.NumCredentials != 1 {
				t.Errorf("log at %v has a state or not its changes: %s", cs.Version, text(cs.Changes))
			}
			for c, err := range cs.Credentials(t.Context()) {
				if want := Credential("acme", "gold", int(cs.Version.Seq)-1); err != nil || c.Credential != want {
					t.Errorf("credential in %v = %+v (err %v), want %+v", cs.Version, c, err, want)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) || !errors.Is(end, tt.err) {
			t.Errorf("log from %v to %v = %v, %v, want %v, %v", tt.after, tt.through, got, end, tt.want, tt.err)
		}
	}
}

func testAudit(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	for i := range 150 {
		Commit(t, s, Put(Backend("acme", fmt.Sprintf("b%d", i), "127.0.0.1:1")), PutCredentials(Credential("acme", "gold", i)))
	}
	for _, below := range []uint64{0, 120, 1, 1000} {
		next := below - 1
		if below == 0 || below > 151 {
			next = 150
		}
		for r, err := range s.Audit(t.Context(), below) {
			if err != nil {
				t.Fatal(err)
			}
			want := store.AuditRecord{
				Version: store.Version{Epoch: 1, Seq: next}, Info: Info(), Credentials: 1,
				Changes: []store.AuditEntry{{
					Key: v1.Key{Organization: "acme", Kind: v1.KindBackend, Name: fmt.Sprintf("b%d", next-1)}, Action: "created",
				}},
			}
			if got, want := text(r), text(want); got != want {
				t.Fatalf("audit = %s, want %s", got, want)
			}
			next--
		}
		if next != 0 {
			t.Errorf("audit below %d ended above %d", below, next)
		}
	}
}

// testConcurrent has committers that move one unit from one counter to another, and watchers that check that in
// every state the sum is the same and every version comes once.
func testConcurrent(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	const counters, committers, moves = 4, 4, 25
	var start []*v1.Object
	for i := range counters {
		start = append(start, Backend("acme", fmt.Sprintf("b%d", i), "100"))
	}
	Commit(t, s, Put(start...))
	from := s.State()
	var wait sync.WaitGroup
	for c := range committers {
		wait.Go(func() {
			for done := 0; done < moves; {
				st := s.State()
				a, b := fmt.Sprintf("b%d", c), fmt.Sprintf("b%d", (c+done+1)%counters)
				na, _ := strconv.Atoi(Address(st, "acme", a))
				nb, _ := strconv.Atoi(Address(st, "acme", b))
				if a == b {
					nb--
				}
				_, err := TryCommit(t.Context(), s, st.Version(),
					Put(Backend("acme", a, strconv.Itoa(na-1)), Backend("acme", b, strconv.Itoa(nb+1))))
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		wait.Go(func() {
			next := from.Version().Seq + 1
			for cs, err := range s.Watch(t.Context(), from) {
				if err != nil {
					t.Error(err)
					return
				}
				sum := 0
				for i := range counters {
					n, _ := strconv.Atoi(Address(cs.State, "acme", fmt.Sprintf("b%d", i)))
					sum += n
				}
				if sum != 100*counters || cs.Version.Seq != next {
					t.Errorf("in %v the sum is %d, want seq %d and %d", cs.Version, sum, next, 100*counters)
				}
				if next++; next == from.Version().Seq+1+committers*moves {
					return
				}
			}
		})
	}
	wait.Wait()
}
