package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Certificate is a chain of certificates with the private key of the first, as compact as it can be kept. It never
// changes but for its staple. Make it with Parse.
type Certificate struct {
	chain     [][]byte // DER; the certificate itself first
	key       []byte   // PKCS #8
	names     []string // DNS names of the certificate, in lower case
	notBefore int64    // seconds of Unix time
	notAfter  int64

	ready  atomic.Pointer[tls.Certificate] // what handshakes use; nil until it is needed
	used   atomic.Bool                     // since the hand of the store's clock passed by
	staple atomic.Pointer[[]byte]          // nil: none
}

// maxChain bounds the number of certificates in a chain.
const maxChain = 10

// Parse reads a chain and a key in PEM. The certificate itself must come first, and the others, if there are any, in the
// order in which each has signed the one before. The key may be PKCS #8, PKCS #1 or SEC 1, and must be the certificate's:
// RSA of at least 2048 bits, ECDSA or Ed25519.
func Parse(chainPEM, keyPEM []byte) (*Certificate, error) {
	var chain [][]byte
	for rest := chainPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	for rest := keyPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("there is no private key in PEM")
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			return ParseDER(chain, block.Bytes)
		}
	}
}

// ParseDER does what Parse does for a chain and a key in DER. It keeps both.
func ParseDER(chain [][]byte, key []byte) (*Certificate, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("the chain has %d certificates and may have 1 to %d", len(chain), maxChain)
	}
	leaf, err := checkChain(chain)
	if err != nil {
		return nil, err
	}
	signer, key, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("the private key is not the one of the certificate")
	}
	c := &Certificate{chain: chain, key: key, notBefore: leaf.NotBefore.Unix(), notAfter: leaf.NotAfter.Unix()}
	for _, n := range leaf.DNSNames {
		c.names = append(c.names, strings.ToLower(n))
	}
	slices.Sort(c.names)
	c.names = slices.Clip(slices.Compact(c.names))
	return c, nil
}

// checkChain parses every certificate and tells whether each has signed the one before.
func checkChain(chain [][]byte) (leaf *x509.Certificate, err error) {
	var last *x509.Certificate
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
		if i == 0 {
			leaf = cert
		} else if !bytes.Equal(last.RawIssuer, cert.RawSubject) {
			return nil, fmt.Errorf("certificate %d of the chain, %q, is not the issuer of the one before it; put the chain in order", i+1, cert.Subject)
		}
		last = cert
	}
	return leaf, nil
}

const minRSABits = 2048

// parseKey returns the key and its encoding in PKCS #8.
func parseKey(der []byte) (crypto.Signer, []byte, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if k, errOld := x509.ParseECPrivateKey(der); errOld == nil {
			key = k
		} else if k, errOld := x509.ParsePKCS1PrivateKey(der); errOld == nil {
			key = k
		} else {
			return nil, nil, errors.New("the private key cannot be read; it may be encrypted") // err could quote it
		}
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return nil, nil, fmt.Errorf("encode the private key: %w", err)
		}
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		return k, der, nil
	case ed25519.PrivateKey:
		return k, der, nil
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSABits {
			return nil, nil, fmt.Errorf("the RSA key has %d bits and needs %d", k.N.BitLen(), minRSABits)
		}
		return k, der, nil
	}
	return nil, nil, fmt.Errorf("keys of the type %T are not supported; use ECDSA, RSA or Ed25519", key)
}

// Names returns the DNS names of the certificate, in lower case. The caller must not change them.
func (c *Certificate) Names() []string { return c.names }

// NotAfter returns when the certificate expires.
func (c *Certificate) NotAfter() time.Time { return time.Unix(c.notAfter, 0) }

// NotBefore returns when the certificate begins to be valid.
func (c *Certificate) NotBefore() time.Time { return time.Unix(c.notBefore, 0) }

// same tells whether two certificates have the same chain and key.
func (c *Certificate) same(o *Certificate) bool {
	return bytes.Equal(c.key, o.key) && slices.EqualFunc(c.chain, o.chain, bytes.Equal)
}

// Leaf parses the certificate.
func (c *Certificate) Leaf() (*x509.Certificate, error) { return x509.ParseCertificate(c.chain[0]) }

// Issuer parses the certificate that signed it; nil if the chain does not hold it.
func (c *Certificate) Issuer() (*x509.Certificate, error) {
	if len(c.chain) < 2 {
		return nil, nil
	}
	return x509.ParseCertificate(c.chain[1])
}

// TLS returns the certificate as handshakes use it. It must not be changed. fresh tells that it had to be made.
func (c *Certificate) TLS() (_ *tls.Certificate, fresh bool, _ error) {
	if t := c.ready.Load(); t != nil {
		return t, false, nil
	}
	signer, _, err := parseKey(c.key)
	if err != nil {
		return nil, false, err
	}
	t := &tls.Certificate{Certificate: c.chain, PrivateKey: signer}
	if s := c.staple.Load(); s != nil {
		t.OCSPStaple = *s
	}
	c.ready.Store(t)
	return t, true, nil
}

// setStaple makes handshakes staple an OCSP response; nil takes it away. It must not be called by two goroutines at once.
func (c *Certificate) setStaple(response []byte) {
	if response == nil {
		c.staple.Store(nil)
	} else {
		c.staple.Store(&response)
	}
	if old := c.ready.Load(); old != nil {
		t := *old
		t.OCSPStaple = response
		c.ready.CompareAndSwap(old, &t)
	}
}
