package control_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// cluster is one control node with a record of its own, over TLS.
type cluster struct {
	t         *testing.T
	store     store.Store
	control   *control.Server
	server    *httptest.Server
	clock     *clock
	token     string
	tokenFile string
	admin     *client.Client
}

// openStore opens an empty record.
func openStore(t *testing.T) store.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newCluster starts a control node; tune may change its options.
func newCluster(t *testing.T, tune ...func(*control.Options)) *cluster {
	t.Helper()
	c := &cluster{t: t, clock: &clock{now: time.Now().Truncate(time.Second)}, tokenFile: filepath.Join(t.TempDir(), "token")}
	reg := prometheus.NewRegistry()
	o := control.Options{
		Store: nil, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Registerer: reg, Gatherer: reg, Version: "test", Now: c.clock.Now,
	}
	for _, f := range tune {
		f(&o)
	}
	if o.Store == nil {
		o.Store = openStore(t)
	}
	c.store = o.Store
	var err error
	if c.control, err = control.New(o); err != nil {
		t.Fatal(err)
	}
	if err := c.control.Bootstrap(t.Context(), c.tokenFile); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(c.tokenFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a second node of a record makes none
		t.Fatal(err)
	}
	c.token = strings.TrimSpace(string(b))
	c.server = httptest.NewUnstartedServer(nil)
	c.server.Config = c.control.HTTPServer()
	c.server.EnableHTTP2 = true
	c.server.StartTLS()
	t.Cleanup(c.server.Close)
	c.admin = c.client(c.token)
	return c
}

// client returns a client that calls with a token.
func (c *cluster) client(token string) *client.Client {
	c.t.Helper()
	cl, err := client.New(client.Options{Server: c.server.URL, Token: token, Transport: c.server.Client().Transport})
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// principal makes a principal with one role and returns a client for it.
func (c *cluster) principal(name, organization, role string) *client.Client {
	c.t.Helper()
	c.apply(`{kind: Principal, metadata: {name: ` + name + `}, spec: {roles: [{organization: "` + organization + `", role: ` + role + `}]}}`)
	tok, err := c.admin.CreateToken(c.t.Context(), name, v1.TokenRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.client(tok.Token)
}

// apply applies documents as the administrator, which must succeed.
func (c *cluster) apply(documents string) v1.ApplyResult {
	c.t.Helper()
	out, err := c.admin.Apply(c.t.Context(), strings.NewReader(documents), client.ApplyOptions{})
	if err != nil {
		c.t.Fatalf("apply: %v", err)
	}
	return out
}

// raw sends a request as the administrator and returns the answer with its body.
func (c *cluster) raw(method, path string, header http.Header, body io.Reader) (*http.Response, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.server.URL+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	if req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.server.Client().Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, string(b)
}

// wantCode fails the test unless err is a refusal with that code, which it returns.
func wantCode(t *testing.T, err error, code string) *client.Error {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		t.Fatalf("got error %v, want a refusal with the code %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("got %s (%v), want %s", e.Code, e, code)
	}
	if e.RequestID == "" || e.Status < 400 {
		t.Errorf("refusal %+v has no request id or no status", e.Problem)
	}
	return e
}

// shop is a small whole organization.
const shop = `
kind: Site
metadata: {name: eu-west}
spec: {cloud: aws, region: eu-west-1, jurisdiction: EU}
---
kind: GatewayGroup
metadata: {name: eu}
spec: {site: eu-west}
---
kind: Environment
metadata: {name: prod}
spec: {placements: [{gatewayGroup: eu}]}
---
kind: EnvironmentGroup
metadata: {name: public}
spec: {hostnames: [api.example.com], environments: [prod]}
---
kind: Backend
metadata: {name: catalog}
spec: {endpoints: [{address: "127.0.0.1:9000"}]}
---
kind: API
metadata: {name: catalog, labels: {tier: gold}}
spec:
  basePath: /catalog/v1
  backend: catalog
  operations: [{name: getItem, method: GET, path: "/items/{id}"}]
  policies:
    request:
      - apiKey: {}
      - quota: {}
---
kind: Deployment
metadata: {name: catalog-prod}
spec: {api: catalog, environment: prod}
---
kind: Product
metadata: {name: gold}
spec: {apis: [catalog], quota: {limit: 100000, window: 1h}}
---
kind: Application
metadata: {name: shop}
spec: {owner: shop@example.com}
---
kind: Subscription
metadata: {name: shop-gold}
spec: {application: shop, product: gold}
`

// slogTo logs everything to w, which is written to by one goroutine at a time.
func slogTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func key(kind v1.Kind, name string) v1.Key {
	k := v1.Key{Kind: kind, Name: name}
	if info, _ := v1.Lookup(kind); !info.Global {
		k.Organization = v1.DefaultOrganization
	}
	return k
}

// patience bounds what a test waits for.
func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
