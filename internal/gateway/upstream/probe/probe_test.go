package probe

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"hansa.dev/hansa/internal/snapshot"
)

// check asks once what listens at address, with patience enough for a machine that has much else to do.
func check(t *testing.T, c snapshot.HealthCheck, address string, http2 bool) error {
	t.Helper()
	return checkWithin(t, time.Minute, c, address, http2)
}

func checkWithin(t *testing.T, patience time.Duration, c snapshot.HealthCheck, address string, http2 bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return New(&c, address, http2, func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}).Check(ctx)
}

func httpCheck() snapshot.HealthCheck {
	return snapshot.HealthCheck{Type: "http", Method: "GET", Path: "/healthz?deep=1", Statuses: [][2]int{{200, 204}, {301, 301}}, Headers: map[string]string{"X-Probe": "yes"}}
}

// want checks that err is as wanted: "" for none, or a part of its text.
func want(t *testing.T, name string, err error, text string) {
	t.Helper()
	if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %q", name, err, text)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		status := make(chan int, 1)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.String() != "/healthz?deep=1" || r.Header.Get("X-Probe") != "yes" || r.UserAgent() != userAgent || r.Host != "h.example" || (r.ProtoMajor == 2) != http2 {
				t.Errorf("asked for %s of %s by %q over %s", r.URL, r.Host, r.UserAgent(), r.Proto)
			}
			w.WriteHeader(<-status)
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(!http2)
		s.Config.Protocols.SetUnencryptedHTTP2(http2)
		s.Start()
		t.Cleanup(s.Close)
		c := httpCheck()
		c.Host = "h.example"
		for code, text := range map[int]string{200: "", 204: "", 301: "", 302: "the status is 302", 503: "the status is 503"} {
			status <- code
			want(t, http.StatusText(code), check(t, c, s.Listener.Addr().String(), http2), text)
		}
	}
}

// TestBodyAndFields sends a body, and looks for fields in the response.
func TestBodyAndFields(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			w.Header().Set("X-State", string(body))
			w.Header().Add("X-Role", "spare")
			w.Header().Add("X-Role", "main")
			if err != nil || r.ContentLength != int64(len(body)) {
				t.Errorf("came %q of %d, %v", body, r.ContentLength, err)
			}
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(!http2)
		s.Config.Protocols.SetUnencryptedHTTP2(http2)
		s.Start()
		t.Cleanup(s.Close)
		for _, tt := range []struct {
			body   string
			expect map[string]string
			want   string
		}{
			{"ready", map[string]string{"x-state": "ready", "X-Role": "main"}, ""},
			{"ready", map[string]string{"X-State": "Ready"}, `the field X-State of the response is ["ready"]`},
			{"", map[string]string{"X-None": ""}, "the field X-None of the response is []"},
		} {
			c := httpCheck()
			c.Method, c.Body, c.ExpectHeaders = "POST", tt.body, tt.expect
			want(t, tt.body, check(t, c, s.Listener.Addr().String(), http2), tt.want)
		}
	}
}

// TestFaults asks servers that misbehave.
func TestFaults(t *testing.T) {
	t.Parallel()
	const soon, patient = 500 * time.Millisecond, time.Minute // those who say too little are given up soon
	for name, tt := range map[string]struct {
		says, want string
		patience   time.Duration
	}{
		"silence":  {"", "receive: ", soon},
		"garbage":  {"SSH-2.0-OpenSSH\r\n", "receive: ", patient},
		"endless":  {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 1<<20), "receive: ", patient},
		"half":     {"HTTP/1.1 200 OK\r\nConte", "receive: ", soon},
		"and well": {"HTTP/1.1 200 OK\r\n\r\n", "", patient},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, tt.says)
				_, _ = io.Copy(io.Discard, c) // until the check gives up
				c.Close()
			}
		}()
		begin := time.Now()
		want(t, name, checkWithin(t, tt.patience, httpCheck(), l.Addr().String(), false), tt.want)
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
		want(t, name+" to tcp", check(t, snapshot.HealthCheck{Type: "tcp"}, l.Addr().String(), false), "")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String()) // nobody listens at its own address, and nobody can while it is there
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nobody := c.LocalAddr().String()
	for _, kind := range []string{"http", "tcp"} {
		c := httpCheck()
		c.Type = kind
		want(t, "nobody", check(t, c, nobody, false), "connect: ")
	}
	want(t, "unknown", check(t, snapshot.HealthCheck{Type: "icmp"}, nobody, false), "no health check of type")
}

// TestGRPC asks a real server of grpc-go, in plain text and over TLS.
func TestGRPC(t *testing.T) {
	t.Parallel()
	serve := func(secure bool) (string, *health.Server) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if secure {
			s := httptest.NewUnstartedServer(nil)
			s.StartTLS() // for its certificate
			t.Cleanup(s.Close)
			l = tls.NewListener(l, &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}})
		}
		s, h := grpc.NewServer(), health.NewServer()
		healthpb.RegisterHealthServer(s, h)
		go func() { _ = s.Serve(l) }()
		t.Cleanup(s.Stop)
		return l.Addr().String(), h
	}
	for _, secure := range []bool{false, true} {
		address, h := serve(secure)
		ask := func(service string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return New(&snapshot.HealthCheck{Type: "grpc", Service: service}, "catalog.example:1", false, func(ctx context.Context, protocol string) (net.Conn, error) {
				if !secure {
					return new(net.Dialer).DialContext(ctx, "tcp", address)
				}
				d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}}
				return d.DialContext(ctx, "tcp", address)
			}).Check(ctx)
		}
		want(t, "server", ask(""), "")
		want(t, "unknown", ask("acme.Catalog"), "unknown service")
		h.SetServingStatus("acme.Catalog", healthpb.HealthCheckResponse_SERVING)
		want(t, "service", ask("acme.Catalog"), "")
		h.SetServingStatus("acme.Catalog", healthpb.HealthCheckResponse_NOT_SERVING)
		want(t, "not serving", ask("acme.Catalog"), "NOT_SERVING")
		want(t, "server still", ask(""), "")
		h.Shutdown()
		want(t, "shut down", ask(""), "NOT_SERVING")
	}
}
