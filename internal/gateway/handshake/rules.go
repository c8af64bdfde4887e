package handshake

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/certpem"
	"hansa.dev/hansa/internal/x/crl"
	"hansa.dev/hansa/internal/x/tlsnames"
)

// Mode says what is asked of clients.
type Mode uint8

// The modes.
const (
	// None asks for no certificate.
	None Mode = iota
	// Optional asks for one and takes clients without. One that is shown must be good.
	Optional
	// Required takes requests only from clients with a good one.
	Required
)

// Forward says what backends are told about the certificate of the client (RFC 9440).
type Forward uint8

// What can be forwarded.
const (
	// ForwardNothing tells nothing.
	ForwardNothing Forward = iota
	// ForwardCertificate sends the certificate in Client-Cert.
	ForwardCertificate
	// ForwardChain sends in Client-Cert-Chain also those between it and the root.
	ForwardChain
)

// defaultDepth is how many certificates may stand between that of a client and the root.
const defaultDepth = 4

// Rule is what holds for a set of hostnames. It never changes. Make it with NewRule.
type Rule struct {
	// Name tells the rule from others: two that have the same are the same one at different times.
	Name string

	minVersion uint16 // 0: that of the listener
	mode       Mode
	forward    Forward
	depth      int
	told       *told // nil: certificates that proxies tell of do not count
	roots      *x509.CertPool
	revoked    *crl.Lists // nil: nobody is looked up
	digest     [16]byte   // of everything that a session depends on

	config atomic.Pointer[ruleConfig] // made when it is first used
}

// ruleConfig is the configuration of a rule for one server.
type ruleConfig struct {
	server *Server
	config *tls.Config
}

// NewRule makes a rule of what a configuration says about the hostnames of an environment group.
func NewRule(name string, content *snapshot.HostTLS) (*Rule, error) {
	r := &Rule{Name: name, depth: defaultDepth}
	var err error
	if r.minVersion, err = tlsnames.Version(content.MinVersion); err != nil {
		return nil, fmt.Errorf("minVersion: %w", err)
	}
	switch content.ClientCertificate {
	case "", "none":
	case "optional":
		r.mode = Optional
	case "required":
		r.mode = Required
	default:
		return nil, fmt.Errorf("clientCertificate.mode: %q is not known", content.ClientCertificate)
	}
	switch content.ForwardClient {
	case "", "none":
	case "certificate":
		r.forward = ForwardCertificate
	case "chain":
		r.forward = ForwardChain
	default:
		return nil, fmt.Errorf("clientCertificate.forward: %q is not known", content.ForwardClient)
	}
	if content.ClientDepth > 0 {
		r.depth = content.ClientDepth
	}
	if content.ClientFromProxies && r.mode != None {
		r.told = new(told)
	}
	if r.mode != None {
		if err := r.trust(content.ClientCA, content.ClientCRL); err != nil {
			return nil, err
		}
	}
	r.digest = digest(name, content)
	return r, nil
}

// trust sets who is believed to sign certificates of clients, and what of that they have taken back.
func (r *Rule) trust(cas, lists string) error {
	authorities, err := certpem.ParseAll(cas)
	if err != nil {
		return fmt.Errorf("clientCertificate.ca: certificate %d: %w", len(authorities)+1, err)
	}
	if lists != "" {
		var faults []error
		if r.revoked, faults = crl.Parse(lists, authorities); faults != nil {
			return fmt.Errorf("clientCertificate.crl: %w", errors.Join(faults...))
		}
	}
	r.roots = x509.NewCertPool()
	for _, ca := range authorities {
		if !r.disowned(ca, authorities) {
			r.roots.AddCert(ca)
		}
	}
	return nil
}

// disowned tells whether a CA that is to be trusted is on the list of another one, which has signed it.
func (r *Rule) disowned(ca *x509.Certificate, authorities []*x509.Certificate) bool {
	return slices.ContainsFunc(authorities, func(issuer *x509.Certificate) bool {
		status, _ := r.revoked.Status(ca.SerialNumber, issuer, time.Time{})
		return status == crl.Revoked && ca.CheckSignatureFrom(issuer) == nil
	})
}

// RevocationsUntil returns when the first list of revoked certificates expires, whose CA's clients are refused from then
// on; the zero time if there is none.
func (r *Rule) RevocationsUntil() time.Time { return r.revoked.Until() }

// digest names what a session depends on, so that another gateway comes to the same.
func digest(name string, content *snapshot.HostTLS) (d [16]byte) {
	h := sha256.New()
	for _, part := range []string{name, content.MinVersion, content.ClientCertificate, content.ClientCA} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	copy(d[:], h.Sum(nil))
	return d
}
