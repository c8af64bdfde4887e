package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	qhttp3 "github.com/quic-go/quic-go/http3"
)

// selfSigned writes a certificate for api.example.com and its key to a folder, and returns the roots to trust it.
func selfSigned(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"api.example.com"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	for file, content := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, roots
}

// TestHTTP3 finds HTTP/3 by what HTTPS says of it, and keeps a connection of it through a change of the listener.
func TestHTTP3(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := selfSigned(t)
	n := startNode(t, nil, func(o *Options) {
		o.HTTPSAddr, o.HTTP3, o.CertFile, o.KeyFile = "127.0.0.1:0", true, certFile, keyFile
	})
	n.apply(n.world())
	config := &tls.Config{RootCAs: roots, ServerName: "api.example.com"}
	h1 := &http.Transport{TLSClientConfig: config}
	h3 := &qhttp3.Transport{TLSClientConfig: config.Clone()}
	defer h1.CloseIdleConnections()
	defer h3.Close()
	addr := n.Addresses()["https"]
	ask := func(rt http.RoundTripper) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+"/open/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "api.example.com"
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", resp.Proto, resp.Status)
		}
		return resp
	}
	want := `h3=":` + addr[strings.LastIndexByte(addr, ':')+1:] + `"; ma=86400`
	if got := ask(h1).Header.Get("Alt-Svc"); got != want {
		t.Errorf("Alt-Svc is %q, want %q", got, want)
	}
	if resp := ask(h3); resp.ProtoMajor != 3 || resp.Header.Get("Alt-Svc") != "" {
		t.Errorf("%s with Alt-Svc %q", resp.Proto, resp.Header.Get("Alt-Svc"))
	}
	listeners := n.Listeners()
	for i := range listeners {
		listeners[i].Trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	}
	if err := n.SetListeners(t.Context(), listeners); err != nil {
		t.Fatal(err)
	}
	ask(h3)
	second := Listener{Name: "second", Address: "127.0.0.1:0", TLS: true, HTTP3: true}
	if err := n.AddListener(t.Context(), second); err != nil {
		t.Errorf("a second listener with HTTP/3: %v", err)
	}
	if err := n.AddListener(t.Context(), Listener{Name: "plain", Address: "127.0.0.1:0", HTTP3: true}); err == nil {
		t.Error("a listener without TLS speaks HTTP/3")
	}
	addr = n.Addresses()["second"]
	ask(h3)
	if err := n.RemoveListener(t.Context(), "second"); err != nil {
		t.Error(err)
	}
}

// TestHTTP3PortIsFree has the system choose ports while many of UDP are taken: one is chosen that is free for both protocols.
func TestHTTP3PortIsFree(t *testing.T) {
	t.Parallel()
	certFile, keyFile, _ := selfSigned(t)
	n := startNode(t, nil, nil)
	for range 500 {
		c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 60 {
		if err := n.AddListener(t.Context(), Listener{Name: "x", Address: "127.0.0.1:0", HTTP3: true, CertFile: certFile, KeyFile: keyFile}); err != nil {
			t.Fatal(err)
		}
		if err := n.RemoveListener(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHTTP3PortIsGivenAway hands over while a stream of HTTP/3 goes on: the port becomes free all the same, soon.
func TestHTTP3PortIsGivenAway(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := selfSigned(t)
	n := startNode(t, nil, func(o *Options) {
		o.HTTPSAddr, o.HTTP3, o.CertFile, o.KeyFile = "127.0.0.1:0", true, certFile, keyFile
	})
	n.apply(n.world())
	h3 := &qhttp3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "api.example.com"}}
	defer h3.Close()
	address := n.Addresses()["https"]
	body, send := io.Pipe()
	defer send.Close()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+address+"/open/x", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "api.example.com"
	cut := make(chan error, 1)
	go func() {
		_, err := h3.RoundTrip(req)
		cut <- err
	}()
	if _, err := send.Write([]byte("the stream is there")); err != nil {
		t.Fatal(err)
	}
	var retired sync.WaitGroup
	retired.Go(func() { _ = n.Retire(t.Context(), func() {}) })
	eventually(t, func() bool {
		c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	if err := <-cut; err == nil {
		t.Error("the stream has been answered")
	}
	retired.Wait()
}
