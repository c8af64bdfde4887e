package ingress

import (
	"bytes"
	"iter"
	"net/netip"

	"hansa.dev/hansa/internal/exchange"
)

// Rules tell how much of what a client says of itself is believed, and what is said of it to backends.
type Rules struct {
	// Trusted are the networks whose X-Forwarded-*, Forwarded, X-Real-IP and Client-Cert fields are believed and continued.
	// Who is trusted must itself remove what it has not checked: of X-Forwarded-For and Forwarded the former counts.
	// Default: none.
	Trusted []netip.Prefix
	// Forwarded adds the field of RFC 7239 to the X-Forwarded-* fields.
	Forwarded bool
	// Via is the pseudonym, a token, under which the gateway adds itself to the Via of requests. One in whose Via it stands already
	// has come round in a circle and is refused; so no two gateways should share one. Default: "", neither is done.
	Via string
}

// Client is the other end of a connection. Make it with Rules.Client.
type Client struct {
	Peer    netip.AddrPort
	text    []byte
	trusted bool
}

// Client returns the client at the address peer.
func (r *Rules) Client(peer netip.AddrPort) Client {
	c := Client{Peer: netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())}
	if c.Peer.IsValid() {
		c.text = c.Peer.Addr().AppendTo(nil)
	} else {
		c.text = []byte("unknown")
	}
	c.trusted = r.trusts(c.Peer.Addr())
	return c
}

func (r *Rules) trusts(a netip.Addr) bool {
	for _, p := range r.Trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Own are the fields that the gateway makes for the backend, or that only proxies make: what clients send under these
// names, but for Via, is removed.
const Own exchange.IDSet = 1<<exchange.IDXForwardedFor | 1<<exchange.IDXForwardedProto | 1<<exchange.IDXForwardedHost |
	1<<exchange.IDXForwardedPort | 1<<exchange.IDForwarded | 1<<exchange.IDXRealIP | 1<<exchange.IDXRequestID |
	1<<exchange.IDVia | 1<<exchange.IDClientCert | 1<<exchange.IDClientCertChain

// Introduce sets who sent the exchange, as far as the connection tells. Requests that are refused have no more than that.
func (c *Client) Introduce(x *exchange.Exchange) { x.Peer, x.ClientIP = c.Peer, c.text }

// Announce makes the fields that tell the backend who asks and what for, and finds out the client's address. What the
// client sent under these names counts only if it is trusted. version is the one of HTTP that the request came by, "1.1".
// Announce returns what is wrong if the request has been here before, or has no room for the fields.
func (r *Rules) Announce(x *exchange.Exchange, c *Client, version string) *exchange.Fault {
	req := &x.Req
	chain := exchange.View(nil)
	continued := false // there is a Forwarded field to which the gateway adds itself
	x.Proxied = c.trusted
	if req.IDs()&Own != 0 {
		if r.Via != "" && req.Has(exchange.IDVia) && r.looped(req) {
			return errLoop
		}
		if c.trusted {
			chain, continued = r.chain(x, c)
		} else {
			for id := exchange.ID(1); Own>>id != 0; id++ {
				if Own.Has(id) && id != exchange.IDVia && req.Has(id) {
					req.DelKnown(id)
				}
			}
		}
		req.DelKnown(exchange.IDXRequestID)
	}
	ok := true
	if chain == nil {
		chain = c.text
	}
	ok = req.Set(exchange.IDXForwardedFor.Name(), chain) && ok
	if !c.trusted || !req.Has(exchange.IDXForwardedProto) {
		ok = req.SetString(exchange.IDXForwardedProto.Name(), x.Scheme) && ok
	}
	if (!c.trusted || !req.Has(exchange.IDXForwardedHost)) && x.Authority != nil {
		ok = req.Set(exchange.IDXForwardedHost.Name(), x.Authority) && ok
	}
	if r.Forwarded || continued {
		ok = addForwarded(x, c) && ok
	}
	if r.Via != "" {
		ok = req.Add(exchange.IDVia.Name(), x.Scratch([]byte(version), []byte(" "), []byte(r.Via))) && ok
	}
	if !req.Add(exchange.IDXRequestID.Name(), x.ID[:]) || !ok {
		return errTooManyFields
	}
	return nil
}

// Expect checks the Expect field of a request (RFC 9110, section 10.1.1), and removes it if there is no body to wait with. It
// tells whether the client may wait for 100 before it sends the body.
func Expect(req *exchange.Head, body bool) (waits bool, f *exchange.Fault) {
	e := req.Known(exchange.IDExpect)
	switch {
	case e == nil:
		return false, nil
	case !exchange.EqualFold(e, "100-continue") || req.Count(exchange.IDExpect) > 1:
		return false, errExpect
	case !body:
		req.DelKnown(exchange.IDExpect)
	}
	return body, nil
}

var (
	errExpect        = &exchange.Fault{Code: exchange.BadRequestExpect, Detail: "the only expectation that is known here is 100-continue"}
	errTooManyFields = &exchange.Fault{Code: exchange.BadRequestHeadersTooLarge, Detail: "there are more header fields than the limit"}
	errLoop          = &exchange.Fault{Code: exchange.LoopDetected, Detail: "this gateway stands in the Via field: a backend leads back to it"}
)

// looped tells whether the gateway stands in Via already: a list of protocol, who received the message, and perhaps a
// comment (RFC 9110, section 7.6.3).
func (r *Rules) looped(req *exchange.Head) bool {
	for v := range req.Values(exchange.IDVia.Name()) {
		rest := []byte(v)
		for len(rest) > 0 {
			var element []byte
			element, rest, _ = bytes.Cut(rest, comma)
			by := bytes.TrimLeft(element, " \t")
			i := bytes.IndexAny(by, " \t")
			if i < 0 {
				continue
			}
			by = bytes.TrimLeft(by[i:], " \t")
			if i := bytes.IndexAny(by, " \t("); i >= 0 {
				by = by[:i]
			}
			if exchange.EqualFold(by, r.Via) {
				return true
			}
		}
	}
	return false
}

var comma = []byte{','}

// chain continues the X-Forwarded-For of a trusted peer, and takes the client's address from it: the last one that is
// not a trusted proxy's. Without that field Forwarded serves for it. continued tells that there is a Forwarded which can be
// added to; one that is malformed is removed.
func (r *Rules) chain(x *exchange.Exchange, c *Client) (chain exchange.View, continued bool) {
	for v := range x.Req.Values(exchange.IDXForwardedFor.Name()) {
		if chain == nil {
			chain = v
		} else {
			chain = x.Extend(chain, []byte(", "), v)
		}
	}
	var nodes nodes
	if x.Req.Has(exchange.IDForwarded) {
		if continued = nodes.read(&x.Req); !continued {
			x.Req.DelKnown(exchange.IDForwarded)
		}
	}
	var found netip.Addr
	if chain != nil {
		found, _ = r.client(func(yield func([]byte) bool) {
			rest := []byte(chain)
			for len(rest) > 0 {
				i := bytes.LastIndexByte(rest, ',')
				if !yield(bytes.TrimSpace(rest[i+1:])) || i < 0 {
					return
				}
				rest = rest[:i]
			}
		})
	} else if continued {
		var proxies int
		if found, proxies = r.client(nodes.backward); proxies > 0 {
			asked(&x.Req, &nodes.of[nodes.n-proxies])
		}
	}
	if found.IsValid() {
		var text [64]byte
		x.ClientIP = x.Scratch(found.AppendTo(text[:0]))
	}
	switch {
	case chain != nil:
		chain = x.Extend(chain, []byte(", "), c.text)
	case found.IsValid():
		chain = x.Scratch(x.ClientIP, []byte(", "), c.text)
	}
	return chain, continued
}

// asked makes the fields that tell how the client asked the first trusted proxy from what that says in Forwarded, unless it also
// sent them.
func asked(req *exchange.Head, n *node) {
	for _, scheme := range [...]string{"http", "https"} {
		if exchange.EqualFold(n.proto, scheme) && !req.Has(exchange.IDXForwardedProto) {
			req.SetString(exchange.IDXForwardedProto.Name(), scheme) // without room for it there is none for the next field either
		}
	}
	odd := func(r rune) bool { return r > 0x7f || !token(byte(r)) && r != ':' && r != '[' && r != ']' }
	if len(n.host) > 0 && !req.Has(exchange.IDXForwardedHost) && bytes.IndexFunc(n.host, odd) < 0 {
		req.Set(exchange.IDXForwardedHost.Name(), n.host)
	}
}

// client goes from one proxy to the one before it, and returns the first address that is not a trusted proxy's, or the
// last one that is an address at all, and the how manieth it was.
func (r *Rules) client(proxies iter.Seq[[]byte]) (found netip.Addr, n int) {
	for p := range proxies {
		addr, ok := parseAddr(p)
		if !ok {
			break
		}
		n++
		if found = addr; !r.trusts(addr) {
			break
		}
	}
	return found, n
}

// parseAddr reads an address, perhaps with a port and, if it is one of IPv6, in brackets, as proxies write it.
func parseAddr(b []byte) (netip.Addr, bool) {
	if n := len(b); n > 2 && b[0] == '[' && b[n-1] == ']' {
		b = b[1 : n-1]
	}
	if len(b) > 64 {
		return netip.Addr{}, false
	}
	s := string(b)
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap(), true
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().Unmap(), true
	}
	return netip.Addr{}, false
}

// addForwarded adds an element to Forwarded (RFC 7239, section 4).
func addForwarded(x *exchange.Exchange, c *Client) bool {
	open, end := "for=", ""
	if c.Peer.Addr().Is6() {
		open, end = `for="[`, `]"`
	}
	host, hostEnd := "", ""
	if x.Authority != nil {
		host, hostEnd = `;host="`, `"`
	}
	return x.Req.Add(exchange.IDForwarded.Name(), x.Scratch([]byte(open), c.text, []byte(end),
		[]byte(host), x.Authority, []byte(hostEnd), []byte(";proto="), []byte(x.Scheme)))
}

// DropLookalikes removes fields that a backend which cannot tell "_" from "-" would take for one of the gateway's own,
// or for a credential that was checked.
func DropLookalikes(h *exchange.Head) {
	var name [64]byte
	for {
		var found exchange.View
		for n := range h.All() {
			if len(n) > len(name) || bytes.IndexByte(n, '_') < 0 {
				continue
			}
			hyphens := name[:copy(name[:], n)]
			for i, b := range hyphens {
				if b == '_' {
					hyphens[i] = '-'
				}
			}
			if exchange.IDOf(hyphens) != exchange.IDOther {
				found = n
				break
			}
		}
		if found == nil {
			return
		}
		h.DelNamed(found)
	}
}
