package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"

	"hansa.dev/hansa/internal/app"
)

// browserScript does in a page what pages do, and tells what it has seen.
const browserScript = `(async () => {
  const seen = {protocol: performance.getEntriesByType('navigation')[0].nextHopProtocol};
  const body = 'x'.repeat(1 << 20);
  const answer = await fetch('/echo', {method: 'POST', body});
  seen.echo = (await answer.text()) === body ? 'whole' : 'different';
  seen.requestId = (answer.headers.get('X-Request-Id') || '').length;
  seen.events = await new Promise((resolve, reject) => {
    const got = [], source = new EventSource('/events');
    source.onmessage = e => { got.push(e.data); if (got.length === 3) { source.close(); resolve(got.join(' ')); } };
    source.onerror = () => reject(new Error('the events broke off after ' + got.length));
  });
  seen.socket = await new Promise((resolve, reject) => {
    const s = new WebSocket(location.origin.replace('http', 'ws') + '/socket', 'chat');
    const big = new Uint8Array(300000).fill(7);
    s.binaryType = 'arraybuffer';
    s.onopen = () => { s.send('hello'); s.send(big); };
    let text = '';
    s.onmessage = e => {
      if (typeof e.data === 'string') { text = e.data; return; }
      s.close(1000, 'done');
      text += ' ' + e.data.byteLength + ' ' + s.protocol;
    };
    s.onclose = e => e.code === 1000 ? resolve(text) : reject(new Error('closed with ' + e.code));
  });
  return seen;
})()`

// browserBackend is the site that the browser visits.
func browserBackend(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>site</title><p>hello")
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 1; r.Context().Err() == nil; n++ {
			fmt.Fprintf(w, "data: %d\n\n", n)
			w.(http.Flusher).Flush()
			<-tick.C
		}
	})
	upgrader := websocket.Upgrader{Subprotocols: []string{"chat"}, CheckOrigin: func(*http.Request) bool { return true }}
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // answered
		}
		defer c.Close()
		for {
			kind, message, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, message) != nil {
				return
			}
		}
	})
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	return strings.TrimPrefix(site.URL, "http://")
}

// TestBrowser visits a site through a gateway with a real browser, by each version of HTTP.
func TestBrowser(t *testing.T) {
	t.Parallel()
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("needs Chromium: set HANSA_REAL=1 (make test-real does)")
	}
	dir := t.TempDir()
	pin := writeCertificate(t, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t)+fmt.Sprintf(`---
apiVersion: hansa.dev/v1
kind: Backend
metadata: {name: site}
spec: {endpoints: [{address: %q}]}
---
apiVersion: hansa.dev/v1
kind: API
metadata: {name: site}
spec: {basePath: /, backend: site}
---
apiVersion: hansa.dev/v1
kind: Deployment
metadata: {name: site-prod}
spec: {api: site, environment: prod}
`, browserBackend(t)))
	g := startGateway(t, app.GatewayOptions{
		Data: filepath.Join(t.TempDir(), "gw"), Name: "gw", Control: []string{c.link}, JoinToken: c.joinToken(t),
		HTTPSAddr: "127.0.0.1:0", HTTP3: true, CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"),
	})
	eventually(t, patience, func() error { return g.want(t.Context(), "/", "", http.StatusOK) })
	port := func(listener string) string {
		_, port, err := net.SplitHostPort(g.Ready().Addresses[listener])
		if err != nil {
			t.Fatal(err)
		}
		return "api.example.com:" + port
	}
	for _, v := range []struct {
		protocol, url string
		flag          chromedp.ExecAllocatorOption
	}{
		{"http/1.1", "http://" + port("http"), chromedp.Flag("disable-quic", true)},
		{"h2", "https://" + port("https"), chromedp.Flag("disable-quic", true)},
		{"h3", "https://" + port("https"), chromedp.Flag("origin-to-force-quic-on", port("https"))},
	} {
		t.Run(strings.ReplaceAll(v.protocol, "/", ""), func(t *testing.T) {
			seen := visit(t, v.url, chromedp.Flag("ignore-certificate-errors-spki-list", pin), v.flag)
			want := browsed{Protocol: v.protocol, Echo: "whole", RequestID: 32, Events: "1 2 3", Socket: "hello 300000 chat"}
			if seen != want {
				t.Errorf("seen %+v\nwant %+v", seen, want)
			}
		})
	}
}

// browsed is what browserScript returns.
type browsed struct {
	Protocol, Echo, Events, Socket string
	RequestID                      int
}

func visit(t *testing.T, url string, flags ...chromedp.ExecAllocatorOption) browsed {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.Flag("host-resolver-rules", "MAP api.example.com 127.0.0.1"), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ctx, stop := chromedp.NewExecAllocator(ctx, append(options, flags...)...)
	defer stop()
	ctx, closePage := chromedp.NewContext(ctx)
	defer closePage()
	if _, err := chromedp.Run(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatalf("visit %s: %v", url, err)
	}
	seen, err := chromedp.Run(ctx, chromedp.Evaluate[browsed](browserScript, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("run the script at %s: %v", url, err)
	}
	return seen
}

// writeCertificate writes a certificate of its own authority and returns the pin of its key, as browsers take it.
func writeCertificate(t *testing.T, certFile, keyFile string) (pin string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"api.example.com"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(public)
	return base64.StdEncoding.EncodeToString(sum[:])
}
