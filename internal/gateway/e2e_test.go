package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa.dev/hansa/internal/snapshot"
)

// node is a gateway that runs, with a backend behind it.
type node struct {
	*Gateway
	t       testing.TB
	backend *httptest.Server
	client  *http.Client
	base    string // http://address
	admin   string
	log     string
	seq     uint64
	creds   *snapshot.Credentials
}

// startNode starts a gateway without a configuration. handler is the backend.
func startNode(t testing.TB, handler http.HandlerFunc, edit func(*Options)) *node {
	t.Helper()
	n := &node{t: t, creds: snapshot.NewCredentials(), log: filepath.Join(t.TempDir(), "access.log")}
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Method, r.URL) }
	}
	n.backend = httptest.NewServer(handler)
	t.Cleanup(n.backend.Close)
	o := Options{HTTPAddr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0", AccessLog: n.log, Version: "test"}
	if edit != nil {
		edit(&o)
	}
	var err error
	if n.Gateway, err = New(o); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.stop)
	n.base, n.admin = "http://"+n.Addresses()["http"], "http://"+n.Addresses()["admin"]
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	n.client = &http.Client{Transport: transport, Timeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	return n
}

func (n *node) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		n.t.Errorf("stop: %v", err)
	}
}

// world is the sample with the backend where it is.
func (n *node) world() world {
	w := sample()
	w.put(snapshot.Backend{Organization: "acme", Name: "catalog", Endpoints: snapshot.Endpoints(n.backend.Listener.Addr().String())})
	return w
}

func (n *node) apply(w world) {
	n.t.Helper()
	n.seq++
	c := snapshot.Checkpoint{Epoch: 1, Seq: n.seq, IssuedAt: time.Now()}
	set := w.set(n.t)
	c.Describe(set)
	if err := n.Apply(n.t.Context(), c, set, nil); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) key(value string, edit func(*snapshot.Credential)) {
	n.t.Helper()
	c := snapshot.Credential{
		Hash: snapshot.HashCredential([]byte(value)), ID: value + "-id", Organization: "acme",
		Subscription: value + "-sub", Application: value + "-app", Product: "gold", CreatedAt: 1,
	}
	if edit != nil {
		edit(&c)
	}
	n.creds = n.creds.With([]snapshot.CredentialChange{{Credential: c}})
	if err := n.ApplyCredentials(n.t.Context(), snapshot.Checkpoint{Seq: 7}, n.creds); err != nil {
		n.t.Fatal(err)
	}
}

// get sends a request and returns the response with its body read.
func (n *node) get(url string, fields ...string) (*http.Response, string) {
	n.t.Helper()
	resp, body, err := n.try("GET", url, fields...)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp, body
}

func (n *node) try(method, url string, fields ...string) (*http.Response, string, error) {
	if strings.HasPrefix(url, "/") {
		url = n.base + url
	}
	req, err := http.NewRequestWithContext(n.t.Context(), method, url, nil)
	if err != nil {
		return nil, "", err
	}
	req.Host = host
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	if strings.HasPrefix(url, n.admin) {
		req.Host = ""
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// Every refusal of the interface that this gateway can give comes in the form that the interface says.
func TestRefusalsOnTheWire(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil, nil)
	check := func(status int, code string, path string, fields ...string) *http.Response {
		t.Helper()
		resp, body := n.get(path, fields...)
		var p struct {
			Type, Title, Code, Detail, RequestID string
			Status                               int
		}
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Errorf("%s: %d with body %q: %v", path, resp.StatusCode, body, err)
			return resp
		}
		if resp.StatusCode != status || p.Status != status || p.Code != code || p.Title == "" || p.Type == "" ||
			p.RequestID == "" || p.RequestID != resp.Header.Get("X-Request-Id") ||
			resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %v: %d %v %s, want %d %s", path, fields, resp.StatusCode, resp.Header, body, status, code)
		}
		return resp
	}
	check(503, "not-configured", "/catalog/v1/items/1")

	w := n.world()
	dead, err := net.Dial("tcp", n.backend.Listener.Addr().String()) // nobody listens at its own address, and nobody can while it is there
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	w.put(snapshot.Backend{Organization: "acme", Name: "dead", Endpoints: snapshot.Endpoints(dead.LocalAddr().String())})
	w.put(snapshot.API{Organization: "acme", Environment: "prod", Name: "dead", BasePath: "/dead", Backend: "dead", BackendPath: "/"})
	w.put(snapshot.API{
		Organization: "acme", Environment: "prod", Name: "limited", BasePath: "/limited", Backend: "catalog", BackendPath: "/",
		Request: []snapshot.Policy{policyOf("rateLimit", `{"limit":1,"window":"1h","by":"clientIP"}`)},
	})
	n.apply(w)
	n.key("good", nil)
	n.key("expired", func(c *snapshot.Credential) { c.ExpiresAt = 1 })
	n.key("revoked", func(c *snapshot.Credential) { c.State = snapshot.StateRevoked })
	n.key("suspended", func(c *snapshot.Credential) { c.State = snapshot.StateSuspended })

	check(404, "no-route", "/nowhere")
	check(400, "bad-request-path", "/catalog/..%2Fetc")
	check(502, "upstream-connect", "/dead")
	check(401, "key-missing", "/keyed")
	check(401, "key-invalid", "/keyed", "X-API-Key", "nobody")
	check(401, "key-expired", "/keyed", "X-API-Key", "expired")
	check(403, "revoked", "/keyed", "X-API-Key", "revoked")
	check(403, "not-subscribed", "/keyed", "X-API-Key", "suspended")
	for i := range 3 {
		resp, body := n.get("/keyed/x?a=1", "X-API-Key", "good")
		if resp.StatusCode != 200 || body != "GET /keyed/x?a=1" {
			t.Errorf("request %d within the quota: %d %q", i, resp.StatusCode, body)
		}
		if got := resp.Header.Get("RateLimit"); !strings.HasPrefix(got, fmt.Sprintf(`"quota";r=%d;t=`, 2-i)) {
			t.Errorf("RateLimit: %s", got)
		}
		if got := resp.Header.Get("RateLimit-Policy"); got != `"quota";q=3;w=31536000` {
			t.Errorf("RateLimit-Policy: %s", got)
		}
	}
	if resp := check(429, "quota-exceeded", "/keyed", "X-API-Key", "good"); resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if resp, _ := n.get("/limited"); resp.StatusCode != 200 {
		t.Errorf("first within the rate: %d", resp.StatusCode)
	}
	if resp := check(429, "rate-limited", "/limited"); resp.Header.Get("Retry-After") == "" || !strings.HasPrefix(resp.Header.Get("RateLimit"), `"rateLimit";r=0;t=`) {
		t.Errorf("headers %v", resp.Header)
	}
}

// Each line of the log is one request, and carries the id that the client was told.
func TestLogOnTheWire(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil, nil)
	n.apply(n.world())
	ids := map[string]int{}
	for range 20 {
		resp, _ := n.get("/catalog/v1/items/1?secret=1")
		ids[resp.Header.Get("X-Request-Id")] = 200
	}
	resp, _ := n.get("/nowhere")
	ids[resp.Header.Get("X-Request-Id")] = 404
	n.stop()
	f, err := os.Open(n.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var line struct {
			RequestID, Path, Endpoint string
			Status                    int
			DurationMs, UpstreamMs    float64
			BytesOut                  int
		}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if ids[line.RequestID] != line.Status || strings.Contains(s.Text(), "secret") {
			t.Errorf("line %s", s.Text())
		}
		if line.Status == 200 && (line.DurationMs <= 0 || line.UpstreamMs <= 0 || line.BytesOut == 0 || line.Endpoint != n.backend.Listener.Addr().String()) {
			t.Errorf("line %s", s.Text())
		}
		delete(ids, line.RequestID)
	}
	if len(ids) != 0 {
		t.Errorf("%d requests are not in the log", len(ids))
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	broken := atomic.Pointer[string]{}
	n := startNode(t, nil, func(o *Options) {
		o.Checks = []Check{
			{Name: "link", Optional: true, Run: func() error { return fmt.Errorf("down") }},
			{Name: "disk", Run: func() error {
				if s := broken.Load(); s != nil {
					return fmt.Errorf("%s", *s)
				}
				return nil
			}},
		}
	})
	f := func(path string, status int, parts ...string) {
		t.Helper()
		resp, body := n.get(n.admin + path)
		if resp.StatusCode != status {
			t.Errorf("GET %s = %d, want %d: %s", path, resp.StatusCode, status, body)
		}
		for _, p := range parts {
			if !strings.Contains(body, p) {
				t.Errorf("GET %s = %q, want %q in it", path, body, p)
			}
		}
	}
	f("/livez", 200, "ok")
	f("/readyz", 503, "not ready")
	f("/readyz?verbose", 503, "[-] configuration: there is none yet\n", "[-] credentials", "[!] link: down\n", "[+] disk: ok\n")
	f("/status", 200, `"generation": 0`)
	n.apply(n.world())
	n.key("good", nil)
	f("/readyz?verbose", 200, "[+] configuration: ok\n", "[!] link: down\n")
	f("/status", 200, `"seq": 1`, `"site": "eu-west"`, `"digest": "`, `"version": "test"`, `"credentials": 1`, `"credentialSeq": 7`)
	n.get("/catalog/v1/items/1")
	eventually(t, func() bool {
		_, body := n.get(n.admin + "/metrics")
		return strings.Contains(body, `hansa_gateway_requests_total{api="catalog",class="2xx",environment="prod",operation="getItem",organization="acme"} 1`)
	})
	fault := "full"
	broken.Store(&fault)
	f("/readyz?verbose", 503, "[-] disk: full\n")
	broken.Store(nil)

	for _, path := range []string{"/maintenance", "/drain"} {
		if resp, _, err := n.try("PUT", n.admin+path); err != nil || resp.StatusCode != 404 {
			t.Errorf("PUT %s on the port that everybody reaches: %v, %v", path, resp, err)
		}
	}
	for _, on := range []bool{true, false} {
		n.SetMaintenance(on)
		status, want := 200, "<status>ok</status>"
		if on {
			status, want = 503, "<status>under maintenance</status>"
		}
		if resp, body := n.get("/healthchecklb"); resp.StatusCode != status || body != want || resp.Header.Get("Content-Type") != "text/xml" {
			t.Errorf("health check, maintenance %v: %d %q %v", on, resp.StatusCode, body, resp.Header)
		}
		if resp, _ := n.get("/healthcheck"); resp.StatusCode != 200 {
			t.Errorf("the other health check, maintenance %v: %d", on, resp.StatusCode)
		}
	}
}

// eventually polls until the condition holds.
func eventually(t testing.TB, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come true")
		}
		<-tick.C
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	n := startNode(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "late")
	}, func(o *Options) { o.DrainDelay = 3 * time.Second }) // time to be seen
	n.apply(n.world())
	type result struct {
		status int
		body   string
		err    error
	}
	answered := make(chan result, 1)
	go func() {
		resp, body, err := n.try("GET", "/open/slow")
		if err != nil {
			answered <- result{err: err}
			return
		}
		answered <- result{resp.StatusCode, body, nil}
	}()
	<-entered
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n.stop()
	}()
	eventually(t, func() bool {
		resp, body, err := n.try("GET", "/healthcheck")
		return err == nil && resp.StatusCode == 503 && body == "<status>draining</status>"
	})
	eventually(t, func() bool { // after the delay nobody is let in any more
		c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	select {
	case <-stopped:
		t.Fatal("stopped with a request under way")
	default:
	}
	close(release)
	if got := <-answered; got != (result{200, "late", nil}) {
		t.Errorf("the request under way: %+v", got)
	}
	<-stopped
}

// Draining is there and back again without a request that fails: active connections go with a response, idle ones after the
// delay, and who still comes is served.
func TestDrainAndUndrain(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil, func(o *Options) { o.DrainDelay = time.Hour }) // until it is the turn of the idle ones
	n.apply(n.world())
	dial := func() *bufio.ReadWriter {
		t.Helper()
		c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
	}
	ask := func(c *bufio.ReadWriter) *http.Response {
		t.Helper()
		fmt.Fprintf(c, "GET /open/x HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(c.Reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp
	}
	active, idle, fresh := dial(), dial(), dial()
	for _, c := range []*bufio.ReadWriter{active, idle} {
		if resp := ask(c); resp.Close {
			t.Error("a connection is closed before anything is drained")
		}
	}
	for range 2 {
		if err := n.Drain(); err != nil {
			t.Fatal(err)
		}
	}
	if resp, body := n.get("/healthchecklb"); resp.StatusCode != 503 || body != "<status>draining</status>" {
		t.Errorf("health check: %d %q", resp.StatusCode, body)
	}
	if resp := ask(active); !resp.Close || resp.StatusCode != 200 {
		t.Errorf("active connection: %d, close %v", resp.StatusCode, resp.Close)
	}
	if err := n.Undrain(); err != nil {
		t.Fatal(err)
	}
	n.opts.DrainDelay = 10 * time.Millisecond
	if err := n.Drain(); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.ReadByte(); err != io.EOF {
		t.Errorf("idle connection: %v", err)
	}
	if resp := ask(fresh); !resp.Close || resp.StatusCode != 200 {
		t.Errorf("a connection that had no response yet: %d, close %v", resp.StatusCode, resp.Close)
	}
	if resp := ask(dial()); !resp.Close || resp.StatusCode != 200 {
		t.Errorf("a late connection: %d, close %v", resp.StatusCode, resp.Close)
	}
	eventually(t, func() bool { return n.Status().Draining && n.Status().Connections == 0 })
	for range 2 {
		if err := n.Undrain(); err != nil {
			t.Fatal(err)
		}
	}
	c := dial()
	for range 2 {
		if resp := ask(c); resp.Close || resp.StatusCode != 200 {
			t.Errorf("afterwards: %d, close %v", resp.StatusCode, resp.Close)
		}
	}
	if resp, _ := n.get("/healthchecklb"); resp.StatusCode != 200 {
		t.Errorf("health check afterwards: %d", resp.StatusCode)
	}
	n.stop()
	for _, f := range []func() error{n.Drain, n.Undrain} {
		if err := f(); !errors.Is(err, ErrStopping) {
			t.Errorf("after Stop: %v", err)
		}
	}
}

// No request fails while the configuration changes under load, and the counters add up to what was answered.
func TestReconfigurationUnderLoad(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil, nil)
	w := n.world()
	product := w["product/acme/gold"].(snapshot.Product)
	product.Quota = &snapshot.Limit{Limit: 1 << 30, WindowMillis: 365 * 86_400_000}
	w.put(product)
	n.apply(w)
	n.key("good", nil)
	second := httptest.NewServer(n.backend.Config.Handler)
	t.Cleanup(second.Close)

	stop := make(chan struct{})
	var answered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, body, err := n.try("GET", "/keyed/x", "X-API-Key", "good")
				if err != nil || resp.StatusCode != 200 || body != "GET /keyed/x" {
					t.Errorf("a request failed: %v %v %q", err, resp, body)
					return
				}
				answered.Add(1)
			}
		})
	}
	for i := range 100 {
		next := world{}
		maps.Copy(next, w)
		api := next["api/acme/prod/keyed"].(snapshot.API)
		api.Revision = uint64(i + 2)
		api.Backend = []string{"catalog", "second"}[i%2]
		next.put(api)
		if i%2 == 1 { // a backend comes with the API and goes with it
			next.put(snapshot.Backend{Organization: "acme", Name: "second", Endpoints: snapshot.Endpoints(second.Listener.Addr().String())})
		}
		if i%3 == 0 {
			delete(next, "api/acme/prod/open")
		}
		n.apply(next)
		n.key(fmt.Sprintf("k%d", i), nil)
		was := answered.Load()
		eventually(t, func() bool { return answered.Load() >= was+4 || t.Failed() })
	}
	close(stop)
	wg.Wait()
	n.stop()
	families, err := n.opts.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		if f.GetName() == "hansa_gateway_requests_total" {
			for _, m := range f.GetMetric() {
				counted += m.GetCounter().GetValue()
			}
		}
	}
	if int64(counted) != answered.Load() {
		t.Errorf("%v requests counted, %d answered", counted, answered.Load())
	}
	t.Logf("%d requests during 100 changes", answered.Load())
}

// A response that does not end is cut when its API is removed, and not before.
func TestRemovalEndsAStream(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	n := startNode(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		fmt.Fprintln(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, nil)
	w := n.world()
	n.apply(w)
	req, err := http.NewRequestWithContext(t.Context(), "GET", n.base+"/open/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := n.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	if line, err := r.ReadString('\n'); line != "first\n" {
		t.Fatalf("%q, %v", line, err)
	}
	api := w["api/acme/prod/open"].(snapshot.API)
	api.Revision = 2
	w.put(api)
	n.apply(w)
	if got := n.Status().Streams; got != 1 {
		t.Errorf("%d streams, want 1", got)
	}
	delete(w, "api/acme/prod/open")
	n.apply(w)
	if rest, err := io.ReadAll(r); err == nil {
		t.Errorf("the stream ended as if it was complete: %q", rest)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the backend was not told")
	}
}

func TestQuotaSurvivesARestart(t *testing.T) {
	t.Parallel()
	counts := filepath.Join(t.TempDir(), "counts")
	start := func() *node {
		n := startNode(t, nil, func(o *Options) { o.CountsFile = counts })
		n.apply(n.world())
		n.key("good", nil)
		return n
	}
	first := start()
	for range 3 {
		if resp, _ := first.get("/keyed", "X-API-Key", "good"); resp.StatusCode != 200 {
			t.Fatalf("within the quota: %d", resp.StatusCode)
		}
	}
	first.stop()
	second := start()
	if resp, _ := second.get("/keyed", "X-API-Key", "good"); resp.StatusCode != 429 {
		t.Errorf("after a restart: %d, want 429", resp.StatusCode)
	}
	second.stop()
	if err := os.WriteFile(counts, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if resp, _ := start().get("/keyed", "X-API-Key", "good"); resp.StatusCode != 200 {
		t.Errorf("with a file that cannot be read: %d, want 200", resp.StatusCode)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, o := range map[string]Options{
		"address taken":       {HTTPAddr: "127.0.0.1:0", AdminAddr: taken.Addr().String()},
		"certificate missing": {HTTPAddr: "127.0.0.1:0", HTTPSAddr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0", CertFile: "none", KeyFile: "none"},
	} {
		g, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Start(t.Context()); err == nil {
			t.Errorf("%s: Start = nil", name)
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Errorf("%s: Stop = %v", name, err)
		}
	}
}

// How long it takes from nothing to the first answer with the configuration that the goals speak of.
func TestStartWithLargeConfiguration(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }))
	defer backend.Close()
	w := large(10_000)
	w.put(snapshot.Backend{Organization: "acme", Name: "service-77", Endpoints: snapshot.Endpoints(backend.Listener.Addr().String())})
	api := largeAPI(77, 1)
	api.Request = nil
	w.put(api)
	set := w.set(t)

	began := time.Now()
	g, err := New(Options{HTTPAddr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Apply(t.Context(), snapshot.Checkpoint{Epoch: 1, Seq: 1}, set, nil); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+g.Addresses()["http"]+"/service-77/v1/items/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Close = "api-77.example.com", true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	took := time.Since(began)
	if resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	t.Logf("10,000 APIs: first 200 after %v", took)
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
