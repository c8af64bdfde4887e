package mux

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/x/guard"
	"hansa.dev/hansa/internal/x/sweep"
)

// TestPanicWithLock has reading a connection panic while its lock is held: who waits for a response learns that the connection is
// gone.
func TestPanicWithLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		sw := sweep.New()
		go func() { _ = sw.Run(ctx) }()
		here, there := net.Pipe()
		defer there.Close()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		var tcp sweep.Conn
		sw.Add(&tcp, here)
		panics := true
		c := New(Options{TCP: &tcp, Stream: &tcp, Sweeper: sw, Bodies: new(h1.Pool), Limits: h1.DefaultLimits, Changed: func() {
			if panics {
				panics = false
				panic("on purpose")
			}
		}})
		served := make(chan struct{})
		go func() {
			defer close(served)
			defer guard.New(slog.New(slog.DiscardHandler), nil).Catch("reading", nil)
			c.Serve()
		}()
		var s Stream
		if err := s.Open(c, nil, true, false, nil); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() {
			_, err := s.Head(new(exchange.Head), 0)
			ended <- err
		}()
		synctest.Wait()
		out := h2.AppendGoAway(h2.AppendSettings(nil), 1, h2.NoError, "") // of which Changed is told
		if _, err := there.Write(out); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Error("the stream goes on")
		}
		<-served
		s.Close()
	})
}
