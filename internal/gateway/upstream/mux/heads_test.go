package mux

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/x/sweep"
)

// TestLargeHeads has a backend answer with one head after the other that is too large: no more than one is kept.
func TestLargeHeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		sw := sweep.New()
		go func() { _ = sw.Run(ctx) }()
		here, there := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		var tcp sweep.Conn
		sw.Add(&tcp, here)
		c := New(Options{TCP: &tcp, Stream: &tcp, Sweeper: sw, Bodies: new(h1.Pool), Limits: h1.Limits{Head: 1000, Fields: 100}, Changed: func() {}})
		served := make(chan struct{})
		go func() { defer close(served); c.Serve() }()
		var s Stream
		if err := s.Open(c, nil, true, false, nil); err != nil {
			t.Fatal(err)
		}
		out := h2.AppendSettings(nil)
		block := append([]byte{0x88}, bytes.Repeat([]byte{0x90}, 1000)...) // ":status: 200", and "accept-encoding: gzip, deflate" often
		for range 100 {
			out = h2.AppendHeaders(out, 1, block, false)
		}
		if _, err := there.Write(out); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.mu.Lock()
		n := len(s.heads)
		c.mu.Unlock()
		if n > 1 {
			t.Errorf("%d heads are kept", n)
		}
		if _, err := s.Head(new(exchange.Head), 0); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v, want %v", err, ErrTooLarge)
		}
		s.Close()
		there.Close()
		<-served
	})
}
