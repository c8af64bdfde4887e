package gateway

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

const host = "api.example.com"

func TestWithoutConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if a := r.do("GET", host, "/catalog/v1/items/1"); a.status != 503 || a.code != "not-configured" {
		t.Errorf("a request: %d %q, want 503 not-configured", a.status, a.code)
	}
	if a := r.do("GET", host, "/healthcheck"); a.status != 503 || a.body != "<status>no configuration</status>" {
		t.Errorf("health check: %d %q", a.status, a.body)
	}
	r.apply(sample())
	if a := r.do("HEAD", "any.host", "/healthchecklb"); a.status != 200 || a.body != "<status>ok</status>" {
		t.Errorf("health check after the first configuration: %d %q", a.status, a.body)
	}
}

func TestRouting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	for _, tc := range []struct {
		method, host, path string
		status             int
		operation, forward string
	}{
		{"GET", host, "/catalog/v1/items/1", 200, "catalog getItem", "/internal/items/1"},
		{"GET", "a.b.api.example.com", "/catalog/v1/items/1", 200, "catalog getItem", "/internal/items/1"},
		{"GET", host, "/catalog/v1/teapot", 418, "catalog teapot", "/internal/teapot"},
		{"POST", host, "/catalog/v1/items/1", 404, " ", ""},
		{"GET", host, "/catalog/v1", 404, " ", ""},
		{"GET", host, "/catalog/v10/items/1", 404, " ", ""},
		{"GET", "other.example.com", "/catalog/v1/items/1", 404, " ", ""},
		{"DELETE", host, "/open", 200, "open ", "/"},
		{"DELETE", host, "/open/", 200, "open ", "/"},
		{"GET", host, "/open/a/b", 200, "open ", "/a/b"},
	} {
		a := r.do(tc.method, tc.host, tc.path)
		if got := a.api + " " + a.operation; a.status != tc.status || got != tc.operation || a.forward != tc.forward {
			t.Errorf("%s %s%s = %d %q to %q, want %d %q to %q", tc.method, tc.host, tc.path, a.status, got, a.forward, tc.status, tc.operation, tc.forward)
		}
		if tc.status == 404 && a.code != "no-route" {
			t.Errorf("%s %s: code %q", tc.method, tc.path, a.code)
		}
	}
}

func TestResponsePolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	name := exchange.NameOf("X-Out")
	if a := r.do("GET", host, "/catalog/v1/items/1"); string(a.x.Resp.Get(name)) != "1" || a.body != "catalog" {
		t.Errorf("response of the backend: %q with X-Out %q", a.body, a.x.Resp.Get(name))
	}
	if a := r.do("GET", host, "/catalog/v1/teapot"); string(a.x.Own.Get(name)) != "1" || a.body != "short" {
		t.Errorf("answer of a policy: %q with X-Out %q", a.body, a.x.Own.Get(name))
	}
	r.backendCall("catalog", func(x *exchange.Exchange, _ exchange.Down) (exchange.Source, exchange.Verdict) {
		return nil, x.Refuse(exchange.UpstreamTimeout, "")
	})
	if a := r.do("GET", host, "/catalog/v1/items/1"); a.x.Own.Get(name) != nil || a.status != 504 {
		t.Errorf("refusal: %d with X-Out %q", a.status, a.x.Own.Get(name))
	}
}

// backendCall replaces what a backend does.
func (r *rig) backendCall(name string, call func(*exchange.Exchange, exchange.Down) (exchange.Source, exchange.Verdict)) {
	r.backends.mu.Lock()
	defer r.backends.mu.Unlock()
	r.backends.handles[name].call = call
}

func TestKeysAndQuota(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	r.key("good", nil)
	r.key("revoked", func(c *snapshot.Credential) { c.State = snapshot.StateRevoked })
	r.key("expired", func(c *snapshot.Credential) { c.ExpiresAt = 1 })
	r.key("suspended", func(c *snapshot.Credential) { c.State = snapshot.StateSuspended })
	f := func(wantStatus int, wantCode string, fields ...string) answer {
		t.Helper()
		a := r.do("GET", host, "/keyed/x", fields...)
		if a.status != wantStatus || a.code != wantCode {
			t.Errorf("%v: %d %q, want %d %q", fields, a.status, a.code, wantStatus, wantCode)
		}
		return a
	}
	f(401, "key-missing")
	f(401, "key-invalid", "X-API-Key", "nobody")
	f(401, "key-expired", "X-API-Key", "expired")
	f(403, "revoked", "X-API-Key", "revoked")
	f(403, "not-subscribed", "X-API-Key", "suspended")
	for range 3 {
		f(200, "", "X-API-Key", "good")
	}
	a := f(429, "quota-exceeded", "X-API-Key", "good")
	var problem struct{ Code, Detail, RequestID string }
	if err := json.Unmarshal([]byte(a.body), &problem); err != nil || problem.Code != "quota-exceeded" || problem.Detail == "" {
		t.Errorf("body %s: %v", a.body, err)
	}

	// A change of the API and of the limit: the window goes on, with the new bound.
	w := sample()
	api := w["api/acme/prod/keyed"].(snapshot.API)
	api.Revision = 2
	w.put(api)
	product := w["product/acme/gold"].(snapshot.Product)
	product.Quota = &snapshot.Limit{Limit: 4, WindowMillis: 365 * 86_400_000}
	w.put(product)
	r.apply(w)
	f(200, "", "X-API-Key", "good")
	f(429, "quota-exceeded", "X-API-Key", "good")

	// The API leaves the product.
	product.APIs = []string{"catalog"}
	w.put(product)
	r.apply(w)
	f(403, "not-subscribed", "X-API-Key", "good")
}

func TestLogLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	r.key("good", nil)
	r.do("GET", host, "/keyed/x", "X-API-Key", "good")
	r.do("GET", host, "/healthcheck")
	r.do("GET", "nowhere", "/x")
	if err := r.access.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(r.logPath)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2: health checks are not logged\n%s", len(lines), content)
	}
	var got map[string]any
	if err := json.Unmarshal(lines[0], &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{
		"requestId": "0123456789abcdef0123456789abcdef", "organization": "acme", "environment": "prod", "api": "keyed", "revision": 1.0,
		"operation": "", "application": "good-app", "product": "gold", "method": "GET", "host": host, "path": "/keyed/x", "status": 200.0,
		"code": "", "backend": "catalog", "endpoint": "192.0.2.9:80", "site": "eu-west", "epoch": 1.0, "seq": 1.0, "durationMs": 1.0,
		"upstreamMs": 1.0, "bytesIn": 0.0, "bytesOut": 0.0, "protocol": "HTTP/1.1", "clientIp": "192.0.2.1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestPanicCostsOneRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	r.backendCall("catalog", func(*exchange.Exchange, exchange.Down) (exchange.Source, exchange.Verdict) { panic("boom") })
	for range 3 {
		if a := r.do("GET", host, "/open/x"); a.status != 500 || a.code != "internal" {
			t.Errorf("%d %q, want 500 internal", a.status, a.code)
		}
	}
	if n := strings.Count(r.logs.String(), "a request panicked"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, r.logs)
	}
	if !strings.Contains(r.logs.String(), "site=hansa.dev/hansa/internal/gateway.TestPanicCostsOneRequest") {
		t.Errorf("the log does not name the place:\n%s", r.logs)
	}
	if a := r.do("GET", host, "/catalog/v1/teapot"); a.status != 418 {
		t.Errorf("afterwards: %d", a.status)
	}
}

// closes notes that it was closed.
type closes struct {
	exchange.Bytes
	closed int
}

func (c *closes) Close()     { c.closed++ }
func (c *closes) Len() int64 { return -1 }

func TestBodyIsClosedWhenAResponsePolicyRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	body := new(closes)
	r.backendCall("catalog", func(x *exchange.Exchange, _ exchange.Down) (exchange.Source, exchange.Verdict) {
		for i := range exchange.MaxFields {
			x.Resp.AddString(exchange.NameOf("X-"+strings.Repeat("a", i+1)), "")
		}
		x.Status = 200
		return body, exchange.Continue
	})
	if a := r.do("GET", host, "/catalog/v1/items/1"); a.code != "upstream-protocol" || body.closed != 1 {
		t.Errorf("code %q, closed %d times", a.code, body.closed)
	}
}

func TestClientThatLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	r.backendCall("catalog", func(x *exchange.Exchange, _ exchange.Down) (exchange.Source, exchange.Verdict) {
		x.Code, x.Status = exchange.ClientGone, exchange.ClientGone.Status()
		return nil, exchange.Abort
	})
	if a := r.do("GET", host, "/open"); a.aborts != 1 || a.code != "client-gone" {
		t.Errorf("%d aborts, code %q", a.aborts, a.code)
	}
}

// streaming starts a response that does not end by itself and returns once it is under way.
func (r *rig) streaming(fields ...string) (answered chan answer) {
	r.t.Helper()
	r.backendCall("catalog", func(x *exchange.Exchange, _ exchange.Down) (exchange.Source, exchange.Verdict) {
		x.Status = 200
		return new(closes), exchange.Continue
	})
	x := newExchange(r, "GET", host, "/keyed/x", fields...)
	d := &fakeDown{hold: make(chan struct{}), reached: make(chan struct{})}
	answered = make(chan answer, 1)
	go func() { answered <- r.serve(x, d) }()
	select {
	case <-d.reached:
	case <-time.After(time.Minute):
		r.t.Fatal("the stream did not begin")
	}
	return answered
}

func TestStreamsEndWithTheirGround(t *testing.T) {
	t.Parallel()
	for name, takeAway := range map[string]func(*rig){
		"API removed": func(r *rig) {
			w := sample()
			delete(w, "api/acme/prod/keyed")
			r.apply(w)
		},
		"credential revoked": func(r *rig) {
			r.key("good", func(c *snapshot.Credential) { c.State = snapshot.StateRevoked })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.apply(sample())
			r.key("good", nil)
			answered := r.streaming("X-API-Key", "good")

			// What does not concern the stream leaves it alone.
			w := sample()
			api := w["api/acme/prod/keyed"].(snapshot.API)
			api.Revision = 9
			w.put(api)
			delete(w, "api/acme/prod/open")
			r.apply(w)
			r.key("other", nil)
			select {
			case a := <-answered:
				t.Fatalf("the stream ended: %+v", a)
			default:
			}
			if n := r.streams.count(); n != 1 {
				t.Errorf("%d streams, want 1", n)
			}

			takeAway(r)
			select {
			case a := <-answered:
				if !a.x.Cancelled() || a.x.Route.Revision != 1 {
					t.Errorf("cancelled %v at revision %d, want the one it began with", a.x.Cancelled(), a.x.Route.Revision)
				}
			case <-time.After(time.Minute):
				t.Fatal("the stream goes on")
			}
			if n := r.streams.count(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
		})
	}
}

// sum adds up the values of a metric over its labels.
func (r *rig) sum(name string, labels ...string) (total float64) {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metric:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue metric
				}
			}
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return total
}

func TestMetricsAddUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	r.key("good", nil)
	requests := 0
	for range 5 {
		r.do("GET", host, "/keyed/x", "X-API-Key", "good") // three pass
		r.do("GET", host, "/keyed/x")
		r.do("GET", host, "/catalog/v1/items/1")
		r.do("GET", host, "/nowhere")
		requests += 4
	}
	r.do("GET", host, "/healthcheck")
	for _, tc := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"hansa_gateway_requests_total", nil, float64(requests)},
		{"hansa_gateway_request_duration_seconds", nil, float64(requests)},
		{"hansa_gateway_requests_total", []string{"api", "keyed", "class", "2xx"}, 3},
		{"hansa_gateway_requests_total", []string{"api", "catalog", "operation", "getItem"}, 5},
		{"hansa_gateway_requests_total", []string{"api", "_other"}, 5},
		{"hansa_gateway_refusals_total", []string{"code", "quota-exceeded"}, 2},
		{"hansa_gateway_refusals_total", []string{"code", "no-route"}, 5},
		{"hansa_gateway_limit_refusals_total", []string{"api", "keyed", "policy", "quota"}, 2},
		{"hansa_gateway_key_lookups_total", []string{"outcome", "good"}, 5},
		{"hansa_gateway_key_lookups_total", []string{"outcome", "missing"}, 5},
		{"hansa_gateway_health_checks_total", nil, 1},
		{"hansa_gateway_config_seq", nil, 1},
		{"hansa_gateway_config_last_reload_successful", nil, 1},
	} {
		if got := r.sum(tc.name, tc.labels...); got != tc.want {
			t.Errorf("%s%v = %v, want %v", tc.name, tc.labels, got, tc.want)
		}
	}
	// Counts survive a new revision.
	w := sample()
	api := w["api/acme/prod/catalog"].(snapshot.API)
	api.Revision++
	w.put(api)
	r.apply(w)
	if got := r.sum("hansa_gateway_requests_total", "operation", "getItem"); got != 5 {
		t.Errorf("after a new revision %v, want 5", got)
	}
}

func TestServeAllocatesNothing(t *testing.T) {
	r := newRig(t)
	w := sample()
	product := w["product/acme/gold"].(snapshot.Product)
	product.Quota = &snapshot.Limit{Limit: 1 << 30, WindowMillis: 365 * 86_400_000}
	w.put(product)
	r.apply(w)
	r.key("good", nil)
	for name, path := range map[string]string{"plain": "/catalog/v1/items/1", "key+quota": "/keyed/x", "no route": "/nowhere", "health check": "/healthcheck"} {
		serve := r.loop(path)
		if n := testing.AllocsPerRun(1000, serve); n > 0 {
			t.Errorf("%s: %v allocations a request, want 0", name, n)
		}
	}
}

// loop returns a function that sends one request, with memory reused as an engine reuses it.
func (r *rig) loop(path string) func() {
	x, d := new(exchange.Exchange), new(fakeDown)
	name := exchange.IDXAPIKey.Name()
	src, body := new(exchange.Bytes), []byte("hello")
	r.backendCall("catalog", func(x *exchange.Exchange, _ exchange.Down) (exchange.Source, exchange.Verdict) {
		x.Status, x.Backend, x.Endpoint = 200, "catalog", "192.0.2.9:80"
		src.Reset(body)
		return src, exchange.Continue
	})
	method, hostname, p := exchange.View("GET"), exchange.View(host), exchange.View(path)
	return func() {
		x.Reset()
		x.Start = r.clock
		x.Method, x.Host, x.Path = method, hostname, p
		x.Req.AddString(name, "good")
		r.Serve(x, d)
		x.Duration = time.Millisecond
		r.Done(x)
	}
}

func BenchmarkServe(b *testing.B) {
	for name, path := range map[string]string{"plain": "/catalog/v1/items/1", "key+quota": "/keyed/x"} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			w := sample()
			product := w["product/acme/gold"].(snapshot.Product)
			product.Quota = &snapshot.Limit{Limit: 1 << 39, WindowMillis: 365 * 86_400_000}
			w.put(product)
			r.apply(w)
			r.key("good", nil)
			measure(b, r.loop(path))
		})
	}
}
