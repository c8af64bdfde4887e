package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// rig is a Registry in fake time whose endpoints are functions that serve one end of a pipe.
type rig struct {
	*Registry
	metrics *prometheus.Registry
	mu      sync.Mutex
	serve   map[string]func(net.Conn) // guarded by mu; nobody listens at addresses that are not in it
	dialled map[string]int            // guarded by mu
}

// inFakeTime runs f with a rig.
func inFakeTime(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		r := &rig{metrics: prometheus.NewRegistry(), serve: map[string]func(net.Conn){}, dialled: map[string]int{}}
		sw := sweep.New()
		var err error
		r.Registry, err = New(Options{Sweeper: sw, Registerer: r.metrics, Random: seeded(1), Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dialled[address]++
			serve := r.serve[address]
			if serve == nil {
				return nil, errors.New("nobody listens")
			}
			here, there := net.Pipe()
			wg.Go(func() { serve(there); there.Close() })
			return here, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { _ = sw.Run(ctx) })
		wg.Go(func() { _ = r.Run(ctx) })
		f(t, r)
		cancel()
		wg.Wait() // the pools are closed, so everybody who served has ended
		if n := sw.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// seeded returns random numbers that are the same each time.
func seeded(seed uint64) func() uint64 {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, seed))
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Uint64()
	}
}

func (r *rig) commit(t *testing.T, all ...snapshot.Backend) *Backend {
	t.Helper()
	for i := range all {
		all[i].Organization = "acme"
		if all[i].Name == "" {
			all[i].Name = "catalog"
		}
	}
	p, err := r.Prepare("", all)
	if err != nil {
		t.Fatal(err)
	}
	p.Commit()
	return p.Backend("acme", "catalog")
}

func (r *rig) dials(address string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dialled[address]
}

// values returns the metrics of that name by their last labels.
func (r *rig) values(t *testing.T, name string) map[string]float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "organization" && l.GetName() != "backend" {
					labels = append(labels, l.GetValue())
				}
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if v != 0 {
				got[strings.Join(labels, " ")] = v
			}
		}
	}
	return got
}

// down is a client that is there until it is not.
type down struct {
	gone    atomic.Bool
	stopped atomic.Bool
	informs []int
}

func (d *down) Inform(status int, _ *exchange.Head) error {
	d.informs = append(d.informs, status)
	return nil
}
func (*down) Respond(*exchange.Exchange, exchange.Source) {}
func (*down) Abort(*exchange.Exchange)                    {}
func (d *down) Gone() bool                                { return d.gone.Load() }
func (d *down) StopBody()                                 { d.stopped.Store(true) }

// get makes an exchange that asks for path.
func get(path string) *exchange.Exchange {
	x := &exchange.Exchange{Method: exchange.View("GET"), Path: exchange.View(path), Authority: exchange.View("a"), Route: &exchange.Route{Flow: &exchange.Flow{}}, Start: time.Now()}
	return x
}

// outcome is how a call went, in short: "200 body", or the code of its refusal.
func outcome(b *Backend, x *exchange.Exchange, d exchange.Down) string {
	src, v := b.Call(x, d)
	switch v {
	case exchange.Responded:
		return x.Code.String()
	case exchange.Abort:
		return "abort " + x.Code.String()
	}
	body, err := exchange.ReadAll(nil, src, 1<<20)
	src.Close()
	if err != nil {
		return fmt.Sprintf("%d broken: %s", x.Status, x.Code)
	}
	return fmt.Sprintf("%d %s", x.Status, body)
}

func check(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// answering serves requests with a body, forever.
func answering(body string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
				return
			}
		}
	}
}

// times serves n requests and then closes the connection, without having said so.
func times(n int, body string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for range n {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
				return
			}
		}
	}
}

func TestTurns(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		for _, a := range []string{"a:1", "b:1", "c:1"} {
			r.serve[a] = answering(a)
		}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1", "c:1")})
		seen := map[string]int{}
		for range 30 {
			seen[outcome(b, get("/"), new(down))]++
		}
		if diff := cmp.Diff(map[string]int{"200 a:1": 10, "200 b:1": 10, "200 c:1": 10}, seen); diff != "" {
			t.Errorf("turns (-want +got)\n%s", diff)
		}
		if n := r.dials("a:1"); n != 1 {
			t.Errorf("%d connections were made for 10 requests in a row", n)
		}
		if diff := cmp.Diff(map[string]float64{"a:1": 10, "b:1": 10, "c:1": 10}, r.values(t, "hansa_upstream_requests_total")); diff != "" {
			t.Errorf("metrics (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(map[string]float64{"a:1 idle": 1, "b:1 idle": 1, "c:1 idle": 1}, r.values(t, "hansa_upstream_connections")); diff != "" {
			t.Errorf("metrics (-want +got)\n%s", diff)
		}
	})
}

func TestPassOver(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["b:1"] = answering("b")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1")})
		for range 10 {
			check(t, outcome(b, get("/"), new(down)), "200 b") // at the price of a second try, if it was a's turn
		}
		if n := r.dials("a:1"); n != 1 {
			t.Errorf("a dead endpoint was tried %d times within a moment", n)
		}
		if got := r.values(t, "hansa_upstream_endpoint_available"); len(got) != 1 || got["b:1"] != 1 {
			t.Errorf("available: %v", got)
		}
		time.Sleep(2 * time.Second)
		for range 2 {
			check(t, outcome(b, get("/"), new(down)), "200 b")
		}
		if n := r.dials("a:1"); n != 2 {
			t.Errorf("a dead endpoint was tried %d times, want 2", n)
		}
		r.serve["a:1"] = answering("a")
		time.Sleep(time.Minute)
		seen := map[string]bool{}
		for range 4 {
			seen[outcome(b, get("/"), new(down))] = true
		}
		if !seen["200 a"] {
			t.Error("an endpoint that is back gets no turn")
		}
		delete(r.serve, "a:1")
		r.serve["b:1"] = nil
		b = r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:2", "b:2")})
		for range 3 { // all of them are down: they are tried all the same
			check(t, outcome(b, get("/"), new(down)), "upstream-connect")
		}
		if n := r.dials("a:2"); n != 3 {
			t.Errorf("the last resort was tried %d times, want 3", n)
		}
	})
}

func TestBusy(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		r.serve["a:1"] = func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				<-release
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), MaxConns: 2})
		done := make(chan string)
		for range 2 {
			go func() { done <- outcome(b, get("/"), new(down)) }()
		}
		synctest.Wait()
		check(t, outcome(b, get("/"), new(down)), "upstream-busy")
		if got := r.values(t, "hansa_upstream_connections"); got["a:1 used"] != 2 {
			t.Errorf("connections: %v", got)
		}
		if got := r.values(t, "hansa_upstream_errors_total"); got["upstream-busy a:1"] != 1 {
			t.Errorf("errors: %v", got)
		}
		close(release)
		check(t, <-done, "204 ")
		check(t, <-done, "204 ")
	})
}

func TestPool(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		release := make(chan struct{}, 10)
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				<-release
				if _, err := io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n"); err != nil {
					return
				}
			}
		}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), MaxIdleConns: 2, IdleTimeoutMillis: 10_000})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { check(t, outcome(b, get("/"), new(down)), "204 ") })
		}
		synctest.Wait()
		for range 5 {
			release <- struct{}{}
		}
		wg.Wait()
		if got := r.values(t, "hansa_upstream_connections"); got["a:1 idle"] != 2 || got["a:1 used"] != 0 {
			t.Errorf("connections: %v, want 2 idle", got)
		}
		time.Sleep(6 * time.Second)
		release <- struct{}{}
		check(t, outcome(b, get("/"), new(down)), "204 ") // the one used last is used again
		time.Sleep(6 * time.Second)
		if got := r.values(t, "hansa_upstream_connections"); got["a:1 idle"] != 1 {
			t.Errorf("connections: %v, want 1 idle", got)
		}
		time.Sleep(6 * time.Second)
		if got := r.values(t, "hansa_upstream_connections"); len(got) != 0 {
			t.Errorf("connections: %v, want none", got)
		}
		if n := r.dials("a:1"); n != 5 {
			t.Errorf("%d connections were made, want 5", n)
		}
	})
}

// TestStale shows what happens if a kept connection turns out to be closed.
func TestStale(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"] = times(1, "a")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1")})
		for i := range 3 {
			x := get("/")
			check(t, outcome(b, x, new(down)), "200 a")
			if want := min(i+1, 2); x.Tries != want {
				t.Errorf("%d tries, want %d", x.Tries, want)
			}
		}
		// What was not accepted at all may be sent again, whatever the method.
		x := get("/")
		x.Method = exchange.View("POST")
		check(t, outcome(b, x, new(down)), "200 a")

		// But not what may have been read.
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
			_, _ = http.ReadRequest(br)
		}
		check(t, outcome(b, get("/"), new(down)), "200 b")
		x = get("/")
		x.Method = exchange.View("POST")
		check(t, outcome(b, x, new(down)), "upstream-reset")
		check(t, outcome(b, get("/"), new(down)), "200 b")
		x = get("/")
		x.Method = exchange.View("PUT")
		check(t, outcome(b, x, new(down)), "200 b")

		// Nor if a response has begun, nor more than once.
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			if _, err := http.ReadRequest(br); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 2")
			}
		}
		check(t, outcome(b, get("/"), new(down)), "upstream-protocol")
	})
}

func TestTimeouts(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		f := func(name, says, want string, after time.Duration) {
			t.Helper()
			r.serve[name] = func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, says)
					_, _ = io.Copy(io.Discard, c)
				}
			}
			b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints(name), ResponseMillis: 20_000, IdleMillis: 5_000})
			begin := time.Now()
			check(t, outcome(b, get("/"), new(down)), want)
			if took := time.Since(begin); took < after || took > after+8*sweep.Tick {
				t.Errorf("%s: after %v, want %v", name, took, after)
			}
		}
		f("silent:1", "", "upstream-timeout", 20*time.Second)
		f("slow:1", "HTTP/1.1 200 OK\r\nContent-Le", "upstream-timeout", 20*time.Second)
		f("stuck:1", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "200 broken: upstream-timeout", 5*time.Second)
	})
}

// TestGone shows that nobody goes on waiting for a response that nobody wants.
func TestGone(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		closed := make(chan struct{}, 10)
		r.serve["a:1"] = func(c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
			closed <- struct{}{}
		}
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1")})
		d := new(down)
		d.gone.Store(true)
		begin := time.Now()
		check(t, outcome(b, get("/"), d), "abort client-gone")
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("noticed after %v", took)
		}
		<-closed

		x := get("/")
		time.AfterFunc(5*time.Second, x.Cancel)
		begin = time.Now()
		check(t, outcome(b, x, new(down)), "abort client-gone")
		if took := time.Since(begin); took < 5*time.Second || took > 5*time.Second+sweep.Tick {
			t.Errorf("cancelled after %v, want 5s", took)
		}
		<-closed
	})
}

// TestCommit shows what survives a change of the configuration.
func TestCommit(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"], r.serve["b:1"] = answering("a"), answering("b")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1")})
		check(t, outcome(b, get("/"), new(down)), "200 a")
		// Other settings: same handle, same connection.
		if again := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "b:1"), ResponseMillis: 1}); again != b {
			t.Error("the backend has another handle")
		}
		check(t, outcome(b, get("/"), new(down))+outcome(b, get("/"), new(down)), "200 a200 b")
		if n := r.dials("a:1"); n != 1 {
			t.Errorf("%d connections to a, want 1", n)
		}
		// A plan that is not committed changes nothing.
		if _, err := r.Prepare("", []snapshot.Backend{{Organization: "acme", Name: "catalog", Endpoints: snapshot.Endpoints("c:1")}}); err != nil {
			t.Fatal(err)
		}
		check(t, outcome(b, get("/"), new(down)), "200 a")
		// An endpoint that is gone is let go of; the same with TLS is another one.
		r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("b:1")})
		if got := r.values(t, "hansa_upstream_connections"); len(got) != 1 || got["b:1 idle"] != 1 {
			t.Errorf("connections: %v", got)
		}
		// A backend that is gone goes on serving who still has it, without keeping connections.
		r.commit(t, snapshot.Backend{Name: "other", Endpoints: snapshot.Endpoints("a:1")})
		check(t, outcome(b, get("/"), new(down)), "200 b")
		if used, idle := b.table.Load().places[0].pool.counts(); used+idle != 0 {
			t.Errorf("%d used and %d idle connections are left", used, idle)
		}
		if got := r.values(t, "hansa_upstream_requests_total"); len(got) != 0 {
			t.Errorf("metrics of a backend that is gone: %v", got)
		}
		// Nonsense is refused as a whole, naming every culprit.
		_, err := r.Prepare("", []snapshot.Backend{
			{Organization: "acme", Name: "one", Endpoints: snapshot.Endpoints("a")},
			{Organization: "acme", Name: "two", TLS: true, CA: "x", Endpoints: snapshot.Endpoints("a:1")},
		})
		if err == nil || !strings.Contains(err.Error(), `"one"`) || !strings.Contains(err.Error(), `"two"`) {
			t.Errorf("Prepare: %v", err)
		}
	})
}

func TestTwice(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"], r.serve["b:1"] = answering("a"), answering("b")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1", "a:1", "b:1")})
		n := 0
		for range 30 {
			if outcome(b, get("/"), new(down)) == "200 a" {
				n++
			}
		}
		if n != 20 {
			t.Errorf("an endpoint that is named twice got %d turns of 30, want 20", n)
		}
	})
}

func TestHosts(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"] = func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.Host), req.Host); err != nil {
					return
				}
			}
		}
		for rule, want := range map[string]string{"": "a", "endpoint": "a:1", "b.example": "b.example"} {
			b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1"), Host: rule})
			check(t, outcome(b, get("/"), new(down)), "200 "+want)
		}
	})
}

// TestMaxRequestBytes bounds bodies of known length and others.
func TestMaxRequestBytes(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		r.serve["a:1"] = answering("a")
		b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints("a:1")})
		for _, tt := range []struct {
			size  int
			known bool
			want  string
		}{{10, true, "200 a"}, {11, true, "bad-request-body-too-large"}, {10, false, "200 a"}, {11, false, "bad-request-body-too-large"}} {
			x := get("/")
			x.Method = exchange.View("POST")
			x.Route.MaxRequestBytes = 10
			body := new(exchange.Bytes)
			body.Reset(make([]byte, tt.size))
			x.Body = body
			if !tt.known {
				x.Body = &unknown{Bytes: *body}
			}
			check(t, outcome(b, x, new(down)), tt.want)
		}
	})
}

// unknown is a body of unknown length, in pieces of a byte.
type unknown struct{ exchange.Bytes }

func (*unknown) Len() int64 { return -1 }

func (u *unknown) Next() (exchange.Chunk, error) {
	c, err := u.Bytes.Next()
	if len(c.Data) > 1 {
		u.Reset(c.Data[1:])
		c = exchange.Chunk{Data: c.Data[:1]}
	}
	return c, err
}

// closing is a body that tells when it is closed.
type closing struct {
	exchange.Bytes
	closed chan struct{}
}

func (c *closing) Close() { close(c.closed) }

// TestLetGo sends bodies that the gateway need not keep until the response comes, and one that it may have to send again.
func TestLetGo(t *testing.T) {
	inFakeTime(t, func(t *testing.T, r *rig) {
		for method, want := range map[string]string{"POST": "200 let go", "PUT": "200 kept"} {
			body := &closing{closed: make(chan struct{})}
			body.Reset(make([]byte, copyBelow))
			address := method + ":1"
			r.serve[address] = func(c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				answer := "let go"
				select {
				case <-body.closed:
				case <-time.After(time.Second):
					answer = "kept"
				}
				_, _ = fmt.Fprintf(c, "HTTP/1.0 200 OK\r\n\r\n%s", answer)
			}
			b := r.commit(t, snapshot.Backend{Endpoints: snapshot.Endpoints(address)})
			x := get("/")
			x.Method, x.Body = exchange.View(method), body
			check(t, outcome(b, x, &down{}), want)
		}
	})
}
