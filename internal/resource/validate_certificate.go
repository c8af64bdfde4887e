package resource

import (
	"crypto/x509"
	"fmt"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/x/certpem"
)

const (
	maxChainBytes = 256 << 10
	maxKeyBytes   = 64 << 10
)

// certificate checks a certificate and its key. Faults never hold anything of the key.
func (c *checker) certificate(s *v1.CertificateSpec) {
	if s.ACME != nil {
		c.acme(s)
		return
	}
	chain := c.chain(s.Certificate)
	c.hostnames(s, chain)
	if s.PrivateKey != "" {
		c.privateKey(s.PrivateKey, chain)
	}
}

func (c *checker) chain(text string) []*x509.Certificate {
	const path = "spec.certificate"
	if strings.TrimSpace(text) == "" {
		c.fault(path, CodeRequired, "", "there is no certificate", "paste the certificate in PEM, name a file in certificateFile, or have a CA issue it with acme")
		return nil
	}
	if len(text) > maxChainBytes {
		c.fault(path, CodeOutOfRange, "", fmt.Sprintf("it has %d bytes and may have %d", len(text), maxChainBytes), "leave out the certificates that are not needed")
		return nil
	}
	if strings.Contains(text, "PRIVATE KEY-----") {
		c.fault(path, CodeInvalid, "", "there is a private key among the certificates", "put the key into spec.privateKey, where it is kept secret")
		return nil
	}
	chain, err := certpem.ParseChain(text)
	if err != nil {
		c.fault(path, CodeInvalid, "", "the chain is not good: "+err.Error(), "paste PEM: the certificate itself first, then each that has signed the one before")
		return nil
	}
	return chain
}

func (c *checker) hostnames(s *v1.CertificateSpec, chain []*x509.Certificate) {
	if len(s.Hostnames) > maxHostnames {
		c.tooMany("spec.hostnames", len(s.Hostnames), maxHostnames)
	}
	seen := map[string]bool{}
	for i, h := range s.Hostnames {
		path := index("spec.hostnames", i)
		fault, remedy := hostnameFault(h)
		if h == "*" {
			fault, remedy = "a certificate is for names", "write the names that it covers"
		}
		switch {
		case fault != "":
			c.fault(path, CodeInvalid, h, fmt.Sprintf("%q is not a hostname: %s", shorten(h), fault), remedy)
		case seen[h]:
			c.duplicate(path, h)
		case len(chain) > 0 && !certpem.Covers(certpem.Names(chain[0]), h):
			c.fault(path, CodeInvalid, h, fmt.Sprintf("the certificate does not cover %q; it is for %s", h, listed(certpem.Names(chain[0]))),
				"take the name out, or have a certificate issued that covers it")
		}
		seen[h] = true
	}
}

func listed(names []string) string {
	if len(names) == 0 {
		return "no DNS name"
	}
	return shorten(joinWords(names))
}

func (c *checker) privateKey(text string, chain []*x509.Certificate) {
	const path = "spec.privateKey"
	if len(text) > maxKeyBytes {
		c.fault(path, CodeOutOfRange, "", fmt.Sprintf("it has %d bytes and may have %d", len(text), maxKeyBytes), "paste the key alone")
		return
	}
	key, err := certpem.ParseKey(text)
	if err != nil {
		c.fault(path, CodeInvalid, "", "the private key is not good: "+err.Error(), "paste an unencrypted key in PEM: RSA of 2048 bits or more, ECDSA or Ed25519")
		return
	}
	if len(chain) > 0 && !certpem.Belongs(key, chain[0]) {
		c.fault(path, CodeInvalid, "", "the private key is not the one of the certificate", "paste the key that the certificate was requested with; the certificate itself must be the first of the chain")
	}
}
