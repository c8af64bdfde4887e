package http2

import (
	"errors"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// The faults of a request that HTTP/2 as such allows.
var (
	errLargeHead = fault(exchange.BadRequestHeadersTooLarge, "the header fields are larger or more than the limit")
	errTarget    = fault(exchange.BadRequestTargetTooLong, "the request target is longer than the limit")
	errMethod    = fault(exchange.BadRequestMethod, "the method is not a token of at most 32 characters")
	errConnect   = fault(exchange.NotImplemented, "CONNECT without :protocol is not served")
	errScheme    = fault(exchange.BadRequestTarget, "the scheme of the request is not the one of the connection")
	errAsterisk  = fault(exchange.BadRequestTarget, "the target * is not served")
	errPath      = fault(exchange.BadRequestTarget, "the path does not begin with a slash, or holds a space or a character outside ASCII")
	errNoHost    = fault(exchange.BadRequestHost, "there is neither an authority nor a Host field")
	errHost      = fault(exchange.BadRequestHost, "the authority is not a name or an address with an optional port")
	errHosts     = fault(exchange.BadRequestHost, "the Host field is repeated or is not the authority")
	errMalformed = fault(exchange.BadRequestHeader, "the request is malformed")
	errBadLength = fault(exchange.BadRequestFraming, "Content-Length is not what was sent, or is no number")
)

const (
	maxMethod  = 32
	viaVersion = "2.0"
)

var separateCookie = []byte("; ")

func fault(code exchange.Code, detail string) *exchange.Fault {
	return &exchange.Fault{Code: code, Detail: detail}
}

// refuse answers a request that is not served, or resets the stream if the request is malformed.
func (s *stream) refuse(err error) {
	var f *exchange.Fault
	if !errors.As(err, &f) {
		f = fault(exchange.BadRequestPath, err.Error())
	}
	if m := s.c.srv.metrics.faults[f.Code]; m != nil {
		m.Inc()
	}
	s.x.Refuse(f.Code, f.Detail)
	if s.fault != nil {
		s.reset(s.fault.Code)
		return
	}
	s.Respond(&s.x, nil)
}

// accept checks the head and fills in the exchange.
func (s *stream) accept() error {
	x, m, c := &s.x, &s.message, s.c
	x.Protocol, x.Scheme, x.TLS = exchange.HTTP2, c.scheme, c.tls
	c.client.Introduce(x)
	x.Method, x.RawTarget = m.Method, m.Path
	switch {
	case s.fault == errLength:
		return errBadLength
	case s.fault != nil:
		return errMalformed
	case m.Large:
		return errLargeHead
	case len(m.Method) > maxMethod || !h1.Token(m.Method):
		return errMethod
	}
	if err := s.target(); err != nil {
		return err
	}
	if err := s.fields(); err != nil {
		return err
	}
	if f := c.srv.Announce(x, &c.client, viaVersion); f != nil {
		return f
	}
	s.head = string(x.Method) == "HEAD"
	if !s.bodiless() || s.tunnel {
		x.Body = s
	}
	return nil
}

// bodiless tells whether the request has ended with its head.
func (s *stream) bodiless() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.received && len(s.in) == 0 && s.got == 0 && !s.hasTrailers
}

// target checks and takes in the pseudo-header fields.
func (s *stream) target() error {
	x, m := &s.x, &s.message
	if string(m.Method) == "CONNECT" {
		if m.Protocol == nil {
			return errConnect
		}
		if err := ingress.SetTunnel(x, m.Protocol); err != nil {
			return err
		}
		s.tunnel = true
	}
	host := []byte(m.Authority)
	if n := x.Req.Count(exchange.IDHost); n > 0 {
		given := x.Req.Known(exchange.IDHost)
		if n > 1 || host != nil && !exchange.EqualFold(host, given) {
			return errHosts
		}
		host = given
	}
	switch {
	case !exchange.EqualFold(m.Scheme, x.Scheme):
		return errScheme
	case len(m.Path) > s.c.srv.Limits.Target:
		return errTarget
	case len(host) == 0:
		return errNoHost
	case !ingress.SetAuthority(x, host):
		return errHost
	case string(m.Path) == "*":
		return errAsterisk
	case m.Path[0] != '/' || !ingress.ValidTarget(m.Path):
		return errPath
	}
	x.Req.DelKnown(exchange.IDHost)
	return ingress.SetPath(x, m.Path)
}

// special are the fields that need a look.
const special exchange.IDSet = exchange.HopByHop | 1<<exchange.IDExpect | 1<<exchange.IDCookie

// fields checks the header fields and makes them fit for the backend.
func (s *stream) fields() error {
	x, req := &s.x, &s.x.Req
	if s.message.Underscore {
		ingress.DropLookalikes(req)
	}
	if req.IDs()&special == 0 {
		return nil
	}
	x.TakesTrailers = req.Has(exchange.IDTE) // anything else than trailers is malformed
	for id := exchange.ID(1); exchange.HopByHop>>id != 0; id++ {
		if id != exchange.IDTrailer && exchange.HopByHop.Has(id) && req.Has(id) {
			req.DelKnown(id)
		}
	}
	if req.Has(exchange.IDExpect) {
		if _, f := ingress.Expect(req, !s.bodiless()); f != nil {
			return f
		}
	}
	if req.Count(exchange.IDCookie) > 1 { // RFC 9113, section 8.2.3
		var all exchange.View
		for v := range req.Values(exchange.IDCookie.Name()) {
			if all == nil {
				all = v
			} else {
				all = x.Extend(all, separateCookie, v)
			}
		}
		req.Set(exchange.IDCookie.Name(), all)
	}
	return nil
}

// reset ends the stream without a response, or in the middle of one.
func (s *stream) reset(code h2.ErrCode) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.ended = true
	if s.c.streams[s.id] == s {
		s.resetLocked(code)
	}
}
