package http2_test

import (
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
					req.Trailer = http.Header{"X-End": {"end"}}
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
