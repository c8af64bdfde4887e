package http1

import (
	"bytes"
	"net/netip"

	"hansa.dev/hansa/internal/exchange"
)

// forwarded makes the fields that tell the backend who asks and what for. What the client sent under these names counts
// only if the peer is trusted. It returns false if there is no room for them.
func (c *conn) forwarded() bool {
	x, req := &c.x, &c.x.Req
	chain := exchange.View(nil)
	if req.IDs()&own != 0 {
		if c.trust {
			chain = c.chain()
		} else {
			for id := exchange.ID(1); own>>id != 0; id++ {
				if own.Has(id) && id != exchange.IDVia && req.Has(id) {
					req.DelKnown(id)
				}
			}
		}
		req.DelKnown(exchange.IDXRequestID)
	}
	ok := true
	if chain == nil {
		chain = c.client
	}
	ok = req.Set(exchange.IDXForwardedFor.Name(), chain) && ok
	if !c.trust || !req.Has(exchange.IDXForwardedProto) {
		ok = req.SetString(exchange.IDXForwardedProto.Name(), x.Scheme) && ok
	}
	if (!c.trust || !req.Has(exchange.IDXForwardedHost)) && x.Authority != nil {
		ok = req.Set(exchange.IDXForwardedHost.Name(), x.Authority) && ok
	}
	if c.srv.Forwarded {
		ok = c.rfc7239() && ok
	}
	if c.srv.Via != "" {
		version := "1.1 "
		if c.minor == 0 {
			version = "1.0 "
		}
		ok = req.Add(exchange.IDVia.Name(), x.Scratch([]byte(version), []byte(c.srv.Via))) && ok
	}
	return req.Add(exchange.IDXRequestID.Name(), x.ID[:]) && ok
}

// chain continues the X-Forwarded-For of a trusted peer, and takes the client's address from it: the last one that is
// not a trusted proxy's.
func (c *conn) chain() exchange.View {
	x := &c.x
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
	for len(rest) > 0 {
		i := bytes.LastIndexByte(rest, ',')
		addr, ok := parseAddr(bytes.TrimSpace(rest[i+1:]))
		if !ok {
			break
		}
		c.clientIP = addr.AppendTo(c.clientIP[:0])
		x.ClientIP = c.clientIP
		if i < 0 || !c.trusted(addr) {
			break
		}
		rest = rest[:i]
	}
	return x.Scratch(chain, []byte(", "), c.client)
}

func (c *conn) trusted(a netip.Addr) bool {
	for _, p := range c.srv.Trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
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

// rfc7239 adds an element to Forwarded.
func (c *conn) rfc7239() bool {
	x := &c.x
	b := append(c.out[:0], "for="...)
	if c.info.Peer.Addr().Is6() {
		b = append(append(append(b, `"[`...), c.client...), `]"`...)
	} else {
		b = append(b, c.client...)
	}
	if x.Authority != nil {
		b = append(append(append(b, `;host="`...), x.Authority...), '"')
	}
	b = append(append(b, ";proto="...), x.Scheme...)
	c.out = b[:0]
	return x.Req.Add(exchange.IDForwarded.Name(), b)
}
