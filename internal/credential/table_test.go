package credential

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

func key(i int) snapshot.CredentialHash {
	return snapshot.HashCredential(fmt.Appendf(nil, "key-%d", i))
}

func credential(i int) snapshot.Credential {
	return snapshot.Credential{
		Hash: key(i), ID: fmt.Sprintf("k-%08d", i), Organization: "acme", Subscription: fmt.Sprintf("app-%d-gold", i/2),
		Application: fmt.Sprintf("app-%d", i/2), Product: "gold", Slot: snapshot.Slot(i % 2), CreatedAt: 1_800_000_000,
	}
}

func table(tb testing.TB, n int) *snapshot.Credentials {
	tb.Helper()
	batch := snapshot.NewCredentials().Batch()
	for i := range n {
		if err := batch.Add(snapshot.CredentialChange{Credential: credential(i)}); err != nil {
			tb.Fatal(err)
		}
	}
	return batch.Table()
}

func put(c snapshot.Credential) []snapshot.CredentialChange {
	return []snapshot.CredentialChange{{Credential: c}}
}

func describe(application, product string) string { return application + " " + product }

func TestLookup(t *testing.T) {
	t.Parallel()
	table0 := New(quota.NewSubjects(), describe, nil)
	if _, ok := table0.Lookup(key(1)); ok || table0.Loaded() || table0.Len() != 0 {
		t.Fatal("a table that was never applied has a credential")
	}
	table0.Apply(table(t, 1000))
	if !table0.Loaded() || table0.Len() != 1000 {
		t.Fatalf("Len() = %d, want 1000", table0.Len())
	}
	for i := range 1000 {
		r, ok := table0.Lookup(key(i))
		want := credential(i)
		if !ok || r.Hash() != want.Hash || r.Subscription.Organization != want.Organization || r.Subscription.Name != want.Subscription ||
			r.Subscription.Application != want.Application || r.Subscription.Product != want.Product ||
			r.ProductID != NewProductID("acme", "gold") || r.LogMembers != want.Application+" gold" || r.State != want.State {
			t.Fatalf("Lookup(key %d) = %+v, %v", i, r, ok)
		}
		if again, _ := table0.Lookup(key(i)); again != r {
			t.Fatalf("key %d has two records", i)
		}
	}
	if _, ok := table0.Lookup(key(1000)); ok {
		t.Fatal("an unknown key was found")
	}
}

func TestKeysOfOneSubscriptionShareItsLimits(t *testing.T) {
	t.Parallel()
	tbl := New(quota.NewSubjects(), describe, nil)
	tbl.Apply(table(t, 4))
	a, _ := tbl.Lookup(key(0))
	b, _ := tbl.Lookup(key(1))
	c, _ := tbl.Lookup(key(2))
	if a.Subject != b.Subject || a.Subject == c.Subject {
		t.Fatal("limits are not shared by subscription")
	}
	first := tbl.Application(a)
	if again := tbl.Application(a); first != again || first != tbl.Application(b) || first == tbl.Application(c) {
		t.Fatal("limits are not shared by application")
	}
}

func TestRecordsOutliveChangesOfOthers(t *testing.T) {
	t.Parallel()
	creds := table(t, 5000)
	tbl := New(quota.NewSubjects(), describe, func() { t.Error("nothing died") })
	tbl.Apply(creds)
	before, _ := tbl.Lookup(key(7))
	for i := range 5000 { // every shard changes
		if i != 7 {
			c := credential(i)
			c.ExpiresAt = 1_900_000_000
			creds = creds.With(put(c))
		}
		if i%500 == 0 {
			tbl.Apply(creds)
		}
	}
	tbl.Apply(creds)
	if after, _ := tbl.Lookup(key(7)); after != before {
		t.Fatal("a record was replaced although its credential is the same")
	}
}

func TestChangesKillAndKeepCounts(t *testing.T) {
	t.Parallel()
	change := func(f func(*snapshot.Credential)) func(*snapshot.Credentials) *snapshot.Credentials {
		return func(t *snapshot.Credentials) *snapshot.Credentials {
			c := credential(0)
			f(&c)
			return t.With(put(c))
		}
	}
	for _, tc := range []struct {
		name  string
		apply func(*snapshot.Credentials) *snapshot.Credentials
		dead  bool
		found bool
	}{
		{"revoked", change(func(c *snapshot.Credential) { c.State = snapshot.StateRevoked }), true, true},
		{"suspended", change(func(c *snapshot.Credential) { c.State = snapshot.StateSuspended }), true, true},
		{"removed", func(t *snapshot.Credentials) *snapshot.Credentials {
			return t.With([]snapshot.CredentialChange{{Credential: credential(0), Remove: true}})
		}, true, false},
		{"moved to another product", change(func(c *snapshot.Credential) { c.Product = "silver" }), false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			died := 0
			tbl := New(quota.NewSubjects(), describe, func() { died++ })
			creds := table(t, 2)
			tbl.Apply(creds)
			before, _ := tbl.Lookup(key(0))
			hour := quota.Limit{Key: 2, Max: 1, Window: time.Hour}
			now := time.Unix(1_800_000_000, 0).UnixNano()
			before.Subject.Admit(&hour, now, 1)

			tbl.Apply(tc.apply(creds))
			if before.Dead() != tc.dead || (died == 1) != tc.dead {
				t.Errorf("Dead() = %v and %d calls of onDead, want %v", before.Dead(), died, tc.dead)
			}
			if _, ok := tbl.Lookup(key(0)); ok != tc.found {
				t.Errorf("found %v, want %v", ok, tc.found)
			}
			// The other key of the subscription, used for the first time now, finds the window as it was left.
			other, _ := tbl.Lookup(key(1))
			if other.Subject.Admit(&hour, now, 1).OK {
				t.Error("the count of the subscription was lost")
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_800_000_000, 0)
	r := &Record{ExpiresAt: at.Unix()}
	if r.Expired(at.Add(-time.Nanosecond).UnixNano()) || !r.Expired(at.UnixNano()) || (&Record{}).Expired(at.UnixNano()) {
		t.Fatal("a credential expires at the second that is given, and never without one")
	}
}

// Look-ups see the old or the new state of every credential while tables are applied, and never lose a limit.
func TestLookupsDuringChanges(t *testing.T) {
	t.Parallel()
	const n = 2000
	subjects := quota.NewSubjects()
	tbl := New(subjects, describe, nil)
	creds := table(t, n)
	tbl.Apply(creds)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rng.IntN(n)
				r, ok := tbl.Lookup(key(i))
				if !ok || r.Hash() != key(i) || r.Subject == nil {
					t.Errorf("key %d: %+v, %v", i, r, ok)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for range 200 {
		var changes []snapshot.CredentialChange
		for range 50 {
			c := credential(rng.IntN(n))
			c.ExpiresAt = int64(1_900_000_000 + rng.IntN(1000))
			changes = append(changes, snapshot.CredentialChange{Credential: c})
		}
		creds = creds.With(changes)
		tbl.Apply(creds)
	}
	close(stop)
	wg.Wait()
	for i := range n {
		tbl.Lookup(key(i))
	}
	if got, want := subjects.Len(), n/2; got != want {
		t.Errorf("%d subjects, want %d", got, want)
	}
	// Every hold is given up with its credential.
	tbl.Apply(snapshot.NewCredentials())
	subjects.Sweep(1, 0)
	subjects.Sweep(2, 0)
	if got := subjects.Len(); got != 0 {
		t.Errorf("%d subjects are still held after the last credential went", got)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	tbl := New(quota.NewSubjects(), describe, nil)
	tbl.Apply(table(t, 1000))
	h := key(5)
	tbl.Lookup(h)
	unknown := key(5000)
	if n := testing.AllocsPerRun(1000, func() {
		tbl.Lookup(h)
		tbl.Lookup(unknown)
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

// A hundred thousand credentials, of which ten thousand are in use with a quota and a rate limit, take less than 20 MB.
func TestMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	creds := table(t, 100_000)
	tbl := New(quota.NewSubjects(), describe, nil)
	tbl.Apply(creds)
	idle := heap()
	q := quota.Limit{Key: 2, Max: 10, Window: time.Hour}
	r := quota.Limit{Key: 3, Max: 10, Window: time.Second, Sliding: true}
	use := func(i int) {
		rec, _ := tbl.Lookup(key(i))
		rec.Subject.Admit(&q, 1, 1)
		rec.Subject.Admit(&r, 1, 1)
	}
	for i := range 10_000 {
		use(i * 10)
	}
	some := heap()
	for i := range 100_000 {
		use(i)
	}
	all := heap()
	t.Logf("100,000 credentials: %.1f MB unused, %.1f MB with 10,000 in use, %.1f MB with all in use",
		float64(idle-before)/1e6, float64(some-before)/1e6, float64(all-before)/1e6)
	if some-before > 20_000_000 {
		t.Errorf("%d bytes, want at most 20 MB", some-before)
	}
	runtime.KeepAlive(tbl)
	runtime.KeepAlive(creds)
}

// TestRecentRecordsGo looks records up, so that they are found at once, and changes or takes away what they stand for.
func TestRecentRecordsGo(t *testing.T) {
	t.Parallel()
	tbl := New(quota.NewSubjects(), describe, nil)
	tbl.Apply(table(t, 100))
	r, ok := tbl.Lookup(key(7))
	if again, _ := tbl.Lookup(key(7)); !ok || again != r || tbl.recent.find(&r.hash) != r {
		t.Fatalf("Lookup = %p, %t, and then %p", r, ok, again)
	}
	other := key(7)
	other[0] ^= 1 // another credential in the same place
	if got, ok := tbl.Lookup(other); ok {
		t.Errorf("Lookup of a hash that is not there = %+v", got)
	}
	tbl.Apply(table(t, 7))
	if got, ok := tbl.Lookup(key(7)); ok || !r.gone.Load() || held(tbl, r) {
		t.Errorf("Lookup of what was taken away = %+v, %t; gone: %t", got, ok, r.gone.Load())
	}
	// A request that was on its way may keep it once more.
	tbl.recent.keep(r)
	if got, ok := tbl.Lookup(key(7)); ok {
		t.Errorf("Lookup = %+v, of a record that is gone", got)
	}
}

// held tells whether the recent records have that one.
func held(tbl *Table, r *Record) bool {
	b, _ := tbl.recent.of(&r.hash)
	for i := range b.records {
		if b.records[i].Load() == r {
			return true
		}
	}
	return false
}

// TestFullBucket looks up more records of one bucket than it has room for.
func TestFullBucket(t *testing.T) {
	t.Parallel()
	var recent recent
	var records [2 * bucketRecords]Record
	for i := range records {
		h := key(i)
		copy(h[len(h)-8:], []byte{1, 2, 3, 4, byte(i), 6, 7, 8}) // the first of them decide about the bucket
		records[i].hash = h
		recent.keep(&records[i])
		if recent.find(&h) != &records[i] {
			t.Errorf("record %d was not kept", i)
		}
	}
	found := 0
	for i := range records {
		if recent.find(&records[i].hash) != nil {
			found++
		}
	}
	if found != bucketRecords {
		t.Errorf("%d of %d records are kept, want %d", found, len(records), bucketRecords)
	}
	for i := range records {
		if r := &records[i]; recent.find(&r.hash) == r {
			r.gone.Store(true)
			if recent.keep(&records[i^1]); recent.find(&r.hash) != nil {
				t.Errorf("record %d is found though it is gone", i)
			}
		}
	}
}

// TestLines bounds what a look-up with 10,000 keys at random brings into the processor's cache.
func TestLines(t *testing.T) {
	t.Parallel()
	f := func(name string, size, want uintptr) {
		// What is smaller lies across more lines at times.
		if size <= want*7/8-8 || size > want {
			t.Errorf("%s takes %d bytes, want %d", name, size, want)
		}
	}
	f("bucket", unsafe.Sizeof(bucket{}), 64)
	f("what of Record is compared", unsafe.Offsetof(Record{}.Subscription), 64)
	f("Record", unsafe.Sizeof(Record{}), 128)
	f("quota.Subject", unsafe.Sizeof(quota.Subject{}), 64)
	if at := unsafe.Offsetof(Table{}.recent); at != 0 {
		t.Errorf("buckets begin %d bytes into the table", at)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			tbl := New(quota.NewSubjects(), describe, nil)
			tbl.Apply(table(b, n))
			keys := make([]snapshot.CredentialHash, 1000)
			for i := range keys {
				keys[i] = key(i * n / 1000)
			}
			for i := 0; b.Loop(); i++ {
				if _, ok := tbl.Lookup(keys[i%1000]); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}
