package guard

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

type counter int

func (c *counter) Inc() { *c++ }

// TestCatch shows that a panic costs what panicked and nothing else, with the locks that it held.
func TestCatch(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	var n counter
	g := New(slog.New(slog.NewTextHandler(&out, nil)), &n)
	var mu sync.Mutex
	let := 0
	f := func(panics bool) {
		defer g.Catch("a test", func() { let++; panic("once more") })
		mu.Lock()
		defer mu.Unlock()
		if panics {
			panic("on purpose")
		}
	}
	for range 3 {
		f(true)
	}
	f(false)
	if !mu.TryLock() {
		t.Error("the lock is held")
	}
	if let != 3 || n != 6 {
		t.Errorf("let go %d times and counted %d, want 3 and 6", let, n)
	}
	for _, want := range []string{`msg="a test panicked" panic="on purpose" site=hansa.dev/hansa/internal/x/guard.TestCatch`, `msg="a test, and letting go of it, panicked"`} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("want %s, once:\n%s", want, out.String())
		}
	}
}

// TestAgain has a panic pass two boundaries: it is logged by the first, and counted by both.
func TestAgain(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	var n counter
	g := New(slog.New(slog.NewTextHandler(&out, nil)), &n)
	func() {
		defer g.Catch("the outer", nil)
		defer func() {
			v := recover()
			g.Caught(v, "the inner", slog.String("key", "value"))
			Again(v)
		}()
		panic("on purpose")
	}()
	if got := out.String(); n != 2 || strings.Count(got, "panicked") != 1 || !strings.Contains(got, "key=value") {
		t.Errorf("counted %d:\n%s", n, got)
	}
}

// TestNoGuard lets a panic pass where there is no Guard.
func TestNoGuard(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the panic was caught")
		}
	}()
	var g *Guard
	defer g.Catch("a test", nil)
	panic("on purpose")
}

func TestAllow(t *testing.T) {
	t.Parallel()
	g := New(slog.New(slog.DiscardHandler), nil)
	begin := time.Unix(1_800_000_000, 0)
	f := func(from string, after time.Duration, want bool, wantSuppressed int) {
		t.Helper()
		if n, ok := g.allow(from, begin.Add(after)); ok != want || n != wantSuppressed {
			t.Errorf("%s after %v: %d, %v; want %d, %v", from, after, n, ok, wantSuppressed, want)
		}
	}
	f("a", 0, true, 0)
	f("a", time.Second, false, 0)
	f("b", time.Second, true, 0)
	f("a", 59*time.Second, false, 0)
	f("a", 60*time.Second, true, 2)
	f("a", 120*time.Second, true, 0)
}
