package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// checked serves checks at /healthz by what well says, and anything else with body.
func checked(well *atomic.Bool, checks *atomic.Int32, body string) func(net.Conn) {
	return func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			text := "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body
			if req.URL.Path == "/healthz" {
				if checks.Add(1); !well.Load() {
					text = unavailable
				}
			}
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

func httpCheck() *snapshot.HealthCheck {
	return &snapshot.HealthCheck{
		Type: "http", Method: "GET", Path: "/healthz", Statuses: [][2]int{{200, 299}},
		IntervalMillis: 10_000, TimeoutMillis: 1000, HealthyAfter: 2, UnhealthyAfter: 3,
	}
}

// answersOf returns who answers ten requests.
func answersOf(b *Backend, n int) map[string]int {
	seen := map[string]int{}
	for range n {
		seen[outcome(b, get("/"), new(down))]++
	}
	return seen
}

// TestHealthCheck follows an endpoint through illness and recovery, with thresholds, across changes of the configuration.
func TestHealthCheck(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var wellA, wellB atomic.Bool
		var checksA, checksB atomic.Int32
		wellA.Store(true)
		wellB.Store(true)
		r.serve["a:1"], r.serve["b:1"] = checked(&wellA, &checksA, "a"), checked(&wellB, &checksB, "b")
		bk := snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1"), HealthCheck: httpCheck()}
		b := r.commit(t, bk)
		both, onlyA := map[string]int{"200 a": 5, "200 b": 5}, map[string]int{"200 a": 10}
		expect := func(want map[string]int, when string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, answersOf(b, 10)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", when, diff)
			}
		}
		expect(both, "before any check")
		time.Sleep(2 * time.Second)
		wellB.Store(false)
		time.Sleep(20 * time.Second)
		expect(both, "after two bad checks of three")
		time.Sleep(10 * time.Second)
		expect(onlyA, "after three bad checks")
		if got := r.values(t, "hansa_upstream_endpoint_healthy"); got["a:1"] != 1 || got["b:1"] != 0 {
			t.Errorf("metrics: %v", got)
		}
		if got := r.values(t, "hansa_upstream_health_checks_total"); got["a:1 good"] != 4 || got["b:1 good"] != 1 || got["b:1 bad"] != 3 {
			t.Errorf("metrics: %v", got)
		}
		if got := r.Status()[0].Endpoints; got[0].State != "healthy" || got[1].State != "unhealthy" {
			t.Errorf("status: %+v", got)
		}
		// Other settings leave checks and verdicts alone.
		before := checksB.Load()
		bk.ResponseMillis = 1234
		b = r.commit(t, bk)
		expect(onlyA, "after a change of the configuration")
		if n := checksB.Load(); n != before {
			t.Errorf("a change of the configuration checks anew")
		}
		wellB.Store(true)
		time.Sleep(10 * time.Second)
		expect(onlyA, "after one good check of two")
		time.Sleep(10 * time.Second)
		expect(both, "after two good checks")

		// Another check begins anew, and its first answer decides alone.
		wellB.Store(false)
		changed := *bk.HealthCheck
		changed.UnhealthyAfter = 5
		bk.HealthCheck = &changed
		b = r.commit(t, bk)
		time.Sleep(2 * time.Second)
		expect(onlyA, "after the first check")

		// Without checks there are no verdicts, and nobody asks any more.
		bk.HealthCheck = nil
		b = r.commit(t, bk)
		expect(both, "without checks")
		before = checksB.Load()
		time.Sleep(5 * time.Minute)
		if n := checksB.Load(); n != before {
			t.Errorf("%d checks without being asked for", n-before)
		}
	})
}

// TestChecksOnce counts the checks of an endpoint that several APIs use: the handle is one, and so are its checks. What
// is taken out of the backend is checked no more.
func TestChecksOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var well atomic.Bool
		var checks atomic.Int32
		well.Store(true)
		r.serve["a:1"], r.serve["b:1"] = checked(&well, &checks, "a"), answering("b")
		hc := httpCheck()
		hc.JitterPercent = 20
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), HealthCheck: hc})
		if again := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), HealthCheck: hc}); again != b {
			t.Fatal("another handle")
		}
		time.Sleep(1000 * time.Second)
		if n := checks.Load(); n < 100 || n > 125 {
			t.Errorf("%d checks in 1000 s, want one in 8 to 10 s", n)
		}
		r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("b:1"), HealthCheck: hc})
		before := checks.Load()
		time.Sleep(100 * time.Second)
		if n := checks.Load(); n != before {
			t.Errorf("%d checks of an endpoint that is gone", n-before)
		}
	})
}

// TestPriorities takes the first rank down by checks and brings it back.
func TestPriorities(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var wellA, wellB atomic.Bool
		var n atomic.Int32
		r.serve["a:1"], r.serve["b:1"] = checked(&wellA, &n, "a"), checked(&wellB, &n, "b")
		wellA.Store(true)
		wellB.Store(true)
		hc := httpCheck()
		hc.HealthyAfter, hc.UnhealthyAfter = 1, 1
		b := r.commit(t, snapshot.Backend{Endpoints: []snapshot.Endpoint{{Address: "b:1", Priority: 1}, {Address: "a:1"}}, HealthCheck: hc})
		for _, step := range []struct {
			a    bool
			want string
		}{{true, "200 a"}, {false, "200 b"}, {true, "200 a"}} {
			wellA.Store(step.a)
			time.Sleep(11 * time.Second)
			if diff := cmp.Diff(map[string]int{step.want: 10}, answersOf(b, 10)); diff != "" {
				t.Errorf("with a well %v (-want +got)\n%s", step.a, diff)
			}
		}
		wellB.Store(false)
		wellA.Store(false)
		time.Sleep(11 * time.Second)
		if diff := cmp.Diff(map[string]int{"200 a": 10}, answersOf(b, 10)); diff != "" {
			t.Errorf("in panic (-want +got)\n%s", diff)
		}
		b = r.commit(t, snapshot.Backend{Endpoints: []snapshot.Endpoint{{Address: "b:1", Priority: 1}, {Address: "a:1"}}, HealthCheck: hc, Balance: &snapshot.Balance{Method: "roundRobin"}})
		x := get("/")
		check(t, outcome(b, x, new(down)), "upstream-none")
		check(t, x.Detail, "no endpoint is healthy")
	})
}

// TestOutliers ejects by errors in a row, for longer each time, and never too many.
func TestOutliers(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var bad atomic.Int32
		r.serve["a:1"], r.serve["c:1"], r.serve["d:1"] = answering("a"), answering("c"), answering("d")
		r.serve["b:1"] = saying(&bad, unavailable)
		rules := snapshot.Outliers{ConsecutiveErrors: 3, IntervalMillis: 3_600_000, EjectionMillis: 30_000, MaxEjectionMillis: 50_000, MaxEjectedPercent: 25}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1", "c:1", "d:1"), Outliers: &rules})
		answersOf(b, 40)
		if n := bad.Load(); n != 3 {
			t.Errorf("it was asked %d times, want 3", n)
		}
		if got := r.values(t, "hansa_upstream_endpoint_ejected"); got["b:1"] != 1 || len(got) != 1 {
			t.Errorf("ejected: %v", got)
		}
		for _, out := range []time.Duration{30 * time.Second, 50 * time.Second} { // the second time 60 s, but for the bound
			bad.Store(0)
			time.Sleep(out - time.Second)
			answersOf(b, 8)
			if n := bad.Load(); n != 0 {
				t.Errorf("it was asked %d times while it was ejected", n)
			}
			time.Sleep(1200 * time.Millisecond)
			answersOf(b, 40)
			if n := bad.Load(); n != 3 {
				t.Errorf("back again it was asked %d times, want 3", n)
			}
		}
		// A quarter of four is one: a second one that is bad stays.
		r.serve["c:1"] = saying(new(atomic.Int32), unavailable)
		for _, p := range b.table.Load().places {
			p.pool.close() // the connections that serve well
			p.pool.closed = false
		}
		answersOf(b, 40)
		if got := r.values(t, "hansa_upstream_endpoint_ejected"); got["b:1"] != 1 || len(got) != 1 {
			t.Errorf("ejected: %v, want b alone", got)
		}
		// Good answers in between begin the count anew.
		b = r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("e:1", "a:1"), Outliers: &rules})
		r.serve["e:1"] = saying(new(atomic.Int32), unavailable, unavailable, ok, unavailable, unavailable, ok)
		answersOf(b, 12)
		if got := r.values(t, "hansa_upstream_ejections_total"); got["e:1"] != 0 {
			t.Errorf("ejections: %v", got)
		}
	})
}

// TestSuccessRate ejects the one of five that does much worse than the others.
func TestSuccessRate(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		rules := snapshot.Outliers{
			IntervalMillis: 10_000, EjectionMillis: 30_000, MaxEjectionMillis: 60_000, MaxEjectedPercent: 50,
			SuccessRateEndpoints: 5, SuccessRateRequests: 20, SuccessRateDeviations: 1900,
		}
		addresses := []string{"a:1", "b:1", "c:1", "d:1", "e:1"}
		for _, a := range addresses {
			r.serve[a] = answering("x")
		}
		var n atomic.Int32
		r.serve["c:1"] = saying(&n, ok, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", ok, ok, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints(addresses...), Outliers: &rules})
		time.Sleep(10500 * time.Millisecond) // the first interval, with too few requests
		if got := r.values(t, "hansa_upstream_endpoint_ejected"); len(got) != 0 {
			t.Errorf("ejected without a request: %v", got)
		}
		answersOf(b, 150)
		time.Sleep(11 * time.Second)
		if diff := cmp.Diff(map[string]float64{"c:1": 1}, r.values(t, "hansa_upstream_endpoint_ejected")); diff != "" {
			t.Errorf("ejected (-want +got)\n%s", diff)
		}
	})
}

// TestHedging sends slow requests twice: the faster answer wins and the slower request is let go of.
func TestHedging(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		after := map[string]time.Duration{"a:1": 10 * time.Second, "b:1": 50 * time.Millisecond}
		var cut atomic.Int32
		for address := range after {
			r.serve[address] = func(c net.Conn) {
				br := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					body, _ := io.ReadAll(req.Body)
					wait := make(chan struct{})
					go func() { // who waits for the answer?
						if _, err := br.Peek(1); err != nil {
							cut.Add(1)
						}
						close(wait)
					}()
					time.Sleep(after[address])
					if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"+address+" "+string(append(body, '-')[0])); err != nil {
						<-wait
						return
					}
					<-wait
				}
			}
		}
		bk := snapshot.Backend{Endpoints: snapshot.Endpoints("b:1", "a:1"), Hedging: &snapshot.Hedging{AfterMillis: 200, BudgetPercent: 10}, ResponseMillis: 60_000}
		b := r.commit(t, bk)
		for _, method := range []string{"GET", "PUT"} {
			x := get("/")
			x.Method = exchange.View(method)
			want := "200 b:1 -"
			if method == "PUT" {
				body := new(exchange.Bytes)
				body.Reset([]byte("!"))
				x.Body, want = body, "200 b:1 !"
			}
			b.turn.Store(0) // it is the turn of a
			begin := time.Now()
			check(t, outcome(b, x, new(down)), want)
			if took := time.Since(begin); took < 250*time.Millisecond || took > 500*time.Millisecond {
				t.Errorf("%s took %v, want 250 ms", method, took)
			}
			if x.Tries != 1 || x.Endpoint != "b:1" {
				t.Errorf("%s: %d tries, endpoint %s", method, x.Tries, x.Endpoint)
			}
			time.Sleep(time.Second)
			for _, p := range b.table.Load().places {
				if n := p.active.Load(); n != 0 {
					t.Errorf("%s: %d requests are still under way at %s", method, n, p.address)
				}
			}
		}
		if h, w := b.hedges.Load(), b.wins.Load(); h != 2 || w != 2 {
			t.Errorf("%d second requests, %d of them won, want 2", h, w)
		}
		// What may not be sent twice is not.
		x := get("/")
		x.Method = exchange.View("POST")
		b.turn.Store(0)
		check(t, outcome(b, x, new(down)), "200 a:1 -")
		if h := b.hedges.Load(); h != 2 {
			t.Errorf("POST was sent twice")
		}
		// Who is gone ends both.
		x = get("/")
		b.turn.Store(0)
		time.AfterFunc(100*time.Millisecond, x.Cancel)
		check(t, outcome(b, x, new(down)), "abort client-gone")
		time.Sleep(time.Second)
		if n := b.hedged.Load(); n != 0 {
			t.Errorf("%d second requests are under way", n)
		}
		// The budget: one second request in any case, and no more of few.
		var answers [3]string
		done := make(chan struct{})
		for i := range answers {
			b.turn.Store(0)
			go func() {
				answers[i] = outcome(b, get("/"), new(down))
				done <- struct{}{}
			}()
			synctest.Wait()
		}
		for range answers {
			<-done
		}
		if got := strings.Count(strings.Join(answers[:], " "), "a:1"); got != 2 || b.noBudget.Load() != 2 {
			t.Errorf("%q: %d waited for the slow one, %d for want of budget, want 2", answers, got, b.noBudget.Load())
		}
	})
}

// TestHedgingForNobody has clients leave in the very moment in which the response comes: whoever gets that first, nothing may stay
// under way, and no connection in use.
func TestHedgingForNobody(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var x atomic.Pointer[exchange.Exchange]
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				go x.Load().Cancel()
				if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
					return
				}
			}
		}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), Hedging: &snapshot.Hedging{AfterMillis: 200, BudgetPercent: 10}})
		for range 300 {
			one := get("/")
			x.Store(one)
			if got := outcome(b, one, new(down)); got != "200 hi" && got != "abort client-gone" {
				t.Errorf("outcome %q", got)
			}
		}
		synctest.Wait()
		e := b.table.Load().places[0].endpoint
		if used, _ := e.pool.counts(); used != 0 || e.active.Load() != 0 {
			t.Errorf("%d connections are in use and %d requests under way, want none", used, e.active.Load())
		}
	})
}

// TestHedgingByPercentile learns what is usual first.
func TestHedgingByPercentile(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		var slow atomic.Bool
		serve := func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				if slow.Swap(false) {
					time.Sleep(30 * time.Second)
				}
				time.Sleep(10 * time.Millisecond)
				if _, err := io.WriteString(c, ok); err != nil {
					return
				}
			}
		}
		r.serve["a:1"], r.serve["b:1"] = serve, serve
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1"), Hedging: &snapshot.Hedging{Percentile: 95, BudgetPercent: 10}, ResponseMillis: 60_000})
		for range leastTimes {
			check(t, outcome(b, get("/"), new(down)), "200 ok")
		}
		slow.Store(true)
		begin := time.Now()
		check(t, outcome(b, get("/"), new(down)), "200 ok")
		if took := time.Since(begin); took < 20*time.Millisecond || took > 30*time.Millisecond {
			t.Errorf("it took %v, want 10 ms and a little, and 10 ms again", took)
		}
	})
}

// TestMirror sends copies that never matter to the request itself.
func TestMirror(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		seen := make(chan string, 1000)
		r.serve["a:1"] = answering("main")
		r.serve["m:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				seen <- req.Method + " " + req.URL.String() + " " + req.Header.Get("X-A") + " " + string(body)
				if _, err := io.WriteString(c, unavailable); err != nil {
					return
				}
			}
		}
		main := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1")}, snapshot.Backend{Name: "copy", Endpoints: snapshot.Endpoints("m:1")})
		to := r.backends[key{"acme", "copy"}]
		m := NewMirror(main, to, 100)
		call := func(x *exchange.Exchange) string {
			src, v := m.Call(x, new(down))
			if v != exchange.Continue {
				return x.Code.String()
			}
			body, err := exchange.ReadAll(nil, src, 100)
			src.Close()
			if err != nil {
				return err.Error()
			}
			x.Reset() // whatever happens to the exchange
			return string(body)
		}
		x := get("/items")
		x.Query, x.HasQuery = exchange.View("q=1"), true
		x.Req.AddString(exchange.NameOf("X-A"), "b")
		check(t, call(x), "main")
		check(t, <-seen, "GET /items?q=1 b ")
		x = get("/items")
		x.Method = exchange.View("POST")
		body := new(exchange.Bytes)
		body.Reset([]byte("hello"))
		x.Body = body
		check(t, call(x), "main")
		check(t, <-seen, "POST /items  hello")
		// A body that is not at hand is sent to one only.
		x = get("/items")
		x.Method = exchange.View("POST")
		long := &unknown{}
		long.Reset([]byte("hello"))
		x.Body = long
		check(t, call(x), "main")
		// A body that breaks off is the same for the request as without a mirror.
		x = get("/items")
		x.Method = exchange.View("POST")
		x.Body = broken{new(exchange.Bytes)}
		check(t, call(x), "bad-request-body")
		// A backend that hangs: copies are dropped, requests are not.
		r.serve["m:1"] = func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
		to.table.Load().places[0].pool.close()
		for range maxMirrored + 10 {
			begin := time.Now()
			check(t, call(get("/")), "main")
			if took := time.Since(begin); took > 0 {
				t.Fatalf("a mirror held up a request for %v", took)
			}
		}
		synctest.Wait()
		got := r.values(t, "hansa_upstream_mirror_dropped_total")
		if got["busy"] != 10 || got["body"] != 1 {
			t.Errorf("dropped: %v, want 10 and 1", got)
		}
		if got := r.values(t, "hansa_upstream_mirrored_total"); got[""] != maxMirrored+2 {
			t.Errorf("sent: %v", got)
		}
		time.Sleep(time.Minute) // and they end
		if n := to.mirror.underway.Load(); n != 0 {
			t.Errorf("%d copies are under way", n)
		}
	})
}

// TestMirrorAfterHedging sends copies of the request that is mirrored, and not of one that was hedged before with the same memory.
func TestMirrorAfterHedging(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		seen := make(chan string, 1000)
		r.serve["a:1"], r.serve["b:1"] = answering("hedged"), answering("hedged")
		r.serve["m:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				seen <- req.Method + " " + req.URL.String() + " " + string(body)
				if _, err := io.WriteString(c, "HTTP/1.1 418 X\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		}
		hedged := r.commit(t, snapshot.Backend{
			Endpoints: snapshot.Endpoints("a:1", "b:1"), Hedging: &snapshot.Hedging{AfterMillis: 100, BudgetPercent: 100},
		}, snapshot.Backend{Name: "copy", Endpoints: snapshot.Endpoints("m:1")})
		m := NewMirror(hedged, r.backends[key{"acme", "copy"}], 100)
		for i := range 20 {
			other := get("/other")
			check(t, outcome(hedged, other, new(down)), "200 hedged")
			x := get("/items/" + strconv.Itoa(i))
			x.Method = exchange.View("POST")
			body := new(exchange.Bytes)
			body.Reset([]byte("hello"))
			x.Body = body
			src, v := m.Call(x, new(down))
			if v != exchange.Continue {
				t.Fatalf("the request was answered with %v", x.Code)
			}
			src.Close()
			check(t, <-seen, "POST /items/"+strconv.Itoa(i)+" hello")
			synctest.Wait()
			if other.Status != 200 || x.Status != 200 {
				t.Fatalf("the answer to a copy reached a request: status %d and %d", other.Status, x.Status)
			}
		}
	})
}

// broken is a body that breaks off.
type broken struct{ *exchange.Bytes }

func (broken) Len() int64 { return 5 }

func (broken) Next() (exchange.Chunk, error) {
	return exchange.Chunk{}, &exchange.Fault{Code: exchange.BadRequestBody}
}

// TestUnreachableCheck finds an endpoint unhealthy that cannot be connected to.
func TestUnreachableCheck(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"] = answering("a")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1"), HealthCheck: &snapshot.HealthCheck{Type: "tcp", IntervalMillis: 1000, TimeoutMillis: 500, HealthyAfter: 1, UnhealthyAfter: 1}})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := r.Status()[0].Endpoints; got[0].State != "healthy" || got[1].State != "unhealthy" {
			t.Errorf("status: %+v", got)
		}
		x := get("/")
		check(t, outcome(b, x, new(down)), "200 a")
		if x.Tries != 1 {
			t.Errorf("%d tries", x.Tries)
		}
	})
}
