package http3_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	qhttp3 "github.com/quic-go/quic-go/http3"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/http3"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// rig is a server whose handler is a function, and a client that trusts it.
type rig struct {
	*http3.Server
	url    string
	client *http.Client
	trans  *qhttp3.Transport
	roots  *x509.CertPool
	done   chan record // what Done has seen
}

type record struct {
	status  int
	code    exchange.Code
	in, out int64
}

type handler struct {
	serve func(x *exchange.Exchange, d exchange.Down)
	done  chan record
}

func (h handler) Serve(x *exchange.Exchange, d exchange.Down) { h.serve(x, d) }
func (h handler) Done(x *exchange.Exchange) {
	h.done <- record{x.Status, x.Code, x.BytesIn, x.BytesOut}
}

func start(t *testing.T, o http3.Options, serve func(x *exchange.Exchange, d exchange.Down)) *rig {
	t.Helper()
	cert, roots := certificate(t)
	r := &rig{roots: roots, done: make(chan record, 1000)}
	o.Address, o.TLS, o.Handler = "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}}, handler{serve, r.done}
	var err error
	if r.Server, err = http3.New(context.WithoutCancel(t.Context()), o); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	r.url = "https://" + r.Addr().String()
	r.trans = &qhttp3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "a.test"}}
	r.client = &http.Client{Transport: r.trans, Timeout: time.Minute}
	t.Cleanup(func() {
		r.trans.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.Drain(ctx); err != nil {
			t.Errorf("Drain: %v", err)
		}
		running.Wait()
	})
	return r
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func (r *rig) do(t *testing.T, method, path string, body io.Reader, fields ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "A.test:8443"
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", method, path, err)
	}
	return resp, string(got)
}

// tell answers with what the handler was given.
func tell(x *exchange.Exchange, d exchange.Down) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s %s ?%s %s\n", x.Protocol, x.Scheme, x.Method, x.Authority, x.Query, x.Path)
	for name, value := range x.Req.All() {
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	if x.Body != nil {
		body, err := exchange.ReadAll(nil, x.Body, 1<<20)
		fmt.Fprintf(&b, "body %d %s %v\n", x.Body.Len(), body, err)
		if t := x.Body.Trailers(); t != nil {
			for name, value := range t.All() {
				fmt.Fprintf(&b, "trailer %s: %s\n", name, value)
			}
		}
	}
	x.Answer(200, b.Bytes())
	d.Respond(x, nil)
}

func TestRequests(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{Rules: ingress.Rules{Via: "hansa"}}, tell)
	for name, c := range map[string]struct {
		method, path string
		body         io.Reader
		fields       []string
		want         []string
		not          []string
	}{
		"get": {"GET", "/a/./b//c?q=%2f", nil, []string{"X-One: 1", "X-Forwarded-For: 6.6.6.6", "X_Request_Id: 7"}, []string{
			"HTTP/3 https GET a.test:8443 ?q=%2f /a/b/c\n", "X-One: 1\n", "X-Forwarded-For: 127.0.0.1\n", "X-Forwarded-Proto: https\n",
			"X-Forwarded-Host: a.test:8443\n", "Via: 3.0 hansa\n", "X-Request-Id: ",
		}, []string{"6.6.6.6", "X_Request", "body"}},
		"length":    {"POST", "/", strings.NewReader("four"), nil, []string{"body 4 four <nil>\n"}, []string{"Content-Length"}},
		"no length": {"PUT", "/", io.MultiReader(strings.NewReader("fo"), strings.NewReader("ur")), nil, []string{"body -1 four <nil>\n"}, nil},
		"odd body":  {"DELETE", "/", io.MultiReader(strings.NewReader("why not")), nil, []string{"body -1 why not <nil>\n"}, nil},
		"empty":     {"POST", "/", nil, nil, []string{"POST"}, nil},
		"te":        {"GET", "/", nil, []string{"TE: trailers", "Trailer: X"}, []string{"GET"}, []string{"Te:", "Trailer:"}},
	} {
		resp, body := r.do(t, c.method, c.path, c.body, c.fields...)
		if resp.StatusCode != 200 || resp.ProtoMajor != 3 || resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Via") != "3.0 hansa" {
			t.Errorf("%s: %s %v", name, resp.Status, resp.Header)
		}
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, body)
			}
		}
		for _, not := range c.not {
			if strings.Contains(body, not) {
				t.Errorf("%s: %q is in\n%s", name, not, body)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{Limits: h1.Limits{Target: 1 << 10, Head: 16 << 10, Fields: 50}}, tell)
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprintf("X-%d: v", i)
	}
	for name, c := range map[string]struct {
		method, path string
		fields       []string
		status       int
		code         string
	}{
		"path":     {"GET", "/a/%2e%2e/%2e%2e/b", nil, 400, "bad-request-path"},
		"fields":   {"GET", "/", many, 431, "bad-request-headers-too-large"},
		"target":   {"GET", "/?" + strings.Repeat("x", 1<<10), nil, 414, "bad-request-target-too-long"},
		"too long": {"GET", "/", []string{"X: " + strings.Repeat("x", 20<<10)}, 431, ""},
		"space":    {"GET", "/?a HTTP/1.1", nil, 400, "bad-request-target"},
		"octets":   {"GET", "/?\xff", nil, 400, "bad-request-target"},
		"expect":   {"GET", "/", []string{"Expect: wonders"}, 417, "bad-request-expect"},
	} {
		resp, body := r.do(t, c.method, c.path, nil, c.fields...)
		var problem struct{ Code, RequestID string }
		if c.code != "" {
			if err := json.Unmarshal([]byte(body), &problem); err != nil {
				t.Errorf("%s: %v in %q", name, err, body)
			}
		}
		if resp.StatusCode != c.status || problem.Code != c.code {
			t.Errorf("%s: %s %s, want %d %s", name, resp.Status, body, c.status, c.code)
		}
	}
}

// pieces is a body that comes piece by piece.
type pieces struct {
	all      []string
	next     chan struct{} // asks for one more, if not nil
	err      error
	length   int64
	trailers *exchange.Head
}

func (p *pieces) Next() (exchange.Chunk, error) {
	if p.next != nil {
		<-p.next
	}
	if len(p.all) == 0 {
		return exchange.Chunk{End: p.err == nil}, p.err
	}
	data := p.all[0]
	p.all = p.all[1:]
	return exchange.Chunk{Data: exchange.View(data)}, nil
}
func (p *pieces) Ready() bool              { return false }
func (p *pieces) Len() int64               { return p.length }
func (p *pieces) Trailers() *exchange.Head { return p.trailers }
func (p *pieces) Close()                   {}

// TestStreams shows that a piece of a response arrives before the next one is there, as events do that a server sends.
func TestStreams(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	trailers := new(exchange.Head)
	trailers.AddString(exchange.NameOf("Grpc-Status"), "0")
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		x.Status = 200
		x.Resp.AddString(exchange.IDContentType.Name(), "text/event-stream")
		d.Respond(x, &pieces{all: []string{"data: 1\n\n", "data: 2\n\n"}, next: next, length: -1, trailers: trailers})
	})
	resp, err := r.client.Get(r.url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 100)
	for i := range 2 {
		next <- struct{}{}
		n, err := resp.Body.Read(buf)
		if want := fmt.Sprintf("data: %d\n\n", i+1); string(buf[:n]) != want || err != nil {
			t.Errorf("read %q, %v; want %q", buf[:n], err, want)
		}
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("the rest is %q, %v", rest, err)
	}
	if got := resp.Trailer.Get("Grpc-Status"); got != "0" {
		t.Errorf("trailers %v", resp.Trailer)
	}
}

// TestBrokenOff shows that what the backend did not complete does not look complete.
func TestBrokenOff(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]*pieces{
		"unknown length": {all: []string{"some"}, err: io.ErrUnexpectedEOF, length: -1},
		"short":          {all: []string{"some"}, length: 100},
		"long":           {all: []string{"some", "more"}, length: 5},
	} {
		r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
			x.Status = 200
			d.Respond(x, body)
		})
		resp, err := r.client.Get(r.url)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the response looks complete", name)
		}
		if got := <-r.done; got.code != exchange.UpstreamReset {
			t.Errorf("%s: %+v, want upstream-reset", name, got)
		}
	}
}

func TestInform(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		var hints exchange.Head
		hints.AddString(exchange.NameOf("Link"), "</a>; rel=preload")
		if err := d.Inform(103, &hints); err != nil {
			t.Errorf("Inform: %v", err)
		}
		x.Answer(200, []byte("done"))
		d.Respond(x, nil)
	})
	var hints textproto.MIMEHeader
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == 103 {
			hints = h
		}
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if hints.Get("Link") == "" || resp.Header.Get("Link") != "" {
		t.Errorf("hints %v, response %v", hints, resp.Header)
	}
}

// TestClientGone shows that who works for a client that has left hears of it.
func TestClientGone(t *testing.T) {
	t.Parallel()
	cancelled := make(chan struct{})
	begun := make(chan struct{})
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		var wake exchange.Interrupter = interrupt(cancelled)
		x.WaitOn(&wake)
		close(begun)
		<-cancelled
		if !d.Gone() || !x.Cancelled() {
			t.Error("the client is still there")
		}
		d.Abort(x)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		cancel()
	}()
	if _, err := r.client.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("Do: %v", err)
	}
	<-cancelled
}

type interrupt chan struct{}

func (i interrupt) Interrupt() { close(i) }

// TestSilentBody shows what becomes of a client that does not send what it has announced.
func TestSilentBody(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{Timeouts: http3.Timeouts{Body: 50 * time.Millisecond}}, func(x *exchange.Exchange, d exchange.Down) {
		_, err := exchange.ReadAll(nil, x.Body, 1<<20)
		if f, ok := errors.AsType[*exchange.Fault](err); ok {
			x.Refuse(f.Code, f.Detail)
		}
		d.Respond(x, nil)
	})
	silent, w := io.Pipe()
	defer w.Close()
	resp, body := r.do(t, "POST", "/", silent)
	if resp.StatusCode != 408 || !strings.Contains(body, "bad-request-timeout") {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// TestSlowBody has a client send its body so slowly that it would never come to an end, and yet is never silent for long.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{Timeouts: http3.Timeouts{Body: 300 * time.Millisecond}}, func(x *exchange.Exchange, d exchange.Down) {
		_, err := exchange.ReadAll(nil, x.Body, 1<<20)
		if f, ok := errors.AsType[*exchange.Fault](err); ok {
			x.Refuse(f.Code, f.Detail)
		}
		d.Respond(x, nil)
	})
	slow, w := io.Pipe()
	defer w.Close()
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for { // until the client of HTTP gives up
			<-tick.C
			if _, err := w.Write([]byte{'x'}); err != nil {
				return
			}
		}
	}()
	if resp, body := r.do(t, "POST", "/", slow); resp.StatusCode != 408 {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// TestTooManyConnections shows that a full server refuses and then takes connections again.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{MaxConns: 1}, tell)
	r.do(t, "GET", "/", nil)
	conf := &tls.Config{RootCAs: r.roots, ServerName: "a.test", NextProtos: []string{qhttp3.NextProtoH3}}
	if c, err := quic.DialAddr(t.Context(), r.Addr().String(), conf, nil); err == nil {
		t.Error("a second connection is taken")
		_ = c.CloseWithError(0, "")
	}
	r.trans.CloseIdleConnections()
	for deadline := time.Now().Add(time.Minute); ; {
		c, err := quic.DialAddr(t.Context(), r.Addr().String(), conf, nil)
		if err == nil {
			_ = c.CloseWithError(0, "")
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the place of a connection that has ended is not free: %v", err)
		}
	}
}

// TestDrain shows that a request which is under way ends well while the server goes away.
func TestDrain(t *testing.T) {
	t.Parallel()
	begun, next := make(chan struct{}), make(chan struct{})
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		close(begun)
		<-next
		x.Answer(200, []byte("whole"))
		d.Respond(x, nil)
	})
	drained := make(chan error, 1)
	go func() {
		<-begun
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		go func() { next <- struct{}{} }()
		drained <- r.Drain(ctx)
	}()
	if resp, body := r.do(t, "GET", "/", nil); resp.StatusCode != 200 || body != "whole" {
		t.Errorf("%s %q", resp.Status, body)
	}
	r.trans.Close()
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
}

// TestPanic shows that a panic costs its request and nothing else.
func TestPanic(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		if x.Path.String() == "/panic" {
			panic("on purpose")
		}
		tell(x, d)
	})
	if resp, err := r.client.Get(r.url + "/panic"); err == nil {
		resp.Body.Close()
		t.Error("the panic was answered")
	}
	if got := <-r.done; got.code != exchange.Internal {
		t.Errorf("%+v, want internal", got)
	}
	if resp, _ := r.do(t, "GET", "/", nil); resp.StatusCode != 200 {
		t.Errorf("after the panic: %s", resp.Status)
	}
}

// echo is the body of a tunnel that says what it hears.
type echo struct{ exchange.Source }

func (e echo) Close() {}

// TestTunnel opens a WebSocket's tunnel (RFC 9220), talks through it and closes one direction after the other.
func TestTunnel(t *testing.T) {
	t.Parallel()
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		if x.Method.String() != "GET" || x.Upgrade.String() != "websocket" || len(x.Req.Get(exchange.NameOf("Sec-WebSocket-Key"))) != 24 {
			t.Errorf("asked with %s for %q", x.Method, x.Upgrade)
		}
		x.Status = 101
		x.Resp.AddString(exchange.NameOf("Sec-WebSocket-Accept"), "x")
		x.Resp.AddString(exchange.NameOf("Sec-WebSocket-Protocol"), "chat")
		d.Respond(x, echo{x.Body})
	})
	conf := &tls.Config{RootCAs: r.roots, ServerName: "a.test", NextProtos: []string{qhttp3.NextProtoH3}}
	conn, err := quic.DialAddr(t.Context(), r.Addr().String(), conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	str, err := new(qhttp3.Transport).NewClientConn(conn).OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodConnect, "https://a.test/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Proto = "websocket"
	if err := str.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	resp, err := str.ReadResponse()
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Sec-WebSocket-Accept") != "" || resp.Header.Get("Sec-WebSocket-Protocol") != "chat" {
		t.Fatalf("answer %+v, %v", resp, err)
	}
	buf := make([]byte, 5)
	for _, word := range []string{"hello", "world"} {
		if _, err := str.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(str, buf); string(buf) != word || err != nil {
			t.Errorf("heard %q, %v; want %q", buf, err, word)
		}
	}
	str.Close()
	if _, err := str.Read(buf); !errors.Is(err, io.EOF) {
		t.Errorf("the other direction did not end: %v", err)
	}
	if got := <-r.done; got != (record{101, exchange.CodeNone, 10, 10}) {
		t.Errorf("%+v", got)
	}
}

// TestPatient shows that a server waits for an address that another one still has.
func TestPatient(t *testing.T) {
	t.Parallel()
	old := start(t, http3.Options{}, tell)
	cert, roots := certificate(t)
	o := http3.Options{
		Address: old.Addr().String(), TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Handler: handler{tell, make(chan record, 10)},
	}
	if s, err := http3.New(t.Context(), o); err == nil {
		s.Close()
		t.Fatal("two servers have one address")
	}
	o.Patient = true
	s, err := http3.New(t.Context(), o)
	if err != nil || s.Addr() != nil {
		t.Fatalf("New: %v", err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	old.do(t, "GET", "/", nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := old.Drain(ctx); err != nil {
		t.Errorf("Drain: %v", err)
	}
	trans := &qhttp3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "a.test"}}
	defer trans.Close()
	next := rig{Server: s, url: old.url, client: &http.Client{Transport: trans}}
	if resp, _ := next.do(t, "GET", "/", nil); resp.StatusCode != 200 {
		t.Errorf("the next server answers %s", resp.Status)
	}
	trans.Close()
	if err := s.Drain(ctx); err != nil {
		t.Errorf("Drain: %v", err)
	}
	running.Wait()
}

// TestDrainKeepsNobodyWaiting shows that a connection which comes while the server drains is served or closed, or not made at
// all: it does not wait for an answer that never comes.
func TestDrainKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	begun := make(chan struct{}, 1)
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		if string(x.Path) == "/slow" {
			begun <- struct{}{}
			<-release
		}
		x.Answer(200, []byte("done"))
		d.Respond(x, nil)
	})
	var busy sync.WaitGroup
	busy.Go(func() {
		if resp, body := r.do(t, "GET", "/slow", nil); resp.StatusCode != 200 || body != "done" {
			t.Errorf("the request that was under way: %s %q", resp.Status, body)
		}
	})
	<-begun
	busy.Go(func() {
		if err := r.Drain(t.Context()); err != nil {
			t.Errorf("Drain: %v", err)
		}
	})
	config := &tls.Config{RootCAs: r.roots, ServerName: "a.test", NextProtos: []string{qhttp3.NextProtoH3}}
	visit := func() (connected bool) {
		dialCtx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		conn, err := quic.DialAddr(dialCtx, r.Addr().String(), config, nil)
		if err != nil {
			return false
		}
		defer conn.CloseWithError(0, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", r.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := new(qhttp3.Transport).NewClientConn(conn).RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error("a connection that was made is neither served nor closed")
		}
		return true
	}
	for visit() && !t.Failed() { // until connections are no longer made
	}
	close(release)
	busy.Wait()
}

// late is something to wait on whose waker comes so late that the exchange is over, and then stops the request's body.
type late struct {
	down exchange.Down
	over chan struct{}
	woke chan struct{}
}

func (l late) Interrupt() {
	<-l.over
	l.down.StopBody()
	close(l.woke)
}

// TestLateCancellation has the client leave just when the exchange ends.
func TestLateCancellation(t *testing.T) {
	t.Parallel()
	l := late{over: make(chan struct{}), woke: make(chan struct{})}
	begun := make(chan struct{})
	r := start(t, http3.Options{}, func(x *exchange.Exchange, d exchange.Down) {
		if x.Path.String() != "/leave" {
			tell(x, d)
			return
		}
		l.down = d
		var i exchange.Interrupter = l
		x.WaitOn(&i)
		close(begun)
		for !x.Cancelled() {
			runtime.Gosched()
		}
		d.Abort(x)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/leave", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := r.client.Do(req); err == nil {
		resp.Body.Close()
	}
	<-r.done
	for range 3 { // by now nothing is left of it
		r.do(t, "GET", "/", nil)
	}
	close(l.over)
	<-l.woke
	if resp, _ := r.do(t, "GET", "/", nil); resp.StatusCode != 200 {
		t.Errorf("afterwards: %s", resp.Status)
	}
}
