package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/store"
)

// faultyStore is a record that goes wrong when it is told to.
type faultyStore struct {
	store.Store
	commit atomic.Pointer[error] // what Commit returns next, once for each entry of times
	times  atomic.Int32
	panics atomic.Bool
}

func (f *faultyStore) fail(err error, times int32) {
	f.commit.Store(&err)
	f.times.Store(times)
}

func (f *faultyStore) Begin(ctx context.Context, base store.Version) (store.Tx, error) {
	if f.panics.Load() {
		panic("the record is broken")
	}
	tx, err := f.Store.Begin(ctx, base)
	return faultyTx{tx, f}, err
}

func (f *faultyStore) Backup(_ context.Context, w io.Writer) error {
	if _, err := io.WriteString(w, strings.Repeat("half", 10_000)); err != nil {
		return err
	}
	return errors.New("the disk broke")
}

type faultyTx struct {
	store.Tx
	f *faultyStore
}

func (t faultyTx) Commit(ctx context.Context, info store.Info) (store.Version, error) {
	if t.f.times.Add(-1) >= 0 {
		t.Abort()
		return store.Version{}, fmt.Errorf("injected: %w", *t.f.commit.Load())
	}
	return t.Tx.Commit(ctx, info)
}

func newFaulty(t *testing.T) (*cluster, *faultyStore) {
	t.Helper()
	f := &faultyStore{Store: openStore(t)}
	return newCluster(t, func(o *control.Options) { o.Store = f }), f
}

func TestFaultsOfTheRecord(t *testing.T) {
	t.Parallel()
	c, f := newFaulty(t)
	c.apply(shop)
	doc := func(i int) io.Reader {
		return strings.NewReader(fmt.Sprintf("{kind: Application, metadata: {name: app-%d}, spec: {}}", i))
	}
	for i, tt := range []struct {
		err    error
		times  int32
		code   string
		status int
	}{
		{store.ErrStorageFull, 1, "storage-full", 507},
		{store.ErrUnknown, 1, "timeout", 504},
		{store.ErrClosed, 1, "unavailable", 503},
		{store.ErrConflict, 100, "conflict", 409},
		{context.DeadlineExceeded, 1, "timeout", 504},
		{errors.New("secret cause"), 1, "internal", 500},
	} {
		f.fail(tt.err, tt.times)
		_, err := c.admin.Apply(t.Context(), doc(i), client.ApplyOptions{})
		e := wantCode(t, err, tt.code)
		if e.Status != tt.status || strings.Contains(e.Detail, "injected") || strings.Contains(e.Detail, "secret") {
			t.Errorf("%v: status %d, detail %q, want %d and no cause", tt.err, e.Status, e.Detail, tt.status)
		}
		f.times.Store(0)
		if _, err := c.admin.Get(t.Context(), key(v1.KindApplication, fmt.Sprintf("app-%d", i))); err == nil {
			t.Errorf("%v: the change was made", tt.err)
		}
	}
	// A few conflicts are overcome.
	f.fail(store.ErrConflict, 3)
	if _, err := c.admin.Apply(t.Context(), doc(99), client.ApplyOptions{}); err != nil {
		t.Errorf("apply through three conflicts: %v", err)
	}
	// A fault of the program ends one request, and only that.
	f.panics.Store(true)
	_, err := c.admin.Apply(t.Context(), doc(100), client.ApplyOptions{})
	wantCode(t, err, "internal")
	f.panics.Store(false)
	if _, err := c.admin.Apply(t.Context(), doc(100), client.ApplyOptions{}); err != nil {
		t.Errorf("apply after a panic: %v", err)
	}
	// Half a backup is never taken for whole.
	var sink strings.Builder
	if n, err := c.admin.Backup(t.Context(), &sink); err == nil {
		t.Errorf("a backup that broke off after %d bytes was taken for whole", n)
	}
}

func TestOtherWritersAreNoticed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	// A second control node on the same record.
	second := newCluster(t, func(o *control.Options) { o.Store = c.store })
	_ = second
	if _, err := c.admin.Apply(t.Context(), strings.NewReader("{kind: Backend, metadata: {name: late}, spec: {endpoints: [{address: \"127.0.0.1:9\"}]}}"), client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	other := second.client(c.token)
	if _, err := other.Apply(t.Context(), strings.NewReader("{kind: API, metadata: {name: late}, spec: {basePath: /late, backend: late}}"), client.ApplyOptions{}); err != nil {
		t.Errorf("apply on the second node upon what the first one made: %v", err)
	}
	_, err := c.admin.Delete(t.Context(), key(v1.KindBackend, "late"), 0, client.ApplyOptions{})
	wantCode(t, err, "in-use")
}

func TestSlowAndBrokenClients(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.MaxBody, o.BodyBudget = 1<<20, 1<<20 })
	res, body := c.raw("POST", "/api/v1/apply", nil, strings.NewReader(strings.Repeat("#\n", 1<<20)))
	if res.StatusCode != 413 || !strings.Contains(body, "1048576") {
		t.Errorf("too long: %d %s, want 413 with the limit", res.StatusCode, body)
	}
	// Without a length the limit holds as well.
	r, w := io.Pipe()
	go func() {
		for {
			if _, err := io.WriteString(w, "# comment\n"); err != nil {
				return
			}
		}
	}()
	if res, body := c.raw("POST", "/api/v1/apply", nil, r); res.StatusCode != 413 {
		t.Errorf("endless: %d %s, want 413", res.StatusCode, body)
	}
	r.Close()

	conn, err := net.Dial("tcp", c.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s := c.server.Config; s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > 30*time.Second || s.IdleTimeout <= 0 || s.MaxHeaderBytes > 1<<20 {
		t.Errorf("the server has no limits: %+v", s)
	}
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/api/v1/nothing", 404},
		{"GET", "/nothing", 404},
		{"PATCH", "/api/v1/organizations/default/apis/x", 405},
		{"GET", "/api/v1/organizations/default/apis/" + strings.Repeat("x", 5000), 404},
		{"GET", "/api/v1/organizations/default/apis/%00", 404},
	} {
		res, body := c.raw(tt.method, tt.path, nil, nil)
		if res.StatusCode != tt.status || !strings.Contains(body, `"requestId"`) || res.Header.Get("Content-Type") != v1.ContentTypeProblem {
			t.Errorf("%s %.60s: %d %.200s, want %d as a problem", tt.method, tt.path, res.StatusCode, body, tt.status)
		}
		if tt.status == 405 && res.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tt.method, tt.path)
		}
	}
	if res, body := c.raw("DELETE", "/api/v1/organizations/default/apis/x", nil, strings.NewReader("x")); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a body where none belongs: %d %s, want 400", res.StatusCode, body)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	broken := atomic.Bool{}
	c := newCluster(t, func(o *control.Options) {
		o.Checks = []control.Check{
			{Name: "record", Run: func(context.Context) error { return nil }},
			{Name: "link", Run: func(context.Context) error {
				if broken.Load() {
					return errors.New("no listener")
				}
				return nil
			}},
		}
	})
	get := func(path string) (int, string) {
		res, body := c.raw("GET", path, http.Header{"Authorization": {"none"}}, nil)
		return res.StatusCode, body
	}
	for _, tt := range []struct {
		path   string
		broken bool
		status int
		want   string
	}{
		{"/livez", false, 200, "ok\n"},
		{"/readyz", false, 200, "ok\n"},
		{"/readyz?verbose", false, 200, "[+] record ok\n[+] link ok\n"},
		{"/livez", true, 200, "ok\n"},
		{"/readyz", true, 503, "not ready\n"},
		{"/readyz?verbose", true, 503, "[+] record ok\n[-] link: no listener\n"},
	} {
		broken.Store(tt.broken)
		if status, body := get(tt.path); status != tt.status || body != tt.want {
			t.Errorf("%s (broken %v) = %d %q, want %d %q", tt.path, tt.broken, status, body, tt.status, tt.want)
		}
	}
	c.apply(shop)
	if status, body := get("/metrics"); status != 200 || !strings.Contains(body, `hansa_control_requests_total{code="200",route="POST /api/v1/apply"} 1`) {
		t.Errorf("/metrics = %d, want it to count the apply:\n%s", status, body)
	}
}
