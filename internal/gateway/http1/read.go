package http1

import (
	"bytes"
	"errors"
	"time"

	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/x/sweep"
)

// awaitRequest begins to wait for a request.
func (c *conn) awaitRequest() {
	if c.dismissed.Load() {
		c.dismissed.Store(false) // that was while it was busy, and the client was told that it is kept
	}
	c.idle = true
	c.tcp.ArmRead(c.srv.Timeouts.Park)
	if c.srv.draining.Load() {
		c.tcp.Interrupt() // Drain has woken this connection before it was idle
	}
}

// readRequest serves requests for as long as each of them can be read whole before its turn. It returns true when it has
// prepared one of which more must be read while it is served, and false if the connection has come to its end.
func (c *conn) readRequest(buffer func() []byte, handle func(int) sweep.Next) bool {
	c.pending = false
	if c.filled > 0 && c.advance() == sweep.Leave {
		return c.pending
	}
	for {
		err := c.pull(buffer, handle)
		if err == nil {
			return c.pending
		}
		timeout := errors.Is(err, sweep.ErrTimeout)
		switch {
		case c.collect > 0:
			c.collect = 0
			c.fail(bodyFault(err))
			return true
		case c.begun && timeout:
			c.begin(0, errHeadTimeout)
			return true
		case c.begun || c.isParked || c.work == nil || !timeout:
			c.left = !timeout && !errors.Is(err, sweep.ErrCancelled)
			return false // within a head, nobody is there to be told
		}
		c.release()
		c.park(true)
		c.tcp.ArmRead(max(c.srv.Timeouts.Idle-c.srv.Timeouts.Park, sweep.Tick))
	}
}

// pull reads into buffer and has it handled until handle wants to leave, or reading fails.
func (c *conn) pull(buffer func() []byte, handle func(int) sweep.Next) error {
	if c.plain {
		return c.tcp.Loop(nil, buffer, handle)
	}
	return c.tcp.Loop(c.stream, buffer, handle)
}

// shed gives back the memory of a connection that is about to wait for a request.
func (c *conn) shed() {
	if c.idle && c.work != nil {
		c.release()
		c.tcp.ArmRead(c.srv.Timeouts.Idle)
	}
}

// buffer returns where to read the next piece to.
func (c *conn) buffer() []byte {
	switch {
	case c.isParked:
		return c.parked[:]
	case c.work == nil:
		c.work = c.srv.work()
	case c.collect > 0:
		return c.buf[c.filled:c.collect] // and not what follows the body
	}
	if c.bulky && c.filled == 0 {
		c.enlarge(h1.LargeBuffer) // head and body come in one read
	}
	return c.buf[c.filled:]
}

// handle takes in what has been read.
func (c *conn) handle(n int) sweep.Next {
	if c.isParked {
		c.park(false)
		c.work = c.srv.work()
		c.filled = copy(c.buf, c.parked[:n])
	} else {
		c.filled += n
	}
	return c.advance()
}

// advance parses and serves what is in the buffer. It must not read: a request for which that will be needed is left
// pending.
func (c *conn) advance() sweep.Next {
	for c.filled > 0 {
		if !c.regular && c.srv.HTTP2 != nil && bytes.HasPrefix(c.buf[:c.filled], http2Begin) {
			c.http2 = true
			return sweep.Leave
		}
		if c.collect == 0 {
			n, err := c.parse()
			switch {
			case n == 0 && err == nil:
				return sweep.ReadOn
			case !c.regular && c.srv.HTTP2 != nil && err == h1.ErrForeign: // to be refused as HTTP/2, whatever it is
				c.http2 = true
				return sweep.Leave
			}
			if c.begin(n, err); !c.whole && !c.canCollect() {
				c.pending = true
				return sweep.Leave
			}
		}
		if c.filled < c.collect {
			c.bodyWaited = c.srv.Sweeper.Now() - c.bodyBegin
			c.armBody(int64(c.filled) - c.headSize)
			return sweep.ReadOn
		}
		if c.collect > 0 {
			c.collected()
		}
		c.exchange()
		if !c.keep {
			return sweep.Leave
		}
		c.next()
	}
	c.awaitRequest()
	if c.regular {
		return sweep.Wait
	}
	c.regular = true
	return sweep.ReadOn
}

// parse parses what is there of a head. It returns 0 if that is not all.
func (c *conn) parse() (int, error) {
	begins := !c.begun
	if begins {
		c.begun, c.idle, c.armed = true, false, false
		if !c.clean {
			c.x.Reset()
		}
		c.clean = false
		c.x.Start = time.Now()
		c.parser.Reset(c.srv.Limits)
	}
	if begins && c.large != nil {
		// The head is read where it can stay when the body is let go.
		n, err := c.parser.Request(c.small[:copy(c.small, c.buf[:c.filled])], &c.x.Req)
		if c.apart = n > 0; n > 0 || err != nil {
			return n, err
		}
	}
	c.apart = c.large == nil
	n, err := c.parser.Request(c.buf[:c.filled], &c.x.Req)
	if n > 0 || err != nil {
		return n, err
	}
	if c.filled == len(c.buf) {
		c.enlarge(2 * len(c.buf))
	}
	if !c.armed {
		c.armed = true
		c.tcp.ArmRead(c.srv.Timeouts.Head)
	}
	return 0, nil
}

// enlarge makes the buffer at least n bytes long. What was in it stays where it is, too.
func (c *conn) enlarge(n int) {
	if n > len(c.buf) && c.large == nil && n <= h1.LargeBuffer {
		c.large = c.srv.Bodies.Get()
		copy(c.large[:], c.buf[:c.filled])
		c.buf = c.large[:]
		return
	}
	if n > len(c.buf) {
		buf := make([]byte, n)
		copy(buf, c.buf[:c.filled])
		c.buf = buf
	}
}

// canCollect tells whether the body is known to be so short that it is best read before anything else is done: then the
// request can be served without reading, and its body be sent, and sent again, in one piece. If so it prepares for that.
func (c *conn) canCollect() bool {
	if c.faulty || c.expect || c.body.Len() <= 0 {
		return false
	}
	n := c.headSize + c.body.Len()
	if n > h1.LargeBuffer {
		return false
	}
	c.collect = int(n)
	c.bodyBegin = c.srv.Sweeper.Now()
	c.enlarge(c.collect)
	return true
}

// collected makes what has been collected the body.
func (c *conn) collected() {
	c.collect, c.whole = 0, true
	c.body.Reset(c.stream, c.srv.Bodies, h1.Length, c.body.Len(), c.buf, int(c.headSize), c.filled)
}

// next moves what has been read of the next request to where requests begin.
func (c *conn) next() {
	rest := c.body.Buffered()
	if c.large != nil && len(rest) > len(c.small) {
		c.filled = copy(c.buf, rest)
		c.body.Release()
		return
	}
	buf := c.small
	if len(rest) > len(buf) {
		buf = make([]byte, max(len(rest), 2*len(buf)))
	}
	c.filled = copy(buf, rest)
	c.buf = buf
	c.body.Release()
	if c.large != nil {
		c.srv.Bodies.Put(c.large)
		c.large = nil
	}
}
