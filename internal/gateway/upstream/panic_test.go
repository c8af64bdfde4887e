package upstream

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/guard"
)

// faulty is the body of a request that panics, after a first piece.
type faulty struct {
	exchange.Bytes
	begun bool
}

func (b *faulty) Next() (exchange.Chunk, error) {
	if b.begun {
		panic("on purpose")
	}
	b.begun = true
	return exchange.Chunk{Data: exchange.View("abc")}, nil
}

func (*faulty) Len() int64 { return -1 }

// faultyConn is a connection whose reading or writing panics once it is told to.
type faultyConn struct {
	net.Conn
	read, write *atomic.Bool
}

func (c faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.read.CompareAndSwap(true, false) {
		panic("on purpose")
	}
	return n, err
}

func (c faultyConn) Write(p []byte) (int, error) {
	if len(p) > 0 && c.write.CompareAndSwap(true, false) {
		panic("on purpose")
	}
	return c.Conn.Write(p)
}

type counter struct{ atomic.Int32 }

func (c *counter) Inc() { c.Add(1) }

// TestPanics has each kind of goroutine panic that works for requests. It costs one request or connection, is logged once, and
// nothing stays counted or open.
func TestPanics(t *testing.T) {
	t.Parallel()
	hedging := &snapshot.Hedging{AfterMillis: 200, BudgetPercent: 10}
	breaker := &snapshot.Breaker{Requests: 1000, Connections: 1000}
	h1, h2 := answering("fine"), frames(func(f *framed, id uint32) error {
		if f.ended { // otherwise the rest of the body is waited for, which panics
			f.answer(id, "fine")
		}
		return nil
	})
	for name, tt := range map[string]struct {
		backend snapshot.Backend
		serve   func(net.Conn)
		// What panics.
		body, read, write, dial bool
		call                    bool // it is the call itself
		want                    string
	}{
		"a body, HTTP/1":        {body: true, serve: h1, want: "internal"},
		"a body, HTTP/2":        {body: true, serve: h2, backend: snapshot.Backend{HTTPVersion: "2"}, want: "internal"},
		"reading, HTTP/2":       {read: true, serve: h2, backend: snapshot.Backend{HTTPVersion: "2"}, want: "upstream-reset"},
		"writing, HTTP/2":       {write: true, serve: h2, backend: snapshot.Backend{HTTPVersion: "2"}, want: "upstream-reset"},
		"a copy, hedging":       {dial: true, serve: h1, backend: snapshot.Backend{Hedging: hedging}, want: "internal"},
		"a copy's reading":      {read: true, serve: h1, backend: snapshot.Backend{Hedging: hedging}, want: "internal"},
		"the call, connecting":  {dial: true, call: true, serve: h1, want: "panic"},
		"the call, connecting2": {dial: true, call: true, serve: h2, backend: snapshot.Backend{HTTPVersion: "2"}, want: "panic"},
		"the call, reading":     {read: true, call: true, serve: h1, want: "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, r *rig) {
				var logs bytes.Buffer
				var count counter
				r.opts.Guard = guard.New(slog.New(slog.NewTextHandler(&logs, nil)), &count)
				var dial, read, write atomic.Bool
				connect := r.opts.Dial
				r.opts.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					if dial.CompareAndSwap(true, false) {
						panic("on purpose")
					}
					c, err := connect(ctx, network, address)
					return faultyConn{c, &read, &write}, err
				}
				r.serve["a:1"] = tt.serve
				tt.backend.Endpoints, tt.backend.Breaker = snapshot.Endpoints("a:1"), breaker
				b := r.commit(t, tt.backend)
				once := func(x *exchange.Exchange) (got string) {
					defer func() {
						if recover() != nil { // as the gateway does
							x.Abandon()
							got = "panic"
						}
					}()
					return outcome(b, x, new(down))
				}
				x := get("/")
				if tt.body {
					x.Method, x.Body = exchange.View("POST"), new(faulty)
				}
				dial.Store(tt.dial)
				read.Store(tt.read)
				write.Store(tt.write)
				check(t, once(x), tt.want)
				synctest.Wait()
				check(t, once(get("/")), "200 fine")
				time.Sleep(5 * time.Second) // the farewell to a backend included
				if p := b.table.Load().places[0]; p.active.Load() != 0 || b.requests.Load() != 0 || b.hedged.Load() != 0 {
					t.Errorf("still counted: %d active, %d admitted, %d second ones", p.active.Load(), b.requests.Load(), b.hedged.Load())
				}
				if used, idle := b.table.Load().places[0].pool.counts(); int64(used+idle) != b.open.Load() || used+idle != 1 {
					t.Errorf("connections: %d used, %d idle, %d of the backend; want one", used, idle, b.open.Load())
				}
				if !tt.call && (count.Load() != 1 || strings.Count(logs.String(), "panicked") != 1) {
					t.Errorf("counted %d, logged:\n%s", count.Load(), logs.String())
				}
			})
		})
	}
}

// TestPanicsBeside has what nobody waits for panic: the copies of a mirror, and health checks, which go on.
func TestPanicsBeside(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var count counter
		r.opts.Guard = guard.New(slog.New(slog.DiscardHandler), &count)
		connect := r.opts.Dial
		r.opts.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "b:1" && count.Load() < 3 {
				panic("on purpose")
			}
			return connect(ctx, network, address)
		}
		r.serve["a:1"], r.serve["b:1"] = answering("fine"), answering("copy")
		p, err := r.Prepare("", []snapshot.Backend{
			{Organization: "acme", Name: "catalog", Endpoints: snapshot.Endpoints("a:1")},
			{Organization: "acme", Name: "copy", Endpoints: snapshot.Endpoints("b:1"), Breaker: &snapshot.Breaker{Requests: 100}},
		})
		if err != nil {
			t.Fatal(err)
		}
		p.Commit()
		to := p.Backend("acme", "copy")
		m := NewMirror(p.Backend("acme", "catalog"), to, 100)
		for range 5 {
			x := get("/")
			src, v := m.Call(x, new(down))
			if v != exchange.Continue {
				t.Fatal(x.Code)
			}
			src.Close()
			time.Sleep(time.Second)
		}
		if n, u, a := r.dials("b:1"), to.mirror.underway.Load(), to.requests.Load(); n != 1 || u != 0 || a != 0 || count.Load() != 3 {
			t.Errorf("%d copies panicked, then %d connections; %d under way, %d admitted", count.Load(), n, u, a)
		}
		count.Store(0)
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("b:1"), HealthCheck: &snapshot.HealthCheck{IntervalMillis: 1000, UnhealthyAfter: 1, HealthyAfter: 1, Type: "tcp"}})
		time.Sleep(10 * time.Second)
		if v := b.table.Load().places[0].verdict.Load(); v != healthy || count.Load() != 3 {
			t.Errorf("after %d checks that panicked the verdict is %d", count.Load(), v)
		}
	})
}

// TestHedgingIsCounted shows that requests of hedging are no longer counted by the circuit breaker when they are over.
func TestHedgingIsCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"] = answering("fine")
		b := r.commit(t, snapshot.Backend{
			Endpoints: snapshot.Endpoints("a:1"), Hedging: &snapshot.Hedging{AfterMillis: 200, BudgetPercent: 10},
			Breaker: &snapshot.Breaker{Requests: 2},
		})
		for range 5 {
			check(t, outcome(b, get("/"), new(down)), "200 fine")
		}
		if n := b.requests.Load(); n != 0 {
			t.Errorf("%d requests are counted", n)
		}
	})
}
