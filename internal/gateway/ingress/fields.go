package ingress

import (
	"bytes"
	"net/netip"

	"hansa.dev/hansa/internal/exchange"
)

// Rules tell how much of what a client says of itself is believed, and what is said of it to backends.
type Rules struct {
	// Trusted are the networks whose X-Forwarded-* fields are believed and continued. Default: none.
	Trusted []netip.Prefix
	// Forwarded adds the field of RFC 7239 to the X-Forwarded-* fields.
	Forwarded bool
	// Via is the pseudonym under which the gateway adds itself to Via, in requests and responses. Default: "", it does not.
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

// Own are the fields that the gateway makes for the backend.
const Own exchange.IDSet = 1<<exchange.IDXForwardedFor | 1<<exchange.IDXForwardedProto | 1<<exchange.IDXForwardedHost |
	1<<exchange.IDXForwardedPort | 1<<exchange.IDForwarded | 1<<exchange.IDXRealIP | 1<<exchange.IDXRequestID |
	1<<exchange.IDVia

// Introduce sets who sent the exchange, as far as the connection tells. Requests that are refused have no more than that.
func (c *Client) Introduce(x *exchange.Exchange) { x.Peer, x.ClientIP = c.Peer, c.text }

// Announce makes the fields that tell the backend who asks and what for, and finds out the client's address. What the
// client sent under these names counts only if it is trusted. version is the one of HTTP that the request came by, "1.1".
// Announce returns false if there is no room for the fields.
func (r *Rules) Announce(x *exchange.Exchange, c *Client, version string) bool {
	req := &x.Req
	chain := exchange.View(nil)
	if req.IDs()&Own != 0 {
		if c.trusted {
			chain = r.chain(x, c)
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
	if r.Forwarded {
		ok = addForwarded(x, c) && ok
	}
	if r.Via != "" {
		ok = req.Add(exchange.IDVia.Name(), x.Scratch([]byte(version), []byte(" "), []byte(r.Via))) && ok
	}
	return req.Add(exchange.IDXRequestID.Name(), x.ID[:]) && ok
}

// chain continues the X-Forwarded-For of a trusted peer, and takes the client's address from it: the last one that is
// not a trusted proxy's.
func (r *Rules) chain(x *exchange.Exchange, c *Client) exchange.View {
	var chain exchange.View
	for v := range x.Req.Values(exchange.IDXForwardedFor.Name()) {
		if chain == nil {
			chain = v
		} else {
			chain = x.Scratch(chain, []byte(", "), v)
		}
	}
	if chain == nil {
		return nil
	}
	rest := []byte(chain)
	var found netip.Addr
	for len(rest) > 0 {
		i := bytes.LastIndexByte(rest, ',')
		addr, ok := parseAddr(bytes.TrimSpace(rest[i+1:]))
		if !ok {
			break
		}
		found = addr
		if i < 0 || !r.trusts(addr) {
			break
		}
		rest = rest[:i]
	}
	if found.IsValid() {
		var text [64]byte
		x.ClientIP = x.Scratch(found.AppendTo(text[:0]))
	}
	return x.Scratch(chain, []byte(", "), c.text)
}

// parseAddr reads an address, perhaps with a port, as proxies write it.
func parseAddr(b []byte) (netip.Addr, bool) {
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
