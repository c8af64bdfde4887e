package upstream

import (
	"errors"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/grpcweb"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/gateway/upstream/mux"
)

// http2 is HTTP/2: many calls at a time on few connections. Tunnels go over HTTP/1.1, each on a connection of its own.
type http2 struct {
	// auto tells to speak HTTP/1.1 with endpoints that do not offer HTTP/2 in their handshake.
	auto bool
}

// maxUnprocessed is how often a request is sent again that the backend says it has not processed.
const maxUnprocessed = 3

// try implements transport.
func (h http2) try(c *call, e *endpoint) (exchange.Source, bool, *exchange.Fault) {
	if c.x.Upgrade != nil || h.auto && e.muxes.speaksHTTP1() {
		return http1{}.try(c, e)
	}
	m := c.multiplexed()
	m.endpoint, m.fallback = e, false
	if f := m.translate(); f != nil {
		return nil, false, f
	}
	for i := 0; ; i++ {
		err := h.once(c, e, m)
		if err == nil {
			return m.translated(), true, nil
		}
		begun, f := m.pumping, m.fault(err)
		m.drop()
		if m.fallback {
			return http1{}.try(c, e)
		}
		sent := !errors.Is(err, mux.ErrUnprocessed) && !m.unsent || begun
		if !errors.Is(err, mux.ErrUnprocessed) || begun || i >= maxUnprocessed || c.late() {
			return nil, sent, f
		}
	}
}

// once sends the request once and waits for the head of the response.
func (h http2) once(c *call, e *endpoint, m *muxCall) error {
	x := c.x
	m.broken.Store(nil)
	m.unsent = true
	m.appendHead()
	end := x.Body == nil || !c.stream && len(m.sending) == 0
	if err := e.muxes.open(c, m, h.auto, end); err != nil {
		return err
	}
	m.unsent = false
	x.Tries++
	e.requests.Add(1)
	x.WaitOn(&m.interrupter)
	switch {
	case c.stream && x.Body != nil:
		m.start()
	case !end:
		if err := m.stream.Send(m.sending, true, c.settings.idle); err != nil && !errors.Is(err, mux.ErrReset) {
			return err
		}
	}
	return m.receive()
}

// muxCall is a call on a connection that carries many, and the response's body as a source. Like the call that it belongs to
// it is used for one after the other.
type muxCall struct {
	call        *call
	endpoint    *endpoint
	stream      mux.Stream
	interrupter exchange.Interrupter
	stop        func() error
	block       []byte
	unsent      bool // nothing was sent
	fallback    bool // the endpoint speaks HTTP/1.1
	ended       bool // the end of the body was passed on
	muxPump
	webCall
}

// multiplexed returns what the call needs on such a connection.
func (c *call) multiplexed() *muxCall {
	if c.mux == nil {
		m := &muxCall{call: c}
		m.interrupter, m.stop = &m.stream, m.why
		m.done = make(chan struct{}, 1)
		c.mux = m
	}
	c.mux.ended = false
	return c.mux
}

// why tells whoever was woken from waiting why to give up.
func (m *muxCall) why() error {
	switch {
	case m.call.x.Cancelled():
		return mux.ErrCancelled
	case m.broken.Load() != nil:
		return m.broken.Load()
	}
	return nil
}

// connectionFields are not passed on. Trailer is: from HTTP/2 to HTTP/2 trailers are, and some drop those that it does not
// announce.
const connectionFields = exchange.HopByHop &^ (1 << exchange.IDTrailer)

// appendHead makes the header block of the request.
func (m *muxCall) appendHead() {
	c := m.call
	x, s := c.x, c.settings
	authority := []byte(x.Authority)
	switch {
	case s.endpointOwn, s.host == "" && x.Authority == nil:
		authority = []byte(m.endpoint.name)
	case s.host != "":
		authority = []byte(s.host)
	}
	path := x.Path
	if x.ForwardPrefix != "" || x.ForwardPath != nil {
		path = x.ForwardPath
	}
	var query []byte
	if x.HasQuery {
		if query = x.Query; query == nil {
			query = []byte{}
		}
	}
	b := h2.AppendRequestLine(m.block[:0], x.Method, s.tls != nil, authority, x.ForwardPrefix, path, query, nil)
	except := connectionFields | 1<<exchange.IDHost | 1<<exchange.IDContentLength
	if m.web != grpcweb.None {
		except |= 1 << exchange.IDContentType
		b = h2.AppendField(b, exchange.IDContentType, "content-type", m.contentType)
	}
	b = h2.AppendHead(b, &x.Req, except)
	switch {
	case x.Body == nil:
		if needsLength(x.Method) {
			b = h2.AppendUint(b, exchange.IDContentLength, 0)
		}
	case !c.stream:
		b = h2.AppendUint(b, exchange.IDContentLength, int64(len(m.sending)))
	case x.Body.Len() >= 0 && m.web != grpcweb.Text:
		b = h2.AppendUint(b, exchange.IDContentLength, x.Body.Len())
	}
	m.block = h2.AppendField(b, exchange.IDTE, "te", "trailers") // gRPC asks for it
}

// receive waits for the head of the final response.
func (m *muxCall) receive() error {
	c := m.call
	x := c.x
	x.Resp.Reset()
	waited, informs := time.Duration(0), 0
	for {
		if waited >= c.settings.response {
			return mux.ErrTimeout
		}
		step := min(max(waited, firstLook), longLook, c.settings.response-waited)
		if left, bounded := c.left(); bounded {
			if step = min(step, left); step <= 0 {
				return mux.ErrTimeout
			}
		}
		status, err := m.stream.Head(&x.Resp, c.now()+step)
		switch {
		case errors.Is(err, mux.ErrTimeout):
			if c.down.Gone() {
				return mux.ErrCancelled
			}
			if waited += step; m.running() {
				waited = step
			}
			continue
		case err != nil:
			return err
		}
		for id := exchange.ID(1); connectionFields>>id != 0; id++ {
			if connectionFields.Has(id) && x.Resp.Has(id) {
				x.Resp.DelKnown(id)
			}
		}
		if status >= 200 {
			x.Status = status
			if m.stream.Ended() {
				m.finish()
			}
			return nil
		}
		if informs++; informs > maxInforms {
			return errBackwards
		}
		if err := c.down.Inform(status, &x.Resp); err != nil {
			return mux.ErrCancelled
		}
	}
}

// Next implements exchange.Source. The bound is for silence.
func (m *muxCall) Next() (exchange.Chunk, error) {
	c := m.call
	if m.ended {
		return exchange.Chunk{End: true}, nil
	}
	waited := time.Duration(0)
	for {
		step := min(max(waited, firstLook), longLook, c.settings.idle-waited)
		if left, bounded := c.left(); bounded {
			step = min(step, left)
		}
		var chunk exchange.Chunk
		err := mux.ErrTimeout
		if step > 0 {
			chunk, err = m.stream.NextBy(c.now() + step)
		}
		switch {
		case err == nil:
			if chunk.End {
				m.ended = true
				m.settle()
				c.over()
			}
			return chunk, nil
		case errors.Is(err, mux.ErrTimeout) && step > 0:
			// The exchange may have come to this call late, from a race of two.
			if c.down.Gone() || !c.x.WaitOn(&m.interrupter) {
				err = mux.ErrCancelled
				break
			}
			waited += step
			continue
		}
		f := m.fault(err)
		c.x.Code = f.Code
		m.endpoint.count(f.Code)
		m.drop()
		c.over()
		return exchange.Chunk{}, f
	}
}

// Ready implements exchange.Source.
func (m *muxCall) Ready() bool { return m.ended || m.stream.Ready() }

// Len implements exchange.Source.
func (m *muxCall) Len() int64 {
	if m.ended {
		return 0
	}
	return m.stream.Len()
}

// Trailers implements exchange.Source.
func (m *muxCall) Trailers() *exchange.Head { return m.stream.Trailers() }

// Close implements exchange.Source.
func (m *muxCall) Close() {
	m.drop()
	m.call.over()
}

// finish is called when the response is there as a whole, with a head alone.
func (m *muxCall) finish() {
	if m.stream.Len() < 0 && m.stream.Trailers() == nil {
		m.ended = true
	}
	if m.stream.Len() == 0 {
		m.ended = true
	}
	if m.ended {
		m.settle()
		m.call.over()
	}
}

// drop lets go of the stream.
func (m *muxCall) drop() {
	m.halt()
	m.call.x.WaitOn(nil)
	m.stream.Close()
}

// fault says what err means for the exchange.
func (m *muxCall) fault(err error) *exchange.Fault {
	if f := m.broken.Load(); f != nil {
		return f
	}
	var f *exchange.Fault
	switch {
	case m.call.x.Cancelled(), errors.Is(err, mux.ErrCancelled):
		return errClientGone
	case errors.As(err, &f):
		return f
	case errors.Is(err, mux.ErrTooLarge):
		return errResponseTooLarge
	case errors.Is(err, mux.ErrProtocol), errors.Is(err, errBackwards):
		return errProtocol
	case errors.Is(err, mux.ErrTimeout), expired(m.call.x):
		return errTimeout
	}
	return errReset
}

// expired tells whether the client of a gRPC call waits no longer. The backend was told for how long it does, and may reset the
// stream when that is over, before this side has looked at the time: that is no fault of the backend.
func expired(x *exchange.Exchange) bool {
	d := x.GRPCTimeout()
	return d > 0 && time.Since(x.Start) >= d
}
