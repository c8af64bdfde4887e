package resource

import (
	"crypto/x509"
	"fmt"
	"net/url"
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
	switch {
	case s.ACME != nil && (s.Certificate != "" || s.PrivateKey != ""):
		c.fault("spec.acme", CodeInvalid, "", "a certificate is either given or issued by ACME", "remove spec.acme, or spec.certificate and spec.privateKey")
	case s.ACME == nil && s.Certificate == "":
		c.fault("spec.certificate", CodeRequired, "", "there is no certificate", "paste the certificate in PEM, name a file in certificateFile, or have it issued with spec.acme")
	}
	var chain []*x509.Certificate
	if s.Certificate != "" {
		chain = c.chain(s.Certificate)
	}
	c.hostnames(s, chain)
	if s.PrivateKey != "" {
		c.privateKey(s.PrivateKey, chain)
	}
	if s.ACME != nil {
		c.acme(s)
	}
}

func (c *checker) chain(text string) []*x509.Certificate {
	const path = "spec.certificate"
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

func (c *checker) acme(s *v1.CertificateSpec) {
	a := s.ACME
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		c.fault("spec.acme.directory", CodeInvalid, a.Directory, "it is not the URL of a directory", "write such as https://acme-v02.api.letsencrypt.org/directory")
	}
	if a.Email != "" && (!strings.Contains(a.Email, "@") || strings.ContainsAny(a.Email, " ,<>\r\n")) {
		c.fault("spec.acme.email", CodeInvalid, a.Email, "it is not a mail address", "write one, such as ops@example.com, or leave it out")
	}
	c.short("spec.acme.email", a.Email)
	c.enum("spec.acme.challenge", "ACME.challenge", a.Challenge)
	c.authorities("spec.acme.ca", a.CA)
	if len(s.Hostnames) == 0 {
		c.fault("spec.hostnames", CodeRequired, "", "there is no hostname to have a certificate issued for", "write the hostnames")
	}
	for i, h := range s.Hostnames {
		if strings.HasPrefix(h, "*.") {
			c.fault(index("spec.hostnames", i), CodeInvalid, h, "a wildcard cannot be shown to be served here", "write the names one by one, or give a certificate")
		}
	}
}
