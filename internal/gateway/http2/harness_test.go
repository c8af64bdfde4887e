package http2_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/http1"
	"hansa.dev/hansa/internal/gateway/http2"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/gateway/upstream"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/leak"
	"hansa.dev/hansa/internal/x/sweep"
)

// TestMain fails if goroutines are left when all tests have ended.
func TestMain(m *testing.M) { os.Exit(leak.Run(m, "hansa.dev/hansa/internal", os.Stderr)) }

// handler is the plainest of handlers: everything goes to one backend, unless serve says otherwise.
type handler struct {
	route *exchange.Route
	serve func(x *exchange.Exchange, d exchange.Down) bool // true: done

	quiet  bool // keep no records
	served atomic.Int32
	active atomic.Int32
	mu     sync.Mutex
	done   []record // guarded by mu
}

// record is what is left of an exchange.
type record struct {
	method, host, path, query string
	status                    int
	code                      string
	in, out                   int64
	client                    string
}

func (h *handler) Serve(x *exchange.Exchange, d exchange.Down) {
	h.served.Add(1)
	h.active.Add(1)
	defer h.active.Add(-1)
	x.Route = h.route
	if h.serve != nil && h.serve(x, d) {
		return
	}
	body, v := x.Route.Backend.Call(x, d)
	if v == exchange.Abort {
		d.Abort(x)
		return
	}
	d.Respond(x, body)
}

func (h *handler) Done(x *exchange.Exchange) {
	if h.quiet {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, record{
		x.Method.String(), x.Host.String(), x.Path.String(), x.Query.String(), x.Status, x.Code.String(), x.BytesIn, x.BytesOut,
		x.ClientIP.String(),
	})
}

// records waits until n exchanges are over.
func (h *handler) records(t *testing.T, n int) []record {
	t.Helper()
	var got []record
	eventually(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		got = append([]record(nil), h.done...)
		return len(got) >= n
	})
	return got
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !f(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited for a minute in vain")
		}
	}
}

// gateway is an engine with one backend, on real sockets.
type gateway struct {
	*handler
	server  *http2.Server
	address string
	secure  bool
}

type setup struct {
	options http2.Options
	secure  bool // over TLS
	alone   bool // without HTTP/1 on the same port
	flow    exchange.Flow
	serve   func(x *exchange.Exchange, d exchange.Down) bool
	backend snapshot.Backend // its endpoints are added
}

// start starts a gateway before a backend; nil: none.
func start(t testing.TB, backend http.HandlerFunc, s setup) *gateway {
	t.Helper()
	var addresses []string
	if backend != nil {
		b := httptest.NewServer(backend)
		t.Cleanup(b.Close)
		addresses = append(addresses, b.Listener.Addr().String())
	}
	return startBefore(t, s, addresses...)
}

func startBefore(t testing.TB, s setup, addresses ...string) *gateway {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	sw := sweep.New()
	wg.Go(func() { _ = sw.Run(ctx) })
	registry, err := upstream.New(upstream.Options{Sweeper: sw})
	if err != nil {
		t.Fatal(err)
	}
	s.backend.Organization, s.backend.Name = "acme", "catalog"
	s.backend.ConnectMillis = cmp.Or(s.backend.ConnectMillis, 60_000) // no machine is too slow
	for _, a := range addresses {
		s.backend.Endpoints = append(s.backend.Endpoints, snapshot.Endpoint{Address: a})
	}
	plan, err := registry.Prepare("", []snapshot.Backend{s.backend})
	if err != nil {
		t.Fatal(err)
	}
	plan.Commit()
	wg.Go(func() { _ = registry.Run(ctx) })
	h := &handler{route: &exchange.Route{Flow: &s.flow}, serve: s.serve}
	h.route.Backend = plan.Backend("acme", "catalog")
	s.options.Handler, s.options.Sweeper = h, sw
	server, err := http2.New(s.options)
	if err != nil {
		t.Fatal(err)
	}
	one, err := http1.New(http1.Options{Options: ingress.Options{Handler: h, Sweeper: sw}, HTTP2: func(o http1.HandOver) {
		server.Serve(http2.Conn{TCP: o.TCP, Stream: o.Stream, Read: o.Read, Scheme: o.Scheme, Peer: o.Peer})
	}})
	if err != nil {
		t.Fatal(err)
	}
	address := listen(t, &wg, func(c net.Conn) { one.Serve(http1.Conn{Net: c}) })
	if s.alone {
		address = listen(t, &wg, func(c net.Conn) { server.Serve(http2.Conn{Net: c}) })
	}
	if s.secure {
		up := upgrade(t)
		address = listen(t, &wg, func(c net.Conn) { server.Serve(http2.Conn{Net: c, Scheme: "https", Upgrade: up}) })
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := server.Drain(ctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
		if err := one.Drain(ctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
		cancel()
		// The listeners were closed by their own clean-up, which ran before.
		wg.Wait()
	})
	return &gateway{h, server, address, s.secure}
}

// upgrade returns a function that makes TLS of a connection.
func upgrade(t testing.TB) func(net.Conn) (net.Conn, error) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	cfg := &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	return func(c net.Conn) (net.Conn, error) {
		tc := tls.Server(c, cfg)
		return tc, tc.HandshakeContext(context.Background())
	}
}

// listen serves connections until the test ends.
func listen(t testing.TB, wg *sync.WaitGroup, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				serve(c)
				c.Close()
			})
		}
	})
	context.AfterFunc(t.Context(), func() { l.Close() })
	return l.Addr().String()
}

// client returns a client that is not ours.
func (g *gateway) client(t *testing.T) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP2(g.secure)
	protocols.SetUnencryptedHTTP2(!g.secure)
	tr := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", g.address)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// url returns the URL of a path.
func (g *gateway) url(path string) string {
	u := url.URL{Scheme: "http", Host: g.address}
	if g.secure {
		u.Scheme = "https"
	}
	return u.String() + path
}

// modes runs f over TLS and without.
func modes(t *testing.T, f func(t *testing.T, secure bool)) {
	t.Helper()
	for _, name := range []string{"h2c", "tls"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, name == "tls")
		})
	}
}

// echo is a backend that answers every request with what it received.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	for _, name := range []string{"Cookie", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Te", "X-Other"} {
		for _, v := range r.Header[name] {
			w.Header().Add("Got-"+name, v)
		}
	}
	w.Header().Set("Got-Host", r.Host)
	w.Header().Set("Got-Line", r.Method+" "+r.RequestURI)
	for name, values := range r.Trailer {
		w.Header().Set("Got-Trailer-"+name, strings.Join(values, ","))
	}
	_, _ = w.Write(body)
}
