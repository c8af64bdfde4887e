package http2

import (
	"errors"

	"hansa.dev/hansa/internal/x/sweep"
)

// write writes frames to the client.
func (c *conn) write(p []byte) error {
	c.tcp.ArmWrite(c.srv.Timeouts.Write)
	var err error
	if c.plain {
		_, err = c.tcp.Send(p)
	} else {
		_, err = c.stream.Write(p)
	}
	if errors.Is(err, sweep.ErrTimeout) {
		if t, ok := c.tcp.Conn.(interface{ SetLinger(int) error }); ok {
			_ = t.SetLinger(0) // the client takes nothing: keep nothing for it
		}
	}
	return err
}

// breakLocked is called when the connection cannot be used any more.
func (c *conn) breakLocked(error) {
	c.gone.Store(true)
	for id, s := range c.streams {
		delete(c.streams, id)
		s.abandonLocked()
	}
	c.wakeWaitersLocked()
	c.finish()
}

// queueLocked has s woken when there is room, or window of the connection.
func (c *conn) queueLocked(s *stream) {
	if !s.queued {
		s.queued = true
		c.waiters = append(c.waiters, s)
	}
}

// wakeWaitersLocked wakes the streams that wait for room or for the connection's window.
func (c *conn) wakeWaitersLocked() {
	for i, s := range c.waiters {
		s.queued = false
		s.sendCond.Signal()
		c.waiters[i] = nil
	}
	c.waiters = c.waiters[:0]
}
