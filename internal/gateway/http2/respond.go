package http2

import (
	"errors"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/gateway/ingress"
)

var _ exchange.Down = (*stream)(nil)

var errGone = errors.New("the client does not take the response")

// Respond implements exchange.Down.
func (s *stream) Respond(x *exchange.Exchange, body exchange.Source) {
	x.SpeakGRPC()
	if s.tunnel && ingress.NoTunnel(x) {
		closeSource(body)
		body = nil
		x.Refuse(exchange.UpstreamProtocol, "")
	}
	local, answered := x.LocalAnswer()
	switch {
	case x.Refused():
		closeSource(body)
		s.block = x.AppendProblem(s.block[:0])
		local.Reset(x.Scratch(s.block))
		x.Own.SetString(exchange.IDContentType.Name(), exchange.ProblemType)
		body = local
	case answered:
		closeSource(body)
		body = local
	}
	if answered {
		x.Resp.Reset()
	}
	bodiless := s.head || x.Status == 204 || x.Status == 304
	if bodiless {
		closeSource(body)
		body = nil
	}
	s.block = s.appendHead(s.block[:0], x, body, bodiless)
	if body == nil || body.Len() == 0 {
		closeSource(body)
		s.ended = true
		s.deliver(s.send(s.block, nil, true))
		return
	}
	s.relay(x, body)
	body.Close()
}

func closeSource(s exchange.Source) {
	if s != nil {
		s.Close()
	}
}

// deliver notes that the client does not take the response, if it does not.
func (s *stream) deliver(err error) {
	if err != nil && s.x.Code == exchange.CodeNone {
		s.x.Code = exchange.ClientGone
	}
}

// appendHead appends the header block of the response.
func (s *stream) appendHead(out []byte, x *exchange.Exchange, body exchange.Source, bodiless bool) []byte {
	status := x.Status
	if s.tunnel && status == 101 { // RFC 8441, section 5
		status = 200
		ingress.EndTunnel(x)
	}
	out = h2.AppendStatus(out, status)
	if x.Own.Len() > 0 {
		x.Resp.AddAll(&x.Own)
	}
	except := exchange.HopByHop&^(1<<exchange.IDTrailer) | 1<<exchange.IDContentLength | 1<<exchange.IDXRequestID
	if bodiless && x.Status != 204 {
		except &^= 1 << exchange.IDContentLength
	}
	out = h2.AppendHead(out, &x.Resp, except)
	switch {
	case bodiless:
	case body == nil:
		out = h2.AppendUint(out, exchange.IDContentLength, 0)
	case body.Len() >= 0:
		out = h2.AppendUint(out, exchange.IDContentLength, body.Len())
	}
	srv := s.c.srv
	if !x.Resp.Has(exchange.IDDate) {
		out = h2.AppendField(out, exchange.IDDate, "date", srv.date.At(x.Start.Add(x.Upstream)))
	}
	return h2.AppendField(out, exchange.IDXRequestID, "x-request-id", x.ID[:])
}

// relay sends the header block in s.block and then the body, as it comes. Nothing that is there to be sent waits for what is
// not.
func (s *stream) relay(x *exchange.Exchange, body exchange.Source) {
	var sent int64
	length := body.Len()
	head := s.block
	for {
		if head != nil && !body.Ready() {
			if err := s.send(head, nil, false); err != nil {
				s.deliver(err)
				break
			}
			head = nil
		}
		chunk, err := body.Next()
		total := sent + int64(len(chunk.Data))
		if err != nil || length >= 0 && (total > length || chunk.End && total != length) {
			x.BytesOut = sent
			s.breakOff(x, head != nil)
			return
		}
		var trailers *exchange.Head
		if chunk.End {
			trailers = body.Trailers()
		}
		s.ended = chunk.End && trailers == nil
		if err := s.send(head, chunk.Data, s.ended); err != nil {
			s.deliver(err)
			break
		}
		head, sent = nil, total
		if !chunk.End {
			continue
		}
		if trailers != nil {
			s.block = h2.AppendHead(s.block[:0], trailers, h1.NotInTrailers)
			s.ended = true
			s.deliver(s.send(s.block, nil, true))
		}
		break
	}
	x.BytesOut = sent
}

// breakOff ends a response that cannot be completed, so that the client cannot take it for complete. If nothing of it has
// left yet, the client is told why instead.
func (s *stream) breakOff(x *exchange.Exchange, untouched bool) {
	if x.Code == exchange.CodeNone {
		x.Code = exchange.UpstreamReset
	}
	if untouched {
		x.Refuse(x.Code, "")
		s.Respond(x, nil)
		return
	}
	if x.GRPC() && !s.tunnel { // it can be told even now
		x.Own.Reset()
		x.AddGRPCStatus(&x.Own)
		s.block = h2.AppendHead(s.block[:0], &x.Own, 0)
		s.ended = true
		s.deliver(s.send(s.block, nil, true))
		return
	}
	s.reset(h2.InternalError)
}

// Abort implements exchange.Down.
func (s *stream) Abort(x *exchange.Exchange) {
	code := h2.InternalError
	if x.Code == exchange.ClientGone {
		code = h2.Cancel
	}
	s.reset(code)
}

// Gone implements exchange.Down.
func (s *stream) Gone() bool { return s.gone.Load() || s.c.gone.Load() }

// Inform implements exchange.Down.
func (s *stream) Inform(status int, head *exchange.Head) error {
	s.block = h2.AppendStatus(s.block[:0], status)
	s.block = h2.AppendHead(s.block, head, exchange.HopByHop|1<<exchange.IDContentLength)
	defer s.setAnswered(s.answered)
	return s.send(s.block, nil, false)
}

func (s *stream) setAnswered(answered bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.answered = answered
}

// send hands over a header block, a piece of the body, or both, to be written; end ends the stream. It waits for room and
// for the client's windows.
func (s *stream) send(head, data []byte, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if head != nil {
		if err := s.waitLocked(false); err != nil {
			return err
		}
		s.answered = true
		c.headLocked(s.id, head, end && len(data) == 0)
		if len(data) == 0 {
			c.w.Kick()
			return nil
		}
	}
	for {
		if len(data) > 0 {
			if err := s.waitLocked(true); err != nil {
				return err
			}
		} else if err := s.waitLocked(false); err != nil {
			return err
		}
		n := int(min(int64(len(data)), h2.MaxFrame, int64(s.window), int64(c.window)))
		n = max(n, 0)
		var flags uint8
		if end && n == len(data) {
			flags = h2.FlagEndStream
		}
		c.w.Out = h2.AppendFrameHeader(c.w.Out, n, h2.Data, flags, s.id)
		c.w.Out = append(c.w.Out, data[:n]...)
		s.window -= h2.Window(n)
		c.window -= h2.Window(n)
		c.earned = min(c.earned+h2.EarnData, 1<<20)
		c.w.Kick()
		if data = data[n:]; len(data) == 0 {
			return nil
		}
	}
}

// headLocked appends a header block.
func (c *conn) headLocked(id uint32, block []byte, end bool) {
	if c.update {
		c.update = false
		var flags uint8
		if end {
			flags = h2.FlagEndStream
		}
		if len(block) < h2.MaxFrame {
			c.w.Out = h2.AppendFrameHeader(c.w.Out, 1+len(block), h2.Headers, flags|h2.FlagEndHeaders, id)
			c.w.Out = append(append(c.w.Out, h2.TableUpdate), block...)
			return
		}
		block = append([]byte{h2.TableUpdate}, block...)
	}
	c.w.Out = h2.AppendHeaders(c.w.Out, id, block, end)
}

// waitLocked waits until something can be appended to out; data, until there is window for it, too.
func (s *stream) waitLocked(data bool) error {
	c := s.c
	armed := false
	for {
		switch {
		case s.dead || c.w.Broken():
			return errGone
		case len(c.w.Out) < maxOut && (!data || s.window > 0 && c.window > 0):
			if armed {
				s.sendAlarm.Disarm()
			}
			return nil
		case s.sendLate:
			s.sendLate = false
			if armed && c.srv.Sweeper.Now() >= s.sendBy {
				s.resetLocked(h2.Cancel)
				return errGone
			}
		}
		if !armed {
			armed = true
			s.sendBy = c.srv.Sweeper.Now() + c.srv.Timeouts.Write
			s.sendAlarm.Arm(c.srv.Timeouts.Write)
		}
		if len(c.w.Out) >= maxOut || s.window > 0 {
			c.queueLocked(s)
		}
		s.sendCond.Wait()
	}
}
