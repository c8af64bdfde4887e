package resource

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/x/certpem"
	"hansa.dev/hansa/internal/x/crl"
	"hansa.dev/hansa/internal/x/tlsnames"
)

// maxDepth bounds how many certificates may stand between a client's and its CA.
const maxDepth = 9

// hostTLS checks what is asked of the connections to hostnames.
func (c *checker) hostTLS(t *v1.HostTLS) {
	c.enum("spec.tls.minVersion", "HostTLS.minVersion", t.MinVersion)
	cert := t.ClientCertificate
	if cert == nil {
		return
	}
	const path = "spec.tls.clientCertificate"
	c.enum(path+".mode", "ClientCertificate.mode", cert.Mode)
	c.enum(path+".forward", "ClientCertificate.forward", cert.Forward)
	switch {
	case cert.Mode == "":
		c.fault(path+".mode", CodeRequired, "", "it must be said whether a certificate is needed", "write none, optional or required")
	case cert.Mode != "none" && cert.CA == "":
		c.fault(path+".ca", CodeRequired, "", "without a CA no certificate of a client can be verified", "paste the certificates of the CAs that sign the clients' certificates")
	}
	if cert.MaxDepth != 0 {
		c.number(path+".maxDepth", int64(cert.MaxDepth), 1, maxDepth)
	}
	c.revocations(path+".crl", cert.CRL, c.authorities(path+".ca", cert.CA))
}

// revocations checks lists of revoked certificates, which the CAs have signed; those are nil where they are at fault
// themselves. Whether a list has expired is not looked at: the record may hold what has expired meanwhile.
func (c *checker) revocations(path, text string, authorities []*x509.Certificate) {
	switch {
	case text == "":
		return
	case len(text) > maxCRL:
		c.fault(path, CodeOutOfRange, "", fmt.Sprintf("it has %d bytes and may have %d", len(text), maxCRL), "have the CA leave out what has expired, or sign with another CA")
		return
	case authorities == nil:
		return
	}
	_, faults := crl.Parse(text, authorities)
	for _, err := range faults {
		c.fault(path, CodeInvalid, "", "the lists of revoked certificates cannot be used: "+err.Error(), "paste the complete list of each CA in PEM (openssl crl -inform DER converts), and the CA itself into ca")
	}
}

// The limits of what is said of TLS to a backend.
const (
	maxSubjectNames = 64
	maxCiphers      = 32
)

// backendTLS checks what is said of TLS to a backend.
func (c *checker) backendTLS(b *v1.BackendSpec) {
	t := b.TLS
	if b.Protocol != "https" {
		c.fault("spec.tls", CodeInvalid, b.Protocol, "it means nothing unless the protocol is https", "write protocol: https, or remove the field")
	}
	if s := t.ServerName; s != "" {
		if fault := hostFault(s); fault != "" {
			c.fault("spec.tls.serverName", CodeInvalid, s, fmt.Sprintf("%q is not a host name: %s", shorten(s), fault), "write the DNS name that the certificate carries")
		}
	}
	c.authorities("spec.tls.ca", t.CA)
	c.enum("spec.tls.minVersion", "BackendTLS.minVersion", t.MinVersion)
	if len(t.SubjectNames) > maxSubjectNames {
		c.tooMany("spec.tls.subjectNames", len(t.SubjectNames), maxSubjectNames)
	}
	for i, name := range t.SubjectNames {
		if fault := subjectNameFault(name); fault != "" {
			c.fault(index("spec.tls.subjectNames", i), CodeInvalid, name, fmt.Sprintf("%q is not a name of a certificate: %s", shorten(name), fault), `write a DNS name, an IP address or a URI such as "spiffe://example.com/catalog"`)
		}
	}
	if len(t.Ciphers) > maxCiphers {
		c.tooMany("spec.tls.ciphers", len(t.Ciphers), maxCiphers)
	}
	for i, name := range t.Ciphers {
		if _, err := tlsnames.Ciphers([]string{name}); err != nil {
			c.fault(index("spec.tls.ciphers", i), CodeInvalid, name, err.Error(), "write the name of a cipher suite of TLS 1.2")
		}
	}
	if t.ClientCertificate != "" {
		c.ref("spec.tls.clientCertificate", t.ClientCertificate)
	}
}

// subjectNameFault tells what is wrong with a name that a certificate is to carry.
func subjectNameFault(name string) string {
	if scheme, rest, ok := strings.Cut(name, "://"); ok {
		if scheme == "" || rest == "" || len(name) > 2048 || strings.ContainsAny(name, " \t\r\n") {
			return "the URI has no scheme, no host, or blanks"
		}
		return ""
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return hostFault(name)
}

// authorities checks certificates of CAs in PEM and returns them; none are fine.
func (c *checker) authorities(path, text string) []*x509.Certificate {
	if text == "" {
		return nil
	}
	if len(text) > maxCA {
		c.fault(path, CodeOutOfRange, "", fmt.Sprintf("it has %d bytes and may have %d", len(text), maxCA), "leave out the certificates that are not needed")
		return nil
	}
	all, err := certpem.ParseAll(text)
	if err != nil {
		c.fault(path, CodeInvalid, "", fmt.Sprintf("certificate %d cannot be read: %v", len(all)+1, err), "paste PEM certificates, with their lines BEGIN and END")
		return nil
	}
	return all
}
