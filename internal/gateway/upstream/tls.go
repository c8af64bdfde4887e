package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/tlsnames"
)

// Certificates returns the certificate of that name, with its key, as it is now. It is asked for every connection that is
// made, so that a certificate may be replaced at any time. An error means that no connection can be made.
type Certificates func(organization, name string) (*tls.Certificate, error)

// sameTLS tells whether two contents say the same of TLS, so that connections that exist are still as they should be.
func sameTLS(a, b *snapshot.Backend) bool {
	return a.TLS == b.TLS && a.ServerName == b.ServerName && a.CA == b.CA && reflect.DeepEqual(a.TLSRules, b.TLSRules)
}

// tlsConfig makes what connections to the endpoints of a backend are made with.
func tlsConfig(content *snapshot.Backend, certificates Certificates) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         content.ServerName, // empty: the endpoint's host, set where the connection is made
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
		NextProtos:         []string{"http/1.1"},
		// One record for each write: what is written together belongs together.
		DynamicRecordSizingDisabled: true,
	}
	if content.CA != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(content.CA)) {
			return nil, errors.New("tls.ca holds no PEM certificate")
		}
	}
	rules := content.TLSRules
	if rules == nil {
		return cfg, nil
	}
	version, err := tlsnames.Version(rules.MinVersion)
	if err != nil {
		return nil, fmt.Errorf("tls.minVersion: %w", err)
	}
	cfg.MinVersion = max(cfg.MinVersion, version)
	if cfg.CipherSuites, err = tlsnames.Ciphers(rules.Ciphers); err != nil {
		return nil, fmt.Errorf("tls.ciphers: %w", err)
	}
	if len(rules.SubjectNames) > 0 {
		cfg.InsecureSkipVerify = true // VerifyConnection does it, and not by ServerName
		cfg.VerifyConnection = verifyNames(cfg.RootCAs, slices.Clone(rules.SubjectNames))
	}
	if name := rules.ClientCertificate; name != "" {
		organization := content.Organization
		cfg.ClientSessionCache = nil // a session would go on with the certificate that it began with
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if certificates == nil {
				return nil, fmt.Errorf("there is no certificate %q", name)
			}
			return certificates(organization, name)
		}
	}
	return cfg, nil
}

var errNames = errors.New("the certificate of the backend carries none of the names in tls.subjectNames")

// verifyNames verifies the chain of the backend's certificate, and that it carries one of the names. It is called for
// sessions that are resumed, too.
func verifyNames(roots *x509.CertPool, names []string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the backend has shown no certificate")
		}
		leaf := state.PeerCertificates[0]
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		if !slices.ContainsFunc(names, func(name string) bool { return carries(leaf, name) }) {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: errNames}
		}
		return nil
	}
}

// carries tells whether a certificate carries a name.
func carries(c *x509.Certificate, name string) bool {
	if strings.Contains(name, "://") {
		return slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == name })
	}
	return c.VerifyHostname(name) == nil
}
