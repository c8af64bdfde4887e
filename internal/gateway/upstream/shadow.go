package upstream

import (
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// shadow is a copy of a request that lives longer than the exchange it was made of: a second request of hedging, or what
// a mirror gets. It is used for one request after the other.
type shadow struct {
	x    exchange.Exchange
	call *call
	down nobody
	body exchange.Bytes
	text []byte // what views of x lie in
}

// nobody is the client of a shadow.
type nobody struct{ informs atomic.Int32 }

func (n *nobody) Inform(int, *exchange.Head) error              { n.informs.Add(1); return nil }
func (*nobody) Respond(_ *exchange.Exchange, s exchange.Source) {}
func (*nobody) Abort(*exchange.Exchange)                        {}
func (*nobody) Gone() bool                                      { return false }
func (*nobody) StopBody()                                       {}

// copyOf makes s a copy of a request with that body. Header fields that say how the body came are left to whoever
// sends it.
func (s *shadow) copyOf(x *exchange.Exchange, body []byte, hasBody bool) {
	y := &s.x
	y.Reset()
	s.text = s.text[:0]
	size := len(x.Method) + len(x.Authority) + len(x.Host) + len(x.Path) + len(x.Query) + len(x.ForwardPath) + len(x.ClientIP) + len(body)
	if cap(s.text) < size {
		s.text = make([]byte, 0, size)
	}
	y.ID, y.Start, y.Protocol, y.Scheme, y.Peer, y.Route = x.ID, time.Now(), x.Protocol, x.Scheme, x.Peer, x.Route
	y.Method, y.Authority, y.Host, y.ClientIP = s.keep(x.Method), s.keep(x.Authority), s.keep(x.Host), s.keep(x.ClientIP)
	y.Path, y.ForwardPrefix, y.ForwardPath = s.keep(x.Path), x.ForwardPrefix, s.keep(x.ForwardPath)
	y.Query, y.HasQuery, y.TakesTrailers = s.keep(x.Query), x.HasQuery, x.TakesTrailers
	y.Req.AddAll(&x.Req)
	if hasBody {
		s.body.Reset(s.keep(body))
		y.Body = &s.body
	}
}

// keep copies v; nil stays nil, which says something.
func (s *shadow) keep(v []byte) exchange.View {
	if v == nil {
		return nil
	}
	from := len(s.text)
	s.text = append(s.text, v...)
	return exchange.View(s.text[from:len(s.text):len(s.text)])
}

// callTo makes the call of s ready for a backend.
func (s *shadow) callTo(b *Backend, t *table) *call {
	if s.call == nil {
		s.call = newCall(&s.x)
	}
	s.x.Call = s.call
	s.call.begin(b, t.settings, &s.down)
	return s.call
}
