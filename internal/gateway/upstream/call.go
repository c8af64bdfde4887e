package upstream

import (
	"errors"
	"io"
	"math"
	"strconv"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/x/sweep"
)

const (
	// bufferSize is what buffers begin with; most heads and small bodies fit.
	bufferSize = 4 << 10
	// takeBelow is the length of a request's body up to which it is read before the request is sent.
	takeBelow = 64 << 10
	// copyBelow is the length of a body up to which it is copied behind the head, rather than sent from where it is.
	copyBelow = 2 << 10
	// bufferBelow is the length of a body of unknown length up to which it is read to its end for HTTP/1.0.
	bufferBelow = 1 << 20
	// keepBelow is the size up to which buffers are kept for the next call.
	keepBelow = takeBelow + bufferSize
	// maxInforms bounds the informational responses before one response.
	maxInforms = 10
)

// The steps in which a long wait looks whether the client is still there: the first, and the longest.
const (
	firstLook = time.Second
	longLook  = 8 * time.Second
)

// call is one call of a backend, and the response's body as a source. It belongs to an exchange and is used for one call
// after the other.
type call struct {
	x        *exchange.Exchange
	down     exchange.Down
	backend  *Backend
	settings *settings

	endpoint *endpoint
	conn     *conn // nil before and after

	parser   h1.Parser
	body     h1.Body
	in       []byte        // what is read: head of the response, and what fits of its body
	received int           // bytes of the response so far, informational ones included; send may have read the first
	waited   time.Duration // for the response, in send
	reusable bool          // the connection can be used again after the response
	limit    time.Duration

	out     []byte      // what is sent: head of the request, and its body if it is very short
	sending []byte      // the taken body
	forget  func()      // lets go of that; made once
	joined  []byte      // memory for that, if it came in pieces
	stream  bool        // the body is passed on by the pump
	tunnel  bool        // the backend has switched protocols
	pipe    *sweep.Pipe // what Read reads into; nil: memory
	pump    pump
	mux     *muxCall // for connections that carry many calls; nil until it is needed
	tries            // of this call
}

func newCall(x *exchange.Exchange) *call {
	c := &call{x: x, in: make([]byte, bufferSize), out: make([]byte, 0, bufferSize)}
	c.body.Greedy = true
	c.pump.init(c)
	c.forget = func() {
		c.sending = nil
		c.x.Body.Close()
	}
	return c
}

func (c *call) begin(b *Backend, s *settings, d exchange.Down) {
	c.backend, c.settings, c.down = b, s, d
	c.stream, c.tunnel, c.received, c.waited = false, false, 0, 0
	c.sending = nil
	c.tries.reset(c.now(), s, c.x)
	c.pump.reset()
	if cap(c.joined) > keepBelow {
		c.joined = nil
	}
	if len(c.in) > 4*bufferSize {
		c.in = make([]byte, bufferSize)
	}
}

// takeBody reads the body of the request if it is known to be short, so that the request can be sent in one piece, and
// again if need be. Who waits for 100 before sending a body wants to hear that from the backend.
func (c *call) takeBody() exchange.Verdict {
	x := c.x
	if x.Body == nil || x.Upgrade != nil {
		return exchange.Continue
	}
	n := x.Body.Len()
	if most := x.Route.MaxRequestBytes; most > 0 && n > most {
		return x.Refuse(errTooLarge.Code, errTooLarge.Detail)
	}
	most := int64(math.MaxInt64)
	switch {
	case n < 0 && c.settings.http10:
		most = bufferBelow // its length must be told first
	case n < 0 || n > takeBelow || x.Req.Has(exchange.IDExpect):
		c.stream = true
		return exchange.Continue
	}
	c.joined = c.joined[:0]
	for {
		chunk, err := x.Body.Next()
		if err != nil {
			f := faultOf(err, errClientGone)
			if f.Code == exchange.ClientGone {
				x.Code, x.Status = f.Code, f.Code.Status()
				return exchange.Abort
			}
			return x.Refuse(f.Code, f.Detail)
		}
		if chunk.End && len(c.joined) == 0 {
			c.sending = chunk.Data // nobody calls Next again
			return exchange.Continue
		}
		c.joined = append(c.joined, chunk.Data...)
		if n := int64(len(c.joined)); x.Route.MaxRequestBytes > 0 && n > x.Route.MaxRequestBytes {
			return x.Refuse(errTooLarge.Code, errTooLarge.Detail)
		} else if n > most {
			return x.Refuse(errBuffer.Code, errBuffer.Detail)
		}
		if chunk.End {
			c.sending = c.joined
			return exchange.Continue
		}
	}
}

// use makes conn the connection of the call.
func (c *call) use(e *endpoint, conn *conn) {
	c.endpoint, c.conn = e, conn
	conn.tcp.Owner = c
	if c.watched {
		c.x.WaitOn(&conn.waker)
	}
}

// Cancelled implements sweep.Owner: it tells whoever was woken from reading whether to give up.
func (c *call) Cancelled() bool { return c.x.Cancelled() || c.pump.fault.Load() != nil }

// send sends the head of the request, and the body if it was taken. Unless the body is a stream it also waits for the
// begin of the response, but not for long. It tells whether any of the request may have arrived.
func (c *call) send() (bool, error) {
	c.out = c.appendHead(c.out[:0])
	more := c.sending
	if len(more) < copyBelow {
		c.out, more = append(c.out, more...), nil
	}
	c.conn.tcp.ArmWrite(c.settings.idle)
	var written func()
	if len(more) > 0 && !c.mayRepeat(true) {
		written = c.forget // others can use that memory while this request waits
	}
	if c.stream || !c.conn.plain {
		n, err := c.conn.stream.Write(c.out)
		if err == nil && len(more) > 0 {
			_, err = c.conn.stream.Write(more)
		}
		if err == nil && written != nil {
			written()
		}
		if err == nil && c.stream {
			c.pump.start()
		}
		return n > 0, err
	}
	first := min(firstLook, c.settings.response)
	if c.conn.reused {
		// The backend may have closed its side just before: Ask learns that only from a look.
		first = min(first, sweep.Tick)
	}
	if left, bounded := c.left(); bounded {
		first = min(first, max(left, time.Millisecond))
	}
	c.conn.tcp.ArmRead(first)
	n, sent, err := c.conn.tcp.Ask(c.out, more, c.in, written)
	c.received = n
	if errors.Is(err, sweep.ErrTimeout) && sent {
		c.waited, err = first, nil // receive goes on
	}
	return sent, err
}

// mayRepeat tells whether sending the request again does no harm.
func (c *call) mayRepeat(sent bool) bool {
	if c.stream {
		return false
	}
	if !sent {
		return true
	}
	return c.settings.retries.repeatable(c.x.Method)
}

// appendHead appends the head of the request.
func (c *call) appendHead(out []byte) []byte {
	x, s := c.x, c.settings
	out = append(out, x.Method...)
	out = append(out, ' ')
	if x.ForwardPrefix == "" && x.ForwardPath == nil {
		out = append(out, x.Path...)
	} else {
		out = append(append(out, x.ForwardPrefix...), x.ForwardPath...)
	}
	if x.HasQuery {
		out = append(append(out, '?'), x.Query...)
	}
	if s.http10 {
		out = append(out, " HTTP/1.0\r\nHost: "...)
	} else {
		out = append(out, " HTTP/1.1\r\nHost: "...)
	}
	switch {
	case s.endpointOwn:
		out = append(out, c.endpoint.name...)
	case s.host != "":
		out = append(out, s.host...)
	case x.Authority != nil:
		out = append(out, x.Authority...)
	default:
		out = append(out, c.endpoint.name...) // HTTP/1.0 without Host
	}
	out = append(out, '\r', '\n')
	out = x.Req.AppendLines(out, exchange.HopByHop|1<<exchange.IDHost|1<<exchange.IDContentLength)
	if x.Upgrade == nil {
		out = c.conn.appendConnection(out, s, x.TakesTrailers && !s.http10)
	}
	switch {
	case x.Upgrade != nil:
		out = append(append(append(out, "Connection: Upgrade\r\nUpgrade: "...), x.Upgrade...), '\r', '\n')
	case x.Body == nil:
		if needsLength(x.Method) {
			out = append(out, "Content-Length: 0\r\n"...)
		}
	case !c.stream:
		out = append(strconv.AppendInt(append(out, "Content-Length: "...), int64(len(c.sending)), 10), '\r', '\n')
	case x.Body.Len() >= 0:
		out = append(strconv.AppendInt(append(out, "Content-Length: "...), x.Body.Len(), 10), '\r', '\n')
	default:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(out, '\r', '\n')
}

// needsLength tells whether a method expects content, so that its absence should be told (RFC 9110, section 8.6).
func needsLength(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// receive reads until the head of the final response is complete, and prepares the body.
func (c *call) receive() error {
	x := c.x
	x.Resp.Reset()
	c.parser.Reset(c.settings.limits)
	c.limit = c.settings.response
	filled, informs := c.received, 0
	for {
		n, err := c.parser.Response(c.in[:filled], &x.Resp)
		if err != nil {
			return err
		}
		switch {
		case n > 0 && c.parser.Status >= 200:
			return c.head(n, filled)
		case n > 0 && c.parser.Status == 101:
			return c.switched(n, filled)
		}
		if n > 0 {
			if informs++; informs > maxInforms {
				return errBackwards
			}
			if err := c.inform(); err != nil {
				return err
			}
			filled = copy(c.in, c.in[n:filled])
			x.Resp.Reset()
			c.parser.Reset(c.settings.limits)
			continue
		}
		if filled == len(c.in) {
			c.in = append(c.in, make([]byte, len(c.in))...)
		}
		m, err := c.Read(c.in[filled:])
		filled += m
		c.received += m
		if m == 0 && err != nil {
			if errors.Is(err, io.EOF) && c.received > 0 {
				return errIncomplete
			}
			return err
		}
	}
}

// inform passes an informational response on.
func (c *call) inform() error {
	removeHop(&c.x.Resp)
	if err := c.down.Inform(c.parser.Status, &c.x.Resp); err != nil {
		return errClientGone
	}
	return nil
}

// head takes in the head of the response, n bytes of what has been read.
func (c *call) head(n, filled int) error {
	x := c.x
	framing, length, err := h1.ResponseFraming(&x.Resp, c.parser.Minor, c.parser.Status, string(x.Method) == "HEAD")
	if err != nil {
		return err
	}
	c.reusable = c.parser.Minor == 1
	if x.Resp.IDs()&exchange.HopByHop != 0 {
		for v := range x.Resp.Values(exchange.IDConnection.Name()) {
			h1.Elements(v, func(e []byte) bool {
				if exchange.EqualFold(e, "close") {
					c.reusable = false
				} else if exchange.EqualFold(e, "keep-alive") && c.parser.Minor == 0 {
					c.reusable = true
				}
				return true
			})
		}
		removeHop(&x.Resp)
	}
	if framing == h1.UntilClose {
		c.reusable = false
	}
	x.Status = c.parser.Status
	c.limit = c.settings.idle
	c.conn.doubt = framing == h1.NoBody // some send one all the same
	c.body.Reset(c, c.backend.registry.opts.Bodies, framing, length, c.in, n, filled)
	if c.body.Ended() {
		c.finish()
	}
	return nil
}

// kept are fields that a response keeps though Connection names them.
const kept exchange.IDSet = 1<<exchange.IDContentLength | 1<<exchange.IDDate

// removeHop removes the fields that speak of the connection, and those that Connection names.
func removeHop(h *exchange.Head) {
	if h.IDs()&exchange.HopByHop == 0 {
		return
	}
	for v := range h.Values(exchange.IDConnection.Name()) {
		h1.Elements(v, func(e []byte) bool {
			if !(exchange.HopByHop | kept).Has(exchange.IDOf(e)) {
				h.DelNamed(e)
			}
			return true
		})
	}
	for id := exchange.ID(1); exchange.HopByHop>>id != 0; id++ {
		if exchange.HopByHop.Has(id) && h.Has(id) {
			h.DelKnown(id)
		}
	}
}

// Read reads from the connection. The limit is for silence; while the request's body is still being passed on there is
// none for the response's head. From time to time it looks whether anybody still waits for the response.
func (c *call) Read(p []byte) (int, error) {
	waited := c.waited
	c.waited = 0
	for {
		if c.tunnel {
			waited = c.tunnelWaited(waited)
		}
		if waited >= c.limit {
			return 0, sweep.ErrTimeout
		}
		// A cancellation is seen here, also by a stream in which there is always something to read. From the first wait that
		// is not short it wakes this goroutine.
		if c.x.Cancelled() || waited > 0 && (!c.x.WaitOn(&c.conn.waker) || !c.tunnel && c.down.Gone()) {
			return 0, errClientGone
		}
		step := min(max(waited, firstLook), longLook, c.limit-waited)
		if left, bounded := c.left(); bounded {
			if step = min(step, left); step <= 0 {
				return 0, sweep.ErrTimeout
			}
		}
		c.conn.tcp.ArmRead(step)
		var n int
		var err error
		if c.pipe != nil {
			n, err = c.pipe.Fill(&c.conn.tcp, c.body.Piped())
		} else {
			n, err = c.conn.stream.Read(p)
		}
		if n > 0 || err == nil || !errors.Is(err, sweep.ErrTimeout) {
			return n, err
		}
		if waited += step; c.received == 0 && c.pump.running() {
			waited = step
		}
	}
}

// fault says what err means for the exchange.
func (c *call) fault(err error) *exchange.Fault {
	if f := c.pump.fault.Load(); f != nil {
		return f
	}
	var f *exchange.Fault
	switch {
	case c.x.Cancelled(), errors.Is(err, errClientGone):
		return errClientGone
	case errors.As(err, &f) && f.Code == exchange.BadRequestHeadersTooLarge:
		return errResponseTooLarge
	case errors.As(err, &f), errors.Is(err, errSwitch), errors.Is(err, errBackwards), errors.Is(err, errIncomplete):
		return errProtocol
	case errors.Is(err, sweep.ErrTimeout):
		return errTimeout
	}
	return errReset
}

func faultOf(err error, other *exchange.Fault) *exchange.Fault {
	var f *exchange.Fault
	if errors.As(err, &f) {
		return f
	}
	return other
}

// Next implements exchange.Source.
func (c *call) Next() (exchange.Chunk, error) {
	if c.tunnel && !c.pump.begun() {
		c.pump.start()
	}
	chunk, err := c.body.Next()
	if err != nil {
		return exchange.Chunk{}, c.fail(err)
	}
	if chunk.End && c.conn != nil && !c.tunnel {
		c.finish()
	}
	return chunk, nil
}

// fail breaks off the response.
func (c *call) fail(err error) error {
	f := c.fault(err)
	c.x.Code = f.Code
	c.endpoint.count(f.Code)
	c.abandon()
	c.over()
	return f
}

// Piped implements exchange.PipeSource.
func (c *call) Piped() int64 {
	if c.conn == nil || !c.conn.plain {
		return 0
	}
	return c.body.Piped()
}

// NextPipe implements exchange.PipeSource.
func (c *call) NextPipe(p *sweep.Pipe) (int, error) {
	c.pipe = p
	n, err := c.Read(nil)
	c.pipe = nil
	if err != nil {
		return 0, c.fail(err)
	}
	if c.body.Skip(n); c.body.Ended() {
		c.conn.doubt = true // nothing was read beyond the body
		c.finish()
	}
	return n, nil
}

// Ready implements exchange.Source.
func (c *call) Ready() bool { return c.body.Ready() }

// Len implements exchange.Source.
func (c *call) Len() int64 { return c.body.Len() }

// Trailers implements exchange.Source.
func (c *call) Trailers() *exchange.Head { return c.body.Trailers() }

// Close implements exchange.Source.
func (c *call) Close() {
	if c.tunnel && c.conn != nil && c.body.Ended() {
		c.endTunnel()
	}
	c.abandon()
	c.over()
	c.body.Release()
}

// Abandon lets go of everything, in whatever state the call is.
func (c *call) Abandon() {
	if c.mux != nil {
		c.mux.drop()
	}
	c.abandon()
	c.over()
	c.body.Release()
}

// finish gives the connection back after the last byte of the response.
func (c *call) finish() {
	defer c.over()
	if c.stream && !c.pump.settle() {
		c.reusable = false
	}
	if len(c.body.Buffered()) > 0 {
		c.reusable = false // it said more than was asked
	}
	if !c.reusable {
		c.drop()
		return
	}
	conn := c.conn
	c.conn = nil
	conn.doubt = conn.doubt || c.body.Full()
	c.endpoint.pool.put(conn, c.settings, c.now())
}

// abandon lets go of the connection in the middle of a response, if there is one.
func (c *call) abandon() {
	if c.conn != nil {
		c.drop()
	}
}

// drop closes the connection and ends the pump.
func (c *call) drop() {
	if c.stream || c.tunnel {
		c.pump.stop()
	}
	conn := c.conn
	c.conn = nil
	c.endpoint.pool.drop(conn)
}
