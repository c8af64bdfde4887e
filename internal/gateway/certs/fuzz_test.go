package certs

import (
	"testing"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
)

// FuzzParse reads what may stand in files. What is taken can be used.
func FuzzParse(f *testing.F) {
	ca := certstest.NewAuthority(f, "root").NewAuthority(f, "between")
	for _, l := range []*certstest.Leaf{ca.Issue(f, "a.example", "*.b.example"), ca.IssueAs(f, certstest.Request{Name: "x", RSA: true})} {
		f.Add(l.CertPEM, l.KeyPEM)
		f.Add(l.CertPEM[:len(l.CertPEM)/2], l.KeyPEM)
		f.Add(append([]byte("text before\n"), l.CertPEM...), append(l.CertPEM, l.KeyPEM...))
	}
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		c, err := Parse(chain, key)
		if err != nil {
			return
		}
		if cert, _, err := c.TLS(); err != nil || len(cert.Certificate) == 0 || cert.PrivateKey == nil {
			t.Errorf("what was taken cannot be used: %v", err)
		}
		s, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Replace("x", []Entry{{ID: "x", Certificate: c, Default: true}}); err != nil {
			t.Errorf("what was taken has no place: %v", err)
		}
		for _, name := range c.Names() {
			if got, found := s.Lookup(name); validName(name) && name[0] != '*' && (!found || got != c) {
				t.Errorf("it is not found by its name %q", name)
			}
		}
	})
}
