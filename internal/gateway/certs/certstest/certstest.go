// Package certstest makes certificates for tests: a CA of its own and what it signs.
package certstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// Authority is a CA. Make it with NewAuthority, or with the method of that name for one below it.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// PEM is the certificate.
	PEM    []byte
	parent *Authority
}

// NewAuthority returns a root.
func NewAuthority(tb testing.TB, name string) *Authority { return newAuthority(tb, name, nil) }

// NewAuthority returns an intermediate CA.
func (a *Authority) NewAuthority(tb testing.TB, name string) *Authority {
	return newAuthority(tb, name, a)
}

func newAuthority(tb testing.TB, name string, parent *Authority) *Authority {
	tb.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	a := &Authority{Key: newKey(tb, false), parent: parent}
	der := sign(tb, template, a.Key, parent)
	var err error
	if a.Cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	a.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

// Pool returns a pool with this CA alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Cert)
	return p
}

// Request is what a certificate is to be like.
type Request struct {
	// Name is the common name. Default: none.
	Name string
	// Names are DNS names and IP addresses.
	Names []string
	// NotAfter is when it expires. Default: in an hour.
	NotAfter time.Time
	// RSA asks for an RSA key instead of one on P-256.
	RSA bool
	// Change, if not nil, changes the certificate before it is signed.
	Change func(*x509.Certificate)
}

// Leaf is a certificate for a server or a client.
type Leaf struct {
	Cert *x509.Certificate
	TLS  tls.Certificate
	// CertPEM is the certificate and the CAs between it and the root; KeyPEM the key in PKCS #8.
	CertPEM, KeyPEM []byte
}

// Issue returns a certificate for names.
func (a *Authority) Issue(tb testing.TB, names ...string) *Leaf {
	tb.Helper()
	return a.IssueAs(tb, Request{Names: names})
}

// IssueAs returns a certificate.
func (a *Authority) IssueAs(tb testing.TB, r Request) *Leaf {
	tb.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: r.Name}, NotAfter: r.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range r.Names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	if r.Change != nil {
		r.Change(template)
	}
	key := newKey(tb, r.RSA)
	der := sign(tb, template, key, a)
	l := &Leaf{TLS: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
	l.CertPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for ca := a; ca.parent != nil; ca = ca.parent {
		l.TLS.Certificate = append(l.TLS.Certificate, ca.Cert.Raw)
		l.CertPEM = append(l.CertPEM, ca.PEM...)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	l.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	if l.Cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	l.TLS.Leaf = l.Cert
	return l
}

// List returns a list of revoked certificates in PEM, which holds for an hour.
func (a *Authority) List(tb testing.TB, revoked ...*x509.Certificate) string {
	tb.Helper()
	return a.ListAs(tb, x509.RevocationList{}, revoked...)
}

// ListAs returns a list that is like template. What that leaves open is that of List.
func (a *Authority) ListAs(tb testing.TB, template x509.RevocationList, revoked ...*x509.Certificate) string {
	tb.Helper()
	for _, c := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: c.SerialNumber, RevocationTime: time.Now(),
		})
	}
	if template.Number == nil {
		template.Number = big.NewInt(1)
	}
	if template.NextUpdate.IsZero() {
		template.NextUpdate = time.Now().Add(time.Hour)
	}
	template.ThisUpdate = template.NextUpdate.Add(-2 * time.Hour)
	der, err := x509.CreateRevocationList(rand.Reader, &template, a.Cert, a.Key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func newKey(tb testing.TB, useRSA bool) crypto.Signer {
	tb.Helper()
	if useRSA {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			tb.Fatal(err)
		}
		return k
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// sign signs with the parent's key, or, without one, with the certificate's own.
func sign(tb testing.TB, template *x509.Certificate, key crypto.Signer, parent *Authority) []byte {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.Cert, parent.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}
