package mux

import (
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/x/sweep"
)

// The faults of a backend.
var (
	errUnsettled  = &h2.Fault{Code: h2.ProtocolError, Detail: "the first frame is not SETTINGS"}
	errPush       = &h2.Fault{Code: h2.ProtocolError, Detail: "pushes were switched off"}
	errIdleStream = &h2.Fault{Code: h2.ProtocolError, Detail: "a frame names a stream that was not opened"}
	errFlow       = &h2.Fault{Code: h2.FlowControlError, Detail: "more data was sent than the window allows"}
	errFlood      = &h2.Fault{Code: h2.EnhanceYourCalm, Detail: "too many frames that cost work and carry nothing"}
)

const (
	maxInforms  = 16
	maxTrailers = 64 << 10
)

// parse takes in what it can of b, and returns how much that was. Every error ends the connection.
func (c *Conn) parse(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hearLocked()
	at := 0
	for {
		if c.data.left+c.data.padding > 0 {
			at += c.takeDataLocked(b[at:])
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
				return at, nil
			}
			n, err := c.beginDataLocked(h, rest[h2.FrameHeaderSize:])
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
		if err := c.frameLocked(h, rest[h2.FrameHeaderSize:h2.FrameHeaderSize+h.Length]); err != nil {
			return at, err
		}
	}
}

func (c *Conn) expected(h h2.FrameHeader) error {
	if err := h.Check(); err != nil {
		return err
	}
	switch {
	case !c.settled && (h.Type != h2.Settings || h.Has(h2.FlagAck)):
		return errUnsettled
	case h.Type == h2.PushPromise:
		return errPush
	}
	return c.block.Expects(h)
}

func (c *Conn) spend(n int) error {
	if c.budget.Spend(n, c.opts.Sweeper.Now()) {
		return nil
	}
	return errFlood
}

func (c *Conn) frameLocked(h h2.FrameHeader, content []byte) error {
	switch h.Type {
	case h2.Headers, h2.Continuation:
		c.answeredLocked()
		return c.headersLocked(h, content)
	case h2.Settings:
		return c.settingsLocked(h, content)
	case h2.WindowUpdate:
		return c.windowUpdateLocked(h.Stream, h2.ParseUint31(content))
	case h2.ResetStream:
		if s := c.streams[h.Stream]; s != nil {
			delete(c.streams, h.Stream)
			code := h2.ParseErrCode(content)
			switch {
			case code == h2.RefusedStream:
				s.endLocked(ErrUnprocessed)
			default:
				s.endLocked(ErrReset)
			}
			c.retireLocked()
		}
		return c.spend(h2.CostEmpty)
	case h2.Ping:
		if h.Has(h2.FlagAck) {
			return nil
		}
		c.w.Out = h2.AppendPing(c.w.Out, true, [8]byte(content))
		c.w.Kick()
		return c.spend(h2.CostPing)
	case h2.GoAway:
		return c.goAwayLocked(content)
	}
	return c.spend(h2.CostEmpty)
}

// goAwayLocked takes in that the backend takes no more requests. Those above the last that it names were not processed.
func (c *Conn) goAwayLocked(content []byte) error {
	last, code := h2.ParseGoAway(content)
	c.away = true
	for id, s := range c.streams {
		if id > last {
			delete(c.streams, id)
			// After an error the backend may not know what it has processed.
			if code == h2.NoError || code == h2.EnhanceYourCalm {
				s.endLocked(ErrUnprocessed)
			} else {
				s.endLocked(ErrReset)
			}
		}
	}
	c.retireLocked()
	c.opts.Changed()
	return nil
}

func (c *Conn) settingsLocked(h h2.FrameHeader, content []byte) error {
	if h.Has(h2.FlagAck) {
		return nil
	}
	first := !c.settled
	c.settled = true
	if first {
		c.most = maxStreams // unless it says something else
	}
	err := h2.ParseSettings(content, func(v h2.SettingValue) error {
		switch v.Setting {
		case h2.InitialWindowSize:
			change := int64(v.Value) - int64(c.initial)
			c.initial = h2.Window(v.Value)
			for _, s := range c.streams {
				if err := s.window.Grow(change); err != nil {
					return err
				}
				s.cond.Broadcast()
			}
		case h2.MaxConcurrentStreams:
			c.most = int(min(v.Value, maxStreams))
		case h2.HeaderTableSize:
			c.update = true
		case h2.EnableConnectProtocol:
			c.tunnels = v.Value == 1
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.w.Out = h2.AppendSettingsAck(c.w.Out)
	c.w.Kick()
	return c.spend(h2.CostPing + len(content)/h2.SettingSize*h2.CostSetting)
}

func (c *Conn) windowUpdateLocked(id, n uint32) error {
	if err := h2.Increment(n); err != nil {
		return err
	}
	if id == 0 {
		if err := c.window.Grow(int64(n)); err != nil {
			return err
		}
		c.wakeWaitersLocked()
		return nil
	}
	if s := c.streams[id]; s != nil {
		if err := s.window.Grow(int64(n)); err != nil {
			return err
		}
		s.cond.Broadcast()
		return nil
	}
	if id >= c.next || id&1 == 0 {
		return errIdleStream
	}
	return nil
}

func (c *Conn) headersLocked(h h2.FrameHeader, content []byte) error {
	if h.Type == h2.Headers && (h.Stream >= c.next || h.Stream&1 == 0) {
		return errIdleStream
	}
	block, whole, err := c.block.Take(h, content, c.opts.Limits.Head)
	switch {
	case err != nil:
		return err
	case !whole:
		return c.spend(h2.CostEmpty)
	}
	return c.headerBlockLocked(block)
}

// headerBlockLocked takes in a complete header block: the head of a response, or trailers.
func (c *Conn) headerBlockLocked(block []byte) error {
	s := c.streams[c.block.Stream]
	if s == nil || s.complete {
		c.scrap.message.Reset(h2.Trailers, &c.scrap.head, c.opts.Limits)
		return c.decoder.Decode(block, &c.scrap.message)
	}
	c.budget.Earn(h2.EarnRequest)
	if s.final {
		return c.trailersLocked(s, block)
	}
	r := s.free()
	r.message.Reset(h2.Response, &r.head, c.opts.Limits)
	if err := c.decoder.Decode(block, &r.message); err != nil {
		return err
	}
	fault := r.message.End()
	if fault == nil && r.message.Large {
		s.heads, s.final = append(s.heads, r), true // Head tells, and no more are taken in
		s.cond.Broadcast()
		return nil
	}
	if fault == nil {
		status := r.message.StatusCode()
		switch {
		case status == 101 || status < 200 && (c.block.End || len(s.heads) >= maxInforms):
			fault = errIdleStream
		case status >= 200:
			s.final = true
			s.bodiless = s.bodiless || status == 204 || status == 304
			if !s.announced(&r.head) {
				fault = errIdleStream
			}
		}
	}
	if fault != nil {
		s.spare = append(s.spare, r)
		c.breakStreamLocked(s)
		return nil
	}
	s.heads = append(s.heads, r)
	if c.block.End {
		c.completeLocked(s)
	}
	s.cond.Broadcast()
	return nil
}

// free returns memory for a head.
func (s *Stream) free() *received {
	if n := len(s.spare); n > 0 {
		r := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return r
	}
	return new(received)
}

// announced takes in the length that a response announces. It returns false if that is no number, or more than one.
func (s *Stream) announced(h *exchange.Head) bool {
	if !h.Has(exchange.IDContentLength) {
		return true
	}
	n, ok := h1.ParseLength(h.Known(exchange.IDContentLength))
	if !ok || h.Count(exchange.IDContentLength) > 1 {
		return false
	}
	if !s.bodiless {
		s.length = n
	}
	return true
}

func (c *Conn) trailersLocked(s *Stream, block []byte) error {
	if s.trailers == nil {
		s.trailers = new(received)
	}
	t := s.trailers
	t.message.Reset(h2.Trailers, &t.head, h1.Limits{Head: maxTrailers, Fields: 64})
	if err := c.decoder.Decode(block, &t.message); err != nil {
		return err
	}
	if t.message.End() != nil || t.message.Large || !c.block.End {
		c.breakStreamLocked(s)
		return nil
	}
	s.hasTrailer = t.head.Len() > 0
	c.completeLocked(s)
	return nil
}

// completeLocked is called when the backend has ended the stream.
func (c *Conn) completeLocked(s *Stream) {
	if s.length >= 0 && s.got != s.length {
		c.breakStreamLocked(s)
		return
	}
	s.complete = true
	s.cond.Broadcast()
}

// breakStreamLocked resets a stream whose response cannot be understood.
func (c *Conn) breakStreamLocked(s *Stream) {
	delete(c.streams, s.id)
	c.w.Out = h2.AppendReset(c.w.Out, s.id, h2.ProtocolError)
	c.w.Kick()
	s.endLocked(ErrProtocol)
	c.retireLocked()
}

func (c *Conn) beginDataLocked(h h2.FrameHeader, rest []byte) (n int, err error) {
	d := incoming{stream: h.Stream, left: h.Length, end: h.Has(h2.FlagEndStream)}
	if h.Has(h2.FlagPadded) {
		if h.Length == 0 || int(rest[0]) >= h.Length {
			return 0, &h2.Fault{Code: h2.ProtocolError, Detail: "a DATA frame is shorter than its padding"}
		}
		n = 1
		d.padding = int(rest[0])
		d.left -= 1 + d.padding
	}
	if h.Stream >= c.next || h.Stream&1 == 0 {
		return 0, errIdleStream
	}
	if !c.credit.Take(h.Length) {
		return 0, errFlow
	}
	c.answeredLocked()
	s := c.streams[h.Stream]
	switch {
	case s == nil || s.complete:
		s = nil
	case !s.final || !s.credit.Take(h.Length) || s.bodiless && d.left > 0:
		c.breakStreamLocked(s)
		s = nil
	default:
		if s.got += int64(d.left); s.length >= 0 && s.got > s.length {
			c.breakStreamLocked(s)
			s = nil
		}
	}
	if s == nil {
		c.returnLocked(nil, h.Length)
		d.stream = 0
	} else {
		c.returnLocked(s, h.Length-d.left)
		if d.left == 0 && d.end {
			c.completeLocked(s)
		}
	}
	c.data = d
	if d.left == 0 && !d.end || d.stream == 0 {
		return n, c.spend(h2.CostEmpty)
	}
	c.budget.Earn(h2.EarnData)
	return n, nil
}

func (c *Conn) takeDataLocked(b []byte) int {
	d := &c.data
	n := min(len(b), d.left)
	if n > 0 {
		d.left -= n
		if s := c.streams[d.stream]; s != nil {
			s.in = append(s.in, b[:n]...)
			if d.left == 0 && d.end {
				c.completeLocked(s)
			}
			s.cond.Broadcast()
		} else if d.stream != 0 {
			c.returnLocked(nil, n)
		}
	}
	pad := min(len(b)-n, d.padding)
	if d.left == 0 {
		d.padding -= pad
		n += pad
	}
	return n
}

// returnLocked books what has been passed on of the data of a stream, or dropped.
func (c *Conn) returnLocked(s *Stream, n int) {
	if n == 0 {
		return
	}
	if r := c.credit.Return(n); r > 0 {
		c.w.Out = h2.AppendWindowUpdate(c.w.Out, 0, r)
		c.w.Kick()
	}
	if s == nil || s.complete || s.err != nil {
		return
	}
	if r := s.credit.Return(n); r > 0 {
		c.w.Out = h2.AppendWindowUpdate(c.w.Out, s.id, r)
		c.w.Kick()
	}
}

var _ sweep.Owner = (*Conn)(nil)
