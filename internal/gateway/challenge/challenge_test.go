package challenge

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

func newSet(t testing.TB, challenges ...snapshot.Challenge) *Set {
	t.Helper()
	s, err := New([]snapshot.Challenges{{Organization: "acme", Certificate: "public", Challenges: challenges}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func overHTTP(hostname, token, authorization string) snapshot.Challenge {
	return snapshot.Challenge{Type: snapshot.ChallengeHTTP, Hostname: hostname, Token: token, KeyAuthorization: authorization}
}

func overTLS(hostname, token, authorization string) snapshot.Challenge {
	return snapshot.Challenge{Type: snapshot.ChallengeTLSALPN, Hostname: hostname, Token: token, KeyAuthorization: authorization}
}

// ask returns the body of the answer; "" if there is none.
func ask(t testing.TB, s *Set, method, host, path string) string {
	t.Helper()
	x := new(exchange.Exchange)
	x.Method, x.Host, x.Path = exchange.View(method), exchange.View(host), exchange.View(path)
	if !s.Answer(x) {
		return ""
	}
	src, _ := x.LocalAnswer()
	b, err := exchange.ReadAll(nil, src, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if x.Status != 200 || string(x.Own.Known(exchange.IDContentType)) != "application/octet-stream" {
		t.Errorf("%s %s: %d %q", method, path, x.Status, x.Own.Known(exchange.IDContentType))
	}
	return string(b)
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	s := newSet(t, overHTTP("a.example", "tok-a", "tok-a.print"), overHTTP("b.example", "tok_b", "tok_b.print"), overTLS("c.example", "tok-c", "tok-c.print"),
		overHTTP("d.example", "../x", "x.y"), overHTTP("d.example", "x", "two\r\nlines"))
	for _, test := range []struct{ method, host, path, want string }{
		{"GET", "a.example", Prefix + "tok-a", "tok-a.print"},
		{"HEAD", "A.Example", Prefix + "tok-a", "tok-a.print"},
		{"GET", "b.example", Prefix + "tok_b", "tok_b.print"},
		{"GET", "b.example", Prefix + "tok-a", ""}, // of another hostname
		{"POST", "a.example", Prefix + "tok-a", ""},
		{"GET", "a.example", Prefix, ""},
		{"GET", "a.example", Prefix + "tok-a/", ""},
		{"GET", "a.example", "/x" + Prefix + "tok-a", ""},
		{"GET", "c.example", Prefix + "tok-c", ""}, // is answered in the handshake alone
		{"GET", "d.example", Prefix + "../x", ""},
		{"GET", "d.example", Prefix + "x", ""},
	} {
		if got := ask(t, s, test.method, test.host, test.path); got != test.want {
			t.Errorf("%s %s%s = %q, want %q", test.method, test.host, test.path, got, test.want)
		}
	}
	if got := ask(t, nil, "GET", "a.example", Prefix+"tok-a"); got != "" {
		t.Errorf("without challenges: %q", got)
	}
	if s := newSet(t); s != nil {
		t.Errorf("of nothing %v is made, want nil", s)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	s := newSet(t, overTLS("C.example", "tok", "tok.print"))
	cert, err := s.Certificate("c.example")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("tok.print"))
	found := false
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" {
			found = e.Critical && bytes.Equal(e.Value, append([]byte{4, 32}, digest[:]...))
		}
	}
	if len(leaf.DNSNames) != 1 || !strings.EqualFold(leaf.DNSNames[0], "c.example") || !found {
		t.Errorf("the certificate is for %q with %v, want c.example and the digest in a critical extension", leaf.DNSNames, leaf.Extensions)
	}
	for _, name := range []string{"a.example", ""} {
		if _, err := s.Certificate(name); err == nil {
			t.Errorf("%q is shown a certificate", name)
		}
	}
}

// TestOthersCostNothing holds the answer to requests that are none of its business to no allocation.
func TestOthersCostNothing(t *testing.T) {
	s := newSet(t, overHTTP("a.example", "tok", "tok.print"))
	x := new(exchange.Exchange)
	x.Method, x.Host = exchange.View("GET"), exchange.View("a.example")
	for _, path := range []string{"/catalog/v1/items/7", Prefix + "other"} {
		x.Path = exchange.View(path)
		if n := testing.AllocsPerRun(100, func() { s.Answer(x) }); n > 0 {
			t.Errorf("%s: %v allocations, want none", path, n)
		}
	}
}

// FuzzAnswer asks for anything: only what the set has is answered, with what it has.
func FuzzAnswer(f *testing.F) {
	f.Add("GET", "a.example", Prefix+"tok", "tok", "tok.print")
	f.Add("HEAD", "A.example", Prefix+"tok/../tok", "tok", "tok.print")
	f.Add("GET", "b.example", Prefix+"t\x00k", "t\x00k", "a\r\nb")
	f.Add("", "", "", "", "")
	f.Fuzz(func(t *testing.T, method, host, path, token, authorization string) {
		s := newSet(t, overHTTP("a.example", token, authorization))
		got := ask(t, s, method, host, path)
		if got == "" {
			return
		}
		if got != authorization || path != Prefix+token || !strings.EqualFold(host, "a.example") || strings.ContainsAny(got, "\r\n<> ") {
			t.Errorf("%s %q%q is answered with %q", method, host, path, got)
		}
	})
}
