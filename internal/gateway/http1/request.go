package http1

import (
	"bytes"
	"errors"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// The faults of a request that are not the parser's to find.
var (
	errHeadTimeout  = &exchange.Fault{Code: exchange.BadRequestTimeout, Detail: "the head of the request did not arrive in time"}
	errNoHost       = &exchange.Fault{Code: exchange.BadRequestHost, Detail: "there is no Host field"}
	errHosts        = &exchange.Fault{Code: exchange.BadRequestHost, Detail: "there is more than one Host field"}
	errHost         = &exchange.Fault{Code: exchange.BadRequestHost, Detail: "the host is not a name or an address with an optional port"}
	errAsterisk     = &exchange.Fault{Code: exchange.BadRequestTarget, Detail: "the target * is not served"}
	errConnect      = &exchange.Fault{Code: exchange.NotImplemented, Detail: "CONNECT is not served"}
	errTargetForm   = &exchange.Fault{Code: exchange.BadRequestTarget, Detail: "the request target is neither a path nor an absolute URI"}
	errTargetScheme = &exchange.Fault{Code: exchange.BadRequestTarget, Detail: "the scheme of the request target is not the one of the connection"}
	errNominated    = &exchange.Fault{Code: exchange.BadRequestConnection, Detail: "the Connection field names a field that is not about the connection"}
	errUpgrade      = &exchange.Fault{Code: exchange.BadRequestUpgrade, Detail: "the Upgrade field is not a list of protocols"}
)

// begin makes the exchange out of the head that the parser has read, n bytes of c.buf, or the refusal of it.
func (c *conn) begin(n int, err error) {
	c.begun = false
	c.x.Scheme, c.x.TLS = c.info.Scheme, c.info.TLS
	c.client.Introduce(&c.x)
	c.ids.Next(&c.x.ID)
	c.x.Protocol = exchange.HTTP11
	c.wrote, c.head, c.expect, c.hasBody = false, false, false, false
	c.faulty, c.whole, c.bulky = false, false, false
	c.minor, c.headSize = 1, int64(n)
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
	var fault *exchange.Fault
	if !errors.As(err, &fault) {
		fault = &exchange.Fault{Code: exchange.BadRequestPath, Detail: err.Error()}
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
		if err := c.hopByHop(framing != h1.NoBody && length != 0); err != nil {
			return err
		}
	}
	if p.Underscore {
		ingress.DropLookalikes(&x.Req)
	}
	version := "1.1"
	if p.Minor == 0 {
		version = "1.0"
	}
	if f := c.srv.Rules.Announce(x, &c.client, version); f != nil {
		return f
	}
	c.body.Reset(c.stream, c.srv.Bodies, framing, length, c.buf, n, c.filled)
	c.whole = framing == h1.NoBody || framing == h1.Length && length <= int64(c.filled-n)
	switch {
	case x.Upgrade != nil:
		c.whole = false // what the client sends is read by another goroutine
		x.Body = (*tunnelBody)(c)
	case framing != h1.NoBody && length != 0:
		size := c.headSize + length
		c.bulky = int64(len(c.small)) < size && size <= h1.LargeBuffer
		c.bodyWaited = 0
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
		if host != nil && !ingress.ValidAuthority(host) {
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
	if host != nil { // only HTTP/1.0 may be without
		if !ingress.SetAuthority(x, host) {
			return errHost
		}
		x.Req.DelKnown(exchange.IDHost)
	}
	return ingress.SetPath(x, path)
}

// hopByHop reads and removes the fields that speak of the connection.
func (c *conn) hopByHop(body bool) error {
	x, req := &c.x, &c.x.Req
	if te := req.Known(exchange.IDTE); te != nil {
		h1.Elements(te, func(e []byte) bool {
			x.TakesTrailers = x.TakesTrailers || exchange.EqualFold(e, "trailers")
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
	if opts.upgrade && c.minor == 1 && !body {
		if err := c.upgrade(); err != nil {
			return err
		}
	}
	waits, f := ingress.Expect(req, body && c.minor == 1)
	if f != nil {
		return f
	}
	c.expect = waits
	for id := exchange.ID(1); exchange.HopByHop>>id != 0; id++ {
		if exchange.HopByHop.Has(id) && x.Req.Has(id) {
			req.DelKnown(id)
		}
	}
	return nil
}

// upgrade reads the protocols that the client wants to switch to, and passes over those that no tunnel is made for.
func (c *conn) upgrade() error {
	x := &c.x
	var wanted exchange.View
	var err error
	for value := range x.Req.Values(exchange.IDUpgrade.Name()) {
		h1.Elements(value, func(e []byte) bool {
			name, version, versioned := bytes.Cut(e, []byte{'/'})
			switch {
			case !h1.Token(name) || versioned && !h1.Token(version):
				err = errUpgrade
			case !ingress.Tunnelled(e):
			case wanted == nil:
				wanted = e
			default:
				wanted = x.Extend(wanted, []byte(", "), e)
			}
			return err == nil
		})
	}
	x.Upgrade = wanted
	return err
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
		case exchange.HopByHop.Has(exchange.IDOf(e)): // removed in any case, and Connection is being read
		default:
			req.DelNamed(e)
		}
		return err == nil
	})
	return err
}

// notNominated are fields that a client must not have removed on the way to the backend by naming them in Connection.
const notNominated = 1<<exchange.IDHost | 1<<exchange.IDContentLength | 1<<exchange.IDContentType |
	1<<exchange.IDContentEncoding | 1<<exchange.IDExpect | ingress.Own
