package handshake

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/certs/certstest"
	"hansa.dev/hansa/internal/snapshot"
)

func with(l *certstest.Leaf) func(*tls.Config) {
	return func(c *tls.Config) { c.Certificates = []tls.Certificate{l.TLS} }
}

// TestClientCertificates goes through what clients may show, for both versions of TLS.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	root := certstest.NewAuthority(t, "client root")
	between := root.NewAuthority(t, "between")
	deep := between.NewAuthority(t, "deep")
	other := certstest.NewAuthority(t, "other root")
	expired := root.IssueAs(t, certstest.Request{Name: "late", NotAfter: time.Now().Add(-time.Minute)})
	server := root.IssueAs(t, certstest.Request{Name: "server", Change: func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}})
	content := snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(root.PEM), ClientDepth: 1, ForwardClient: "certificate"}
	optional := content
	optional.ClientCertificate, optional.ForwardClient = "optional", "chain"
	direct, indirect := root.IssueAs(t, certstest.Request{Name: "alice"}), between.IssueAs(t, certstest.Request{Name: "bob"})
	field := func(l *certstest.Leaf, i int) string {
		return ":" + base64.StdEncoding.EncodeToString(l.TLS.Certificate[i]) + ":"
	}
	none := func(*tls.Config) {}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Options{MinVersion: version})
			r.setRules(map[string]*Rule{"a.example": rule(t, "a", content), "b.example": rule(t, "b", optional)})
			for _, test := range []struct {
				name, host string
				show       func(*tls.Config)
				status     int
				part       string
			}{
				{"none", "a.example", none, 403, "client-certificate-required"},
				{"none", "b.example", none, 200, "anonymous"},
				{"direct", "a.example", with(direct), 200, "CN=alice"},
				{"direct", "a.example", with(direct), 200, "Client-Cert: " + field(direct, 0)},
				{"direct", "b.example", with(direct), 200, "Client-Cert: " + field(direct, 0)},
				{"indirect", "a.example", with(indirect), 200, "CN=bob"},
				{"indirect", "b.example", with(indirect), 200, "Client-Cert-Chain: " + field(indirect, 1)},
				{"deep", "a.example", with(deep.IssueAs(t, certstest.Request{Name: "x"})), 403, "more certificates"},
				{"other CA", "a.example", with(other.IssueAs(t, certstest.Request{Name: "x"})), 403, "not signed by a CA that is trusted"},
				{"other CA", "b.example", with(other.IssueAs(t, certstest.Request{Name: "x"})), 403, "client-certificate-invalid"},
				{"expired", "a.example", with(expired), 403, "expired"},
				{"for servers", "a.example", with(server), 403, "clientAuth"},
			} {
				show := func(c *tls.Config) {
					test.show(c)
					certs := c.Certificates
					c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						if len(certs) == 0 {
							return new(tls.Certificate), nil
						}
						return &certs[0], nil // whatever the server would like to see
					}
				}
				c := r.mustDial(t, test.host, show)
				c.expect(t, test.host, test.status, test.part, "Client-Cert: :eA==:\r\n")
				c.expect(t, test.host, test.status, test.part, "Client-Cert: :eA==:\r\n")
			}
			// The field of the client is gone, and there is one of the gateway.
			c := r.mustDial(t, "a.example", with(direct))
			if _, body := c.get(t, "a.example", "/", "client-cert: :eA==:\r\n", "client_cert: :eA==:\r\n"); strings.Contains(body, ":eA==:") || strings.Count(body, "Client-Cert: ") != 1 {
				t.Errorf("%q", body)
			}
		})
	}
}

// TestWithoutTLS keeps those out who come another way.
func TestWithoutTLS(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	x := new(exchange.Exchange)
	x.Reset()
	x.Req.AddString(exchange.IDClientCert.Name(), ":eA==:")
	required := rule(t, "a", snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(ca.PEM)})
	if v := Admit(x, required); v != exchange.Responded || x.Code != exchange.ClientCertificateRequired {
		t.Errorf("%v, %v", v, x.Code)
	}
	for _, r := range []*Rule{nil, rule(t, "a", snapshot.HostTLS{ClientCertificate: "optional", ClientCA: string(ca.PEM)})} {
		x.Reset()
		x.Req.AddString(exchange.IDClientCert.Name(), ":eA==:")
		if v := Admit(x, r); v != exchange.Continue || x.Req.Has(exchange.IDClientCert) {
			t.Errorf("%v, %v", v, x.Code)
		}
	}
}

// TestToldByProxy takes the certificate that a trusted proxy tells of, where the host says so, as if it had been shown here.
func TestToldByProxy(t *testing.T) {
	t.Parallel()
	root, other := certstest.NewAuthority(t, "root"), certstest.NewAuthority(t, "other")
	between := root.NewAuthority(t, "between")
	alice, bob, eve := root.IssueAs(t, certstest.Request{Name: "alice"}), between.IssueAs(t, certstest.Request{Name: "bob"}), other.IssueAs(t, certstest.Request{Name: "eve"})
	field := func(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }
	content := snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(root.PEM), ForwardClient: "chain", ClientFromProxies: true}
	optional, deaf := content, content
	optional.ClientCertificate, deaf.ClientFromProxies = "optional", false
	rules := map[string]*Rule{"required": rule(t, "a", content), "optional": rule(t, "b", optional), "deaf": rule(t, "c", deaf), "none": nil}
	certificates, _ := store(t)
	server, err := New(Options{Certificates: certificates})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, rule  string
		untrusted   bool
		cert, chain []string
		code        string // "" is admitted
		subject     string
	}{
		{name: "good", rule: "required", cert: []string{field(alice.Cert.Raw)}, subject: "CN=alice"},
		{name: "with a chain", rule: "required", cert: []string{field(bob.Cert.Raw)}, chain: []string{field(bob.TLS.Certificate[1]) + " , " + field(root.Cert.Raw)}, subject: "CN=bob"},
		{name: "a chain in two lines", rule: "optional", cert: []string{field(bob.Cert.Raw)}, chain: []string{field(bob.TLS.Certificate[1]), field(root.Cert.Raw)}, subject: "CN=bob"},
		{name: "without its chain", rule: "required", cert: []string{field(bob.Cert.Raw)}, code: "client-certificate-invalid"},
		{name: "of another CA", rule: "optional", cert: []string{field(eve.Cert.Raw)}, code: "client-certificate-invalid"},
		{name: "not trusted", rule: "required", untrusted: true, cert: []string{field(alice.Cert.Raw)}, code: "client-certificate-required"},
		{name: "not trusted, optional", rule: "optional", untrusted: true, cert: []string{field(alice.Cert.Raw)}},
		{name: "not taken", rule: "deaf", cert: []string{field(alice.Cert.Raw)}, code: "client-certificate-required"},
		{name: "not asked for", rule: "none", cert: []string{field(alice.Cert.Raw)}},
		{name: "none", rule: "required", code: "client-certificate-required"},
		{name: "none, optional", rule: "optional"},
		{name: "two", rule: "required", cert: []string{field(alice.Cert.Raw), field(alice.Cert.Raw)}, code: "client-certificate-invalid"},
		{name: "not a byte sequence", rule: "required", cert: []string{"alice"}, code: "client-certificate-invalid"},
		{name: "not base64", rule: "optional", cert: []string{":ali*:"}, code: "client-certificate-invalid"},
		{name: "no certificate", rule: "required", cert: []string{":eA==:"}, code: "client-certificate-invalid"},
		{name: "broken chain", rule: "required", cert: []string{field(alice.Cert.Raw)}, chain: []string{":eA==:"}, code: "client-certificate-invalid"},
		{name: "overlong chain", rule: "required", cert: []string{field(alice.Cert.Raw)}, chain: slices.Repeat([]string{field(root.Cert.Raw)}, maxTold), code: "client-certificate-invalid"},
	} {
		for range 2 { // the second time from memory
			for _, secure := range []bool{false, true} {
				x := new(exchange.Exchange)
				x.Reset()
				x.Start, x.Proxied = time.Now(), !test.untrusted
				if secure {
					state := tls.ConnectionState{}
					x.TLS = &server.newSession(&state, rules[test.rule]).TLS
				}
				for _, v := range test.cert {
					x.Req.AddString(exchange.IDClientCert.Name(), v)
				}
				for _, v := range test.chain {
					x.Req.AddString(exchange.IDClientCertChain.Name(), v)
				}
				Admit(x, rules[test.rule])
				if x.Code.String() != test.code {
					t.Errorf("%s: %v %q, want %q", test.name, x.Code, x.Detail, test.code)
				}
				subject := ""
				if x.ClientCert != nil {
					subject = x.ClientCert.Subject
				}
				if subject != test.subject {
					t.Errorf("%s: the client is %q, want %q", test.name, subject, test.subject)
				}
				if got := x.Req.Count(exchange.IDClientCert); (got == 1) != (test.subject != "") || got == 1 && x.Req.Known(exchange.IDClientCert).String() != test.cert[0] {
					t.Errorf("%s: the backend gets %d of Client-Cert", test.name, got)
				}
			}
		}
	}
}

// TestRulesChange changes the rules under a connection.
func TestRulesChange(t *testing.T) {
	t.Parallel()
	one, two := certstest.NewAuthority(t, "one"), certstest.NewAuthority(t, "two")
	content := snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(one.PEM)}
	r := newRig(t, Options{})
	set := func(c *snapshot.HostTLS) {
		if c == nil {
			r.setRules(nil)
			return
		}
		r.setRules(map[string]*Rule{"a.example": rule(t, "a", *c)})
	}
	set(nil)
	early := r.mustDial(t, "a.example", with(one.IssueAs(t, certstest.Request{Name: "alice"})))
	early.expect(t, "a.example", 200, "anonymous")
	set(&content)
	early.expect(t, "a.example", 421, "misdirected-request") // it was not asked for a certificate
	c := r.mustDial(t, "a.example", with(one.IssueAs(t, certstest.Request{Name: "alice"})))
	c.expect(t, "a.example", 200, "CN=alice")
	content.ClientCA = string(two.PEM)
	set(&content)
	c.expect(t, "a.example", 403, "client-certificate-invalid")
	content.ClientCA = string(one.PEM) + string(two.PEM)
	set(&content)
	c.expect(t, "a.example", 200, "CN=alice")
	set(nil)
	c.expect(t, "a.example", 200, "anonymous")
}

// TestExpiresMeanwhile lets a certificate expire on a connection.
func TestExpiresMeanwhile(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	l := ca.IssueAs(t, certstest.Request{Name: "x", NotAfter: time.Now().Add(time.Minute)})
	r := rule(t, "a", snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(ca.PEM)})
	c := &Session{chain: []*x509.Certificate{l.Cert}}
	if v := c.judge(r, time.Now()); v.client == nil {
		t.Errorf("refused: %s", v.detail)
	}
	first := c.verdict.Load()
	if c.judge(r, time.Now()); c.verdict.Load() != first {
		t.Error("the certificate is verified twice")
	}
	if v := c.judge(r, time.Now().Add(2*time.Minute)); v.client != nil {
		t.Error("an expired certificate is believed")
	}
}

func TestClientCert(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	l := ca.IssueAs(t, certstest.Request{Name: "alice", Names: []string{"a.example", "10.0.0.1"}, Change: func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/alice"}}
		c.EmailAddresses = []string{"alice@example.com"}
	}})
	got := newClientCert([]*x509.Certificate{l.Cert, ca.Cert})
	sum := sha256.Sum256(l.Cert.Raw)
	want := &exchange.ClientCert{
		Subject: "CN=alice", Issuer: "CN=root", Serial: l.Cert.SerialNumber.Text(16), Fingerprint: hex.EncodeToString(sum[:]),
		DNSNames: []string{"a.example"}, URIs: []string{"spiffe://example/alice"}, Emails: []string{"alice@example.com"}, IPs: []string{"10.0.0.1"},
		NotAfter: l.Cert.NotAfter, Field: ":" + base64.StdEncoding.EncodeToString(l.Cert.Raw) + ":",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRevocation judges by lists of revoked certificates, on connections that exist and on sessions that are resumed.
func TestRevocation(t *testing.T) {
	t.Parallel()
	root, other := certstest.NewAuthority(t, "client root"), certstest.NewAuthority(t, "other root")
	between := root.NewAuthority(t, "between")
	alice, bob := root.IssueAs(t, certstest.Request{Name: "alice"}), root.IssueAs(t, certstest.Request{Name: "bob"})
	carol, dave := between.IssueAs(t, certstest.Request{Name: "carol"}), other.IssueAs(t, certstest.Request{Name: "dave"})
	late := x509.RevocationList{NextUpdate: time.Now().Add(-time.Minute)}
	const revoked, unlisted, expired = "is revoked", "there is no list of revoked certificates", "has expired"
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Options{MinVersion: version})
			set := func(cas, lists string) {
				r.setRules(map[string]*Rule{"a.example": rule(t, "a", snapshot.HostTLS{ClientCertificate: "required", ClientCA: cas, ClientCRL: lists})})
			}
			cas := string(root.PEM) + string(other.PEM)
			withBetween := cas + string(between.PEM)
			set(cas, "")
			now := cas
			clients := map[*certstest.Leaf]*client{}
			caches := map[*certstest.Leaf]tls.ClientSessionCache{}
			dial := func(l *certstest.Leaf) *client {
				return r.mustDial(t, "a.example", func(c *tls.Config) {
					c.Certificates, c.ClientSessionCache, c.MaxVersion = []tls.Certificate{l.TLS}, caches[l], version
				})
			}
			for _, l := range []*certstest.Leaf{alice, bob, carol, dave} {
				caches[l] = tls.NewLRUClientSessionCache(1)
				clients[l] = dial(l)
				clients[l].expect(t, "a.example", 200, l.Cert.Subject.String())
			}
			for _, tc := range []struct {
				name, cas, lists string
				want             map[*certstest.Leaf]string // what is wrong; nothing with those that are not here
			}{
				{"nobody is revoked", cas, root.List(t) + other.List(t), map[*certstest.Leaf]string{carol: unlisted}},
				{"one is", cas, root.List(t, alice.Cert) + other.List(t), map[*certstest.Leaf]string{alice: revoked, carol: unlisted}},
				{"a CA without list", cas, root.List(t, bob.Cert), map[*certstest.Leaf]string{bob: revoked, carol: unlisted, dave: unlisted}},
				{"all CAs have lists", withBetween, root.List(t) + other.List(t) + between.List(t), nil},
				{"one of the CA between", withBetween, root.List(t) + other.List(t) + between.List(t, carol.Cert), map[*certstest.Leaf]string{carol: revoked}},
				{"the CA between", withBetween, root.List(t, between.Cert) + other.List(t) + between.List(t), map[*certstest.Leaf]string{carol: revoked}},
				{"expired", cas, root.ListAs(t, late, bob.Cert) + other.List(t), map[*certstest.Leaf]string{alice: expired, bob: revoked, carol: unlisted}},
				{"none", cas, "", nil},
			} {
				before := now
				now = tc.cas
				set(tc.cas, tc.lists)
				for l, c := range clients {
					fresh := dial(l)
					if same := tc.cas == before; fresh.ConnectionState().DidResume != same {
						t.Errorf("%s: %s: resumed: %t", tc.name, l.Cert.Subject, !same)
					}
					for _, c := range []*client{c, fresh} {
						if why := tc.want[l]; why == "" {
							c.expect(t, "a.example", 200, l.Cert.Subject.String())
						} else if status, body := c.get(t, "a.example", "/"); status != 403 || !strings.Contains(body, "client-certificate-invalid") || !strings.Contains(body, why) {
							t.Errorf("%s: %s: %d %q, want %q", tc.name, l.Cert.Subject, status, body, why)
						}
					}
				}
			}
		})
	}
}

// TestListExpiresMeanwhile lets a list expire on a connection.
func TestListExpiresMeanwhile(t *testing.T) {
	ca := certstest.NewAuthority(t, "root")
	l := ca.IssueAs(t, certstest.Request{Name: "x"})
	until := time.Now().Add(time.Minute).Truncate(time.Second)
	list := ca.ListAs(t, x509.RevocationList{NextUpdate: until})
	r := rule(t, "a", snapshot.HostTLS{ClientCertificate: "required", ClientCA: string(ca.PEM), ClientCRL: list})
	if got := r.RevocationsUntil(); !got.Equal(until) {
		t.Errorf("the list holds until %v, want %v", got, until)
	}
	c := &Session{chain: []*x509.Certificate{l.Cert}}
	now := time.Now()
	if v := c.judge(r, now); v.client == nil {
		t.Fatalf("refused: %s", v.detail)
	}
	if n := testing.AllocsPerRun(100, func() { c.judge(r, now) }); n != 0 {
		t.Errorf("judging a client again takes %v allocations, want none", n)
	}
	if v := c.judge(r, now.Add(2*time.Minute)); v.client != nil || !strings.Contains(v.detail, "expired") {
		t.Errorf("the client is let in, or for another reason: %q", v.detail)
	}
}
