package upstream

import (
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/x/sweep"
)

// settleTime is how long the last piece of a request's body may take to be accepted once the response is complete.
const settleTime = time.Second

// pump passes the body of a request on to the backend, from a goroutine of its own, while the call waits for the response.
type pump struct {
	call    *call
	done    chan struct{} // one message for each start
	started bool          // and not waited for yet
	out     []byte

	ended atomic.Bool                    // the body has come to its end; its last piece may still be on its way
	over  atomic.Bool                    // the goroutine will do no more
	moved atomic.Int64                   // when something was last passed on, on the sweeper's clock; tunnels only
	sent  atomic.Bool                    // all of the body has been accepted
	fault atomic.Pointer[exchange.Fault] // what was wrong with the body
}

func (p *pump) init(c *call) { p.call, p.done = c, make(chan struct{}, 1) }

func (p *pump) reset() {
	if p.ended.Load() || p.over.Load() {
		p.ended.Store(false)
		p.over.Store(false)
		p.sent.Store(false)
		p.fault.Store(nil)
	}
}

func (p *pump) start() {
	p.started = true
	go p.run(p.call.conn)
}

// begun tells whether the pump has been started for this call.
func (p *pump) begun() bool { return p.started || p.over.Load() }

// running tells whether the body is still being passed on.
func (p *pump) running() bool { return p.started && !p.over.Load() }

// wait waits for the goroutine.
func (p *pump) wait() {
	if p.started {
		<-p.done
		p.started = false
	}
}

// settle is called when the response is complete. It tells whether the request is, so that the connection can be used again.
// A backend that has answered without reading the whole request does not want the rest.
func (p *pump) settle() bool {
	if !p.started {
		return p.sent.Load()
	}
	if !p.ended.Load() {
		return false
	}
	p.call.conn.tcp.ArmWrite(settleTime)
	p.wait()
	return p.sent.Load()
}

// stop ends the goroutine, whatever it waits for.
func (p *pump) stop() {
	if !p.started {
		return
	}
	if !p.over.Load() {
		p.call.down.StopBody()
		_ = p.call.conn.tcp.Conn.Close()
	}
	p.wait()
}

func (p *pump) run(conn *conn) {
	f := errInternal // unless it comes to its end
	defer func() {
		if f != nil {
			p.fault.Store(f)
		}
		p.over.Store(true)
		if f != nil {
			conn.tcp.Interrupt() // the call need not wait for a response any more
		}
		p.done <- struct{}{}
	}()
	defer p.call.backend.registry.opts.Guard.Catch("passing on the body of a request", nil)
	if p.call.tunnel {
		f = p.relayTunnel(conn)
	} else {
		f = p.relay(conn)
	}
}

// relay passes the body on. It returns what is wrong with the body; that the backend takes no more of it is not an
// error: it may answer all the same.
func (p *pump) relay(conn *conn) *exchange.Fault {
	c := p.call
	body := c.x.Body
	chunked := body.Len() < 0
	most := c.x.Route.MaxRequestBytes
	var total int64
	pipes, _ := body.(exchange.PipeSource)
	if !conn.plain || chunked {
		pipes = nil
	}
	for {
		if pipes != nil && pipes.Piped() >= pipeLeast {
			if pipe := c.backend.registry.opts.Sweeper.Pipe(); pipe != nil {
				defer c.backend.registry.opts.Sweeper.Put(pipe)
				return p.relayPipe(conn, pipe, pipes)
			}
			pipes = nil
		}
		chunk, err := body.Next()
		if err != nil {
			return faultOf(err, errClientGone)
		}
		if total += int64(len(chunk.Data)); most > 0 && total > most {
			return errTooLarge
		}
		if chunk.End {
			p.ended.Store(true)
		}
		conn.tcp.ArmWrite(c.settings.idle)
		if err := p.write(conn, body, chunk, chunked); err != nil {
			return nil
		}
		if chunk.End {
			p.sent.Store(true)
			return nil
		}
	}
}

func (p *pump) write(conn *conn, body exchange.Source, chunk exchange.Chunk, chunked bool) error {
	if !chunked {
		_, err := conn.stream.Write(chunk.Data)
		return err
	}
	p.out = p.out[:0]
	if len(chunk.Data) > 0 {
		p.out = h1.AppendChunkHead(p.out, len(chunk.Data))
		p.out = append(append(p.out, chunk.Data...), '\r', '\n')
	}
	if chunk.End {
		p.out = h1.AppendLastChunk(p.out, body.Trailers())
	}
	_, err := conn.stream.Write(p.out)
	return err
}

// pipeLeast is the length from which on a rest of a body is worth a pipe.
const pipeLeast = 32 << 10

// relayPipe is relay for the rest of a body that need not be copied to memory. Its length is known, and within bounds.
func (p *pump) relayPipe(conn *conn, pipe *sweep.Pipe, body exchange.PipeSource) *exchange.Fault {
	for body.Piped() > 0 {
		if _, err := body.NextPipe(pipe); err != nil {
			return faultOf(err, errClientGone)
		}
		if body.Piped() == 0 {
			p.ended.Store(true)
		}
		if pipe.Drain(&conn.tcp, p.call.settings.idle) != nil {
			return nil
		}
	}
	p.sent.Store(true)
	return nil
}
