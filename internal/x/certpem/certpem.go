// Package certpem reads certificate chains and private keys in PEM as people write them, and says what is wrong with
// them without showing anything of a key. It does no I/O and is safe for concurrent use. It is used by resource, control,
// bundle/build, acme and gateway/handshake.
package certpem

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxChain is how many certificates a chain may have.
const MaxChain = 10

// minRSABits is the least size of an RSA key that is taken (NIST SP 800-57 part 1, since 2014).
const minRSABits = 2048

// ParseAll reads certificates that need not belong together, such as those of CAs to trust. With an error it returns those before
// the one that is wrong.
func ParseAll(text string) (all []*x509.Certificate, err error) {
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return all, fmt.Errorf("it is a %s", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return all, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 || len(bytes.TrimSpace(rest)) > 0 {
		return all, errors.New("there is other text")
	}
	return all, nil
}

// ParseChain reads a chain: the certificate itself first, then those that lead to the root, each having signed the one
// before. Every error names the certificate by its place, from 1.
func ParseChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, errors.New("there is text that is not PEM")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is a %s, not a CERTIFICATE", len(chain)+1, block.Type)
		}
		if len(chain) == MaxChain {
			return nil, fmt.Errorf("there are more than %d certificates", MaxChain)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(chain)+1, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	for i, cert := range chain[1:] {
		if !bytes.Equal(chain[i].RawIssuer, cert.RawSubject) {
			return nil, fmt.Errorf("certificate %d (%q) is not the issuer of the one before it, which is %q", i+2, cert.Subject, chain[i].Issuer)
		}
		if err := chain[i].CheckSignatureFrom(cert); err != nil {
			return nil, fmt.Errorf("certificate %d (%q) has not signed the one before it", i+2, cert.Subject)
		}
	}
	return chain, nil
}

// ParseKey reads a private key in PKCS #8, PKCS #1 or SEC 1. Errors hold nothing of it.
func ParseKey(text string) (crypto.Signer, error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("there is no private key in PEM")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key is encrypted with a passphrase: decrypt it first")
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return parseKey(block.Bytes)
		}
		if block.Type != "EC PARAMETERS" { // which openssl ecparam writes before the key
			return nil, errors.New("there is something else than a private key")
		}
	}
}

func parseKey(der []byte) (crypto.Signer, error) {
	var key any
	var err error
	if key, err = x509.ParsePKCS8PrivateKey(der); err != nil {
		if key, err = x509.ParseECPrivateKey(der); err != nil {
			if key, err = x509.ParsePKCS1PrivateKey(der); err != nil {
				return nil, errors.New("the key cannot be read") // err could tell of it
			}
		}
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("the RSA key has %d bits and needs %d", k.N.BitLen(), minRSABits)
		}
		return k, nil
	}
	return nil, fmt.Errorf("keys of the type %T are not supported: use ECDSA, RSA or Ed25519", key)
}

// Belongs tells whether a private key is the one of a certificate.
func Belongs(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// Fingerprint returns the SHA-256 of the public key of a certificate (SubjectPublicKeyInfo), in lower-case hexadecimal.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Names returns the DNS names of a certificate, in lower case, each once, in order.
func Names(cert *x509.Certificate) []string {
	names := make([]string, len(cert.DNSNames))
	for i, n := range cert.DNSNames {
		names[i] = strings.ToLower(n)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Covers tells whether names of a certificate cover a hostname, which may be a wildcard itself. "*" stands for one label
// (RFC 6125, section 6.4.3).
func Covers(names []string, hostname string) bool {
	hostname = strings.ToLower(hostname)
	if slices.Contains(names, hostname) {
		return true
	}
	_, parent, ok := strings.Cut(hostname, ".")
	return ok && !strings.HasPrefix(hostname, "*.") && slices.Contains(names, "*."+parent)
}
