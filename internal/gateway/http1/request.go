package http1

import (
	"bytes"
	"errors"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/x/pathnorm"
)

// The faults of a request that are not the parser's to find.
var (
	errHeadTimeout   = &h1.Fault{Code: exchange.BadRequestTimeout, Detail: "the head of the request did not arrive in time"}
	errNoHost        = &h1.Fault{Code: exchange.BadRequestHost, Detail: "there is no Host field"}
	errHosts         = &h1.Fault{Code: exchange.BadRequestHost, Detail: "there is more than one Host field"}
	errHost          = &h1.Fault{Code: exchange.BadRequestHost, Detail: "the host is not a name or an address with an optional port"}
	errAsterisk      = &h1.Fault{Code: exchange.BadRequestTarget, Detail: "the target * is not served"}
	errConnect       = &h1.Fault{Code: exchange.NotImplemented, Detail: "CONNECT is not served"}
	errTargetForm    = &h1.Fault{Code: exchange.BadRequestTarget, Detail: "the request target is neither a path nor an absolute URI"}
	errTargetScheme  = &h1.Fault{Code: exchange.BadRequestTarget, Detail: "the scheme of the request target is not the one of the connection"}
	errFragment      = &h1.Fault{Code: exchange.BadRequestTarget, Detail: "the request target holds a fragment"}
	errNominated     = &h1.Fault{Code: exchange.BadRequestConnection, Detail: "the Connection field names a field that is not about the connection"}
	errExpect        = &h1.Fault{Code: exchange.BadRequestExpect, Detail: "the only expectation that is known here is 100-continue"}
	errUpgrade       = &h1.Fault{Code: exchange.BadRequestUpgrade, Detail: "protocol upgrades are not served"}
	errTooManyFields = &h1.Fault{Code: exchange.BadRequestHeadersTooLarge, Detail: "there are more header fields than the limit"}
)

// begin makes the exchange out of the head that the parser has read, n bytes of c.buf, or the refusal of it.
func (c *conn) begin(n int, err error) {
	c.begun = false
	c.x.Peer, c.x.Scheme = c.info.Peer, c.info.Scheme
	c.ids.Next(&c.x.ID)
	c.x.Protocol = exchange.HTTP11
	c.x.ClientIP = c.client
	c.wrote, c.head, c.expect, c.trailers, c.hasBody = false, false, false, false, false
	c.faulty, c.whole = false, false
	c.minor, c.headSize = 1, int64(n)
	if c.stopBody.Load() {
		c.stopBody.Store(false)
	}
	if err == nil {
		err = c.accept(n)
	}
	if err != nil {
		c.fail(err)
	}
}

// fail makes the refusal of a request that could not be read. The connection ends with it.
func (c *conn) fail(err error) {
	c.keep, c.faulty, c.whole = false, true, false
	c.x.Body = nil
	c.body.Reset(c.stream, c.srv.Bodies, h1.NoBody, 0, c.buf, c.filled, c.filled)
	var fault *h1.Fault
	if !errors.As(err, &fault) {
		fault = &h1.Fault{Code: exchange.BadRequestPath, Detail: err.Error()}
	}
	if f := c.srv.metrics.faults[fault.Code]; f != nil {
		f.Inc()
	}
	c.x.Refuse(fault.Code, fault.Detail)
}

// accept checks the head and fills in the exchange.
func (c *conn) accept(n int) error {
	x, p := &c.x, &c.parser
	x.Method, x.RawTarget = p.Method, p.Target
	c.minor = p.Minor
	if p.Minor == 0 {
		x.Protocol = exchange.HTTP10
	}
	c.head = string(p.Method) == "HEAD"
	framing, length, err := h1.RequestFraming(&x.Req, p.Minor)
	if err != nil {
		return err
	}
	if err := c.target(p.Target); err != nil {
		return err
	}
	c.keep = p.Minor == 1
	if x.Req.IDs()&(exchange.HopByHop|1<<exchange.IDExpect) != 0 {
		if err := c.hopByHop(framing != h1.NoBody); err != nil {
			return err
		}
	}
	if p.Underscore {
		dropLookalikes(&x.Req)
	}
	if !c.forwarded() {
		return errTooManyFields
	}
	c.body.Reset(c.stream, c.srv.Bodies, framing, length, c.buf, n, c.filled)
	c.whole = framing == h1.NoBody || framing == h1.Length && length <= int64(c.filled-n)
	if framing != h1.NoBody && length != 0 {
		c.hasBody = true
		c.bodyBegun.Store(false)
		c.bodyDone.Store(false)
		x.Body = (*requestBody)(c)
	}
	return nil
}

// target takes the request target and the Host field apart (RFC 9112, section 3.2 and 3.3).
func (c *conn) target(target []byte) error {
	x := &c.x
	host := []byte(x.Req.Known(exchange.IDHost))
	switch hosts := x.Req.Count(exchange.IDHost); {
	case hosts > 1:
		return errHosts
	case hosts == 0 && c.minor == 1:
		return errNoHost
	}
	path := target
	switch {
	case target[0] == '/':
	case string(x.Method) == "CONNECT":
		return errConnect
	case len(target) == 1 && target[0] == '*':
		return errAsterisk
	default:
		scheme, rest, ok := bytes.Cut(target, []byte("://"))
		if !ok || !exchange.EqualFold(scheme, "http") && !exchange.EqualFold(scheme, "https") {
			return errTargetForm
		}
		if !exchange.EqualFold(scheme, x.Scheme) {
			return errTargetScheme
		}
		if host != nil && !validAuthority(host) {
			return errHost // refused although it does not count: the two ends could differ in that
		}
		end := bytes.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		host, path = rest[:end], rest[end:]
	}
	if string(x.Method) == "CONNECT" {
		return errConnect
	}
	if host == nil {
		return c.path(path) // HTTP/1.0 without Host
	}
	if !validAuthority(host) {
		return errHost
	}
	x.Authority = lowerCase(x, host)
	x.Host = hostOf(x.Authority)
	x.Req.DelKnown(exchange.IDHost)
	return c.path(path)
}

// path splits path and query and makes the path canonical.
func (c *conn) path(target []byte) error {
	x := &c.x
	path := target
	if before, after, ok := bytes.Cut(target, []byte{'?'}); ok {
		path, x.Query, x.HasQuery = before, after, true
		if bytes.IndexByte(x.Query, '#') >= 0 {
			return errFragment
		}
	}
	if pathnorm.Canonical(path) {
		x.Path = path
		return nil
	}
	if len(path) == 0 { // of an absolute URI
		path = []byte("/")
	}
	if bytes.IndexByte(path, '#') >= 0 {
		return errFragment
	}
	canonical, err := pathnorm.Append(c.out[:0], path)
	if err != nil {
		return err
	}
	x.Path = x.Scratch(canonical)
	return nil
}

// hopByHop reads and removes the fields that speak of the connection.
func (c *conn) hopByHop(body bool) error {
	x, req := &c.x, &c.x.Req
	if te := req.Known(exchange.IDTE); te != nil {
		h1.Elements(te, func(e []byte) bool {
			c.trailers = c.trailers || exchange.EqualFold(e, "trailers")
			return true
		})
	}
	var opts connOptions
	for value := range req.Values(exchange.IDConnection.Name()) {
		if err := opts.read(value, req); err != nil {
			return err
		}
	}
	c.keep = !opts.close && (c.keep || opts.keepAlive)
	if proto := req.Known(exchange.IDUpgrade); opts.upgrade && proto != nil && !exchange.EqualFold(proto, "h2c") {
		return errUpgrade
	}
	if e := req.Known(exchange.IDExpect); e != nil {
		switch {
		case !exchange.EqualFold(e, "100-continue") || req.Count(exchange.IDExpect) > 1:
			return errExpect
		case c.minor == 0 || !body:
			req.DelKnown(exchange.IDExpect) // RFC 9110, section 10.1.1
		default:
			c.expect = true
		}
	}
	for id := exchange.ID(1); exchange.HopByHop>>id != 0; id++ {
		if exchange.HopByHop.Has(id) && x.Req.Has(id) {
			req.DelKnown(id)
		}
	}
	return nil
}

// connOptions is what the Connection field asks for.
type connOptions struct{ close, keepAlive, upgrade bool }

// read reads one Connection field and removes the fields that it names.
func (o *connOptions) read(value []byte, req *exchange.Head) error {
	var err error
	h1.Elements(value, func(e []byte) bool {
		switch {
		case exchange.EqualFold(e, "close"):
			o.close = true
		case exchange.EqualFold(e, "keep-alive"):
			o.keepAlive = true
		case exchange.EqualFold(e, "upgrade"):
			o.upgrade = true
		case !h1.Token(e) || (notNominated &^ (1 << exchange.IDOther)).Has(exchange.IDOf(e)):
			err = errNominated
		default:
			req.DelNamed(e)
		}
		return err == nil
	})
	return err
}

// notNominated are fields that a client must not have removed on the way to the backend by naming them in Connection.
const notNominated = 1<<exchange.IDHost | 1<<exchange.IDContentLength | 1<<exchange.IDContentType |
	1<<exchange.IDContentEncoding | 1<<exchange.IDExpect | own

// own are the fields that the gateway makes for the backend.
const own exchange.IDSet = 1<<exchange.IDXForwardedFor | 1<<exchange.IDXForwardedProto | 1<<exchange.IDXForwardedHost |
	1<<exchange.IDXForwardedPort | 1<<exchange.IDForwarded | 1<<exchange.IDXRealIP | 1<<exchange.IDXRequestID |
	1<<exchange.IDVia

// dropLookalikes removes fields that a backend which cannot tell "_" from "-" would take for one of the gateway's own,
// or for a credential that was checked.
func dropLookalikes(h *exchange.Head) {
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

// hostTable tells the characters of a host: names, IPv4 addresses, and in brackets IPv6 addresses.
var hostTable = func() (t [256]bool) {
	for c := range byte(0x80) {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '.', c == '_':
			t[c] = true
		}
	}
	return t
}()

// validAuthority tells whether b is a host with an optional port. Percent-encoding, user information and empty hosts are
// not taken.
func validAuthority(b []byte) bool {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		i = bytes.IndexByte(b, ']')
		if i < 3 {
			return false
		}
		for _, c := range b[1:i] {
			if c != ':' && c != '.' && (!hostTable[c] || c == '-' || c == '_' || (c|0x20) > 'f') {
				return false
			}
		}
		i++
	} else {
		for i < len(b) && hostTable[b[i]] {
			i++
		}
		if i == 0 || i > 255 || b[0] == '.' {
			return false
		}
	}
	if i == len(b) {
		return true
	}
	port := b[i+1:]
	if b[i] != ':' || len(port) > 5 {
		return false
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// lowerCase returns b in lower case: itself, if it is.
func lowerCase(x *exchange.Exchange, b []byte) exchange.View {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			v := x.Scratch(b)
			for i, c := range v {
				if 'A' <= c && c <= 'Z' {
					v[i] = c + 'a' - 'A'
				}
			}
			return v
		}
	}
	return b
}

// hostOf cuts the port and one last dot off an authority.
func hostOf(a exchange.View) exchange.View {
	if i := bytes.LastIndexByte(a, ':'); i >= 0 && a[len(a)-1] != ']' {
		a = a[:i]
	}
	if n := len(a); n > 1 && a[n-1] == '.' {
		a = a[:n-1]
	}
	return a
}
