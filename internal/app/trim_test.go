package app

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestTrimmerWaitsForQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var freed atomic.Int32
		tr := newTrimmer(nil)
		tr.free = func() { freed.Add(1) }
		done := make(chan error)
		go func() { done <- tr.run(ctx) }()
		expect := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			if got := int(freed.Load()); got != want {
				t.Errorf("%s: memory was given back %d times, want %d", what, got, want)
			}
		}
		tr.note(trimChanges-1, 0)
		tr.note(trimChanges, 9*trimChanges)
		time.Sleep(2 * trimPause)
		expect("small changes", 0)
		for range 10 {
			tr.note(trimChanges, 8*trimChanges)
			time.Sleep(trimPause / 2)
		}
		expect("large changes in a row", 0)
		time.Sleep(trimPause)
		expect("quiet after them", 1)
		time.Sleep(10 * trimPause)
		expect("quiet for long", 1)
		tr.note(trimChanges, 0)
		time.Sleep(2 * trimPause)
		expect("another large change", 2)
		cancel()
		<-done
	})
}

// TestTrimmerWaitsForCrowds has memory given back once many clients have come, or left, and no more of them do.
func TestTrimmerWaitsForCrowds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var freed, open atomic.Int32
		tr := newTrimmer(func() int { return int(open.Load()) })
		tr.free = func() { freed.Add(1) }
		done := make(chan error)
		go func() { done <- tr.run(ctx) }()
		f := func(what string, want int32, counts ...int32) {
			t.Helper()
			for _, n := range counts {
				open.Store(n)
				time.Sleep(time.Second)
			}
			time.Sleep(2 * trimRest * time.Second)
			synctest.Wait()
			if got := freed.Load(); got != want {
				t.Errorf("%s: memory was given back %d times, want %d", what, got, want)
			}
		}
		f("few", 0, 100, trimChanges-1)
		f("many", 1, trimChanges, 5000, 9000, 10_000)
		f("a twelfth more", 1, 10_900)
		f("an eighth more", 2, 12_000)
		f("for long", 2)
		f("they leave", 3, 50)
		f("many come and go at once", 3, 9000, 50)
		for range 50 {
			open.Add(1000)
			time.Sleep(5 * time.Second)
		}
		if got := freed.Load(); got != 3 {
			t.Errorf("while more and more come: memory was given back %d times, want 3", got)
		}
		cancel()
		<-done
	})
}
