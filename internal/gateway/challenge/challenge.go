// Package challenge answers CAs that validate a hostname by ACME: over HTTP (RFC 8555, section 8.3) and in the handshake of
// TLS (RFC 8737). It answers what the configuration says, for the hostname that it says it of, and nothing else: whatever
// it has no answer to is a request like any other.
//
// A [Set] never changes and may be used by any goroutine. Package gateway makes one of each configuration.
package challenge

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// Prefix is where CAs look for the answer over HTTP; the token follows.
const Prefix = "/.well-known/acme-challenge/"

// Set is what a gateway answers.
type Set struct {
	http map[string]answer           // by token
	tls  map[string]*tls.Certificate // by hostname
}

type answer struct{ hostname, authorization []byte }

// New makes a Set. It returns nil, which answers nothing, if there is nothing to answer. A challenge of another type than it
// knows, or one that no CA could have given out, is passed over.
func New(all []snapshot.Challenges) (*Set, error) {
	s := &Set{http: map[string]answer{}, tls: map[string]*tls.Certificate{}}
	for _, c := range all {
		for _, ch := range c.Challenges {
			if !wellFormed(ch.Token, "") || !wellFormed(ch.KeyAuthorization, ".") {
				continue
			}
			switch ch.Type {
			case snapshot.ChallengeHTTP:
				s.http[ch.Token] = answer{[]byte(ch.Hostname), []byte(ch.KeyAuthorization)}
			case snapshot.ChallengeTLSALPN:
				cert, err := certificate(ch)
				if err != nil {
					return nil, fmt.Errorf("challenge for %q: %w", ch.Hostname, err)
				}
				s.tls[strings.ToLower(ch.Hostname)] = cert
			}
		}
	}
	if len(s.http)+len(s.tls) == 0 {
		return nil, nil
	}
	return s, nil
}

// wellFormed tells whether s is base64url without padding, but for further characters.
func wellFormed(s, further string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return s != "" && strings.Trim(s, alphabet+further) == ""
}

// Answer answers x if it is a CA's request for an answer that s has, and tells whether it is.
func (s *Set) Answer(x *exchange.Exchange) bool {
	if s == nil || len(x.Path) <= len(Prefix) || string(x.Path[:len(Prefix)]) != Prefix {
		return false
	}
	if m := string(x.Method); m != "GET" && m != "HEAD" {
		return false
	}
	a, ok := s.http[string(x.Path[len(Prefix):])]
	if !ok || !bytes.EqualFold(a.hostname, x.Host) {
		return false
	}
	x.Own.AddString(exchange.IDContentType.Name(), "application/octet-stream")
	x.Own.AddString(exchange.IDCacheControl.Name(), "no-store")
	x.Answer(200, a.authorization)
	return true
}

// Certificate returns what a CA is shown that asks for the hostname, in lower case, with the protocol acme-tls/1.
func (s *Set) Certificate(hostname string) (*tls.Certificate, error) {
	if s != nil {
		if cert := s.tls[hostname]; cert != nil {
			return cert, nil
		}
	}
	return nil, fmt.Errorf("no CA validates %q here at present", hostname)
}

// certificate makes the certificate of RFC 8737, section 3: signed by itself, with a digest of the key authorization in a
// critical extension.
func certificate(ch snapshot.Challenge) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(ch.KeyAuthorization))
	value, err := asn1.Marshal(digest[:])
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ACME challenge"}, DNSNames: []string{ch.Hostname},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(30 * 24 * time.Hour), // for clocks that are wrong; nobody trusts it
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}, Critical: true, Value: value}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
