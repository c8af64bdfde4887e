package http1

import (
	"errors"
	"io"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/sweep"
)

// requestBody is the conn as the source of the request's body. It may be pulled by another goroutine than the one that
// serves the connection.
type requestBody conn

var (
	errBodyTimeout = &exchange.Fault{Code: exchange.BadRequestTimeout, Detail: "the body of the request did not arrive in time"}
	errBodyShort   = &exchange.Fault{Code: exchange.BadRequestBody, Detail: "the connection was closed before the end of the body"}
	errBodyStopped = &exchange.Fault{Code: exchange.ClientGone, Detail: "the body of the request is not wanted any more"}
	errBodyGone    = &exchange.Fault{Code: exchange.ClientGone, Detail: "the client closed the connection within the body"}
)

// Next implements exchange.Source. Every error is a *exchange.Fault.
func (b *requestBody) Next() (exchange.Chunk, error) {
	c := (*conn)(b)
	c.bodyBegun.Store(true)
	if c.stopBody.Load() {
		return exchange.Chunk{}, errBodyStopped
	}
	waits := !c.body.Ready()
	var from time.Duration
	if waits {
		from = c.srv.Sweeper.Now()
		c.armBody(c.x.BytesIn)
	}
	chunk, err := c.body.Next()
	if err == nil {
		if waits {
			c.bodyWaited += c.srv.Sweeper.Now() - from
		}
		c.x.BytesIn += int64(len(chunk.Data))
		if chunk.End {
			c.bodyDone.Store(true)
		}
		return chunk, nil
	}
	return exchange.Chunk{}, bodyFault(err)
}

// armBody gives the client its time for the next piece of the body.
func (c *conn) armBody(received int64) {
	c.tcp.ArmRead(c.srv.Timeouts.Patience(received, c.bodyWaited))
}

// bodyFault says what an error within the body means.
func bodyFault(err error) error {
	var fault *exchange.Fault
	switch {
	case errors.As(err, &fault):
		return err
	case errors.Is(err, io.EOF):
		return errBodyShort
	case errors.Is(err, sweep.ErrTimeout):
		return errBodyTimeout
	case errors.Is(err, sweep.ErrCancelled):
		return errBodyStopped
	}
	return errBodyGone
}

// Ready implements exchange.Source.
func (b *requestBody) Ready() bool { return b.body.Ready() }

// Piped implements exchange.PipeSource.
func (b *requestBody) Piped() int64 {
	if !b.plain {
		return 0
	}
	return b.body.Piped()
}

// NextPipe implements exchange.PipeSource.
func (b *requestBody) NextPipe(p *sweep.Pipe) (int, error) {
	c := (*conn)(b)
	c.bodyBegun.Store(true)
	if c.stopBody.Load() {
		return 0, errBodyStopped
	}
	from := c.srv.Sweeper.Now()
	c.armBody(c.x.BytesIn)
	n, err := p.Fill(&c.tcp, c.body.Piped())
	if err != nil {
		return 0, bodyFault(err)
	}
	c.bodyWaited += c.srv.Sweeper.Now() - from
	c.x.BytesIn += int64(n)
	if c.body.Skip(n); c.body.Ended() {
		c.bodyDone.Store(true)
	}
	return n, nil
}

// Len implements exchange.Source.
func (b *requestBody) Len() int64 { return b.body.Len() }

// Trailers implements exchange.Source.
func (b *requestBody) Trailers() *exchange.Head {
	t := b.body.Trailers()
	if t != nil && b.body.Underscore() {
		ingress.DropLookalikes(t)
	}
	return t
}

// Close implements exchange.Source. The memory of a body that has been read whole is given back, unless something else lies
// in it. What becomes of the rest of another one is decided when the exchange is over.
func (b *requestBody) Close() {
	c := (*conn)(b)
	if c.whole && c.apart && c.large != nil && c.bodyDone.Load() && len(c.body.Buffered()) == 0 {
		c.srv.Bodies.Put(c.large)
		c.large, c.buf = nil, c.small
	}
}

// tunnelBody is the conn as the source of what the client sends once protocols have been switched. It has no time limit
// of its own: the backend's counts, for both directions.
type tunnelBody conn

// Next implements exchange.Source. Every error is a *exchange.Fault.
func (b *tunnelBody) Next() (exchange.Chunk, error) {
	c := (*conn)(b)
	if !c.tunnel {
		c.tunnel = true
		c.body.Reset(c.stream, c.srv.Bodies, h1.UntilClose, -1, c.buf, int(c.headSize), c.filled)
		c.tcp.ArmRead(0)
	}
	if c.stopBody.Load() {
		return exchange.Chunk{}, errBodyStopped
	}
	chunk, err := c.body.Next()
	if err != nil {
		return exchange.Chunk{}, bodyFault(err)
	}
	c.x.BytesIn += int64(len(chunk.Data))
	return chunk, nil
}

// Ready implements exchange.Source.
func (b *tunnelBody) Ready() bool { return b.tunnel && b.body.Ready() }

// Len implements exchange.Source.
func (b *tunnelBody) Len() int64 { return -1 }

// Trailers implements exchange.Source.
func (b *tunnelBody) Trailers() *exchange.Head { return nil }

// Close implements exchange.Source.
func (b *tunnelBody) Close() {}

// StopBody implements exchange.Down.
func (c *conn) StopBody() {
	c.stopBody.Store(true)
	c.tcp.Interrupt()
}

// canReuse tells whether the connection can serve another request after this one. While the body has been begun by
// whoever pulls it and not been finished, it cannot; one that nobody wanted is drained if it is short.
func (c *conn) canReuse() bool {
	switch {
	case !c.hasBody || c.bodyDone.Load():
		return true
	case c.bodyBegun.Load() || c.expect:
		return false
	}
	rest := c.body.Remaining()
	return 0 <= rest && rest <= drainBelow
}

// endBody deals with the rest of the request's body once the exchange is over.
func (c *conn) endBody() {
	if c.stopBody.Load() {
		c.stopBody.Store(false) // who pulled it has let go of it by now
	}
	switch {
	case c.faulty:
		c.linger()
	case !c.hasBody || c.bodyDone.Load() || c.whole && !c.keep:
	case c.keep:
		c.keep = c.drain(drainBelow)
	default:
		c.linger()
	}
}

// drain reads and drops up to most bytes of the body, and tells whether that was all of it.
func (c *conn) drain(most int64) bool {
	for most > 0 {
		if !c.body.Ready() {
			c.tcp.ArmRead(c.srv.Timeouts.Body)
		}
		chunk, err := c.body.Next()
		if err != nil {
			return false
		}
		if chunk.End {
			return true
		}
		most -= int64(len(chunk.Data))
	}
	return false
}

// closeWrite closes the sending side, if the connection has such a thing.
func (c *conn) closeWrite() bool {
	t, ok := c.stream.(interface{ CloseWrite() error })
	if !ok {
		t, ok = c.info.Net.(interface{ CloseWrite() error })
	}
	return ok && t.CloseWrite() == nil
}

const (
	lingerBytes = 1 << 20
	lingerTime  = 2 * time.Second
)

// linger closes the sending side and reads for a while what the client still sends. Closing at once would make the
// client's system drop the response before the client has read it (RFC 9112, section 9.6).
func (c *conn) linger() {
	if c.broken {
		return
	}
	if !c.closeWrite() {
		return
	}
	c.tcp.ArmRead(lingerTime)
	for n := 0; n < lingerBytes; {
		m, err := c.tcp.Read(c.buf)
		if n += m; err != nil {
			return
		}
	}
}
