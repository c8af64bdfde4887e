package http2

import (
	"errors"
	"runtime"

	"hansa.dev/hansa/internal/x/sweep"
)

// kickLocked has what is in out written.
func (c *conn) kickLocked() {
	switch {
	case c.broken:
		c.out = c.out[:0]
	case !c.flusher:
		c.flusher = true
		c.wg.Go(c.flush)
	case c.flusherIdle:
		c.flusherIdle = false
		c.flushCond.Broadcast()
	}
}

// flush writes what the others append to out, until it is told to end. It lets all goroutines that are ready to run do so
// before each write: what they have to say goes out by the same system call.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.out) == 0 && !c.flushEnd {
			c.flusherIdle = true
			c.flushCond.Wait()
		}
		c.flusherIdle = false
		if len(c.out) == 0 {
			break
		}
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		c.out, c.writing = c.writing[:0], c.out
		c.wakeWaitersLocked()
		c.mu.Unlock()
		err := c.write(c.writing)
		c.mu.Lock()
		if cap(c.writing) > keepOut {
			c.writing = nil
		}
		if err != nil {
			c.breakLocked()
		}
	}
	c.flusher = false
	c.flushCond.Broadcast()
}

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
func (c *conn) breakLocked() {
	c.broken = true
	c.out = c.out[:0]
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
