package quota

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const noon = int64(1_800_000_000) * int64(time.Second) // a multiple of every window used below

func TestFixedWindowAgainstModel(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		window := time.Duration(1+rng.IntN(100)) * time.Second
		l := Limit{Key: NewKey(window, false, "q"), Max: uint64(rng.IntN(20)), Window: window}
		var s Subject
		counts := map[int64]uint64{}
		now := noon + rng.Int64N(int64(window))
		for range 300 {
			now += rng.Int64N(int64(window) / 8)
			if rng.IntN(40) == 0 {
				l.Max = uint64(rng.IntN(20)) // applies to the running window
			}
			cost := uint64(1 + rng.IntN(3))
			n := now / int64(window)
			wantOK := counts[n]+cost <= l.Max
			if wantOK {
				counts[n] += cost
			}
			want := Decision{OK: wantOK, Limit: l.Max, Reset: time.Duration((n+1)*int64(window) - now)}
			if l.Max > counts[n] {
				want.Remaining = l.Max - counts[n]
			}
			if got := s.Admit(&l, now, cost); got != want {
				t.Fatalf("Admit(window %v, cost %d) = %+v, want %+v", window, cost, got, want)
			}
		}
	}
}

func TestFixedWindowStartsAtUTC(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	l := Limit{Key: NewKey(day, false, "q"), Max: 10, Window: day}
	now := time.Date(2026, 3, 1, 23, 59, 30, 0, time.UTC)
	if got := new(Subject).Admit(&l, now.UnixNano(), 1).Reset; got != 30*time.Second {
		t.Fatalf("Reset = %v, want 30s, the time to midnight UTC", got)
	}
}

func TestClockSteppingBackGivesNoSecondHelping(t *testing.T) {
	t.Parallel()
	l := Limit{Key: NewKey(time.Minute, false, "q"), Max: 1, Window: time.Minute}
	var s Subject
	if !s.Admit(&l, noon, 1).OK {
		t.Fatal("the first request was refused")
	}
	d := s.Admit(&l, noon-int64(time.Second), 1)
	if d.OK {
		t.Fatal("a clock that steps back over the boundary admits again")
	}
	if want := 61 * time.Second; d.Reset != want {
		t.Fatalf("Reset = %v, want %v", d.Reset, want)
	}
	if d := s.Admit(&l, noon-int64(time.Hour), 1); !d.OK {
		t.Fatal("a clock that was far ahead leaves the subject locked out")
	}
}

func TestSlidingWindow(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		window := time.Duration(1+rng.IntN(60)) * time.Second
		l := Limit{Key: NewKey(window, true, "r"), Max: uint64(1 + rng.IntN(50)), Window: window, Sliding: true}
		var s Subject
		now := noon
		perWindow := map[int64]uint64{}
		for range 500 {
			now += rng.Int64N(int64(window)/int64(l.Max)*2 + 1)
			d := s.Admit(&l, now, 1)
			if d.OK {
				perWindow[now/int64(window)]++
				continue
			}
			if d.Remaining != 0 || d.Reset <= 0 || d.Reset > 2*window {
				t.Fatalf("refused with %+v in a window of %v", d, window)
			}
			// What it says must be true: after Reset, and with nothing in between, the request passes.
			now += int64(d.Reset)
			if again := s.Admit(&l, now, 1); !again.OK {
				t.Fatalf("limit %d per %v: refused again after waiting %v: %+v", l.Max, window, d.Reset, again)
			}
			perWindow[now/int64(window)]++
		}
		for n, c := range perWindow {
			if c > l.Max {
				t.Fatalf("window %d admitted %d of %d", n, c, l.Max)
			}
		}
	}
}

func TestSlidingWindowHoldsTheRate(t *testing.T) {
	t.Parallel()
	l := Limit{Key: NewKey(time.Second, true, "r"), Max: 100, Window: time.Second, Sliding: true}
	var s Subject
	admitted := 0
	for ms := range int64(10_000) { // 1,000 a second for ten seconds
		if s.Admit(&l, noon+ms*int64(time.Millisecond), 1).OK {
			admitted++
		}
	}
	if admitted < 980 || admitted > 1010 {
		t.Fatalf("admitted %d in ten windows of 100, want 1000 within 2 %%", admitted)
	}
}

// Under any interleaving exactly the limit passes in each window.
func TestConcurrentAdmissionsAreExact(t *testing.T) {
	t.Parallel()
	for _, sliding := range []bool{false, true} {
		l := Limit{Key: NewKey(time.Minute, sliding, "c"), Max: 1000, Window: time.Minute, Sliding: sliding}
		var s Subject
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 500 {
					if s.Admit(&l, noon, 1).OK {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if got := admitted.Load(); got != 1000 {
			t.Errorf("sliding %v: admitted %d, want 1000", sliding, got)
		}
	}
}

func TestLimitsOfOneSubjectAreApart(t *testing.T) {
	t.Parallel()
	a := Limit{Key: NewKey(time.Hour, false, "a"), Max: 1, Window: time.Hour}
	b := Limit{Key: NewKey(time.Hour, false, "b"), Max: 1, Window: time.Hour}
	var s Subject
	for _, l := range []*Limit{&a, &b} {
		if !s.Admit(l, noon, 1).OK || s.Admit(l, noon, 1).OK {
			t.Fatalf("limit %x does not count for itself", l.Key)
		}
	}
}

func TestSubjectsOutliveTheirHolders(t *testing.T) {
	t.Parallel()
	l := Limit{Key: NewKey(time.Hour, false, "q"), Max: 1, Window: time.Hour}
	subjects := NewSubjects()
	id := NewID("subscription", "acme", "shop")
	s := subjects.Acquire(id)
	if again := subjects.Acquire(id); again != s {
		t.Fatal("two holders of one identity got two subjects")
	}
	s.Admit(&l, noon, 1)
	subjects.Release(id)
	hour, day := int64(time.Hour), 24*time.Hour
	for h := range int64(50) {
		subjects.Sweep(noon+h*hour, day)
	}
	if subjects.Len() != 1 {
		t.Fatal("a subject that is held was swept")
	}
	subjects.Release(id)
	subjects.Sweep(noon+50*hour, day)
	subjects.Sweep(noon+73*hour, day)
	if subjects.Acquire(id) != s {
		t.Fatal("the count was lost although the subject came back in time")
	}
	subjects.Release(id)
	subjects.Sweep(noon+74*hour, day)
	subjects.Sweep(noon+98*hour, day)
	if subjects.Len() != 0 {
		t.Fatal("a subject that nobody held for a day was kept")
	}
}

func TestNamesDoNotRunTogether(t *testing.T) {
	t.Parallel()
	if NewID("k", "ab", "c") == NewID("k", "a", "bc") || NewID("k", "a") == NewID("l", "a") {
		t.Fatal("different names have one identity")
	}
	if NewKey(time.Hour, true, "a") == NewKey(time.Hour, false, "a") {
		t.Fatal("sliding and fixed limits share a key")
	}
	if NewKey(time.Hour, false, "a") == NewKey(24*time.Hour, false, "a") {
		t.Fatal("windows of different length share a key")
	}
}

func TestClients(t *testing.T) {
	t.Parallel()
	l := Limit{Key: NewKey(time.Second, true, "ip"), Max: 1, Window: time.Second, Sliding: true}
	c := NewClients(0)
	for _, tc := range []struct {
		addr string
		ok   bool
	}{
		{"192.0.2.1", true},
		{"192.0.2.1", false},
		{"::ffff:192.0.2.1", false},
		{"192.0.2.2", true},
		{"2001:db8::1", true},
		{"2001:db8::ffff:2", false},
		{"2001:db8:0:1::1", true},
		{"2001:db8:0:1::1%eth0", false},
	} {
		if got := c.Admit(netip.MustParseAddr(tc.addr), &l, noon, 1).OK; got != tc.ok {
			t.Errorf("Admit(%s) = %v, want %v", tc.addr, got, tc.ok)
		}
	}
}

func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	l := Limit{Key: NewKey(time.Second, true, "ip"), Max: 1, Window: time.Second, Sliding: true}
	c := NewClients(640)
	for i := range 10_000 {
		c.Admit(netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", i/250, i%250)), &l, noon+int64(i)*int64(time.Millisecond), 1)
	}
	if n := c.Len(); n > 640 {
		t.Fatalf("%d entries, want at most 640", n)
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	l := Limit{Key: NewKey(time.Second, true, "r"), Max: 1 << 30, Window: time.Second, Sliding: true}
	f := Limit{Key: NewKey(time.Hour, false, "q"), Max: 1 << 30, Window: time.Hour}
	var s Subject
	c := NewClients(0)
	addr := netip.MustParseAddr("2001:db8::1")
	now := noon
	if n := testing.AllocsPerRun(1000, func() {
		now += int64(time.Millisecond)
		s.Admit(&l, now, 1)
		s.Admit(&f, now, 1)
		c.Admit(addr, &l, now, 1)
	}); n != 0 {
		t.Fatalf("%v allocations per admission, want 0", n)
	}
}
