package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	qhttp3 "github.com/quic-go/quic-go/http3"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
	"hansa.dev/hansa/internal/snapshot"
)

// secureNode is a gateway that speaks TLS, with certificates from a folder.
type secureNode struct {
	*node
	ca   *certstest.Authority
	dir  string
	addr string // of https
}

func startSecure(t testing.TB, edit func(*Options)) *secureNode {
	t.Helper()
	s := &secureNode{ca: certstest.NewAuthority(t, "server root"), dir: t.TempDir()}
	s.put(t, "default", s.ca.Issue(t, host, "127.0.0.1"))
	s.node = startNode(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "cert=%s chain=%s", r.Header.Get("Client-Cert"), r.Header.Get("Client-Cert-Chain"))
	}, func(o *Options) {
		o.HTTPSAddr, o.HTTP3, o.TLS.CertDir = "127.0.0.1:0", true, s.dir
		if edit != nil {
			edit(o)
		}
	})
	s.addr = s.Addresses()["https"]
	return s
}

// put replaces a pair of the folder.
func (s *secureNode) put(t testing.TB, name string, l *certstest.Leaf) {
	t.Helper()
	for file, data := range map[string][]byte{name + ".crt": l.CertPEM, name + ".key": l.KeyPEM} {
		temporary := filepath.Join(s.dir, "."+file)
		if err := errors.Join(os.WriteFile(temporary, data, 0o600), os.Rename(temporary, filepath.Join(s.dir, file))); err != nil {
			t.Fatal(err)
		}
	}
}

// clientFor returns a client that goes to the gateway whatever the host.
func (s *secureNode) clientFor(t testing.TB, http2 bool, certificates ...tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: http2,
		TLSClientConfig:   &tls.Config{RootCAs: s.ca.Pool(), Certificates: certificates},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func fetch(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Client-Cert", ":forged:")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// TestClientCertificateEndToEnd asks for certificates of clients, over both protocols and without TLS.
func TestClientCertificateEndToEnd(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	clients := certstest.NewAuthority(t, "client root")
	alice := clients.NewAuthority(t, "between").IssueAs(t, certstest.Request{Name: "alice"})
	w := s.world()
	w.put(snapshot.Hosts{
		Organization: "acme", Name: "public", Hostnames: []string{"api.example.com"}, Environments: []string{"prod"},
		TLS: &snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(clients.PEM), ForwardClient: "chain"},
	})
	w.put(snapshot.Hosts{Organization: "acme", Name: "free", Hostnames: []string{"free.example.com"}, Environments: []string{"prod"}})
	s.apply(w)
	for _, http2 := range []bool{false, true} {
		res, body := fetch(t, s.clientFor(t, http2), "https://api.example.com/open")
		if res.StatusCode != 403 || !strings.Contains(body, `"code":"client-certificate-required"`) {
			t.Errorf("without a certificate: %d %s", res.StatusCode, body)
		}
		res, body = fetch(t, s.clientFor(t, http2, alice.TLS), "https://api.example.com/open")
		if res.StatusCode != 200 || !strings.HasPrefix(body, "cert=:MII") || !strings.Contains(body, " chain=:MII") || (res.ProtoMajor == 2) != http2 {
			t.Errorf("with a certificate: %s %d %s", res.Proto, res.StatusCode, body)
		}
	}
	h3 := func(certificates ...tls.Certificate) *http.Client {
		transport := &qhttp3.Transport{
			TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool(), ServerName: host, Certificates: certificates},
			Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
				return quic.DialAddr(ctx, s.addr, c, q)
			},
		}
		t.Cleanup(func() { transport.Close() })
		return &http.Client{Transport: transport, Timeout: time.Minute}
	}
	if res, body := fetch(t, h3(), "https://api.example.com/open"); res.StatusCode != 403 || !strings.Contains(body, "client-certificate-required") {
		t.Errorf("HTTP/3 without a certificate: %d %s", res.StatusCode, body)
	}
	if res, body := fetch(t, h3(alice.TLS), "https://api.example.com/open"); res.StatusCode != 200 || !strings.HasPrefix(body, "cert=:MII") {
		t.Errorf("HTTP/3 with a certificate: %d %s", res.StatusCode, body)
	}
	if res, body := s.get("/open"); res.StatusCode != 403 || !strings.Contains(body, "client-certificate-required") {
		t.Errorf("without TLS: %d %s", res.StatusCode, body)
	}
	// Where nothing is asked for the forged field is removed all the same.
	s.put(t, "free", s.ca.Issue(t, "free.example.com"))
	if err := s.certFiles.Look(); err != nil {
		t.Fatal(err)
	}
	if res, body := fetch(t, s.clientFor(t, false), "https://free.example.com/open"); res.StatusCode != 200 || body != "cert= chain=" {
		t.Errorf("another host: %d %s", res.StatusCode, body)
	}
	s.stop()
	log, err := os.ReadFile(s.log)
	if err != nil || !strings.Contains(string(log), `"tls":"1.3","clientSubject":"CN=alice","clientFingerprint":"`) {
		t.Errorf("%v, %s", err, log)
	}
}

// TestMisdirectedStreams sends requests for other hosts over a connection of HTTP/2.
func TestMisdirectedStreams(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	s.put(t, "two", s.ca.Issue(t, "one.example.com", "two.example.com"))
	if err := s.certFiles.Look(); err != nil {
		t.Fatal(err)
	}
	w := s.world()
	w.put(snapshot.Hosts{Organization: "acme", Name: "more", Hostnames: []string{"*.example.com"}, Environments: []string{"prod"}})
	s.apply(w)
	c := s.clientFor(t, true)
	for name, want := range map[string]int{"one.example.com": 200, "two.example.com": 200, host: 421} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://one.example.com/open", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = name
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want || res.ProtoMajor != 2 {
			t.Errorf("%s: %s %d, want %d", name, res.Proto, res.StatusCode, want)
		}
	}
}

// TestCertificateChangesUnderLoad replaces the certificate while requests go on.
func TestCertificateChangesUnderLoad(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	s.apply(s.world())
	kept := s.clientFor(t, true)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		fresh := s.clientFor(t, false)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, c := range []*http.Client{kept, fresh} {
				if res, body := fetch(t, c, "https://api.example.com/open"); res.StatusCode != 200 {
					t.Errorf("%d %s", res.StatusCode, body)
				}
			}
			fresh.CloseIdleConnections()
		}
	})
	serials := map[string]bool{}
	for range 4 {
		l := s.ca.Issue(t, host)
		s.put(t, "default", l)
		tick := time.NewTicker(10 * time.Millisecond)
		for deadline := time.After(time.Minute); ; {
			c, err := tls.Dial("tcp", s.addr, &tls.Config{ServerName: host, RootCAs: s.ca.Pool()})
			if err != nil {
				t.Fatal(err)
			}
			serial := c.ConnectionState().PeerCertificates[0].SerialNumber
			c.Close()
			if serials[serial.String()] = true; serial.Cmp(l.Cert.SerialNumber) == 0 {
				break
			}
			select {
			case <-tick.C:
				continue
			case <-deadline:
				t.Fatal("the new certificate is not shown")
			}
		}
		tick.Stop()
	}
	close(stop)
	wg.Wait()
	if len(serials) != 5 {
		t.Errorf("%d certificates were shown, want 5", len(serials))
	}
}

// TestStopBreaksHandshakes: a client that stalls does not hold up the end.
func TestStopBreaksHandshakes(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{22}); err != nil {
		t.Fatal(err)
	}
	s.stop()
	families, err := s.opts.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "hansa_tls_handshakes_total" && m.GetLabel()[0].GetValue() == "timeout" && m.GetCounter().GetValue() > 0 {
				t.Error("Stop has waited until the time for the handshake was over")
			}
		}
	}
}

// TestListenerCertificate gives a listener a certificate of its own beside those of the gateway.
func TestListenerCertificate(t *testing.T) {
	t.Parallel()
	s := startSecure(t, nil)
	own := s.ca.Issue(t, "own.example.com")
	dir := t.TempDir()
	l := Listener{Name: "own", Address: "127.0.0.1:0", CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), TLSMinVersion: "1.3"}
	if err := errors.Join(os.WriteFile(l.CertFile, own.CertPEM, 0o600), os.WriteFile(l.KeyFile, own.KeyPEM, 0o600), s.AddListener(t.Context(), l)); err != nil {
		t.Fatal(err)
	}
	shown := func(name string) string {
		c, err := tls.Dial("tcp", s.Addresses()["own"], &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	for name, want := range map[string]string{"own.example.com": "own.example.com", host: host, "other.example.com": "own.example.com"} {
		if got := shown(name); got != want {
			t.Errorf("for %q: %q, want %q", name, got, want)
		}
	}
	if c, err := tls.Dial("tcp", s.Addresses()["own"], &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 is served where 1.3 is the lowest version")
	}
	for _, bad := range []Listener{
		{Name: "x", Address: "127.0.0.1:0", TLS: true, TLSMinVersion: "1.0"},
		{Name: "x", Address: "127.0.0.1:0", TLS: true, TLSCiphers: []string{"RC4"}},
		{Name: "x", Address: "127.0.0.1:0", CertFile: "none", KeyFile: "none"},
	} {
		if err := s.AddListener(t.Context(), bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestOpenSSL has another implementation of TLS connect, resume and be refused.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	s := startSecure(t, nil)
	s.apply(s.world())
	dir := t.TempDir()
	session, caFile := filepath.Join(dir, "session"), filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(caFile, s.ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, openssl, append([]string{
			"s_client", "-connect", s.addr, "-servername", host, "-CAfile", caFile, "-verify_return_error", "-ign_eof",
		}, args...)...)
		cmd.Stdin = strings.NewReader("GET /open HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
		out, _ := cmd.CombinedOutput() // it fails where it is refused, which is in what it says
		return string(out)
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out := run(version, "-sess_out", session, "-alpn", "http/1.1")
		for _, part := range []string{"Verification: OK", "ALPN protocol: http/1.1", "HTTP/1.1 200 OK", "New, TLSv1"} {
			if !strings.Contains(out, part) {
				t.Errorf("%s: there is no %q in\n%s", version, part, out)
			}
		}
		if out := run(version, "-sess_in", session); !strings.Contains(out, "Reused, TLSv1") || !strings.Contains(out, "HTTP/1.1 200 OK") {
			t.Errorf("%s: the session is not resumed\n%s", version, out)
		}
	}
	for _, weak := range [][]string{{"-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"}, {"-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"}, {"-alpn", "nonsense"}} {
		if out := run(weak...); strings.Contains(out, "HTTP/1.1 200 OK") {
			t.Errorf("%v is served", weak)
		}
	}
}
