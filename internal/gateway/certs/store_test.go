package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
)

func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t testing.TB, l *certstest.Leaf) *Certificate {
	t.Helper()
	c, err := Parse(l.CertPEM, l.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shown returns the first DNS name of the certificate that a client sees which asks for a name, or its error.
func shown(t *testing.T, s *Store, client *tls.Config) (string, error) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_ = tls.Server(there, &tls.Config{GetCertificate: s.GetCertificate}).Handshake()
	})
	client.InsecureSkipVerify = true
	c := tls.Client(here, client)
	if err := c.Handshake(); err != nil {
		return "", err
	}
	return c.ConnectionState().PeerCertificates[0].DNSNames[0], nil
}

func TestChoice(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	cert := func(names ...string) *Certificate { return parse(t, ca.Issue(t, names...)) }
	s := newStore(t, Options{})
	if err := errors.Join(
		s.Replace(SourceResources, []Entry{
			{ID: "a", Certificate: cert("a.example")},
			{ID: "wild", Certificate: cert("*.wild.example")},
			{ID: "both", Certificate: cert("resource.both.example"), Names: []string{"Both.Example."}},
		}),
		s.Replace(SourceFiles, []Entry{
			{ID: "x", Certificate: cert("file.both.example"), Names: []string{"both.example"}},
			{ID: "d", Certificate: cert("default.example"), Default: true},
		}),
		s.Replace("others", []Entry{
			{ID: "x", Certificate: cert("one.wild.example")},
			{ID: "d", Certificate: cert("other.default.example"), Default: true},
		}),
	); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, want string }{
		{"a.example", "a.example"},
		{"A.EXAMPLE", "a.example"},
		{"x.wild.example", "*.wild.example"},
		{"one.wild.example", "one.wild.example"},
		{"a.b.wild.example", "default.example"},
		{"wild.example", "default.example"},
		{"both.example", "file.both.example"},
		{"", "default.example"},
		{"unknown", "default.example"},
	} {
		if got, err := shown(t, s, &tls.Config{ServerName: test.name}); got != test.want || err != nil {
			t.Errorf("for %q: %q, %v, want %q", test.name, got, err, test.want)
		}
	}
	for _, test := range []struct {
		sni, host string
		want      bool
	}{
		{"a.example", "a.example", true},
		{"a.example", "b.example", false},
		{"x.wild.example", "y.wild.example", true},
		{"x.wild.example", "wild.example", false},
		{"x.wild.example", "a.b.wild.example", false},
		{"", "default.example", true},
		{"", "a.example", false},
		{"nobody", "default.example", true},
	} {
		if got := s.Covers(test.sni, test.host); got != test.want {
			t.Errorf("Covers(%q, %q) = %t", test.sni, test.host, got)
		}
	}
	// A source that goes leaves the others alone.
	if err := s.Replace(SourceFiles, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"both.example": "resource.both.example", "": "other.default.example"} {
		if got, err := shown(t, s, &tls.Config{ServerName: name}); got != want || err != nil {
			t.Errorf("without files, for %q: %q, %v, want %q", name, got, err, want)
		}
	}
	if err := s.Update("others", []Entry{{ID: "n", Certificate: cert("new.example")}}, []string{"d", "x"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"one.wild.example": "*.wild.example", "new.example": "new.example"} {
		if got, err := shown(t, s, &tls.Config{ServerName: name}); got != want || err != nil {
			t.Errorf("after the update, for %q: %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"", "unknown"} {
		if got, err := shown(t, s, &tls.Config{ServerName: name}); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("without default, for %q: %q, %v", name, got, err)
		}
	}
	if err := s.Replace("others", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Replace(SourceResources, nil); err != nil {
		t.Fatal(err)
	}
	if len(s.hosts)+len(s.issuers) > 0 || s.defaults != nil {
		t.Errorf("an empty store holds %v, %v, %v", s.hosts, s.issuers, s.defaults)
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	s := newStore(t, Options{Strict: true})
	if err := s.Replace("x", []Entry{{ID: "a", Certificate: parse(t, ca.Issue(t, "a.example")), Default: true}}); err != nil {
		t.Fatal(err)
	}
	if got, err := shown(t, s, &tls.Config{ServerName: "b.example"}); err == nil {
		t.Errorf("an unknown name is shown %q", got)
	}
	if got, err := shown(t, s, &tls.Config{}); got != "a.example" || err != nil {
		t.Errorf("no name: %q, %v", got, err)
	}
}

// TestKeys keeps an RSA certificate beside an ECDSA one for clients that know no other.
func TestKeys(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	s := newStore(t, Options{})
	name := []string{"a.example"}
	if err := s.Replace("x", []Entry{
		{ID: "1", Names: name, Certificate: parse(t, ca.Issue(t, "ecdsa.example"))},
		{ID: "2", Names: name, Certificate: parse(t, ca.IssueAs(t, certstest.Request{Names: []string{"rsa.example"}, RSA: true}))},
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := shown(t, s, &tls.Config{ServerName: "a.example"}); got != "ecdsa.example" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	old := &tls.Config{ServerName: "a.example", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	if got, err := shown(t, s, old); got != "rsa.example" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	answer := ca.Issue(t, "challenge.example").TLS
	s := newStore(t, Options{Challenge: func(name string) (*tls.Certificate, error) {
		if name != "a.example" {
			return nil, errors.New("another name")
		}
		return &answer, nil
	}})
	c := &tls.Config{ServerName: "a.example", NextProtos: []string{ProtocolACME}}
	if got, err := shown(t, s, c); got != "challenge.example" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := shown(t, s, &tls.Config{ServerName: "a.example"}); err == nil {
		t.Errorf("without the protocol: %q", got)
	}
}

func TestMalformedEntries(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	c := parse(t, ca.Issue(t, "a.example"))
	unnamed := parse(t, ca.IssueAs(t, certstest.Request{Name: "x"}))
	s := newStore(t, Options{})
	good := Entry{ID: "good", Certificate: c}
	for _, e := range []Entry{
		{Certificate: c},
		{ID: "x"},
		{ID: "good", Certificate: c},
		{ID: "x", Certificate: unnamed},
		{ID: "x", Certificate: c, Names: []string{"*"}},
		{ID: "x", Certificate: c, Names: []string{""}},
		{ID: "x", Certificate: c, Names: []string{"a..b"}},
		{ID: "x", Certificate: c, Names: []string{"a.*.b"}},
		{ID: "x", Certificate: c, Names: []string{"ä.example"}},
		{ID: "x", Certificate: c, Names: []string{strings.Repeat("a", 64) + ".example"}},
	} {
		if s.Replace("x", []Entry{good, e}) == nil || s.Update("x", []Entry{good, e}, nil) == nil {
			t.Errorf("%+v is taken", e)
		}
	}
	if len(s.hosts) > 0 {
		t.Errorf("something of it was kept: %v", s.hosts)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	root := certstest.NewAuthority(t, "root")
	between := root.NewAuthority(t, "between")
	l := between.IssueAs(t, certstest.Request{Names: []string{"B.example", "a.example", "b.example", "127.0.0.1"}})
	c := parse(t, l)
	if diff := cmp.Diff([]string{"a.example", "b.example"}, c.Names()); diff != "" {
		t.Errorf("Names (-want +got):\n%s", diff)
	}
	if !c.NotAfter().Equal(l.Cert.NotAfter) || !c.NotBefore().Equal(l.Cert.NotBefore) {
		t.Errorf("valid from %v to %v", c.NotBefore(), c.NotAfter())
	}
	if i, err := c.Issuer(); err != nil || !i.Equal(between.Cert) {
		t.Errorf("Issuer = %v, %v", i, err)
	}
	other := root.Issue(t, "a.example")
	weak := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	for name, p := range map[string][2][]byte{
		"other key":  {l.CertPEM, other.KeyPEM},
		"no key":     {l.CertPEM, l.CertPEM},
		"bad key":    {l.CertPEM, weak},
		"no cert":    {l.KeyPEM, l.KeyPEM},
		"order":      {append(bytes.Clone(other.CertPEM), between.PEM...), other.KeyPEM},
		"bad cert":   {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), l.KeyPEM},
		"long chain": {append(bytes.Clone(l.CertPEM), bytes.Repeat(root.PEM, 10)...), l.KeyPEM},
		"empty":      {},
	} {
		if _, err := Parse(p[0], p[1]); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// The older encodings of keys.
	rsa := root.IssueAs(t, certstest.Request{Names: []string{"a"}, RSA: true})
	for _, l := range []*certstest.Leaf{l, rsa} {
		if _, err := Parse(l.CertPEM, old(t, l)); err != nil {
			t.Errorf("%T: %v", l.TLS.PrivateKey, err)
		}
	}
}

// TestMemory has 100,000 hosts, with names of their own and intermediates in common.
func TestMemory(t *testing.T) {
	ca := certstest.NewAuthority(t, "root").NewAuthority(t, "between")
	l := ca.Issue(t, "a.example")
	block, _ := pem.Decode(l.KeyPEM)
	const n = 100_000
	entries := make([]Entry, n)
	before := heap()
	for i := range entries {
		chain := [][]byte{bytes.Clone(l.TLS.Certificate[0]), bytes.Clone(l.TLS.Certificate[1])}
		c := &Certificate{chain: chain, key: bytes.Clone(block.Bytes), notAfter: l.Cert.NotAfter.Unix()}
		name := fmt.Sprintf("host-%d.customers.example.com", i)
		c.names = []string{name}
		entries[i] = Entry{ID: name, Names: c.names, Certificate: c}
	}
	s := newStore(t, Options{})
	began := time.Now()
	if err := s.Replace("x", entries); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	clear(entries)
	entries = nil
	per := (heap() - before) / n
	t.Logf("%d bytes a host, of which %d are the certificate and %d the key; replaced in %v", per, len(l.Cert.Raw), len(block.Bytes), took)
	if most := uint64(len(l.Cert.Raw) + len(block.Bytes) + 800); per > most {
		t.Errorf("%d bytes a host, want at most %d", per, most)
	}
	if c, found := s.Lookup("host-77777.customers.example.com"); c == nil || !found {
		t.Error("a host is missing")
	}
	runtime.KeepAlive(s)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestLookupAllocations(t *testing.T) {
	ca := certstest.NewAuthority(t, "root")
	s := newStore(t, Options{})
	if err := s.Replace("x", []Entry{
		{ID: "a", Certificate: parse(t, ca.Issue(t, "a.example"))}, {ID: "b", Certificate: parse(t, ca.Issue(t, "*.b.example"))},
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.example", "x.b.example"} {
		hello := &tls.ClientHelloInfo{ServerName: name}
		if n := testing.AllocsPerRun(100, func() {
			if c, err := s.GetCertificate(hello); c == nil || err != nil {
				t.Fatal(c, err)
			}
		}); n != 0 {
			t.Errorf("%q: %v allocations", name, n)
		}
	}
}

// TestReady bounds what is kept ready, and keeps what is used.
func TestReady(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	s := newStore(t, Options{MaxReady: 3})
	var all []Entry
	for i := range 10 {
		all = append(all, Entry{ID: fmt.Sprint(i), Certificate: parse(t, ca.Issue(t, fmt.Sprint(i, ".example")))})
	}
	if err := s.Replace("x", all); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		for _, j := range []int{i, 0} {
			if c, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: fmt.Sprint(j, ".example")}); c == nil || err != nil {
				t.Fatal(c, err)
			}
		}
	}
	ready := 0
	for _, e := range all {
		if e.Certificate.ready.Load() != nil {
			ready++
		}
	}
	if ready > 3 || all[0].Certificate.ready.Load() == nil {
		t.Errorf("%d are ready; the first: %t", ready, all[0].Certificate.ready.Load() != nil)
	}
}

// TestConcurrent changes the store under handshakes.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root").NewAuthority(t, "between")
	s := newStore(t, Options{MaxReady: 1})
	one, two := parse(t, ca.Issue(t, "a.example")), parse(t, ca.Issue(t, "a.example"))
	put := func(c *Certificate) {
		if err := s.Replace("x", []Entry{{ID: "a", Certificate: c}, {ID: "b", Certificate: c, Names: []string{"*.b.example"}}}); err != nil {
			t.Error(err)
		}
	}
	put(one)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 200 {
				if c, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.example"}); c == nil || err != nil {
					t.Errorf("%v, %v", c, err)
				}
			}
		})
	}
	for i := range 200 {
		put([]*Certificate{one, two}[i%2])
	}
	wg.Wait()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	registry := prometheus.NewRegistry()
	s := newStore(t, Options{Registerer: registry})
	when := time.Now().Add(30 * time.Minute).Truncate(time.Second)
	if err := s.Replace("x", []Entry{
		{ID: "a", Certificate: parse(t, ca.Issue(t, "a.example"))},
		{ID: "b", Certificate: parse(t, ca.IssueAs(t, certstest.Request{Names: []string{"b.example"}, NotAfter: when}))},
	}); err != nil {
		t.Fatal(err)
	}
	_, _ = shown(t, s, &tls.Config{ServerName: "a.example"})
	_, _ = shown(t, s, &tls.Config{ServerName: "c.example"})
	want := fmt.Sprintf(`
		# HELP hansa_tls_certificate_entries Certificates that the gateway holds, by source.
		# TYPE hansa_tls_certificate_entries gauge
		hansa_tls_certificate_entries{source="x"} 2
		# HELP hansa_tls_certificate_expiry_timestamp_seconds When the first of the certificates of a source expires, in Unix time.
		# TYPE hansa_tls_certificate_expiry_timestamp_seconds gauge
		hansa_tls_certificate_expiry_timestamp_seconds{source="x"} %d
		# HELP hansa_tls_certificate_lookups_total Handshakes by the certificate that was chosen: one for the name, the default one, or none.
		# TYPE hansa_tls_certificate_lookups_total counter
		hansa_tls_certificate_lookups_total{result="default"} 0
		hansa_tls_certificate_lookups_total{result="found"} 1
		hansa_tls_certificate_lookups_total{result="none"} 1
	`, when.Unix())
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "hansa_tls_certificate_entries",
		"hansa_tls_certificate_expiry_timestamp_seconds", "hansa_tls_certificate_lookups_total"); err != nil {
		t.Error(err)
	}
}

func old(t *testing.T, l *certstest.Leaf) []byte {
	t.Helper()
	block, _ := pem.Decode(l.KeyPEM)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return oldPEM(t, key)
}
