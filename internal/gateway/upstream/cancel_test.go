package upstream

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// locked is a client whose engine has a lock, with which it cancels exchanges.
type locked struct {
	mu     chan bool     // a lock, by a channel so that fake time goes on; it holds whether the client is gone
	ending chan struct{} // closed when the exchange is being cancelled
}

func newLocked() *locked {
	d := &locked{mu: make(chan bool, 1), ending: make(chan struct{})}
	d.mu <- false
	return d
}

func (d *locked) look() bool {
	gone := <-d.mu
	d.mu <- gone
	return gone
}

func (d *locked) Inform(int, *exchange.Head) error          { d.look(); return nil }
func (*locked) Respond(*exchange.Exchange, exchange.Source) {}
func (*locked) Abort(*exchange.Exchange)                    {}
func (d *locked) Gone() bool                                { return d.look() }

// StopBody takes the lock, unless the exchange was cancelled: that is what engines are asked for.
func (d *locked) StopBody() {
	select {
	case <-d.ending:
	default:
		d.look()
	}
}

// cancel cancels x as engines do. It takes so long for that that whoever looks from time to time waits for the lock.
func (d *locked) cancel(x *exchange.Exchange) {
	<-d.mu
	time.Sleep(3 * time.Second)
	close(d.ending)
	x.Cancel()
	d.mu <- true
}

// silent is a body whose client says nothing until it is stopped.
type silent struct{ *locked }

func (b silent) Next() (exchange.Chunk, error) {
	<-b.ending
	return exchange.Chunk{}, io.ErrUnexpectedEOF
}
func (silent) Ready() bool              { return false }
func (silent) Len() int64               { return -1 }
func (silent) Trailers() *exchange.Head { return nil }
func (silent) Close()                   {}

// TestCancelWithLock cancels exchanges at each place where one waits, with the lock held that the client's side needs for everything
// else, while whoever waits asks for it. It would not come to an end if waking needed that lock, or one that is held by who asks.
func TestCancelWithLock(t *testing.T) {
	t.Parallel()
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	hang2 := frames(func(f *framed, _ uint32) error {
		return f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1})
	})
	retries := retrying("reset")
	retries.BackoffMillis, retries.MaxBackoffMillis = 20_000, 20_000
	for name, tt := range map[string]struct {
		backend snapshot.Backend
		serve   func(net.Conn)
		first   bool // another request is there first
		body    bool
	}{
		"a response, HTTP/1":       {serve: hang},
		"a response, HTTP/2":       {serve: hang2, backend: snapshot.Backend{HTTPVersion: "2"}},
		"a response with a body":   {serve: hang, body: true},
		"a response with a body 2": {serve: hang2, body: true, backend: snapshot.Backend{HTTPVersion: "2"}},
		"a connection":             {serve: hang, first: true, backend: snapshot.Backend{MaxConns: 1, Breaker: &snapshot.Breaker{Pending: 5}}},
		"a stream":                 {serve: hang2, first: true, backend: snapshot.Backend{MaxConns: 1, HTTPVersion: "2", Breaker: &snapshot.Breaker{Pending: 5}}},
		"copies":                   {serve: hang, backend: snapshot.Backend{Hedging: &snapshot.Hedging{AfterMillis: 200, BudgetPercent: 10}}},
		"another try":              {serve: func(net.Conn) {}, backend: snapshot.Backend{Retries: retries}},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, r *rig) {
				r.serve["a:1"] = tt.serve
				tt.backend.Endpoints, tt.backend.ResponseMillis, tt.backend.PendingMillis = snapshot.Endpoints("a:1"), 600_000, 60_000
				b := r.commit(t, tt.backend)
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				run := func(d *locked, after time.Duration) {
					x := get("/")
					if tt.body {
						x.Method, x.Body = exchange.View("POST"), silent{d}
					}
					all.Go(func() {
						select {
						case <-time.After(after):
						case <-ctx.Done():
						}
						d.cancel(x)
					})
					_ = outcome(b, x, d) // gone, or what made it wait
				}
				if tt.first {
					all.Go(func() { run(newLocked(), time.Hour) })
					synctest.Wait()
				}
				for i := range 15 {
					after := time.Duration(i) * 100 * time.Millisecond
					d, begin := newLocked(), time.Now()
					run(d, after)
					if took := time.Since(begin); took > after+5*time.Second {
						t.Errorf("cancelled after %v, it took %v", after, took)
					}
				}
				cancel()
				all.Wait()
			})
		})
	}
}
