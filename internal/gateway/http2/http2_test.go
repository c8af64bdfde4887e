package http2_test

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

func TestExchange(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, secure bool) {
		g := start(t, echo, setup{secure: secure})
		c := g.client(t)
		req, err := http.NewRequestWithContext(t.Context(), "POST", g.url("/a/./b//c?x=y"), strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "API.example.com:99"
		req.Header.Set("Cookie", "a=b; c=d")
		req.Header.Set("X-Forwarded-For", "6.6.6.6")
		req.Header.Set("X_Forwarded_For", "6.6.6.6")
		req.Header.Set("X-Other", "v")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != "hello" || res.StatusCode != 200 || res.ProtoMajor != 2 || res.ContentLength != 5 {
			t.Fatalf("%d %q %v, length %d", res.StatusCode, body, err, res.ContentLength)
		}
		proto := "http"
		if secure {
			proto = "https"
		}
		for name, want := range map[string]string{
			"Got-Cookie": "a=b; c=d", "Got-X-Forwarded-For": "127.0.0.1", "Got-X-Forwarded-Proto": proto,
			"Got-X-Forwarded-Host": "api.example.com:99", "Got-Host": "api.example.com:99", "Got-Line": "POST /a/b/c?x=y", "Got-X-Other": "v",
		} {
			if got := strings.Join(res.Header[name], "|"); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if len(res.Header.Get("X-Request-Id")) != 32 || res.Header.Get("Date") == "" || res.Header.Get("Connection") != "" {
			t.Errorf("header %v", res.Header)
		}
		r := g.records(t, 1)[0]
		if want := (record{"POST", "api.example.com", "/a/b/c", "x=y", 200, "", 5, 5, "127.0.0.1"}); r != want {
			t.Errorf("record %+v, want %+v", r, want)
		}
	})
}

// TestBodies passes bodies of many sizes both ways, many at a time on one connection.
func TestBodies(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, secure bool) {
		g := start(t, echo, setup{secure: secure})
		c := g.client(t)
		var wg sync.WaitGroup
		for i := range 60 {
			size := []int{0, 1, 100, 16 << 10, 70_000, 1_000_000}[i%6]
			wg.Go(func() {
				in := bytes.Repeat([]byte{byte('a' + i%26)}, size)
				var body io.Reader = bytes.NewReader(in)
				if i%2 == 0 {
					body = io.MultiReader(body) // hides the length
				}
				req, err := http.NewRequestWithContext(t.Context(), "PUT", g.url(fmt.Sprint("/", i)), body)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := c.Do(req)
				if err != nil {
					t.Errorf("%d bytes: %v", size, err)
					return
				}
				defer res.Body.Close()
				if out, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(in, out) {
					t.Errorf("%d bytes became %d, %v", len(in), len(out), err)
				}
			})
		}
		wg.Wait()
		g.records(t, 60)
	})
}

// backend2 starts a backend of net/http that speaks HTTP/2.
func backend2(t *testing.T, secure bool, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	b := httptest.NewUnstartedServer(h)
	b.EnableHTTP2 = secure
	b.Config.Protocols = new(http.Protocols)
	b.Config.Protocols.SetHTTP1(true)
	b.Config.Protocols.SetHTTP2(true)
	b.Config.Protocols.SetUnencryptedHTTP2(true)
	if secure {
		b.StartTLS()
	} else {
		b.Start()
	}
	t.Cleanup(b.Close)
	return b
}

// both is a setup before a backend that speaks HTTP/2.
func both(t *testing.T, secure bool, h http.HandlerFunc, s setup) *gateway {
	t.Helper()
	b := backend2(t, secure, h)
	s.secure, s.backend.HTTPVersion = secure, "2"
	if secure {
		s.backend.HTTPVersion, s.backend.TLS = "auto", true
		s.backend.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Certificate().Raw}))
		s.backend.ServerName = "example.com"
	}
	return startBefore(t, s, b.Listener.Addr().String())
}

// TestBothSides passes bodies and trailers from HTTP/2 to HTTP/2 and back, many at a time.
func TestBothSides(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, secure bool) {
		var conns sync.Map
		g := both(t, secure, func(w http.ResponseWriter, r *http.Request) {
			conns.Store(r.RemoteAddr, true)
			if r.ProtoMajor != 2 {
				t.Errorf("the backend is asked by %s", r.Proto)
			}
			w.Header().Set("Trailer", "X-Sum")
			n, _ := io.Copy(w, r.Body)
			w.Header().Set("X-Sum", strconv.FormatInt(n, 10)+r.Trailer.Get("X-End"))
			if v := r.Trailer["X_api_key"]; len(v) > 0 {
				t.Errorf("trailers %v", r.Trailer)
			}
		}, setup{})
		c := g.client(t)
		var wg sync.WaitGroup
		for i := range 60 {
			size := []int{0, 1, 100, 16 << 10, 70_000, 1_000_000}[i%6]
			wg.Go(func() {
				in := bytes.Repeat([]byte{byte('a' + i%26)}, size)
				var body io.Reader = bytes.NewReader(in)
				if i%2 == 0 {
					body = io.MultiReader(body) // hides the length
				}
				req, err := http.NewRequestWithContext(t.Context(), "PUT", g.url(fmt.Sprint("/", i)), body)
				if err != nil {
					t.Error(err)
					return
				}
				end := ""
				if i%2 == 0 && size > 0 {
					req.Trailer = http.Header{"X-End": {"end"}, "X_api_key": {"1"}}
					end = "end"
				}
				res, err := c.Do(req)
				if err != nil {
					t.Errorf("%d bytes: %v", size, err)
					return
				}
				defer res.Body.Close()
				out, err := io.ReadAll(res.Body)
				if err != nil || !bytes.Equal(in, out) {
					t.Errorf("%d: %d bytes became %d, status %d, %v", i, len(in), len(out), res.StatusCode, err)
				}
				if want := strconv.Itoa(size) + end; size > 0 && res.Trailer.Get("X-Sum") != want {
					t.Errorf("%d: trailer %q, want %q", i, res.Trailer.Get("X-Sum"), want)
				}
			})
		}
		wg.Wait()
		n := 0
		conns.Range(func(any, any) bool { n++; return true })
		if n > 3 {
			t.Errorf("%d connections for 60 requests", n)
		}
	})
}

// TestEvents passes server-sent events on as they come, to clients of either version: each is answered only when the client has
// seen the one before.
func TestEvents(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{})
	g := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-seen
		}
	}, setup{})
	one := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, c := range []*http.Client{g.client(t), one} {
		res, err := c.Get(g.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(res.Body)
		for i := range 5 {
			line, err := r.ReadString('\n')
			if _, err2 := r.ReadString('\n'); err != nil || err2 != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%s: %q, %v", res.Proto, line, err)
			}
			seen <- struct{}{}
		}
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("%s: %q, %v", res.Proto, rest, err)
		}
		res.Body.Close()
	}
}

// TestTunnel is a WebSocket by extended CONNECT to a backend that speaks HTTP/1.1: what is sent comes back, either side may
// end first, and a refusal is an answer like others.
func TestTunnel(t *testing.T) {
	t.Parallel()
	g := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.WriteString(w, "not what goes through a tunnel")
			return
		}
		if r.URL.Path == "/no" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") == "" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		_, _ = io.Copy(c, rw)
	}, setup{})
	r := g.dial(t)
	r.request(1, false, "CONNECT /chat", ":protocol: websocket")
	r.until(func(all map[uint32]*reply) bool { return all[1] != nil && all[1].status == "200 " })
	for _, text := range []string{"a", "bc", "def"} {
		r.must(r.WriteData(1, false, []byte(text)))
		r.until(func(all map[uint32]*reply) bool { return all[1] != nil && all[1].body == len(text) })
	}
	r.must(r.WriteData(1, true, nil))
	if all, _ := r.until(over(1)); all[1].wasReset {
		t.Errorf("%+v", all[1])
	}
	r.request(3, false, "CONNECT /no", ":protocol: websocket")
	if all, _ := r.until(over(3)); all[3].status != "403 " {
		t.Errorf("%+v", all[3])
	}
	r.request(5, false, "CONNECT /body", ":protocol: websocket")
	if all, _ := r.until(over(5)); all[5].status != "502 " {
		t.Errorf("a response without a tunnel: %+v", all[5])
	}
}

// TestTunnelReset has clients reset tunnels whose backend has said all, while the gateway waits for the client's end: they
// and the other streams of their connection end.
func TestTunnelReset(t *testing.T) {
	t.Parallel()
	g := start(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nall")
		c.Close()
	}, setup{})
	r := g.dial(t)
	const tunnels = 10
	for i := range uint32(tunnels) {
		id := 2*i + 1
		r.request(id, false, "CONNECT /", ":protocol: websocket")
		if all, _ := r.until(over(id)); all[id].status != "200 " || all[id].body != len("all") || all[id].wasReset {
			t.Fatalf("tunnel %d: %+v", i, all[id])
		}
		r.must(r.WriteRSTStream(id, xhttp2.ErrCodeCancel))
	}
	g.records(t, tunnels)
}
