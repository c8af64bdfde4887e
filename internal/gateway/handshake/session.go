package handshake

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/x/crl"
)

// Session is what is known of a connection.
type Session struct {
	exchange.TLS
	server  *Server
	rule    *Rule // that the handshake was made under
	chain   []*x509.Certificate
	verdict atomic.Pointer[verdict]
}

// verdict is what a rule says to the certificate of a client.
type verdict struct {
	rule   *Rule
	client *exchange.ClientCert // nil: it was refused
	detail string
	until  time.Time // when the first certificate of the chain expires, or the first list that it was looked up in
}

func (s *Server) newSession(state *tls.ConnectionState, rule *Rule) *Session {
	c := &Session{server: s, rule: rule, chain: state.PeerCertificates}
	c.TLS = exchange.TLS{
		ServerName: normal(state.ServerName), Version: state.Version, CipherSuite: state.CipherSuite, Resumed: state.DidResume, Session: c,
	}
	return c
}

// fields are those that only the gateway may send to backends.
const fields exchange.IDSet = 1<<exchange.IDClientCert | 1<<exchange.IDClientCertChain

// Admit judges a request by the rule of its host; rule is nil if there is none. What the client has sent under the names
// of RFC 9440 is removed, and what the rule wants forwarded is added.
func Admit(x *exchange.Exchange, rule *Rule) exchange.Verdict {
	var v *verdict
	if x.Req.IDs()&fields != 0 {
		if tells(x, rule) {
			v = rule.judgeTold(&x.Req, x.Start)
		}
		x.Req.DelKnown(exchange.IDClientCert)
		x.Req.DelKnown(exchange.IDClientCertChain)
	}
	if x.TLS == nil {
		if v == nil {
			if rule != nil && rule.mode == Required {
				return x.Refuse(exchange.ClientCertificateRequired, "this host is served over TLS alone, to clients with a certificate")
			}
			return exchange.Continue
		}
		return v.apply(x)
	}
	c, ok := x.TLS.Session.(*Session)
	if !ok {
		return x.Refuse(exchange.Internal, "")
	}
	if c.misdirected(x, rule, v != nil) {
		return x.Refuse(exchange.MisdirectedRequest, "the connection was made for another host; open one for this host")
	}
	switch {
	case v != nil: // the certificate of the connection is the proxy's
	case rule == nil || rule.mode == None, len(c.chain) == 0 && rule.mode == Optional:
		return exchange.Continue
	case len(c.chain) == 0:
		return x.Refuse(exchange.ClientCertificateRequired, "")
	default:
		v = c.judge(rule, x.Start)
	}
	return v.apply(x)
}

// apply refuses a request or lets it pass with what the rule wants forwarded.
func (v *verdict) apply(x *exchange.Exchange) exchange.Verdict {
	if v.client == nil {
		return x.Refuse(exchange.ClientCertificateInvalid, v.detail)
	}
	x.ClientCert = v.client
	if v.rule.forward == ForwardNothing {
		return exchange.Continue
	}
	fits := x.Req.AddString(exchange.IDClientCert.Name(), v.client.Field)
	if v.rule.forward == ForwardChain && v.client.ChainField != "" {
		fits = x.Req.AddString(exchange.IDClientCertChain.Name(), v.client.ChainField) && fits
	}
	if !fits {
		return x.Refuse(exchange.BadRequestHeadersTooLarge, "")
	}
	return exchange.Continue
}

// misdirected tells whether a request belongs on another connection: the certificate that the client was shown is not
// one for its host, or the connection was not made under the rule of the host and that makes a difference. It makes less if a
// trusted proxy has told of the certificate.
func (c *Session) misdirected(x *exchange.Exchange, rule *Rule, told bool) bool {
	if rule != c.rule && rule != nil {
		if rule.minVersion > c.Version {
			return true
		}
		if rule.mode != None && !told && (c.rule == nil || c.rule.Name != rule.Name || c.rule.mode == None) {
			return true
		}
	}
	if string(x.Host) == c.ServerName || c.ServerName == "" || len(x.Host) == 0 || c.server.opts.AnyHost {
		return false // without both names the client cannot have meant another
	}
	return !c.server.opts.Certificates.Covers(c.ServerName, string(x.Host))
}

// judge verifies the certificate of the client, once for a rule and a connection.
func (c *Session) judge(rule *Rule, now time.Time) *verdict {
	if v := c.verdict.Load(); v != nil && v.rule == rule && (v.client == nil || now.Before(v.until)) {
		return v
	}
	v := rule.verify(c.chain, now)
	c.verdict.Store(v)
	return v
}

// verify builds a chain to one of the roots of the rule (RFC 5280, section 6).
func (r *Rule) verify(shown []*x509.Certificate, now time.Time) *verdict {
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: r.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	v := &verdict{rule: r}
	if err != nil {
		v.detail = reason(err)
		return v
	}
	chains = slices.DeleteFunc(chains, func(c []*x509.Certificate) bool { return len(c)-2 > r.depth })
	if len(chains) == 0 {
		v.detail = "there are more certificates between the client's and the CA than the host allows"
		return v
	}
	worst := crl.Good
	for _, chain := range chains {
		status, until := r.standing(chain, now)
		if status == crl.Good {
			v.until, v.client = until, newClientCert(chain)
			return v
		}
		if worst != crl.Revoked {
			worst = status
		}
	}
	switch worst {
	case crl.Revoked:
		v.detail = "the client certificate, or one of those that signed it, is revoked"
	case crl.Expired:
		v.detail = "the list of revoked certificates of the CA that signed the client certificate has expired"
	default:
		v.detail = "there is no list of revoked certificates of a CA that signed the client certificate"
	}
	return v
}

// standing tells whether all certificates of a chain to a root are known not to be revoked, and until when the chain holds.
func (r *Rule) standing(chain []*x509.Certificate, now time.Time) (status crl.Status, until time.Time) {
	status, until = crl.Good, chain[0].NotAfter
	for i, c := range chain {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
		if r.revoked == nil || i == len(chain)-1 { // nobody but the operator can disown a root
			continue
		}
		of, holds := r.revoked.Status(c.SerialNumber, chain[i+1], now)
		switch {
		case of == crl.Revoked:
			return of, until
		case of != crl.Good && status == crl.Good: // what is wrong next to the client is said
			status = of
		case of == crl.Good && holds.Before(until):
			until = holds
		}
	}
	return status, until
}

// reason tells a client what is wrong with its certificate, and nothing about the gateway.
func reason(err error) string {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case isInvalid && invalid.Reason == x509.Expired:
		return "the client certificate, or one of those that signed it, has expired or is not valid yet"
	case isInvalid && invalid.Reason == x509.IncompatibleUsage:
		return "the certificate is not one for clients: clientAuth is not among its extended key usages"
	case isUnknown:
		return "the client certificate is not signed by a CA that is trusted for this host"
	}
	return "the client certificate cannot be verified"
}

func newClientCert(chain []*x509.Certificate) *exchange.ClientCert {
	leaf := chain[0]
	sum := sha256.Sum256(leaf.Raw)
	c := &exchange.ClientCert{
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Serial: leaf.SerialNumber.Text(16),
		DNSNames: leaf.DNSNames, Emails: leaf.EmailAddresses, NotAfter: leaf.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:]), Field: string(appendField(nil, leaf.Raw)),
	}
	for _, u := range leaf.URIs {
		c.URIs = append(c.URIs, u.String())
	}
	for _, ip := range leaf.IPAddresses {
		c.IPs = append(c.IPs, ip.String())
	}
	var field []byte
	for i := 1; i < len(chain)-1; i++ { // the root is known to who trusts it
		if i > 1 {
			field = append(field, ", "...)
		}
		field = appendField(field, chain[i].Raw)
	}
	c.ChainField = string(field)
	return c
}

// appendField appends a certificate as a byte sequence of structured fields (RFC 9440, section 2.2; RFC 8941).
func appendField(dst, der []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(dst, ':'), der), ':')
}
