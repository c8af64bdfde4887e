package handshake

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/certs"
	"hansa.dev/hansa/internal/gateway/certs/certstest"
	"hansa.dev/hansa/internal/gateway/http1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// rig is a listener with TLS, rules and the HTTP/1.1 engine, which answers with what it has admitted.
type rig struct {
	server *Server
	addr   string
	rules  atomic.Pointer[map[string]*Rule] // by hostname
}

var serverCA struct {
	once sync.Once
	ca   *certstest.Authority
	leaf *certs.Certificate
}

func store(t testing.TB) (*certs.Store, *x509.CertPool) {
	t.Helper()
	s, err := certs.New(certs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	serverCA.once.Do(func() {
		serverCA.ca = certstest.NewAuthority(t, "server root")
		l := serverCA.ca.Issue(t, "a.example", "b.example", "*.wild.example")
		serverCA.leaf, err = certs.Parse(l.CertPEM, l.KeyPEM)
	})
	if err == nil {
		err = s.Replace("x", []certs.Entry{{ID: "x", Certificate: serverCA.leaf, Default: true}})
	}
	other := serverCA.ca.Issue(t, "other.example")
	cert, parseErr := certs.Parse(other.CertPEM, other.KeyPEM)
	if err = errors.Join(err, parseErr); err == nil {
		err = s.Replace("y", []certs.Entry{{ID: "y", Certificate: cert}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, serverCA.ca.Pool()
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	r := new(rig)
	r.rules.Store(&map[string]*Rule{})
	if o.Certificates == nil {
		o.Certificates, _ = store(t)
	}
	o.Rule = func(name string) *Rule { return (*r.rules.Load())[name] }
	var err error
	if r.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	sw := sweep.New()
	ctx, cancel := context.WithCancel(context.Background())
	engine, err := http1.New(http1.Options{Options: ingress.Options{Handler: r, Sweeper: sw}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() { _ = sw.Run(ctx) })
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				if c, err := r.server.Handshake(nc); err == nil {
					engine.Serve(http1.Conn{Net: nc, Upgrade: c.Over, Scheme: "https", TLS: c.TLS()})
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		done, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := engine.Drain(done); err != nil {
			t.Errorf("Drain: %v", err)
		}
		r.server.Close()
		cancel()
		wg.Wait()
	})
	return r
}

// Serve implements exchange.Handler.
func (r *rig) Serve(x *exchange.Exchange, d exchange.Down) {
	if Admit(x, (*r.rules.Load())[string(x.Host)]) == exchange.Continue {
		text := "anonymous"
		if c := x.ClientCert; c != nil {
			text = c.Subject + " " + c.Fingerprint
		}
		for _, n := range []exchange.ID{exchange.IDClientCert, exchange.IDClientCertChain} {
			if v := x.Req.Known(n); v != nil {
				text += "\n" + n.String() + ": " + v.String()
			}
		}
		if string(x.Path) == "/large" {
			text += strings.Repeat("x", 100_000)
		}
		x.Answer(200, []byte(text))
	}
	d.Respond(x, nil)
}

// Done implements exchange.Handler.
func (r *rig) Done(*exchange.Exchange) {}

// client is a TLS connection to a rig.
type client struct {
	*tls.Conn
	reader *bufio.Reader
}

func (r *rig) dial(t testing.TB, name string, change func(*tls.Config)) (*client, error) {
	t.Helper()
	cfg := &tls.Config{ServerName: name, RootCAs: serverCA.ca.Pool(), NextProtos: []string{HTTP1}}
	if change != nil {
		change(cfg)
	}
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	c := tls.Client(nc, cfg)
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReader(c)}, nil
}

func (r *rig) mustDial(t testing.TB, name string, change func(*tls.Config)) *client {
	t.Helper()
	c, err := r.dial(t, name, change)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// get asks for a path of a host and returns status and body.
func (c *client) get(t testing.TB, host, path string, fields ...string) (int, string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, host, strings.Join(fields, "")); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func (c *client) expect(t testing.TB, host string, status int, part string, fields ...string) {
	t.Helper()
	if s, body := c.get(t, host, "/", fields...); s != status || !strings.Contains(body, part) {
		t.Errorf("%s: %d %q, want %d and %q", host, s, body, status, part)
	}
}

func rule(t testing.TB, name string, content snapshot.HostTLS) *Rule {
	t.Helper()
	r, err := NewRule(name, &content)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) setRules(rules map[string]*Rule) { r.rules.Store(&rules) }

func TestRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	c := r.mustDial(t, "a.example", nil)
	if p := c.ConnectionState().NegotiatedProtocol; p != HTTP1 {
		t.Errorf("negotiated %q", p)
	}
	for range 3 {
		c.expect(t, "a.example", 200, "anonymous", "Client-Cert: :eA==:\r\n", "Client-Cert-Chain: :eA==:\r\n")
		if s, body := c.get(t, "a.example", "/large"); s != 200 || len(body) != 100_000+len("anonymous") {
			t.Errorf("%d, %d bytes", s, len(body))
		}
	}
	if _, body := c.get(t, "a.example", "/", "Client-Cert: :eA==:\r\n"); strings.Contains(body, "Client-Cert") {
		t.Errorf("a field of the client's is believed: %q", body)
	}
	// Who speaks no TLS is told so.
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, _ := io.ReadAll(nc); !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		t.Errorf("without TLS: %q", got)
	}
}

func TestMisdirected(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "client root")
	r := newRig(t, Options{})
	r.setRules(map[string]*Rule{
		"b.example":      rule(t, "b", snapshot.HostTLS{ClientCertificate: "optional", ClientCA: string(ca.PEM)}),
		"x.wild.example": rule(t, "x", snapshot.HostTLS{MinVersion: "1.3"}),
	})
	c := r.mustDial(t, "a.example", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	c.expect(t, "y.wild.example", 200, "anonymous")
	c.expect(t, "other.example", 421, "misdirected-request")
	c.expect(t, "b.example", 421, "misdirected-request")
	c.expect(t, "x.wild.example", 421, "misdirected-request")
	c.expect(t, "a.example:443", 200, "anonymous")
	c = r.mustDial(t, "other.example", nil)
	c.expect(t, "other.example", 200, "anonymous")
	c.expect(t, "a.example", 421, "misdirected-request")
	c = r.mustDial(t, "", func(c *tls.Config) { c.InsecureSkipVerify = true })
	c.expect(t, "other.example", 200, "anonymous")
	c.expect(t, "b.example", 421, "misdirected-request")
	any := newRig(t, Options{AnyHost: true})
	any.setRules(*r.rules.Load())
	c = any.mustDial(t, "a.example", nil)
	c.expect(t, "other.example", 200, "anonymous")
	c.expect(t, "b.example", 421, "misdirected-request")
}

func TestVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{MinVersion: tls.VersionTLS12, Ciphers: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}})
	r.setRules(map[string]*Rule{"b.example": rule(t, "b", snapshot.HostTLS{MinVersion: "1.3"})})
	limit := func(v uint16) func(*tls.Config) { return func(c *tls.Config) { c.MinVersion, c.MaxVersion = 0x301, v } }
	c := r.mustDial(t, "a.example", limit(tls.VersionTLS12))
	if s := c.ConnectionState(); s.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
		t.Errorf("cipher suite %s", tls.CipherSuiteName(s.CipherSuite))
	}
	for _, test := range []struct {
		name string
		max  uint16
	}{{"a.example", tls.VersionTLS11}, {"b.example", tls.VersionTLS12}} {
		if _, err := r.dial(t, test.name, limit(test.max)); err == nil {
			t.Errorf("%s is served with %x", test.name, test.max)
		}
	}
	c = r.mustDial(t, "b.example", nil)
	if s := c.ConnectionState(); s.CurveID != tls.X25519MLKEM768 {
		t.Errorf("key exchange %v", s.CurveID)
	}
	weak := func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	}
	if _, err := r.dial(t, "a.example", weak); err == nil {
		t.Error("a cipher suite is served that was not chosen")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	for _, c := range []snapshot.HostTLS{
		{MinVersion: "1.0"},
		{ClientCertificate: "x"},
		{ForwardClient: "x"},
		{ClientCertificate: "required"},
		{ClientCertificate: "required", ClientCA: string(ca.PEM), ClientCRL: "x"},
		{ClientCertificate: "required", ClientCA: string(ca.PEM) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
	} {
		if _, err := NewRule("x", &c); err == nil {
			t.Errorf("NewRule(%+v): no error", c)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("New without certificates: no error")
	}
}

func TestPending(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	r := newRig(t, Options{MaxPending: 2, Timeout: time.Minute, Registerer: registry})
	stalled := func() net.Conn {
		nc, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	first := stalled()
	until(t, "a handshake is under way", func() bool { return pending(r.server) == 1 })
	stalled()
	until(t, "two are", func() bool { return pending(r.server) == 2 })
	// A third one is refused while the others are fresh.
	_ = first.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := stalled().Read(make([]byte, 1)); err == nil {
		t.Error("a third handshake is let in")
	}
	// Later the oldest gives way.
	r.server.mu.Lock()
	for e := r.server.pending.Front(); e != nil; e = e.Next() {
		e.Value.(*Conn).began = time.Now().Add(-2 * patience)
	}
	r.server.mu.Unlock()
	r.mustDial(t, "a.example", nil).expect(t, "a.example", 200, "anonymous")
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the oldest handshake still holds its place")
	}
	until(t, "one is left", func() bool { return pending(r.server) == 1 })
	want := `
		# HELP hansa_tls_handshakes_total Handshakes, by what became of them: full, resumed, failed, timeout, refused since there were too many, or challenge of ACME.
		# TYPE hansa_tls_handshakes_total counter
		hansa_tls_handshakes_total{result="challenge"} 0
		hansa_tls_handshakes_total{result="failed"} 0
		hansa_tls_handshakes_total{result="full"} 1
		hansa_tls_handshakes_total{result="refused"} 2
		hansa_tls_handshakes_total{result="resumed"} 0
		hansa_tls_handshakes_total{result="timeout"} 0
	`
	until(t, "all are counted", func() bool {
		return testutil.GatherAndCompare(registry, strings.NewReader(want), "hansa_tls_handshakes_total") == nil
	})
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Timeout: 50 * time.Millisecond})
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := nc.Write([]byte{22, 3, 1, 2, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(nc); errors.Is(err, os.ErrDeadlineExceeded) { // a reset is as good: the time may be over before all is read
		t.Errorf("a handshake that stalls goes on: %v", err)
	}
	until(t, "it is forgotten", func() bool { return pending(r.server) == 0 })
}

func pending(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.Len()
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !f(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it is not true that %s", what)
		}
	}
}
