package http2

import (
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// The faults of a client that are not found in a frame or a header block alone.
var (
	errPreface      = &h2.Fault{Code: h2.ProtocolError, Detail: "the connection does not begin as HTTP/2"}
	errUnsettled    = &h2.Fault{Code: h2.ProtocolError, Detail: "the first frame is not SETTINGS"}
	errPush         = &h2.Fault{Code: h2.ProtocolError, Detail: "clients do not push"}
	errStreamNumber = &h2.Fault{Code: h2.ProtocolError, Detail: "a stream is opened under a number that is even or too low"}
	errIdleStream   = &h2.Fault{Code: h2.ProtocolError, Detail: "a frame names a stream that was not opened"}
	errClosedStream = &h2.Fault{Code: h2.StreamClosed, Detail: "a frame names a stream that is closed"}
	errFlow         = &h2.Fault{Code: h2.FlowControlError, Detail: "more data was sent than the window allows"}
	errFlood        = &h2.Fault{Code: h2.EnhanceYourCalm, Detail: "too many frames that cost work and carry nothing"}

	errOwnDependency = &h2.Fault{Code: h2.ProtocolError, Stream: true, Detail: "a stream depends on itself"}
	errEnded         = &h2.Fault{Code: h2.StreamClosed, Stream: true, Detail: "a frame comes after the end of its stream"}
	errStreamFlow    = &h2.Fault{Code: h2.FlowControlError, Stream: true, Detail: "more data was sent than the window of the stream allows"}
	errLength        = &h2.Fault{Code: h2.ProtocolError, Stream: true, Detail: "Content-Length is not what was sent, or is no number"}
	errUnended       = &h2.Fault{Code: h2.ProtocolError, Stream: true, Detail: "trailers do not end the stream"}
)

// incoming is a DATA frame that is being read.
type incoming struct {
	stream        uint32
	left, padding int
	end           bool
}

// parse takes in what it can of b, and returns how much that was. Every error is a *h2.Fault and ends the connection.
func (c *conn) parse(b []byte) (int, error) {
	at := 0
	if c.prefaced < len(h2.Preface) {
		at = min(len(b), len(h2.Preface)-c.prefaced)
		if string(b[:at]) != h2.Preface[c.prefaced:c.prefaced+at] {
			return at, errPreface
		}
		c.prefaced += at
	}
	for {
		if c.data.left+c.data.padding > 0 {
			at += c.takeData(b[at:])
			if c.data.left+c.data.padding > 0 {
				return at, nil
			}
		}
		rest := b[at:]
		if len(rest) < h2.FrameHeaderSize {
			return at, nil
		}
		h := h2.ParseFrameHeader(rest)
		if err := c.expected(h); err != nil {
			return at, err
		}
		if h.Type == h2.Data {
			if h.Has(h2.FlagPadded) && len(rest) == h2.FrameHeaderSize && h.Length > 0 {
				return at, nil // the size of the padding is needed, too
			}
			n, err := c.beginData(h, rest[h2.FrameHeaderSize:])
			if err != nil {
				return at, err
			}
			at += h2.FrameHeaderSize + n
			continue
		}
		if len(rest) < h2.FrameHeaderSize+h.Length {
			return at, nil
		}
		at += h2.FrameHeaderSize + h.Length
		if err := c.frame(h, rest[h2.FrameHeaderSize:h2.FrameHeaderSize+h.Length]); err != nil {
			return at, err
		}
	}
}

// expected tells whether a frame may come now.
func (c *conn) expected(h h2.FrameHeader) error {
	if f, ok := h.Check().(*h2.Fault); ok && !f.Stream { // frame sees to faults of a stream, when all of it has come
		return f
	}
	switch {
	case !c.settled && (h.Type != h2.Settings || h.Has(h2.FlagAck)):
		return errUnsettled
	case h.Type == h2.PushPromise:
		return errPush
	}
	return c.block.Expects(h)
}

// streamFault resets the stream that is at fault, if it is only that; otherwise it returns the fault.
func (c *conn) streamFault(id uint32, err error) error {
	if f, ok := err.(*h2.Fault); ok && f.Stream {
		return c.reset(id, f.Code)
	}
	return err
}

// reset resets a stream, which may be closed already.
func (c *conn) reset(id uint32, code h2.ErrCode) error {
	c.sayReset(id, code)
	return c.spend(h2.CostReset)
}

func (c *conn) sayReset(id uint32, code h2.ErrCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		s.resetLocked(code)
		return
	}
	c.w.Out = h2.AppendReset(c.w.Out, id, code)
	c.w.Kick()
}

// spend takes n from the budget of the connection.
func (c *conn) spend(n int) error {
	if c.budget.Spend(n, c.srv.Sweeper.Now()) {
		return nil
	}
	c.budget.Earn(c.takeEarned())
	if c.budget.Spend(0, c.srv.Sweeper.Now()) {
		return nil
	}
	return errFlood
}

func (c *conn) takeEarned() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, c.earned = c.earned, 0
	return n
}

// frame takes in a frame that is complete and may come now. It is not DATA.
func (c *conn) frame(h h2.FrameHeader, content []byte) error {
	if err := h.Check(); err != nil {
		return c.streamFault(h.Stream, err)
	}
	switch h.Type {
	case h2.Headers, h2.Continuation:
		return c.headers(h, content)
	case h2.Settings:
		return c.settings(h, content)
	case h2.WindowUpdate:
		return c.windowUpdate(h.Stream, h2.ParseUint31(content))
	case h2.ResetStream:
		return c.resetStream(h.Stream)
	case h2.Ping:
		return c.ping(h, [8]byte(content))
	case h2.Priority:
		if h2.ParseUint31(content) == h.Stream {
			return c.streamFault(h.Stream, errOwnDependency)
		}
	}
	return c.spend(h2.CostEmpty)
}

func (c *conn) ping(h h2.FrameHeader, data [8]byte) error {
	if h.Has(h2.FlagAck) {
		if data == awayPing {
			c.goAwayFinally()
		}
		return c.spend(h2.CostEmpty)
	}
	c.pong(data)
	return c.spend(h2.CostPing)
}

func (c *conn) pong(data [8]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w.Out = h2.AppendPing(c.w.Out, true, data)
	c.w.Kick()
}

func (c *conn) settings(h h2.FrameHeader, content []byte) error {
	if h.Has(h2.FlagAck) {
		return c.spend(h2.CostEmpty)
	}
	c.settled = true
	c.mu.Lock()
	defer c.mu.Unlock()
	err := h2.ParseSettings(content, func(s h2.SettingValue) error {
		switch s.Setting {
		case h2.InitialWindowSize:
			change := int64(s.Value) - int64(c.initial)
			c.initial = h2.Window(s.Value)
			for _, st := range c.streams {
				if err := st.window.Grow(change); err != nil {
					return err
				}
				st.sendCond.Signal()
			}
		case h2.HeaderTableSize:
			c.update = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.w.Out = h2.AppendSettingsAck(c.w.Out)
	c.w.Kick()
	if !c.budget.Spend(h2.CostPing+len(content)/h2.SettingSize*h2.CostSetting, c.srv.Sweeper.Now()) {
		return errFlood
	}
	return nil
}

func (c *conn) windowUpdate(id, n uint32) error {
	known, err := c.grow(id, n)
	f, ok := err.(*h2.Fault)
	switch {
	case !known:
		return errIdleStream
	case ok && id > 0:
		return c.reset(id, f.Code)
	case ok:
		return f
	}
	return c.spend(h2.CostEmpty)
}

// grow makes a window for sending larger. It tells whether there is or was such a stream.
func (c *conn) grow(id, n uint32) (known bool, err error) {
	err = h2.Increment(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		if err == nil {
			err = c.window.Grow(int64(n))
			c.wakeWaitersLocked()
		}
		return true, err
	}
	if s := c.streams[id]; s != nil && err == nil {
		err = s.window.Grow(int64(n))
		s.sendCond.Signal()
	}
	return c.openedLocked(id), err
}

// openedLocked tells whether the client has opened that stream, or skipped it, which closes it.
func (c *conn) openedLocked(id uint32) bool { return id&1 == 1 && id <= c.maxID }

func (c *conn) resetStream(id uint32) error {
	cost, err := c.forget(id)
	if err != nil {
		return err
	}
	return c.spend(cost)
}

// forget takes in that the client has ended a stream, and tells what that costs.
func (c *conn) forget(id uint32) (cost int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.openedLocked(id) {
		return 0, errIdleStream
	}
	cost = h2.CostEmpty
	if s := c.streams[id]; s != nil {
		if !s.answered {
			cost = h2.CostReset
		}
		delete(c.streams, id)
		c.recent.add(id, false)
		s.abandonLocked()
		c.srv.metrics.resets.Inc()
	}
	return cost, nil
}

// headers takes in a HEADERS or CONTINUATION frame.
func (c *conn) headers(h h2.FrameHeader, content []byte) error {
	block, whole, err := c.block.Take(h, content, c.srv.Limits.Head)
	switch {
	case err != nil:
		return err
	case !whole:
		return c.spend(h2.CostEmpty)
	}
	return c.headerBlock(block)
}

// blockFault returns what is wrong with the frame that the header block began with.
func (c *conn) blockFault() *h2.Fault {
	if c.block.Dependency == c.block.Stream {
		return errOwnDependency
	}
	return nil
}

// What becomes of a header block.
type fate uint8

const (
	begins  fate = iota // a request
	trails              // trailers
	unasked             // of a stream that is not served: it is decoded and dropped
	refused             // of one that there is no room for
)

// headerBlock takes in a complete header block: a request, or trailers.
func (c *conn) headerBlock(block []byte) error {
	id := c.block.Stream
	s, f, err := c.destine(id)
	if err != nil {
		return err
	}
	cost := h2.CostEmpty
	switch f {
	case begins:
		return c.open(s, id, block)
	case trails:
		return c.trailers(s, block)
	case refused:
		c.srv.metrics.refused.Inc()
		cost = h2.CostReset
	}
	if err := c.drop(block); err != nil {
		return err
	}
	return c.spend(cost)
}

// destine finds out what the header block of a stream is. s is the stream that it is for, if it is for one.
func (c *conn) destine(id uint32) (s *stream, f fate, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		return s, trails, nil
	}
	if id&1 == 0 || id <= c.maxID {
		switch closed, byUs := c.recent.has(id); {
		case closed && byUs: // trailers that were on their way
			return nil, unasked, nil
		case closed:
			return nil, 0, errClosedStream
		}
		return nil, 0, errStreamNumber
	}
	c.maxID = id
	if c.awayFinal { // beyond the last stream: the client knows that it is not served, or soon will
		c.recent.add(id, true)
		return nil, unasked, nil
	}
	if s = c.takeLocked(); s != nil {
		return s, begins, nil
	}
	c.w.Out = h2.AppendReset(c.w.Out, id, h2.RefusedStream)
	c.recent.add(id, true)
	c.w.Kick()
	return nil, refused, nil
}

// open begins a stream.
func (c *conn) open(s *stream, id uint32, block []byte) error {
	begun := false
	defer func() {
		if !begun {
			c.giveBack(s)
		}
	}()
	s.begin(id, c.block.End)
	s.message.Reset(h2.Request, &s.x.Req, c.srv.Limits)
	if err := c.decoder.Decode(block, &s.message); err != nil {
		return err
	}
	s.check(c.blockFault())
	c.enlist(s)
	begun = true
	s.start()
	if s.fault != nil {
		return c.spend(h2.CostReset)
	}
	return nil
}

// enlist makes s a stream that frames may be about.
func (c *conn) enlist(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.window = c.initial
	c.streams[s.id] = s
	if c.away || c.srv.leaving.Load() {
		c.goAwayLocked()
	}
}

// trailers takes in the trailers of a request.
func (c *conn) trailers(s *stream, block []byte) error {
	id := s.id
	if s.received {
		if err := c.drop(block); err != nil {
			return err
		}
		return c.streamFault(id, errEnded)
	}
	if s.trailers == nil {
		s.trailers = new(trailers)
	}
	t := s.trailers
	t.message.Reset(h2.Trailers, &t.head, h1.Limits{Head: maxTrailers, Fields: 32})
	if err := c.decoder.Decode(block, &t.message); err != nil {
		return err
	}
	fault := t.message.End()
	switch {
	case fault != nil:
	case !c.block.End:
		fault = errUnended
	case t.message.Large:
		fault = errLargeTrailers
	case c.blockFault() != nil:
		fault = c.blockFault()
	case s.length >= 0 && s.got != s.length:
		fault = errLength
	}
	if fault != nil {
		return c.streamFault(id, fault)
	}
	if t.message.Underscore {
		ingress.DropLookalikes(&t.head)
	}
	s.end(t.head.Len() > 0)
	return nil
}

// maxTrailers bounds the trailers of a request.
const maxTrailers = 8 << 10

var errLargeTrailers = &h2.Fault{Code: h2.EnhanceYourCalm, Stream: true, Detail: "the trailers are larger than the limit"}

// drop decodes a block that nobody wants, for the sake of those that follow.
func (c *conn) drop(block []byte) error {
	if c.scrap == nil {
		c.scrap = new(scrap)
	}
	c.scrap.message.Reset(h2.Trailers, &c.scrap.head, c.srv.Limits)
	return c.decoder.Decode(block, &c.scrap.message)
}

// beginData takes in the header of a DATA frame, and the size of the padding if there is any: n bytes.
func (c *conn) beginData(h h2.FrameHeader, rest []byte) (n int, err error) {
	d := incoming{stream: h.Stream, left: h.Length, end: h.Has(h2.FlagEndStream)}
	if h.Has(h2.FlagPadded) {
		if h.Length == 0 || int(rest[0]) >= h.Length {
			return 0, &h2.Fault{Code: h2.ProtocolError, Detail: "a DATA frame is shorter than its padding"}
		}
		n = 1
		d.padding = int(rest[0])
		d.left -= 1 + d.padding
	}
	fault, err := c.bookData(h, &d)
	if err != nil {
		return 0, err
	}
	c.data = d
	if fault != nil {
		return n, c.streamFault(h.Stream, fault)
	}
	if d.left == 0 && !d.end || d.stream == 0 {
		return n, c.spend(h2.CostEmpty)
	}
	c.budget.Earn(h2.EarnData)
	return n, nil
}

// bookData takes in that a DATA frame comes. fault is one of its stream, err one of the connection. Data that nobody wants
// are made those of no stream.
func (c *conn) bookData(h h2.FrameHeader, d *incoming) (fault, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.openedLocked(h.Stream) {
		return nil, errIdleStream
	}
	if !c.credit.Take(h.Length) {
		return nil, errFlow
	}
	s := c.streams[h.Stream]
	switch {
	case s == nil:
		// Of what was closed before the recent ones it is not known by whom.
		if closed, byUs := c.recent.has(h.Stream); closed && !byUs {
			return nil, errClosedStream
		}
	case s.received:
		fault = errEnded
	case !s.credit.Take(h.Length):
		fault = errStreamFlow
	default:
		s.got += int64(d.left)
		if s.length >= 0 && (s.got > s.length || d.end && s.got != s.length) {
			fault = errLength
		}
	}
	if s == nil || fault != nil || s.over {
		c.returnLocked(nil, h.Length)
		d.stream = 0 // read it and drop it
		if fault == nil && s != nil && d.end {
			s.endLocked()
		}
		return fault, nil
	}
	c.returnLocked(s, h.Length-d.left)
	if d.left == 0 && d.end {
		s.endLocked()
	}
	return nil, nil
}

// takeData takes in what b holds of the DATA frame, and returns how much that is.
func (c *conn) takeData(b []byte) int {
	d := &c.data
	n := min(len(b), d.left)
	if n > 0 {
		d.left -= n
		if d.stream != 0 {
			c.keepData(b[:n])
		}
	}
	pad := min(len(b)-n, d.padding)
	if d.left == 0 {
		d.padding -= pad
		n += pad
	}
	return n
}

// keepData gives what has come of the DATA frame to its stream, if there still is one.
func (c *conn) keepData(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[c.data.stream]
	if s == nil || s.over {
		c.returnLocked(nil, len(b))
	} else {
		s.in = append(s.in, b...)
		s.bodyCond.Signal()
	}
	if s != nil && c.data.left == 0 && c.data.end {
		s.endLocked()
	}
}

// returnLocked books what has been passed on of the data of a stream, or dropped, and tells the client when that is worth
// a frame.
func (c *conn) returnLocked(s *stream, n int) {
	if n == 0 {
		return
	}
	if r := c.credit.Return(n); r > 0 {
		c.w.Out = h2.AppendWindowUpdate(c.w.Out, 0, r)
		c.w.Kick()
	}
	if s == nil || s.received {
		return
	}
	if r := s.credit.Return(n); r > 0 {
		c.w.Out = h2.AppendWindowUpdate(c.w.Out, s.id, r)
		c.w.Kick()
	}
}

// recentStreams is how many closed streams are remembered.
const recentStreams = 128

// recent is the numbers of the streams that were closed last: frames that name them may still be on their way.
type recent struct {
	ids  [recentStreams]uint32
	byUs [recentStreams]bool // reset from this end
	at   uint8
}

func (r *recent) add(id uint32, byUs bool) {
	i := r.at % uint8(len(r.ids))
	r.ids[i], r.byUs[i] = id, byUs
	r.at++
}

func (r *recent) has(id uint32) (closed, byUs bool) {
	for i, other := range r.ids {
		if other == id {
			return true, r.byUs[i]
		}
	}
	return false, false
}

var _ exchange.Source = (*stream)(nil)
