package http2

import (
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/x/sweep"
)

// keepBody bounds the memory for bodies that a stream keeps.
const keepBody = 64 << 10

// overTime is how long a client may go on with a request that has had its response before it is told to stop (RFC 9113, section
// 8.1). Mostly the end of the request is on its way, and what comes with it is held against the rules as if it were wanted.
const overTime = 500 * time.Millisecond

// stream is one request with its response, and the goroutine that serves it; when it is over, another one's.
type stream struct {
	c    *conn
	wake chan bool // a request is there; false: end

	// What follows belongs to the goroutine that reads until start, then to the one that serves.
	x       exchange.Exchange
	message h2.Message
	fault   *h2.Fault // makes the request malformed
	block   []byte    // header block of the response
	head    bool      // the method is HEAD
	tunnel  bool
	ended   bool // the end of the response has been handed over

	// The number and what belongs to the goroutine that reads.
	id          uint32
	length, got int64 // of the body: as announced, or -1, and so far
	trailers    *trailers

	// What follows is guarded by conn.mu.
	window      h2.Window // for sending
	credit      h2.Credit
	in          []byte // of the body: what has come
	passed      []byte // and what has been passed on by the last Next
	received    bool   // the client has ended the stream
	hasTrailers bool
	answered    bool // the head of the response has been handed over
	over        bool // the response is over, and the end of the request is waited for
	dead        bool // the stream was reset, by whichever end
	stopped     bool // StopBody was called
	bodyLate    bool // the body has been silent for too long
	sendLate    bool // the client takes nothing
	queued      bool // among conn.waiters
	bodyCond    sync.Cond
	sendCond    sync.Cond

	bodyWaited           time.Duration // for the body, together
	bodyBy, sendBy       time.Duration // when waiting ends, on the clock of the sweeper
	bodyAlarm, sendAlarm sweep.Alarm
	gone                 atomic.Bool // nobody waits for the response any more
}

// trailers is the trailers of a request.
type trailers struct {
	message h2.Message
	head    exchange.Head
}

// takeLocked returns a stream that is free, or nil if there are as many as there may be.
func (c *conn) takeLocked() *stream {
	if len(c.idle) == 0 && c.workers >= c.srv.MaxStreams {
		c.hurryLocked()
	}
	if n := len(c.idle); n > 0 {
		s := c.idle[n-1]
		c.idle[n-1] = nil
		c.idle = c.idle[:n-1]
		c.active++
		return s
	}
	if c.workers >= c.srv.MaxStreams {
		return nil
	}
	c.workers++
	c.active++
	s := &stream{c: c, wake: make(chan bool, 1)}
	s.bodyCond.L, s.sendCond.L = &c.mu, &c.mu
	c.srv.Sweeper.AddAlarm(&s.bodyAlarm, s.bodyTimeout)
	c.srv.Sweeper.AddAlarm(&s.sendAlarm, s.sendTimeout)
	c.wg.Go(s.run)
	return s
}

// hurryLocked ends the oldest of the streams that are over, if there is one, for the sake of another.
func (c *conn) hurryLocked() {
	var oldest *stream
	for _, s := range c.streams {
		if s.over && (oldest == nil || s.id < oldest.id) {
			oldest = s
		}
	}
	if oldest != nil {
		oldest.resetLocked(h2.NoError)
	}
}

// giveBack makes a stream free again that has not begun.
func (c *conn) giveBack(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restLocked()
	c.freeLocked(s)
}

func (c *conn) freeLocked(s *stream) {
	if c.closing {
		c.workers--
		s.wake <- false
		return
	}
	c.idle = append(c.idle, s)
}

// run serves streams, one after the other.
func (s *stream) run() {
	for <-s.wake && s.serve() {
	}
	s.bodyAlarm.Remove()
	s.sendAlarm.Remove()
}

// begin makes s ready for the stream of that number.
func (s *stream) begin(id uint32, end bool) {
	c := s.c
	s.x.Reset()
	s.x.Start = c.now
	c.ids.Next(&s.x.ID)
	s.id, s.fault, s.head, s.tunnel, s.ended = id, nil, false, false, false
	s.length, s.got = -1, 0
	c.mu.Lock()
	defer c.mu.Unlock()
	s.credit = h2.NewCredit(streamWindow)
	s.in, s.passed = reuse(s.in), reuse(s.passed)
	s.received, s.hasTrailers, s.answered, s.over, s.dead, s.stopped = end, false, false, false, false, false
	s.bodyLate, s.sendLate, s.bodyWaited = false, false, 0
	s.gone.Store(false)
}

func reuse(b []byte) []byte {
	if cap(b) > keepBody {
		return nil
	}
	return b[:0]
}

// check looks at the header block as a whole: what makes the request malformed must be known before its data comes.
func (s *stream) check(fault *h2.Fault) {
	s.fault = fault
	if err, ok := s.message.End().(*h2.Fault); ok {
		s.fault = err
	}
	req := &s.x.Req
	if s.fault != nil || !req.Has(exchange.IDContentLength) {
		return
	}
	n, ok := h1.ParseLength(req.Known(exchange.IDContentLength))
	if !ok || req.Count(exchange.IDContentLength) > 1 || s.received && n != 0 {
		s.fault = errLength
		return
	}
	s.length = n
}

// start has the request served.
func (s *stream) start() { s.wake <- true }

// serve serves one request, and tells whether s can serve another. What panics is a fault of the gateway, and costs the stream.
func (s *stream) serve() (again bool) {
	defer s.c.srv.guard.Catch("serving a stream", s.panicked) // then again is false
	x := &s.x
	if err := s.accept(); err != nil {
		s.refuse(err)
	} else {
		s.c.srv.Handler.Serve(x, s)
	}
	x.Duration = time.Since(x.Start)
	s.c.srv.Handler.Done(x)
	return s.finish()
}

// finish closes the stream, and tells whether s can serve another.
func (s *stream) finish() bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.bodyAlarm.Disarm()
	if c.streams[s.id] == s {
		switch {
		case !s.ended:
			s.resetLocked(h2.InternalError)
		case !s.received && (c.awayFinal || c.closing):
			s.resetLocked(h2.NoError) // the rest of the request is not wanted
		case !s.received:
			s.over = true
			s.bodyAlarm.Arm(overTime)
		default:
			delete(c.streams, s.id)
			c.recent.add(s.id, false)
		}
	}
	c.returnLocked(nil, len(s.in)+len(s.passed))
	c.earned = min(c.earned+h2.EarnRequest, 1<<20)
	c.restLocked()
	if c.closing {
		c.workers--
		return false
	}
	if !s.over {
		c.idle = append(c.idle, s)
	}
	return true
}

// panicked lets go of what the exchange may hold. The memory is not used again.
func (s *stream) panicked() {
	c := s.c
	s.x.Abandon()
	s.x.Code = exchange.Internal
	s.x.Duration = time.Since(s.x.Start)
	c.srv.Handler.Done(&s.x)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[s.id] == s {
		s.resetLocked(h2.InternalError)
	}
	c.workers--
	c.restLocked()
}

// restLocked notes that one stream less is served.
func (c *conn) restLocked() {
	if c.active--; c.active > 0 {
		return
	}
	c.since = c.srv.Sweeper.Now()
	switch {
	case c.awayFinal:
		c.finish()
	case !c.partial:
		c.tcp.ArmRead(min(c.srv.Timeouts.Park, c.srv.Timeouts.Idle))
	}
}

// resetLocked ends the stream from this end.
func (s *stream) resetLocked(code h2.ErrCode) {
	c := s.c
	delete(c.streams, s.id)
	c.recent.add(s.id, true)
	c.w.Out = h2.AppendReset(c.w.Out, s.id, code)
	c.w.Kick()
	s.abandonLocked()
}

// abandonLocked ends the work on the stream: nobody waits for the response.
func (s *stream) abandonLocked() {
	if s.over {
		s.over = false
		s.bodyAlarm.Disarm()
		s.c.freeLocked(s)
		return
	}
	s.dead = true
	s.gone.Store(true)
	s.bodyCond.Broadcast()
	s.sendCond.Broadcast()
	s.x.Cancel() // last, as it calls what is not known here
}

// end is called when the client has ended the stream with trailers.
func (s *stream) end(trailers bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.hasTrailers = trailers
	s.endLocked()
}

// endLocked is called when the client has ended the stream.
func (s *stream) endLocked() {
	s.received = true
	s.bodyCond.Broadcast()
	if s.over {
		delete(s.c.streams, s.id)
		s.c.recent.add(s.id, false)
		s.abandonLocked()
	}
}

// The alarms. They may ring when the stream is another one's already, which then goes on waiting.

func (s *stream) bodyTimeout() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.over {
		s.resetLocked(h2.NoError)
		return
	}
	s.bodyLate = true
	s.bodyCond.Broadcast()
}

func (s *stream) sendTimeout() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.sendLate = true
	s.sendCond.Broadcast()
}
