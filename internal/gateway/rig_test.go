package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// fakeBackends stand in for upstream: they keep handles by name and answer from memory.
type fakeBackends struct {
	mu      sync.Mutex
	handles map[string]*fakeBackend
	commits int
}

// fakeBackend answers with 200 and its name, unless it is told otherwise.
type fakeBackend struct {
	name string
	body []byte
	call func(x *exchange.Exchange, d exchange.Down) (exchange.Source, exchange.Verdict)
	src  sync.Pool
}

type fakePlan struct {
	f       *fakeBackends
	handles map[string]*fakeBackend
}

func (f *fakeBackends) Prepare(_ string, all []snapshot.Backend) (backendPlan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &fakePlan{f, map[string]*fakeBackend{}}
	for _, b := range all {
		if len(b.Endpoints) == 0 {
			return nil, fmt.Errorf("backend %q has no endpoint", b.Name)
		}
		h := f.handles[b.Name]
		if h == nil {
			h = &fakeBackend{name: b.Name, body: []byte(b.Name)}
		}
		p.handles[b.Name] = h
	}
	return p, nil
}

func (p *fakePlan) Backend(_, name string) exchange.Backend {
	if h := p.handles[name]; h != nil {
		return h
	}
	return nil
}

func (p *fakePlan) Commit() {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.f.handles = p.handles
	p.f.commits++
}

func (b *fakeBackend) Call(x *exchange.Exchange, d exchange.Down) (exchange.Source, exchange.Verdict) {
	if b.call != nil {
		return b.call(x, d)
	}
	x.Status, x.Backend, x.Endpoint = 200, b.name, "192.0.2.9:80"
	x.Upstream = time.Millisecond
	src, _ := b.src.Get().(*exchange.Bytes)
	if src == nil {
		src = new(exchange.Bytes)
	}
	src.Reset(b.body)
	return src, exchange.Continue
}

// fakeDown takes the response as an engine does.
type fakeDown struct {
	responds, aborts int
	body             []byte
	hold             chan struct{} // Respond waits for it, or for the exchange to be cancelled
	reached          chan struct{} // closed when Respond waits
}

func (d *fakeDown) Inform(int, *exchange.Head) error { return nil }
func (d *fakeDown) Abort(*exchange.Exchange)         { d.aborts++ }
func (d *fakeDown) Gone() bool                       { return false }
func (d *fakeDown) StopBody()                        {}

func (d *fakeDown) Respond(x *exchange.Exchange, body exchange.Source) {
	d.responds++
	d.body = d.body[:0]
	if src, own := x.LocalAnswer(); own {
		if x.Refused() {
			d.body = x.AppendProblem(d.body)
			return
		}
		body = src
	}
	if d.hold != nil {
		close(d.reached)
		var w exchange.Interrupter = interrupt{d.hold}
		if x.WaitOn(&w) {
			<-d.hold
		}
	}
	if body == nil {
		return
	}
	for {
		c, err := body.Next()
		if err != nil {
			x.Code = exchange.UpstreamReset
			break
		}
		d.body = append(d.body, c.Data...)
		if c.End {
			break
		}
	}
	body.Close()
}

// interrupt ends a wait.
type interrupt struct{ hold chan struct{} }

func (i interrupt) Interrupt() { close(i.hold) }

// rig is a core with fakes around it.
type rig struct {
	*core
	t        testing.TB
	backends *fakeBackends
	registry *prometheus.Registry
	logPath  string
	logs     *bytes.Buffer
	seq      uint64
	clock    time.Time
	creds    *snapshot.Credentials
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{
		t: t, backends: &fakeBackends{}, registry: prometheus.NewRegistry(), logs: new(bytes.Buffer),
		logPath: filepath.Join(t.TempDir(), "access.log"), clock: time.Unix(1_800_057_600, 0), creds: snapshot.NewCredentials(),
	}
	access, err := accesslog.New(accesslog.Options{Path: r.logPath})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = access.Close() })
	r.core, err = newCore(coreOptions{
		guard: newGuard(slog.New(slog.NewTextHandler(r.logs, nil)), nil),
		log:   slog.New(slog.NewTextHandler(r.logs, nil)), now: time.Now, access: access,
		register: r.registry, engine: quota.Local{}, backends: r.backends,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// world is the content of a configuration by key of entry.
type world map[string]any

func (w world) put(content any) world {
	w[keyOf(content)] = content
	return w
}

func keyOf(content any) string {
	switch c := content.(type) {
	case snapshot.Site:
		return snapshot.EntryKey(snapshot.ClassSite, c.Organization)
	case snapshot.Hosts:
		return snapshot.EntryKey(snapshot.ClassHosts, c.Organization, c.Name)
	case snapshot.API:
		return snapshot.EntryKey(snapshot.ClassAPI, c.Organization, c.Environment, c.Name)
	case snapshot.Backend:
		return snapshot.EntryKey(snapshot.ClassBackend, c.Organization, c.Name)
	case snapshot.Product:
		return snapshot.EntryKey(snapshot.ClassProduct, c.Organization, c.Name)
	case snapshot.Challenges:
		return snapshot.EntryKey(snapshot.ClassChallenge, c.Organization, c.Certificate)
	}
	panic(fmt.Sprintf("no entry for %T", content))
}

func (w world) set(t testing.TB) *snapshot.Set {
	t.Helper()
	var puts []snapshot.Entry
	for key, content := range w {
		e, err := snapshot.NewEntry(key, 1, 1, true, content)
		if err != nil {
			t.Fatal(err)
		}
		puts = append(puts, e)
	}
	return snapshot.NewSet().With(puts, nil)
}

func policyOf(use, config string) snapshot.Policy {
	return snapshot.Policy{Use: use, Config: json.RawMessage(config)}
}

// sample is the configuration that most tests begin with.
func sample() world {
	w := world{}
	w.put(snapshot.Site{Organization: "acme", GatewayGroup: "eu", Name: "eu-west"})
	w.put(snapshot.Hosts{Organization: "acme", Name: "public", Hostnames: []string{"api.example.com", "*.api.example.com"}, Environments: []string{"prod"}})
	w.put(snapshot.Backend{Organization: "acme", Name: "catalog", Endpoints: snapshot.Endpoints("192.0.2.9:80")})
	w.put(snapshot.Product{
		Organization: "acme", Name: "gold", APIs: []string{"catalog", "keyed"},
		Quota: &snapshot.Limit{Limit: 3, WindowMillis: 365 * 86_400_000}, // no test sees two windows
	})
	w.put(snapshot.API{
		Organization: "acme", Environment: "prod", Name: "catalog", Revision: 3, BasePath: "/catalog/v1",
		Backend: "catalog", BackendPath: "/internal",
		Operations: []snapshot.Operation{
			{Name: "getItem", Method: "GET", Path: "/items/{id}"},
			{Name: "teapot", Method: "GET", Path: "/teapot", Request: []snapshot.Policy{policyOf("respond", `{"status":418,"body":"short"}`)}},
		},
		Response: []snapshot.Policy{policyOf("setHeaders", `{"set":{"X-Out":"1"}}`)},
	})
	w.put(snapshot.API{
		Organization: "acme", Environment: "prod", Name: "open", Revision: 1, BasePath: "/open", Backend: "catalog", BackendPath: "/",
	})
	w.put(snapshot.API{
		Organization: "acme", Environment: "prod", Name: "keyed", Revision: 1, BasePath: "/keyed", Backend: "catalog", BackendPath: "/keyed",
		Request: []snapshot.Policy{policyOf("apiKey", `{"header":"X-API-Key"}`), policyOf("quota", `{"by":"subscription"}`)},
	})
	return w
}

func (r *rig) apply(w world) {
	r.t.Helper()
	if err := r.tryApply(w); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryApply(w world) error {
	r.t.Helper()
	r.seq++
	return r.Apply(context.Background(), snapshot.Checkpoint{Epoch: 1, Seq: r.seq}, w.set(r.t), nil)
}

// key makes a credential of the product gold.
func (r *rig) key(value string, edit func(*snapshot.Credential)) {
	r.t.Helper()
	c := snapshot.Credential{
		Hash: snapshot.HashCredential([]byte(value)), ID: value + "-id", Organization: "acme",
		Subscription: value + "-sub", Application: value + "-app", Product: "gold", CreatedAt: 1,
	}
	if edit != nil {
		edit(&c)
	}
	r.creds = r.creds.With([]snapshot.CredentialChange{{Credential: c}})
	if err := r.ApplyCredentials(context.Background(), snapshot.Checkpoint{}, r.creds); err != nil {
		r.t.Fatal(err)
	}
}

func newExchange(r *rig, method, host, path string, fields ...string) *exchange.Exchange {
	x := new(exchange.Exchange)
	prepare(x, r.clock, method, host, path)
	for i := 0; i < len(fields); i += 2 {
		x.Req.AddString(exchange.NameOf(fields[i]), fields[i+1])
	}
	return x
}

func prepare(x *exchange.Exchange, start time.Time, method, host, path string) {
	copy(x.ID[:], "0123456789abcdef0123456789abcdef")
	x.Start = start
	x.Protocol = exchange.HTTP11
	x.Method, x.Host, x.Path = exchange.View(method), exchange.View(host), exchange.View(path)
	x.Peer = netip.MustParseAddrPort("192.0.2.1:50000")
	x.ClientIP = exchange.View("192.0.2.1")
}

// answer is what came of a request.
type answer struct {
	status           int
	code             string
	body             string
	api, operation   string
	forward          string
	responds, aborts int
	x                *exchange.Exchange
}

// do sends a request through the core as an engine does.
func (r *rig) do(method, host, path string, fields ...string) answer {
	r.t.Helper()
	x := newExchange(r, method, host, path, fields...)
	d := new(fakeDown)
	return r.serve(x, d)
}

func (r *rig) serve(x *exchange.Exchange, d *fakeDown) answer {
	r.t.Helper()
	r.Serve(x, d)
	x.Duration = time.Millisecond
	r.Done(x)
	a := answer{status: x.Status, code: x.Code.String(), body: string(d.body), responds: d.responds, aborts: d.aborts, x: x}
	if x.Route != nil {
		a.api, a.operation = x.Route.API, x.Route.Operation
		a.forward = x.ForwardPrefix + string(x.ForwardPath)
	}
	if d.responds+d.aborts != 1 {
		r.t.Errorf("%s %s: %d times responded, %d times aborted; want one of them once", x.Method, x.Path, d.responds, d.aborts)
	}
	return a
}

// refusal returns the refusal in the chain of err.
func refusal(t testing.TB, err error) *snapshot.Refusal {
	t.Helper()
	r, ok := errors.AsType[*snapshot.Refusal](err)
	if !ok {
		t.Fatalf("error %v is no refusal", err)
	}
	return r
}
