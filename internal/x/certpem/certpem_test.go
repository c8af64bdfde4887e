package certpem_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/internal/x/certpem"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// issue makes a certificate that parent has signed; nil: it signs itself.
func issue(t testing.TB, name string, key *ecdsa.PrivateKey, parent *x509.Certificate, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"B.example.com", "a.example.com", "a.example.com"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestParseChain(t *testing.T) {
	t.Parallel()
	rootKey, leafKey := newKey(t), newKey(t)
	root := issue(t, "root", rootKey, nil, nil)
	impostor := issue(t, "root", newKey(t), nil, nil)
	leaf := issue(t, "leaf", leafKey, root, rootKey)
	l, r, i := block("CERTIFICATE", leaf.Raw), block("CERTIFICATE", root.Raw), block("CERTIFICATE", impostor.Raw)
	for _, tt := range []struct{ name, in, want string }{
		{"alone", l, ""},
		{"chain", l + r, ""},
		{"space around", "\n\n" + l + "\n" + r + "\n \n", ""},
		{"nothing", "", "no certificate"},
		{"text", "certificate", "not PEM"},
		{"text after", l + "more", "not PEM"},
		{"wrong order", r + l, "not the issuer"},
		{"another with the name", l + i, "has not signed"},
		{"key", l + block("PRIVATE KEY", []byte{1}), "PRIVATE KEY"},
		{"garbage", block("CERTIFICATE", []byte{1, 2}), "certificate 1"},
		{"too many", l + strings.Repeat(r, certpem.MaxChain), "more than"},
	} {
		chain, err := certpem.ParseChain(tt.in)
		switch {
		case tt.want == "" && (err != nil || !chain[0].Equal(leaf)):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if got := certpem.Names(leaf); len(got) != 2 || got[0] != "a.example.com" || got[1] != "b.example.com" {
		t.Errorf("Names = %q", got)
	}
	if !certpem.Belongs(leafKey, leaf) || certpem.Belongs(rootKey, leaf) {
		t.Error("Belongs takes another key than the certificate's, or not that one")
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// a key that is too small is what is tested
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	const planted = "planted in the garbage"
	for _, tt := range []struct{ name, in, want string }{
		{"PKCS #8", block("PRIVATE KEY", pkcs8), ""},
		{"SEC 1", block("EC PRIVATE KEY", sec1), ""},
		{"with parameters", block("EC PARAMETERS", []byte{6, 1, 0}) + block("EC PRIVATE KEY", sec1), ""},
		{"nothing", "", "no private key"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", pkcs8), "decrypt it"},
		{"certificate", block("CERTIFICATE", pkcs8), "something else"},
		{"garbage", block("PRIVATE KEY", []byte(planted)), "cannot be read"},
		{"small RSA", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)), "2048"},
	} {
		got, err := certpem.ParseKey(tt.in)
		switch {
		case tt.want == "" && (err != nil || !key.Equal(got)):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if err != nil && bytes.Contains([]byte(err.Error()), []byte(planted)) {
			t.Errorf("%s: the error shows the content", tt.name)
		}
	}
}

func TestCovers(t *testing.T) {
	t.Parallel()
	names := []string{"api.example.com", "*.shop.example.com"}
	for hostname, want := range map[string]bool{
		"api.example.com": true, "API.example.com": true, "a.shop.example.com": true, "*.shop.example.com": true,
		"shop.example.com": false, "a.b.shop.example.com": false, "*.example.com": false, "*.b.shop.example.com": false, "": false,
	} {
		if got := certpem.Covers(names, hostname); got != want {
			t.Errorf("Covers(%q) = %v, want %v", hostname, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	key := newKey(f)
	f.Add(block("CERTIFICATE", issue(f, "x", key, nil, nil).Raw))
	f.Add("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if chain, err := certpem.ParseChain(text); err == nil && (len(chain) == 0 || len(chain) > certpem.MaxChain) {
			t.Errorf("a chain of %d", len(chain))
		}
		if key, err := certpem.ParseKey(text); err == nil && key == nil {
			t.Error("no key and no error")
		}
	})
}

// TestParseAll reads certificates that do not belong together, up to the one that is wrong.
func TestParseAll(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	a, b := block("CERTIFICATE", issue(t, "a", key, nil, key).Raw), block("CERTIFICATE", issue(t, "b", key, nil, key).Raw)
	for _, tt := range []struct {
		text string
		n    int
		bad  bool
	}{
		{a + b, 2, false},
		{a + "\n\n", 1, false},
		{a + block("PRIVATE KEY", []byte("x")) + b, 1, true},
		{a + block("CERTIFICATE", []byte("x")), 1, true},
		{a + "words", 1, true},
		{"", 0, true},
	} {
		if all, err := certpem.ParseAll(tt.text); len(all) != tt.n || (err != nil) != tt.bad {
			t.Errorf("ParseAll(%q) = %d certificates, %v; want %d, an error: %t", tt.text, len(all), err, tt.n, tt.bad)
		}
	}
}
