package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// saying serves requests with the texts, one after the other, the last one for ever, and counts them. An empty text breaks
// the connection off, "hang" says nothing.
func saying(n *atomic.Int32, texts ...string) func(net.Conn) {
	return func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			text := texts[min(int(n.Add(1)), len(texts))-1]
			switch text {
			case "":
				return
			case "hang":
				_, _ = io.Copy(io.Discard, c)
				return
			}
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

const (
	ok          = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
)

func retrying(on ...string) *snapshot.Retries {
	r := defaultRetries()
	r.On = on
	return &r
}

// TestRetries tries each kind of failure at a first endpoint with a second one that is well.
func TestRetries(t *testing.T) {
	for _, tt := range []struct {
		name, method, first string
		retries             *snapshot.Retries
		want                string
		tries               int
	}{
		{"a status that is not asked for", "GET", unavailable, retrying("reset"), "503 busy", 1},
		{"a status", "GET", unavailable, retrying("503"), "200 ok", 2},
		{"gateway errors", "GET", unavailable, retrying("gatewayError"), "200 ok", 2},
		{"a status and POST", "POST", unavailable, retrying("5xx"), "503 busy", 1},
		{"a reset", "GET", "", retrying("reset"), "200 ok", 2},
		{"a reset that is not asked for", "GET", "", retrying("connect"), "upstream-reset", 1},
		{"a reset and POST", "POST", "", retrying("reset"), "upstream-reset", 1},
		{"a time-out", "GET", "hang", retrying("timeout"), "200 ok", 2},
		{"a time-out that is not asked for", "GET", "hang", nil, "upstream-timeout", 1},
		{"garbage", "GET", "garbage\r\n\r\n", retrying("reset", "timeout", "5xx"), "upstream-protocol", 1},
		{"a short Retry-After", "GET", strings.Replace(unavailable, "Content", "Retry-After: 0\r\nContent", 1), retrying("503"), "200 ok", 2},
		{"a long Retry-After", "GET", strings.Replace(unavailable, "Content", "Retry-After: 9\r\nContent", 1), retrying("503"), "503 busy", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, r *rig) {
				var first, second atomic.Int32
				r.serve["a:1"], r.serve["b:1"] = saying(&first, tt.first), saying(&second, ok)
				b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("b:1", "a:1"), Retries: tt.retries, TryMillis: 2000})
				x := get("/")
				x.Method = exchange.View(tt.method)
				check(t, outcome(b, x, new(down)), tt.want)
				if x.Tries != tt.tries || int(first.Load()) != 1 || int(second.Load()) != tt.tries-1 {
					t.Errorf("%d tries, %d and %d requests, want %d", x.Tries, first.Load(), second.Load(), tt.tries)
				}
				if n := r.values(t, "hansa_upstream_retries_total"); n[""] != float64(tt.tries-1) {
					t.Errorf("retries: %v", n)
				}
				for _, p := range b.table.Load().places {
					if n := p.active.Load(); n != 0 {
						t.Errorf("%d requests are under way at %s", n, p.address)
					}
				}
				if n := b.retrying.Load(); n != 0 {
					t.Errorf("%d tries-again are under way", n)
				}
			})
		})
	}
}

// TestRetriesOfOne tries the only endpoint again, more slowly each time, up to the bound.
func TestRetriesOfOne(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var n atomic.Int32
		r.serve["a:1"] = saying(&n, unavailable)
		rules := retrying("503")
		rules.BackoffMillis, rules.MaxBackoffMillis = 1000, 3000
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), Retries: rules})
		begin := time.Now()
		check(t, outcome(b, get("/"), new(down)), "503 busy")
		// 500 to 1000, 1000 to 2000 and 1500 to 3000 ms
		if took := time.Since(begin); n.Load() != 4 || took < 3*time.Second || took > 6*time.Second {
			t.Errorf("%d requests within %v, want 4 within 3 to 6 s", n.Load(), took)
		}
		if d := r.dials("a:1"); d != 1 {
			t.Errorf("%d connections: short responses that nobody sees must not cost one", d)
		}
		// A total bound ends it early, with what there is.
		n.Store(0)
		b = r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), Retries: rules, TotalMillis: 1100})
		begin = time.Now()
		check(t, outcome(b, get("/"), new(down)), "503 busy")
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("a call bounded to 1.1 s took %v", took)
		}
		// Who is gone is not tried for.
		n.Store(0)
		d := new(down)
		d.gone.Store(true)
		outcome(b, get("/"), d)
		if n.Load() != 1 {
			t.Errorf("%d requests for a client that is gone", n.Load())
		}
	})
}

// TestBudget has all of 20 requests fail at the same moment: with a fifth and no minimum 4 are tried again.
func TestBudget(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		waiting, requests := make(chan struct{}), 0
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				mu.Lock()
				requests++
				first := requests <= 20
				mu.Unlock()
				if first {
					<-waiting
				} else {
					time.Sleep(time.Minute)
				}
				if _, err := io.WriteString(c, unavailable); err != nil {
					return
				}
			}
		}
		rules := retrying("503")
		rules.BudgetMin, rules.Max = 0, 1
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), Retries: rules, ResponseMillis: 120_000})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { check(t, outcome(b, get("/"), new(down)), "503 busy") })
		}
		synctest.Wait()
		close(waiting)
		wg.Wait()
		// Those that end make the rest fewer, and with it the budget: at least one and at most a fifth.
		if again := requests - 20; again < 1 || again > 4 {
			t.Errorf("%d requests were tried again, want 1 to 4", again)
		}
		if got := r.values(t, "hansa_upstream_budget_exhausted_total"); got[""]+float64(requests-20) != 20 {
			t.Errorf("metrics: %v without a budget, %d tried again", got, requests-20)
		}
	})
}

func TestTryAndTotal(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var n atomic.Int32
		r.serve["a:1"] = saying(&n, "hang")
		within := func(b *Backend, want time.Duration, says string) {
			t.Helper()
			begin := time.Now()
			check(t, outcome(b, get("/"), new(down)), says)
			if took := time.Since(begin); took < want || took > want+5*sweep.Tick {
				t.Errorf("after %v, want %v", took, want)
			}
		}
		within(r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), TryMillis: 3000}), 3*time.Second, "upstream-timeout")
		within(r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), TotalMillis: 4000}), 4*time.Second, "upstream-timeout")
		rules := retrying("timeout")
		within(r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), TryMillis: 2000, TotalMillis: 5000, Retries: rules}), 5*time.Second, "upstream-timeout")
		// The total bound is for the whole response.
		r.serve["b:1"] = func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
				for range 100 {
					time.Sleep(100 * time.Millisecond)
					if _, err := io.WriteString(c, "x"); err != nil {
						return
					}
				}
			}
		}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("b:1"), TotalMillis: 2000, TryMillis: 1000})
		within(b, 2*time.Second, "200 broken: upstream-timeout")
	})
}

// TestBreaker reaches each bound of the circuit breaker.
func TestBreaker(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		slow := func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				<-release
				if _, err := io.WriteString(c, ok); err != nil {
					return
				}
			}
		}
		r.serve["a:1"], r.serve["b:1"] = slow, slow
		f := func(bk snapshot.Backend, under int, code, detail, bound string) {
			t.Helper()
			b := r.commit(t, bk)
			done := make(chan string)
			for range under {
				go func() { done <- outcome(b, get("/"), new(down)) }()
			}
			synctest.Wait()
			x := get("/")
			check(t, outcome(b, x, new(down)), code)
			check(t, x.Detail, detail)
			if got := r.values(t, "hansa_upstream_breaker_open"); got[bound] != 1 {
				t.Errorf("open: %v, want %s", got, bound)
			}
			if got := r.values(t, "hansa_upstream_breaker_refusals_total"); got[bound] < 1 {
				t.Errorf("refusals: %v, want %s", got, bound)
			}
			for range under {
				release <- struct{}{}
				check(t, <-done, "200 ok")
			}
			// What was under way is over: there is room again.
			go func() { done <- outcome(b, get("/"), new(down)) }()
			release <- struct{}{}
			check(t, <-done, "200 ok")
			r.commit(t, snapshot.Backend{Name: "other", Endpoints: snapshot.Endpoints("c:1")}) // all begins anew
		}
		ab := snapshot.Endpoints("a:1", "b:1")
		f(snapshot.Backend{Endpoints: ab, Breaker: &snapshot.Breaker{Requests: 3}}, 3, "upstream-busy", "circuitBreaker.maxRequests is reached", "requests")
		f(snapshot.Backend{Endpoints: ab, Breaker: &snapshot.Breaker{Connections: 3}}, 3, "upstream-busy", "circuitBreaker.maxConnections is reached", "connections")
		f(snapshot.Backend{Endpoints: ab[:1], MaxConns: 2, Breaker: &snapshot.Breaker{Pending: 2}}, 4, "upstream-busy", "circuitBreaker.maxPending is reached", "pending")
	})
}

// TestReclaim shows that idle connections to one endpoint are no bar to those to another.
func TestReclaim(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"], r.serve["b:1"] = answering("a"), answering("b")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1"), Breaker: &snapshot.Breaker{Connections: 1}})
		seen := map[string]int{}
		for range 10 {
			seen[outcome(b, get("/"), new(down))]++
		}
		if diff := cmp.Diff(map[string]int{"200 a": 5, "200 b": 5}, seen); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if n := b.open.Load(); n != 1 {
			t.Errorf("%d connections are open", n)
		}
	})
}

// TestPending lets requests wait for the only connection: they get it one after the other, in the order of their coming, or
// give up.
func TestPending(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				<-release
				if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.URL.Path), req.URL.Path); err != nil {
					return
				}
			}
		}
		for _, uses := range []int{0, 1} { // the connection is handed over, or closed and made anew
			b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), MaxConns: 1, PendingMillis: 10_000, MaxUses: uses, Breaker: &snapshot.Breaker{Pending: 10}})
			order := make(chan string, 10)
			for i := range 4 {
				go func() { order <- outcome(b, get(fmt.Sprint("/", i)), new(down)) }()
				synctest.Wait()
			}
			if got := r.values(t, "hansa_upstream_pending_requests"); got[""] != 3 {
				t.Errorf("%v wait, want 3", got)
			}
			for i := range 4 {
				release <- struct{}{}
				check(t, <-order, fmt.Sprint("200 /", i))
			}
			// Waiting ends: in time, with the client, with the exchange.
			go func() { order <- outcome(b, get("/held"), new(down)) }()
			synctest.Wait()
			begin := time.Now()
			x := get("/")
			check(t, outcome(b, x, new(down)), "upstream-busy")
			if took := time.Since(begin); took != 10*time.Second {
				t.Errorf("it waited for %v", took)
			}
			d := new(down)
			d.gone.Store(true)
			check(t, outcome(b, get("/"), d), "abort client-gone")
			x = get("/")
			time.AfterFunc(time.Second, x.Cancel)
			check(t, outcome(b, x, new(down)), "abort client-gone")
			release <- struct{}{}
			check(t, <-order, "200 /held")
			if n := b.pending.Load(); n != 0 || len(b.queue.waiters) != 0 {
				t.Errorf("%d requests are counted, %d wait", n, len(b.queue.waiters))
			}
		}
	})
}

// TestHanging has one endpoint of three hang: the requests of the others are unharmed, and with a bound for each try all are.
func TestHanging(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var n atomic.Int32
		r.serve["a:1"], r.serve["b:1"], r.serve["c:1"] = answering("fine"), saying(&n, "hang"), answering("fine")
		b := r.commit(t, snapshot.Backend{
			Endpoints: snapshot.Endpoints("a:1", "b:1", "c:1"), TryMillis: 500, Retries: retrying("timeout"),
			Outliers: &snapshot.Outliers{ConsecutiveErrors: 2, IntervalMillis: 10_000, EjectionMillis: 60_000, MaxEjectionMillis: 60_000, MaxEjectedPercent: 50},
		})
		for range 30 {
			begin := time.Now()
			check(t, outcome(b, get("/"), new(down)), "200 fine")
			if took := time.Since(begin); took > 1200*time.Millisecond {
				t.Errorf("a request took %v", took)
			}
		}
		if n.Load() != 2 {
			t.Errorf("the endpoint that hangs was asked %d times, want 2: then it is ejected", n.Load())
		}
	})
}

// TestConnectionsWearOut bounds the age and the use of connections.
func TestConnectionsWearOut(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		closing := make(chan bool, 100)
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				closing <- req.Close
				if _, err := io.WriteString(c, ok); err != nil {
					return
				}
			}
		}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), MaxUses: 3})
		for i := range 9 {
			check(t, outcome(b, get("/"), new(down)), "200 ok")
			if last := <-closing; last != (i%3 == 2) {
				t.Errorf("request %d: Connection: close is %v", i, last)
			}
		}
		if n := r.dials("a:1"); n != 3 {
			t.Errorf("%d connections for 9 requests, want 3", n)
		}
		b = r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), MaxAgeMillis: 10_000})
		for range 21 {
			check(t, outcome(b, get("/"), new(down)), "200 ok")
			time.Sleep(time.Second)
		}
		if n := r.dials("a:1"); n != 3+2 && n != 3+3 {
			t.Errorf("%d connections within 21 s, want 2 or 3", n-3)
		}
	})
}

func TestLimitsOfResponses(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		f := func(text, want string) {
			t.Helper()
			r.serve["a:1"] = func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, text)
				}
			}
			b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), MaxResponseBytes: 10, MaxHeadBytes: 1000, MaxHeadFields: 5, MaxUses: 1})
			check(t, outcome(b, get("/"), new(down)), want)
		}
		f("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", "200 0123456789")
		f("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n0123456789a", "upstream-too-large")
		f("HTTP/1.1 200 OK\r\n\r\n0123456789", "200 0123456789")
		f("HTTP/1.1 200 OK\r\n\r\n0123456789a", "200 broken: upstream-too-large")
		f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n", "200 broken: upstream-too-large")
		f("HTTP/1.1 200 OK\r\nA: "+strings.Repeat("x", 1000)+"\r\n\r\n", "upstream-too-large")
		f("HTTP/1.1 200 OK\r\n"+strings.Repeat("A: b\r\n", 6)+"\r\n", "upstream-too-large")
	})
}
