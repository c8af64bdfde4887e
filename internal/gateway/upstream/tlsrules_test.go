package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"sync"
	"testing"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// tlsRig is a backend with TLS that answers with the name of the client's certificate.
type tlsRig struct {
	registry *Registry
	address  string
}

func newTLSRig(t *testing.T, cfg *tls.Config, certificates Certificates) *tlsRig {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				tc := c.(*tls.Conn)
				if tc.Handshake() != nil {
					return
				}
				who := "nobody"
				if shown := tc.ConnectionState().PeerCertificates; len(shown) > 0 {
					who = shown[0].Subject.CommonName
				}
				times(1, who)(c)
			})
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	sw := sweep.New()
	wg.Go(func() { _ = sw.Run(ctx) })
	r, err := New(Options{Sweeper: sw, Certificates: certificates})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	return &tlsRig{r, l.Addr().String()}
}

// get asks the backend with these settings; twice, since the second connection may resume the session.
func (r *tlsRig) get(t *testing.T, s snapshot.Backend, want string) {
	t.Helper()
	s.Organization, s.Name, s.TLS, s.Endpoints = "acme", "catalog", true, snapshot.Endpoints(r.address)
	p, err := r.registry.Prepare("", []snapshot.Backend{s})
	if err != nil {
		t.Fatal(err)
	}
	p.Commit()
	for range 2 {
		if got := outcome(p.Backend("acme", "catalog"), get("/"), new(down)); got != want {
			t.Errorf("%+v: %.100q, want %.100q", s.TLSRules, got, want)
		}
	}
}

func TestSubjectNames(t *testing.T) {
	t.Parallel()
	ca, other := certstest.NewAuthority(t, "root"), certstest.NewAuthority(t, "other")
	leaf := ca.IssueAs(t, certstest.Request{Names: []string{"catalog.internal", "*.shop.internal", "10.1.2.3"}, Change: func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/catalog"}}
	}})
	r := newTLSRig(t, &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}, nil)
	for _, test := range []struct {
		ca    *certstest.Authority
		names []string
		want  string
	}{
		{ca, []string{"catalog.internal"}, "200 nobody"},
		{ca, []string{"none.internal", "a.shop.internal"}, "200 nobody"},
		{ca, []string{"10.1.2.3"}, "200 nobody"},
		{ca, []string{"spiffe://example.com/catalog"}, "200 nobody"},
		{ca, []string{"spiffe://example.com/other"}, "upstream-connect"},
		{ca, []string{"none.internal"}, "upstream-connect"},
		{ca, []string{"127.0.0.1"}, "upstream-connect"},
		{other, []string{"catalog.internal"}, "upstream-connect"},
	} {
		r.get(t, snapshot.Backend{CA: string(test.ca.PEM), TLSRules: &snapshot.TLSRules{SubjectNames: test.names}}, test.want)
	}
	// The system's CAs have not signed it.
	r.get(t, snapshot.Backend{TLSRules: &snapshot.TLSRules{SubjectNames: []string{"catalog.internal"}}}, "upstream-connect")
}

func TestVersionsAndCiphers(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	r := newTLSRig(t, &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, "127.0.0.1").TLS}, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	}, nil)
	for _, test := range []struct {
		rules snapshot.TLSRules
		want  string
	}{
		{snapshot.TLSRules{MinVersion: "1.2"}, "200 nobody"},
		{snapshot.TLSRules{MinVersion: "1.3"}, "upstream-connect"},
		{snapshot.TLSRules{Ciphers: []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}}, "200 nobody"},
		{snapshot.TLSRules{Ciphers: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}}, "upstream-connect"},
	} {
		r.get(t, snapshot.Backend{CA: string(ca.PEM), TLSRules: &test.rules}, test.want)
	}
	for _, rules := range []snapshot.TLSRules{{MinVersion: "1.1"}, {Ciphers: []string{"nonsense"}}} {
		if _, err := r.registry.Prepare("", []snapshot.Backend{{Organization: "acme", Name: "catalog", TLS: true, TLSRules: &rules}}); err == nil {
			t.Errorf("%+v: no error", rules)
		}
	}
}

// TestClientCertificate shows a certificate to the backend, and another after it was replaced.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	ca, clients := certstest.NewAuthority(t, "root"), certstest.NewAuthority(t, "clients")
	var mu sync.Mutex
	now := clients.IssueAs(t, certstest.Request{Name: "gateway-1"}).TLS
	certificates := func(organization, name string) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if organization != "acme" || name != "mine" {
			return nil, errors.New("there is no such certificate")
		}
		c := now
		return &c, nil
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, "127.0.0.1").TLS}, ClientCAs: clients.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}
	r := newTLSRig(t, cfg, certificates)
	mine := snapshot.Backend{CA: string(ca.PEM), TLSRules: &snapshot.TLSRules{ClientCertificate: "mine"}}
	r.get(t, mine, "200 gateway-1")
	mu.Lock()
	now = clients.IssueAs(t, certstest.Request{Name: "gateway-2"}).TLS
	mu.Unlock()
	r.get(t, mine, "200 gateway-2")
	mine.TLSRules = &snapshot.TLSRules{ClientCertificate: "other"}
	r.get(t, mine, "upstream-connect")
	without := newTLSRig(t, cfg, nil)
	without.get(t, mine, "upstream-connect")
}
