package resource

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/mail"
	"net/url"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

const (
	defaultDirectory = "https://acme-v02.api.letsencrypt.org/directory"
	defaultChallenge = "http-01"
	defaultKeyType   = "ecdsa-p256"

	// maxACMEHostnames is what Let's Encrypt takes in one order, and others too.
	maxACMEHostnames = 100
	maxDirectory     = 2048
)

func defaultACME(a *v1.ACME) {
	if a == nil {
		return
	}
	or(&a.Directory, defaultDirectory)
	or(&a.Challenge, defaultChallenge)
	or(&a.KeyType, defaultKeyType)
}

// acme checks a certificate that a CA issues. Faults never hold anything of the key of the external account.
func (c *checker) acme(s *v1.CertificateSpec) {
	const path = "spec.acme"
	for _, field := range []struct{ path, value string }{{"spec.certificate", s.Certificate}, {"spec.privateKey", s.PrivateKey}} {
		if field.value != "" {
			c.fault(field.path, CodeInvalid, "", "a certificate that a CA issues by acme cannot stand here as well", "keep one of the two")
		}
	}
	c.hostnames(s, nil)
	switch {
	case len(s.Hostnames) == 0:
		c.fault("spec.hostnames", CodeRequired, "", "a CA must be told the names", "write the hostnames that the certificate is to be for")
	case len(s.Hostnames) > maxACMEHostnames:
		c.tooMany("spec.hostnames", len(s.Hostnames), maxACMEHostnames)
	}
	for i, h := range s.Hostnames {
		if strings.HasPrefix(h, "*.") {
			c.fault(index("spec.hostnames", i), CodeInvalid, h, fmt.Sprintf("no CA issues a certificate for %q by a challenge that gateways can answer", shorten(h)),
				"name the hostnames, or have another tool order it and apply what it is given")
		}
	}
	a := s.ACME
	c.directory(path+".directory", a.Directory)
	c.authorities(path+".ca", a.CA)
	if a.Email != "" {
		if address, err := mail.ParseAddress(a.Email); err != nil || address.Address != a.Email || len(a.Email) > maxShortText || strings.ContainsAny(a.Email, ",?&% ") {
			c.fault(path+".email", CodeInvalid, a.Email, fmt.Sprintf("%q is not an address of e-mail", shorten(a.Email)), "write one address, such as ops@example.com")
		}
	}
	c.enum(path+".challenge", "ACME.challenge", a.Challenge)
	c.enum(path+".keyType", "ACME.keyType", a.KeyType)
	c.short(path+".profile", a.Profile)
	if e := a.ExternalAccount; e != nil {
		c.short(path+".externalAccount.keyId", e.KeyID)
		if e.KeyID == "" {
			c.fault(path+".externalAccount.keyId", CodeRequired, "", "the key has no name", "write the key identifier that the CA has given out with the key")
		}
		if b, err := base64.RawURLEncoding.DecodeString(e.Key); err != nil || e.Key != "" && len(b) < 16 || len(e.Key) > maxShortText {
			c.fault(path+".externalAccount.key", CodeInvalid, "", "the key is not base64url of 16 bytes or more", "paste the HMAC key as the CA has given it out, without \"=\" at its end")
		}
	}
}

func (c *checker) directory(path, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || len(text) > maxDirectory {
		c.fault(path, CodeInvalid, text, fmt.Sprintf("%q is not the https URL of a directory", shorten(text)), "write the URL that the CA names for ACME, such as "+defaultDirectory)
	}
}

// AccountName returns the name of the ACMEAccount that a certificate is ordered with.
func AccountName(a *v1.ACME) string {
	id := []string{a.Directory, a.Email, ""}
	if a.ExternalAccount != nil {
		id[2] = a.ExternalAccount.KeyID
	}
	return "acme-" + digest(id)[:32]
}

// Asked returns what tells one order of a certificate from another: a digest of what the CA is asked for. It is that of a
// certificate with its defaults; without acme it is empty.
func Asked(s *v1.CertificateSpec) string {
	if s.ACME == nil {
		return ""
	}
	return digest(append([]string{s.ACME.Directory, s.ACME.KeyType, s.ACME.Profile}, slices.Sorted(slices.Values(s.Hostnames))...))
}

func digest(texts []string) string {
	b, _ := json.Marshal(texts) // of a list of strings it cannot fail
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
