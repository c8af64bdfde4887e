package http1_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/http1"
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
	server   *http1.Server
	registry *upstream.Registry
	sweeper  *sweep.Sweeper
	address  string
}

type setup struct {
	options http1.Options
	backend snapshot.Backend // its endpoints are added
	flow    exchange.Flow
	serve   func(x *exchange.Exchange, d exchange.Down) bool
}

// start starts a gateway before a backend that serves each connection with script; nil: no backend.
func start(t *testing.T, script func(net.Conn), s setup) *gateway {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	sw := sweep.New()
	wg.Go(func() { _ = sw.Run(ctx) })
	if script != nil {
		s.backend.Endpoints = append(s.backend.Endpoints, snapshot.Endpoints(listen(t, &wg, script))...)
	}
	registry, err := upstream.New(upstream.Options{Sweeper: sw})
	if err != nil {
		t.Fatal(err)
	}
	s.backend.Organization, s.backend.Name = "acme", "catalog"
	s.backend.ConnectMillis = cmp.Or(s.backend.ConnectMillis, 60_000) // no machine is too slow
	plan, err := registry.Prepare("", []snapshot.Backend{s.backend})
	if err != nil {
		t.Fatal(err)
	}
	plan.Commit()
	wg.Go(func() { _ = registry.Run(ctx) })
	h := &handler{route: &exchange.Route{Flow: &s.flow}, serve: s.serve}
	h.route.Backend = plan.Backend("acme", "catalog")
	s.options.Handler, s.options.Sweeper = h, sw
	server, err := http1.New(s.options)
	if err != nil {
		t.Fatal(err)
	}
	address := listen(t, &wg, func(c net.Conn) { server.Serve(http1.Conn{Net: c}) })
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := server.Drain(ctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
		cancel()
		// The listeners were closed by their own clean-up, which ran before.
		wg.Wait()
	})
	return &gateway{h, server, registry, sw, address}
}

// listen serves connections until the test ends.
func listen(t *testing.T, wg *sync.WaitGroup, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				serve(c)
				c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	stop := func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range conns {
			c.Close()
		}
	}
	context.AfterFunc(t.Context(), stop)
	return l.Addr().String()
}

// dial opens a connection that ends with the test.
func (g *gateway) dial(t *testing.T) *client {
	t.Helper()
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &client{t, c.(*net.TCPConn), bufio.NewReader(c)}
}

type client struct {
	t *testing.T
	*net.TCPConn
	r *bufio.Reader
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// response is what a client got.
type response struct {
	*http.Response
	body string
	err  error // of the body
}

// receive reads one response; method is that of the request.
func (c *client) receive(method string) response {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	return response{res, string(body), err}
}

// end checks that the gateway closes the connection and says nothing more.
func (c *client) end() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Errorf("the connection does not end: %q, %v", rest, err)
	}
}

func (r response) check(t *testing.T, status int, code string) {
	t.Helper()
	if r.StatusCode != status || r.err != nil || code != "" && !strings.Contains(r.body, `"code":"`+code+`"`) {
		t.Errorf("response %d %q %v, want %d %s", r.StatusCode, r.body, r.err, status, code)
	}
}

// echo is a backend that answers every request with what it received, head and body, and keeps the connection.
func echo(c net.Conn) {
	var raw bytes.Buffer
	r := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		head, _, _ := strings.Cut(raw.String(), "\r\n\r\n")
		text := head + "\r\n\r\n" + string(body)
		for name, values := range req.Trailer {
			text += "\n" + name + ": " + strings.Join(values, ",")
		}
		raw.Reset()
		if req.Method == "HEAD" {
			text = ""
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text); err != nil {
			return
		}
	}
}

// says is a backend that reads one head and then writes text.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
			if !strings.Contains(text, "Content-Length") && !strings.Contains(text, "chunked") {
				return
			}
		}
	}
}
