package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/app/sample"
	"hansa.dev/hansa/internal/x/secret"
)

// patience is how long a test waits for what must happen soon.
const patience = 30 * time.Second

// logger shows what the product says if HANSA_LOG is set, and is silent otherwise.
func logger(name string) *slog.Logger {
	if os.Getenv("HANSA_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", name)
}

// slow skips a test that takes minutes, unless it is asked for.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("HANSA_REAL") == "" && os.Getenv("HANSA_SLOW") == "" {
		t.Skip("takes minutes: set HANSA_SLOW=1 (make test-real does)")
	}
}

// eventually calls try until it returns nil, and fails the test with its last error when limit ends.
func eventually(t testing.TB, limit time.Duration, try func() error) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatalf("gave up after %v: %v", limit, err)
		}
		<-tick.C
	}
}

// controlNode is a control node and a client of it.
type controlNode struct {
	*app.Control
	*client.Client
	dir  string
	link string
}

// startControl starts a control node in a folder.
func startControl(t testing.TB, dir string) *controlNode {
	t.Helper()
	c, err := app.StartControl(t.Context(), app.ControlOptions{Data: dir, APIAddr: "127.0.0.1:0", LinkAddr: "127.0.0.1:0", Log: logger("control")})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, c.Stop)
	ready := c.Ready()
	return &controlNode{Control: c, Client: connect(t, ready), dir: dir, link: ready.Addresses["link"]}
}

// connect returns an administrator's client of a control node.
func connect(t testing.TB, ready app.Ready) *client.Client {
	t.Helper()
	ca, err := os.ReadFile(ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(ready.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Options{Server: "https://" + ready.Addresses["api"], CA: ca, Token: strings.TrimSpace(string(token))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func stopAtEnd(t testing.TB, stop func(context.Context) error) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

// stopNow stops a node in the middle of a test.
func stopNow(t testing.TB, stop func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := stop(ctx); err != nil {
		t.Fatalf("stop: %v", err)
	}
}

func (c *controlNode) apply(t testing.TB, documents string) v1.ApplyResult {
	t.Helper()
	out, err := c.Apply(t.Context(), strings.NewReader(documents), client.ApplyOptions{})
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return out
}

// key makes a key of a subscription.
func (c *controlNode) key(t testing.TB, subscription string) string {
	t.Helper()
	k, err := c.CreateKey(t.Context(), v1.DefaultOrganization, subscription, v1.KeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return k.Key
}

// joinToken makes a token for the sample's gateway group.
func (c *controlNode) joinToken(t testing.TB) secret.Bytes {
	t.Helper()
	return secret.New([]byte(c.joinTokenFor(t, "local")))
}

func (c *controlNode) joinTokenFor(t testing.TB, group string) string {
	t.Helper()
	token, err := c.CreateJoinToken(t.Context(), v1.DefaultOrganization, v1.JoinTokenRequest{GatewayGroup: group})
	if err != nil {
		t.Fatal(err)
	}
	return token.Token
}

// gatewayNode is a gateway, and a client of its traffic that keeps its connections.
type gatewayNode struct {
	*app.Gateway
	opts app.GatewayOptions
	http *http.Client
}

func startGateway(t testing.TB, opts app.GatewayOptions) *gatewayNode {
	t.Helper()
	opts.HTTPAddr, opts.AdminAddr = "127.0.0.1:0", "127.0.0.1:0"
	opts.AccessLog = filepath.Join(t.TempDir(), "access.log")
	opts.Log = logger("gateway " + opts.Name)
	g, err := app.StartGateway(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, g.Stop)
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return &gatewayNode{Gateway: g, opts: opts, http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

// ask sends a request and returns its status, or an error.
func (g *gatewayNode) ask(ctx context.Context, path, key string) (status int, header http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Ready().Addresses["http"]+path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Host = "api.example.com"
	if key != "" {
		req.Header.Set("X-API-Key", key)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header, err
}

// want returns an error unless the answer has the status.
func (g *gatewayNode) want(ctx context.Context, path, key string, status int) error {
	got, _, err := g.ask(ctx, path, key)
	if err != nil {
		return err
	}
	if got != status {
		return fmt.Errorf("%s is answered with %d, want %d", path, got, status)
	}
	return nil
}

// metric sums the values of a metric of the gateway over all labels.
func (g *gatewayNode) metric(t testing.TB, name string) (sum float64) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.Ready().Addresses["admin"]+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		t.Fatalf("there is no metric %s", name)
	}
	return sum
}

// load is traffic that goes on until stop is called.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	count  atomic.Int64
	failed atomic.Int64
	first  atomic.Pointer[string]
}

// startLoad sends requests one after another, and counts those that are not answered with 200.
func startLoad(t testing.TB, g *gatewayNode, path, key string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	for range 2 {
		l.done.Go(func() {
			// A pace, so that the load leaves the processor to what is tested.
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				err := g.want(ctx, path, key, http.StatusOK)
				if ctx.Err() != nil {
					return
				}
				l.count.Add(1)
				if err != nil {
					l.failed.Add(1)
					text := err.Error()
					l.first.CompareAndSwap(nil, &text)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// check ends the load and fails the test if a request failed or none was sent.
func (l *load) check(t testing.TB) {
	t.Helper()
	l.stop()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", n, l.count.Load(), *l.first.Load())
	}
	if l.count.Load() == 0 {
		t.Error("no request was sent")
	}
}

// startSample starts the sample backend and returns the resources that name it.
func startSample(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: sample.Backend(time.Now), ReadHeaderTimeout: patience}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(l) }) // ends with ErrServerClosed
	t.Cleanup(func() {
		_ = srv.Close()
		done.Wait()
	})
	return sample.Resources(l.Addr().String())
}

// manyKeys is a product whose limits no test reaches.
const manyKeys = `
apiVersion: hansa.dev/v1
kind: Product
metadata: {name: open}
spec: {apis: [catalog], quota: {limit: 100000000, window: 1d}}
---
apiVersion: hansa.dev/v1
kind: Subscription
metadata: {name: shop-open}
spec: {application: shop, product: open}
`

// marker is an API that answers by itself with a header, for seeing which configuration is in force.
func marker(n int) string {
	return fmt.Sprintf(`
apiVersion: hansa.dev/v1
kind: API
metadata: {name: marker}
spec:
  basePath: /marker
  policies: {request: [respond: {status: 200, headers: {X-Marker: "%d"}}]}
---
apiVersion: hansa.dev/v1
kind: Deployment
metadata: {name: marker-prod}
spec: {api: marker, environment: prod}
`, n)
}

// marked returns nil once the gateway serves marker(n).
func (g *gatewayNode) marked(ctx context.Context, n int) error {
	status, header, err := g.ask(ctx, "/marker", "")
	if err != nil {
		return err
	}
	if got := header.Get("X-Marker"); status != http.StatusOK || got != fmt.Sprint(n) {
		return fmt.Errorf("the marker is %d %q, want %d", status, got, n)
	}
	return nil
}
