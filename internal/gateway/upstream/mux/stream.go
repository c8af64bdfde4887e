package mux

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/x/sweep"
)

// Stream is one request on a connection, and then another one, perhaps on another connection. The zero value is ready to be
// opened. It implements exchange.Source, of the response's body, and exchange.Interrupter. One goroutine may send and one may
// receive at a time.
type Stream struct {
	at atomic.Pointer[Conn] // where it is open

	// What follows is guarded by Conn.mu of that connection.
	id         uint32
	window     h2.Window
	credit     h2.Credit
	in, passed []byte
	heads      []*received // that have not been received by who waits for them
	current    *received   // what the head that was received last lies in
	spare      []*received
	trailers   *received
	hasTrailer bool
	complete   bool          // the response has come to its end
	sentEnd    bool          // and the request has been sent to its end
	err        error         // why the stream has ended before that
	began      time.Duration // when it was opened, on the clock of the sweeper
	opened     bool
	final      bool // the head of the final response has come
	queued     bool
	bodiless   bool // the response has no body, whatever its fields say
	length     int64
	got        int64
	cond       sync.Cond
	alarm      sweep.Alarm
	ring       func()
	stop       func() error
}

var (
	// ErrFull: the connection takes no request at present.
	ErrFull = errors.New("the connection takes no more requests at present")
	// ErrAway: the connection takes no more requests at all.
	ErrAway = errors.New("the connection takes no more requests")
)

const keepBody = 64 << 10

// Open begins a request with its header block; end says that there is no body. bodiless says that the response has none
// whatever it says: to HEAD. stop is asked whenever waiting is woken why to give up: nil to go on.
func (s *Stream) Open(c *Conn, block []byte, end, bodiless bool, stop func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.next > h2.MaxStream:
		c.away = true
		c.retireLocked()
		return ErrAway
	case c.away:
		return ErrAway
	case len(c.streams) >= c.most || c.silentLocked():
		return ErrFull
	}
	s.cond.L = &c.mu
	s.id, s.window, s.credit = c.next, c.initial, h2.NewCredit(streamWindow)
	c.next += 2
	s.in, s.passed = reuse(s.in), reuse(s.passed)
	s.spare = append(s.spare, s.heads...)
	s.heads = s.heads[:0]
	s.retire()
	s.hasTrailer, s.complete, s.sentEnd, s.err, s.opened, s.final = false, false, end, nil, true, false
	s.bodiless, s.length, s.got, s.queued = bodiless, -1, 0, false
	s.stop = stop
	if s.ring == nil {
		s.ring = s.timeout
	}
	c.opts.Sweeper.AddAlarm(&s.alarm, s.ring)
	s.at.Store(c)
	s.began = c.opts.Sweeper.Now()
	if len(c.streams) == 0 && !c.doubt { // otherwise the silence goes on
		c.heard = s.began
		c.alarm.Arm(c.opts.Ping)
	}
	c.streams[s.id] = s
	c.uses++
	if c.update {
		c.update = false
		block = append([]byte{h2.TableUpdate}, block...)
	}
	c.w.Out = h2.AppendHeaders(c.w.Out, s.id, block, end)
	c.w.Kick()
	return nil
}

func reuse(b []byte) []byte {
	if cap(b) > keepBody {
		return nil
	}
	return b[:0]
}

// timeout is called by the alarm. It may come when the stream is another one's already, which then goes on waiting.
func (s *Stream) timeout() {
	c := s.at.Load()
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.cond.Broadcast()
}

// Interrupt implements exchange.Interrupter: it wakes whoever waits.
func (s *Stream) Interrupt() {
	if c := s.at.Load(); c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.cond.Broadcast()
	}
}

// endLocked says why the stream has ended before its time. It is not among those of the connection any more.
func (s *Stream) endLocked(err error) {
	if s.err == nil && !s.complete {
		s.err = err
	}
	s.cond.Broadcast()
}

// waitLocked waits to be woken, at most until by, on the clock of the sweeper; 0 is no bound. The error says why to give up.
func (s *Stream) waitLocked(c *Conn, by time.Duration) error {
	if s.stop != nil {
		if err := s.stop(); err != nil {
			return err
		}
	}
	if by > 0 {
		now := c.opts.Sweeper.Now()
		if now >= by {
			return ErrTimeout
		}
		s.alarm.Arm(by - now)
	}
	s.cond.Wait()
	return nil
}

// Send sends a piece of the body, and waits for windows and for room, no longer than limit for each frame. end ends the
// request.
func (s *Stream) Send(p []byte, end bool, limit time.Duration) error {
	c := s.at.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	by := c.opts.Sweeper.Now() + limit
	for {
		switch {
		case s.err != nil:
			return s.err
		case s.complete || !s.opened:
			return ErrReset // the backend has answered without reading the whole request
		case len(c.w.Out) < maxOut && (len(p) == 0 || s.window > 0 && c.window > 0):
			n := int(min(int64(len(p)), h2.MaxFrame, int64(max(s.window, 0)), int64(max(c.window, 0))))
			var flags uint8
			if end && n == len(p) {
				flags, s.sentEnd = h2.FlagEndStream, true
			}
			c.w.Out = h2.AppendFrameHeader(c.w.Out, n, h2.Data, flags, s.id)
			c.w.Out = append(c.w.Out, p[:n]...)
			s.window -= h2.Window(n)
			c.window -= h2.Window(n)
			c.w.Kick()
			if p = p[n:]; len(p) == 0 {
				return nil
			}
			by = c.opts.Sweeper.Now() + limit
			continue
		}
		if !s.queued {
			s.queued = true
			c.waiters = append(c.waiters, s)
		}
		if err := s.waitLocked(c, by); err != nil {
			return err
		}
	}
}

// SendTrailers ends the request with trailers.
func (s *Stream) SendTrailers(block []byte) error {
	c := s.at.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.err != nil || s.complete || !s.opened {
		return ErrReset
	}
	s.sentEnd = true
	c.w.Out = h2.AppendHeaders(c.w.Out, s.id, block, true)
	c.w.Kick()
	return nil
}

// Head waits for the next head, until by at the latest: that of an informational or of the final response. Its fields replace
// those in h, and are valid until the stream is opened again.
func (s *Stream) Head(h *exchange.Head, by time.Duration) (status int, err error) {
	c := s.at.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(s.heads) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if err := s.waitLocked(c, by); err != nil {
			return 0, err
		}
	}
	r := s.heads[0]
	s.heads = s.heads[:copy(s.heads, s.heads[1:])]
	s.retire()
	s.current = r
	if r.message.Large {
		return 0, ErrTooLarge
	}
	*h, r.head = r.head, *h
	return r.message.StatusCode(), nil
}

// retire makes the memory of the head that was received last free for others.
func (s *Stream) retire() {
	if s.current != nil {
		s.spare = append(s.spare, s.current)
		s.current = nil
	}
}

// NextBy is Next with a bound.
func (s *Stream) NextBy(by time.Duration) (exchange.Chunk, error) {
	c := s.at.Load()
	if c == nil {
		return exchange.Chunk{End: true}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(s.passed); n > 0 {
		s.passed = s.passed[:0]
		c.returnLocked(s, n)
	}
	for {
		switch {
		case len(s.in) > 0 || s.complete:
			s.passed, s.in = s.in, s.passed
			return exchange.Chunk{Data: s.passed, End: s.complete}, nil
		case s.err != nil:
			return exchange.Chunk{}, s.err
		}
		if err := s.waitLocked(c, by); err != nil {
			return exchange.Chunk{}, err
		}
	}
}

// Ready tells whether NextBy has something at hand.
func (s *Stream) Ready() bool {
	c := s.at.Load()
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(s.in) > 0 || s.complete || s.err != nil
}

// Ended tells whether the response has come to its end without anything left to pass on.
func (s *Stream) Ended() bool {
	c := s.at.Load()
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.complete && len(s.in) == 0
}

// Len returns the length of the body as announced, or -1. It is known once the head is.
func (s *Stream) Len() int64 {
	if s.bodiless {
		return 0
	}
	return s.length
}

// Trailers returns the trailers of the response once its end was seen; nil if there are none.
func (s *Stream) Trailers() *exchange.Head {
	if !s.hasTrailer {
		return nil
	}
	return &s.trailers.head
}

// Close lets go of the stream. One that has not come to its end is cancelled.
func (s *Stream) Close() {
	c := s.at.Load()
	if c == nil {
		return
	}
	s.close(c)
	s.alarm.Remove()
	s.at.Store(nil)
	c.opts.Changed()
}

func (s *Stream) close(c *Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.opened = false
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
		c.doubt = c.doubt || !s.complete && c.heard <= s.began
		if !s.complete || !s.sentEnd {
			code := h2.Cancel
			if s.complete {
				code = h2.NoError
			}
			c.w.Out = h2.AppendReset(c.w.Out, s.id, code)
			c.w.Kick()
		}
		if len(c.streams) == 0 {
			c.since = c.opts.Sweeper.Now()
		}
		c.retireLocked()
	}
	c.returnLocked(nil, len(s.in)+len(s.passed))
	s.in, s.passed = s.in[:0], s.passed[:0]
	if s.err == nil {
		s.err = ErrReset
	}
	s.cond.Broadcast()
}

// Abort ends the request from this end, with whoever waits in Send. Close must follow.
func (s *Stream) Abort() {
	if c := s.at.Load(); c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.endLocked(ErrReset)
	}
}
