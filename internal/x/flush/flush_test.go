package flush

import (
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa.dev/hansa/internal/x/guard"
)

func TestBuffer(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []byte
	writes, taken := 0, 0
	b := Buffer{Mu: &mu, Keep: 1 << 10}
	b.Write = func(p []byte) error { got = append(got, p...); writes++; return nil }
	b.Taken = func() { taken++ }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				mu.Lock()
				b.Out = append(b.Out, 'x')
				b.Kick()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	mu.Lock()
	b.End()
	if len(got) != 8000 || taken != writes || len(b.Out) != 0 {
		t.Errorf("%d bytes by %d writes, %d left", len(got), writes, len(b.Out))
	}
	out, writing := b.Swap(nil, nil)
	if len(out)+len(writing) != 0 {
		t.Errorf("memory in use is given back")
	}
	b.Out = append(b.Out, 'y') // and again
	b.Kick()
	b.End()
	mu.Unlock()
	if len(got) != 8001 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestBroken(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	failed := make(chan error, 1)
	broken := errors.New("broken")
	b := Buffer{Mu: &mu}
	b.Write = func([]byte) error { return broken }
	b.Failed = func(err error) { failed <- err }
	mu.Lock()
	b.Out = append(b.Out, 'x')
	b.Kick()
	mu.Unlock()
	if err := <-failed; err != broken {
		t.Errorf("%v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	b.Out = append(b.Out, 'x')
	b.Kick()
	if len(b.Out) != 0 || !b.Broken() {
		t.Error("a broken buffer takes more")
	}
	b.End()
}

// TestKickWhileEnding kicks now and then just when the goroutine has ended and before End has noticed.
func TestKickWhileEnding(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	b := Buffer{Mu: &mu, Write: func([]byte) error { return nil }}
	var stop atomic.Bool
	var kickers sync.WaitGroup
	for range 2 {
		kickers.Go(func() {
			for !stop.Load() {
				mu.Lock()
				b.Out = append(b.Out, 'x')
				b.Kick()
				mu.Unlock()
				runtime.Gosched()
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 2000 {
			mu.Lock()
			b.Out = append(b.Out, 'y')
			b.Kick()
			b.End()
			mu.Unlock()
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("End still waits")
	}
	stop.Store(true)
	kickers.Wait()
}

// TestPanic has writing panic, and what is called before it: the connection is lost, with no lock held and nobody left waiting.
func TestPanic(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"Write", "Taken"} {
		var mu sync.Mutex
		var failed atomic.Int32
		b := Buffer{Mu: &mu, Guard: guard.New(slog.New(slog.DiscardHandler), nil), Failed: func(error) { failed.Add(1) }}
		b.Write = func([]byte) error {
			if where == "Write" {
				panic("on purpose")
			}
			return nil
		}
		b.Taken = func() {
			if where == "Taken" {
				panic("on purpose")
			}
		}
		mu.Lock()
		b.Out = append(b.Out, 'x')
		b.Kick()
		b.End()
		broken := b.Broken()
		b.Out = append(b.Out, 'x')
		b.Kick()
		b.End()
		mu.Unlock()
		if !broken || failed.Load() != 1 || len(b.Out) != 0 {
			t.Errorf("%s: broken is %v, Failed was called %d times, %d bytes wait", where, broken, failed.Load(), len(b.Out))
		}
	}
}
