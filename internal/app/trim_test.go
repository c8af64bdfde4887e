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
		tr := newTrimmer()
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
