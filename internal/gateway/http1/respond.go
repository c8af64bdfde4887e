package http1

import (
	"errors"
	"net/http"
	"strconv"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/x/sweep"
)

// copyBelow is the size up to which a piece of a body is copied behind what is to be written before it; larger ones are
// written from where they are, in the same system call.
const copyBelow = 8 << 10

// drainBelow bounds what is read of a request's body after the response for the sake of the connection.
const drainBelow = 64 << 10

// Respond implements exchange.Down.
func (c *conn) Respond(x *exchange.Exchange, body exchange.Source) {
	x.SpeakGRPC()
	local, answered := x.LocalAnswer()
	out := c.out[:0]
	switch {
	case x.Refused():
		closeSource(body)
		out = x.AppendProblem(out)
		problem := x.Scratch(out)
		out = out[:0]
		local.Reset(problem)
		x.Own.SetString(exchange.IDContentType.Name(), exchange.ProblemType)
		body = local
	case answered:
		closeSource(body)
		body = local
	}
	if answered {
		x.Resp.Reset()
	}
	c.keep = c.keep && c.canReuse() && !c.srv.leaving.Load() && !c.dismissed.Load()
	if x.Status == 101 {
		c.respondTunnel(x, body)
		return
	}
	framing := c.framing(x, body)
	out = c.appendHead(out, x, body, framing)
	c.out = out[:0]
	if framing == h1.NoBody {
		closeSource(body)
		c.write(out)
		return
	}
	c.relay(out, x, body, framing)
	body.Close()
}

// respondTunnel answers 101 and passes on what the backend sends. What the client sends is pulled by the backend meanwhile.
func (c *conn) respondTunnel(x *exchange.Exchange, body exchange.Source) {
	c.keep = false
	out := c.appendHead(c.out[:0], x, body, h1.UntilClose)
	c.out = out[:0]
	c.relay(out, x, body, h1.UntilClose)
	if !c.broken && !c.closeWrite() {
		c.broken = true
	}
	body.Close()
}

func closeSource(s exchange.Source) {
	if s != nil {
		s.Close()
	}
}

// framing decides how the end of the response will be told.
func (c *conn) framing(x *exchange.Exchange, body exchange.Source) h1.Framing {
	switch {
	case c.head || x.Status == 204 || x.Status == 304:
		return h1.NoBody
	case body == nil || body.Len() >= 0:
		return h1.Length
	case c.minor == 1:
		return h1.Chunked
	}
	c.keep = false
	return h1.UntilClose
}

// appendHead appends status line and fields. The reason phrase is the standard's, whatever the backend's was.
func (c *conn) appendHead(out []byte, x *exchange.Exchange, body exchange.Source, framing h1.Framing) []byte {
	if x.Status == 200 {
		out = append(out, "HTTP/1.1 200 OK\r\n"...)
	} else {
		out = append(out, "HTTP/1.1 "...)
		out = strconv.AppendInt(out, int64(x.Status), 10)
		out = append(out, ' ')
		out = append(out, http.StatusText(x.Status)...)
		out = append(out, '\r', '\n')
	}
	x.Resp.DelAll(&x.Own)
	except := exchange.HopByHop | 1<<exchange.IDContentLength | 1<<exchange.IDXRequestID
	if framing == h1.NoBody && x.Status != 204 {
		except &^= 1 << exchange.IDContentLength
	}
	out = x.Resp.AppendLines(out, except)
	out = x.Own.AppendLines(out, except)
	switch framing {
	case h1.Length:
		var n int64
		if body != nil {
			n = body.Len()
		}
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, n, 10)
		out = append(out, '\r', '\n')
	case h1.Chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if !x.Resp.Has(exchange.IDDate) && !x.Own.Has(exchange.IDDate) {
		out = append(out, "Date: "...)
		out = append(out, c.srv.date.At(x.Start.Add(x.Upstream))...)
		out = append(out, '\r', '\n')
	}
	out = append(append(out, "X-Request-Id: "...), x.ID[:]...)
	switch {
	case x.Status == 101:
		out = append(append(out, "\r\nConnection: Upgrade\r\nUpgrade: "...), x.Upgrade...)
	case !c.keep:
		return append(out, "\r\nConnection: close\r\n\r\n"...)
	case c.minor == 0:
		return append(out, "\r\nConnection: keep-alive\r\n\r\n"...)
	}
	return append(out, "\r\n\r\n"...)
}

// relay writes out and then the body, as it comes. Nothing that is there to be written waits for what is not.
func (c *conn) relay(out []byte, x *exchange.Exchange, body exchange.Source, framing h1.Framing) {
	if body == nil {
		c.write(out)
		return
	}
	var sent int64
	length := body.Len()
	pipes := c.pipeSource(body, framing)
	for {
		if pipes != nil && pipes.Piped() >= pipeLeast {
			if p := c.srv.Sweeper.Pipe(); p != nil {
				c.out = out[:0]
				c.relayPipe(p, out, x, pipes, sent, length)
				return
			}
			pipes = nil
		}
		if len(out) > 0 && !body.Ready() {
			if !c.write(out) {
				break
			}
			out = out[:0]
		}
		chunk, err := body.Next()
		total := sent + int64(len(chunk.Data))
		if err != nil || length >= 0 && (total > length || chunk.End && total != length) {
			x.BytesOut = sent
			c.breakOff(x)
			return
		}
		sent = total
		out, err = c.appendPiece(out, chunk, framing)
		if err != nil {
			break
		}
		if chunk.End {
			if framing == h1.Chunked {
				var trailers *exchange.Head
				if c.x.TakesTrailers {
					trailers = body.Trailers()
				}
				out = h1.AppendLastChunk(out, trailers)
			}
			if len(out) > 0 {
				c.write(out)
			}
			break
		}
	}
	c.out = out[:0]
	x.BytesOut = sent
}

// pipeLeast is the length from which on a rest of a body is worth a pipe.
const pipeLeast = 32 << 10

// pipeSource returns the body as one that can pass through a pipe to this client; nil if it cannot.
func (c *conn) pipeSource(body exchange.Source, framing h1.Framing) exchange.PipeSource {
	if !c.plain || framing != h1.Length {
		return nil
	}
	p, _ := body.(exchange.PipeSource)
	return p
}

// relayPipe writes out and then the rest of the body; sent bytes of its length are in out or have been written before.
func (c *conn) relayPipe(p *sweep.Pipe, out []byte, x *exchange.Exchange, body exchange.PipeSource, sent, length int64) {
	defer c.srv.Sweeper.Put(p)
	x.BytesOut = sent
	if !c.writeMore(out) {
		return
	}
	for x.BytesOut < length {
		n, err := body.NextPipe(p)
		if err != nil {
			c.breakOff(x)
			return
		}
		if err := p.Drain(&c.tcp, c.srv.Timeouts.Write); err != nil {
			c.clientFailed(err)
			return
		}
		x.BytesOut += int64(n)
	}
}

var errWrite = errors.New("the client does not take the response")

// appendPiece appends one piece of the body with its framing, or writes it together with what stands before it.
func (c *conn) appendPiece(out []byte, chunk exchange.Chunk, framing h1.Framing) ([]byte, error) {
	n := len(chunk.Data)
	if n == 0 {
		return out, nil
	}
	if framing == h1.Chunked {
		out = h1.AppendChunkHead(out, n)
	}
	if n <= copyBelow && len(out)+n <= 2*copyBelow {
		out = append(out, chunk.Data...)
		if framing == h1.Chunked {
			out = append(out, '\r', '\n')
		}
		return out, nil
	}
	if framing != h1.Chunked && len(out) == 0 {
		if !c.write(chunk.Data) {
			return out, errWrite
		}
		return out, nil
	}
	end := ""
	if framing == h1.Chunked {
		end = "\r\n"
	}
	if !c.writeAll(out, chunk.Data, end) {
		return out, errWrite
	}
	return out[:0], nil
}

// breakOff ends a response that cannot be completed, so that the client cannot take it for complete. If nothing of it has
// left yet, the client is told why instead.
func (c *conn) breakOff(x *exchange.Exchange) {
	if x.Code == exchange.CodeNone {
		x.Code = exchange.UpstreamReset
	}
	c.keep = false
	if !c.wrote {
		x.Refuse(x.Code, "")
		c.Respond(x, nil)
		return
	}
	c.reset()
}

// reset closes the connection in a way that the client can tell from the end of a body.
func (c *conn) reset() {
	c.keep, c.broken = false, true
	if t, ok := c.info.Net.(interface{ SetLinger(seconds int) error }); ok {
		_ = t.SetLinger(0)
	}
}

// Abort implements exchange.Down.
func (c *conn) Abort(x *exchange.Exchange) {
	c.reset()
}

// Gone implements exchange.Down. A client that has closed its sending side counts as gone: only writing to it would tell it
// from one that has closed both.
func (c *conn) Gone() bool { return c.isCut.Load() || c.broken || c.tcp.Hung() }

// Inform implements exchange.Down.
func (c *conn) Inform(status int, head *exchange.Head) error {
	if c.minor == 0 {
		return nil // HTTP/1.0 does not know them
	}
	out := append(c.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(append(append(out, ' '), http.StatusText(status)...), '\r', '\n')
	out = head.AppendLines(out, exchange.HopByHop|1<<exchange.IDContentLength)
	out = append(out, '\r', '\n')
	c.out = out[:0]
	if status == 100 {
		c.expect = false
	}
	wrote := c.wrote
	if !c.write(out) {
		return errWrite
	}
	c.wrote = wrote // the response itself may still become another
	return nil
}

func (c *conn) write(p []byte) bool {
	if c.broken || len(p) == 0 {
		return !c.broken
	}
	c.wrote = true
	c.tcp.ArmWrite(c.srv.Timeouts.Write)
	if _, err := c.stream.Write(p); err != nil {
		c.clientFailed(err)
		return false
	}
	return true
}

// writeMore is write for what will be followed at once.
func (c *conn) writeMore(p []byte) bool {
	if c.broken || len(p) == 0 {
		return !c.broken
	}
	c.wrote = true
	c.tcp.ArmWrite(c.srv.Timeouts.Write)
	if _, err := c.tcp.WriteMore(p); err != nil {
		c.clientFailed(err)
		return false
	}
	return true
}

// writeAll writes three pieces, in one system call where the connection can do that.
func (c *conn) writeAll(p, q []byte, end string) bool {
	c.end = append(c.end[:0], end...)
	w, ok := c.stream.(allWriter)
	if !ok {
		return c.write(p) && c.write(q) && c.write(c.end)
	}
	if c.broken {
		return false
	}
	c.wrote = true
	c.tcp.ArmWrite(c.srv.Timeouts.Write)
	if _, err := w.WriteAll(p, q, c.end); err != nil {
		c.clientFailed(err)
		return false
	}
	return true
}

// allWriter is a stream that writes three pieces together: TCP, and TLS as package handshake makes it.
type allWriter interface {
	WriteAll(p, q, r []byte) (int, error)
}

func (c *conn) clientFailed(err error) {
	c.keep, c.broken = false, true
	if c.x.Code == exchange.CodeNone {
		c.x.Code = exchange.ClientGone
	}
	if errors.Is(err, sweep.ErrTimeout) {
		c.reset()
	}
}
