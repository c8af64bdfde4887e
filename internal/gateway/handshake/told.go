package handshake

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// maxTold bounds the certificates that a proxy tells of for one request: the client's, and those between it and a root.
const maxTold = 12

// toldSlots is how many certificates that proxies told of a rule remembers.
const toldSlots = 256

// told remembers what a rule has said to good certificates that proxies told of, so that each is verified once and not for
// every request. Those whose digests begin alike take turns.
type told [toldSlots]atomic.Pointer[toldVerdict]

type toldVerdict struct {
	fields [sha256.Size]byte // the digest of the fields
	*verdict
}

// tells tells whether the certificate of the client stands in fields that count: those of a trusted proxy, for a host that
// takes it from there.
func tells(x *exchange.Exchange, rule *Rule) bool {
	return x.Proxied && rule != nil && rule.told != nil && x.Req.Has(exchange.IDClientCert)
}

// judgeTold verifies the certificate in the fields of a trusted proxy (RFC 9440).
func (r *Rule) judgeTold(req *exchange.Head, now time.Time) *verdict {
	h := sha256.New()
	for _, id := range [...]exchange.ID{exchange.IDClientCert, exchange.IDClientCertChain} {
		for v := range req.Values(id.Name()) {
			h.Write(v)
			h.Write([]byte{','})
		}
		h.Write([]byte{0})
	}
	t := toldVerdict{}
	h.Sum(t.fields[:0])
	slot := &r.told[t.fields[0]]
	if known := slot.Load(); known != nil && known.fields == t.fields && now.Before(known.until) {
		return known.verdict
	}
	shown := toldCertificates(req)
	if shown == nil {
		return &verdict{rule: r, detail: "the proxy in front told of the client certificate in a way that is not that of RFC 9440"}
	}
	if t.verdict = r.verify(shown, now); t.client != nil {
		slot.Store(&t)
	}
	return t.verdict
}

// toldCertificates returns the certificates in the fields, the client's first; nil if the fields are malformed.
func toldCertificates(req *exchange.Head) []*x509.Certificate {
	if req.Count(exchange.IDClientCert) != 1 {
		return nil
	}
	leaf := toldCertificate(req.Known(exchange.IDClientCert))
	if leaf == nil {
		return nil
	}
	all := []*x509.Certificate{leaf}
	for v := range req.Values(exchange.IDClientCertChain.Name()) {
		for element := range bytes.SplitSeq(v, []byte{','}) {
			c := toldCertificate(bytes.Trim(element, " \t"))
			if c == nil || len(all) == maxTold {
				return nil
			}
			all = append(all, c)
		}
	}
	return all
}

// toldCertificate reads a certificate that is a byte sequence of structured fields (RFC 9440, section 2.1; RFC 8941, section
// 3.3.5); nil if it is none.
func toldCertificate(v []byte) *x509.Certificate {
	if len(v) < 2 || v[0] != ':' || v[len(v)-1] != ':' {
		return nil
	}
	der, err := base64.StdEncoding.AppendDecode(nil, v[1:len(v)-1])
	if err != nil {
		return nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return c
}
