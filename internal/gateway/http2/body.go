package http2

import (
	"hansa.dev/hansa/internal/exchange"
)

var (
	errBodyTimeout = fault(exchange.BadRequestTimeout, "the body of the request did not arrive in time")
	errBodyStopped = fault(exchange.ClientGone, "the body of the request is not wanted any more")
	errBodyGone    = fault(exchange.ClientGone, "the client reset the stream within the body")
)

// Next implements exchange.Source: the stream is the source of its request's body. Every error is an *exchange.Fault.
func (s *stream) Next() (exchange.Chunk, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(s.passed); n > 0 {
		s.passed = s.passed[:0]
		c.returnLocked(s, n)
	}
	armed := false
	for {
		switch {
		case s.dead:
			return exchange.Chunk{}, errBodyGone
		case s.stopped:
			return exchange.Chunk{}, errBodyStopped
		case len(s.in) > 0 || s.received:
			s.passed, s.in = s.in, s.passed
			s.x.BytesIn += int64(len(s.passed))
			if armed {
				s.bodyAlarm.Disarm()
			}
			return exchange.Chunk{Data: s.passed, End: s.received}, nil
		case s.bodyLate:
			s.bodyLate = false
			if armed && c.srv.Sweeper.Now() >= s.bodyBy {
				return exchange.Chunk{}, errBodyTimeout
			}
		}
		from := c.srv.Sweeper.Now()
		if !armed && !s.tunnel {
			armed = true
			d := c.srv.Timeouts.Patience(s.x.BytesIn, s.bodyWaited)
			s.bodyBy = from + d
			s.bodyAlarm.Arm(d)
		}
		s.bodyCond.Wait()
		s.bodyWaited += c.srv.Sweeper.Now() - from
	}
}

// Ready implements exchange.Source.
func (s *stream) Ready() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return len(s.in) > 0 || s.received || s.dead || s.stopped
}

// Len implements exchange.Source.
func (s *stream) Len() int64 { return s.length }

// Trailers implements exchange.Source.
func (s *stream) Trailers() *exchange.Head {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !s.hasTrailers {
		return nil
	}
	return &s.trailers.head
}

// Close implements exchange.Source. What becomes of the rest is decided when the exchange is over.
func (s *stream) Close() {}

// StopBody implements exchange.Down. Whoever waits on an exchange may have it called by its cancellation, which abandonLocked
// does with the lock held: then Next ends all the same, as the stream is dead.
func (s *stream) StopBody() {
	if s.gone.Load() {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.stopped = true
	s.bodyCond.Broadcast()
}
