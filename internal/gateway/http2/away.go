package http2

import (
	"time"

	"hansa.dev/hansa/internal/exchange/h2"
)

// awayTime is how long a client may take to answer the ping that goes with the first GOAWAY.
const awayTime = time.Second

// awayPing is what that ping holds.
var awayPing = [8]byte{'h', 'a', 'n', 's', 'a', 'b', 'y', 'e'}

// goAway tells the client to open no more streams, gracefully (RFC 9113, section 6.8): first that the connection will end,
// and once the client knows, which stream is the last. Streams that it has opened meanwhile are served.
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goAwayLocked()
}

func (c *conn) goAwayIfIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == 0 && c.maxID > 0 {
		c.goAwayLocked()
	}
}

func (c *conn) goAwayLocked() {
	c.away = true
	if c.awaySaid || c.closing {
		return
	}
	c.awaySaid = true
	c.w.Out = h2.AppendGoAway(c.w.Out, h2.MaxStream, h2.NoError, "")
	c.w.Out = h2.AppendPing(c.w.Out, false, awayPing)
	c.awayArmed = true
	c.srv.Sweeper.AddAlarm(&c.awayAlarm, c.goAwayFinally)
	c.awayAlarm.Arm(awayTime)
	c.w.Kick()
}

// goAwayFinally is called when the client knows that it must go, or should.
func (c *conn) goAwayFinally() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awayFinal || c.closing {
		return
	}
	c.awayFinal, c.lastID = true, c.maxID
	c.w.Out = h2.AppendGoAway(c.w.Out, c.lastID, h2.NoError, "")
	c.w.Kick()
	if c.active == 0 {
		c.finish()
	}
}
