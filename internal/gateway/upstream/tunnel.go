package upstream

import (
	"net"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
)

// switched takes in the head of a response that switches protocols, n bytes of what has been read. The backend must name a
// protocol that it was asked for (RFC 9110, section 7.8).
func (c *call) switched(n, filled int) error {
	x := c.x
	if _, _, err := h1.ResponseFraming(&x.Resp, c.parser.Minor, c.parser.Status, false); err != nil {
		return err
	}
	if x.Upgrade == nil || c.parser.Minor == 0 || x.Resp.Count(exchange.IDUpgrade) != 1 {
		return errSwitch
	}
	chosen := x.Resp.Known(exchange.IDUpgrade)
	if len(chosen) == 0 {
		return errSwitch
	}
	all := true
	h1.Elements(chosen, func(e []byte) bool {
		asked := false
		h1.Elements(x.Upgrade, func(a []byte) bool {
			asked = exchange.EqualFold(a, e)
			return !asked
		})
		all = all && asked
		return all
	})
	if !all {
		return errSwitch
	}
	x.Upgrade = x.Scratch(chosen)
	x.Status = 101
	removeHop(&x.Resp)
	c.tunnel, c.reusable = true, false
	c.limit = c.settings.tunnel
	c.pump.moved.Store(int64(c.now()))
	c.body.Reset(c, c.backend.registry.opts.Bodies, h1.UntilClose, -1, c.in, n, filled)
	return nil
}

func (c *call) now() time.Duration { return c.backend.registry.opts.Sweeper.Now() }

// tunnelWaited tells for how long nothing has passed through the tunnel, if nothing has come from the backend for waited.
// From the moment when the client has said all, the backend has no longer than for a piece of a response.
func (c *call) tunnelWaited(waited time.Duration) time.Duration {
	if c.pump.ended.Load() {
		c.limit = min(c.limit, c.settings.idle)
	}
	if waited == 0 {
		return 0
	}
	return max(min(waited, c.now()-time.Duration(c.pump.moved.Load())), 1)
}

// relayTunnel passes on what the client sends, and that it has said all. It returns what went wrong with the client; if
// the backend takes no more, that shows in what it sends.
func (p *pump) relayTunnel(conn *conn) *exchange.Fault {
	c := p.call
	for {
		chunk, err := c.x.Body.Next()
		if err != nil {
			return faultOf(err, errClientGone)
		}
		p.moved.Store(int64(c.now()))
		if len(chunk.Data) > 0 {
			conn.tcp.ArmWrite(c.settings.idle)
			if _, err := conn.stream.Write(chunk.Data); err != nil {
				return nil
			}
		}
		if chunk.End {
			conn.closeWrite()
			p.ended.Store(true)
			return nil
		}
	}
}

// closeWrite tells the backend that nothing more comes.
func (c *conn) closeWrite() {
	t, ok := c.stream.(interface{ CloseWrite() error })
	if !ok {
		t, ok = c.tcp.Conn.(*net.TCPConn)
	}
	if ok {
		_ = t.CloseWrite() // if it fails the connection is gone, which shows in reading
	}
}

// endTunnel is called when the backend has said all: it waits for the client to do the same, no longer than for a piece of
// a request.
func (c *call) endTunnel() {
	var w exchange.Interrupter = bodyStopper{c.down}
	if !c.pump.started || !c.x.WaitOn(&w) {
		return
	}
	defer c.x.WaitOn(nil)
	limit := min(c.limit, c.settings.idle)
	t := time.NewTimer(limit)
	defer t.Stop()
	for {
		select {
		case <-c.pump.done:
			c.pump.started = false
			return
		case <-t.C:
			quiet := c.now() - time.Duration(c.pump.moved.Load())
			if quiet >= limit {
				return
			}
			t.Reset(limit - quiet)
		}
	}
}

// bodyStopper wakes who waits for the client.
type bodyStopper struct{ down exchange.Down }

// Interrupt implements exchange.Interrupter.
func (b bodyStopper) Interrupt() { b.down.StopBody() }
