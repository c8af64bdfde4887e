package http2_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/http2"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// panics is something to wait on that panics when it is woken, with whatever lock its waker holds.
type panics struct{}

func (panics) Interrupt() { panic("on purpose") }

// TestPanicWhileReading has reading a connection panic with the lock of the connection held: the connection is lost and all that
// is under way on it, and nothing else.
func TestPanicWhileReading(t *testing.T) {
	t.Parallel()
	var logs syncBuffer
	var waiting atomic.Int32
	g := start(t, echo, setup{
		options: http2.Options{Options: ingress.Options{Log: slog.New(slog.NewTextHandler(&logs, nil))}},
		serve: func(x *exchange.Exchange, d exchange.Down) bool {
			if x.Path.String() != "/wait" {
				return false
			}
			if waiting.Add(1) == 1 {
				var i exchange.Interrupter = panics{}
				x.WaitOn(&i)
			}
			_, _ = exchange.ReadAll(nil, x.Body, 1<<20)
			d.Abort(x)
			return true
		},
	})
	r := g.dial(t)
	for n := range 2 {
		r.request(uint32(1+2*n), false, "POST /wait")
		eventually(t, func() bool { return int(waiting.Load()) == n+1 })
	}
	r.must(r.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	r.until(nil) // the connection is gone
	g.records(t, 2)
	eventually(t, func() bool { return g.server.Connections() == 0 })
	if n := strings.Count(logs.String(), "reading a connection panicked"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, logs.String())
	}
	res, err := g.client(t).Get(g.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

// syncBuffer is a buffer that several goroutines may use.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
