package http3

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// Respond implements exchange.Down.
func (st *stream) Respond(x *exchange.Exchange, body exchange.Source) {
	x.SpeakGRPC()
	if extended(st.r) && ingress.NoTunnel(x) {
		if body != nil {
			body.Close()
			body = nil
		}
		x.Refuse(exchange.UpstreamProtocol, "")
	}
	local, answered := x.LocalAnswer()
	if answered {
		if body != nil {
			body.Close()
		}
		if x.Refused() {
			local.Reset(x.AppendProblem(nil))
			x.Own.SetString(exchange.IDContentType.Name(), exchange.ProblemType)
		}
		x.Resp.Reset()
		body = local
	}
	if x.Status == http.StatusSwitchingProtocols {
		st.respondTunnel(x, body)
		return
	}
	st.head(x, body, x.Status)
	if body == nil {
		st.flush()
		return
	}
	defer body.Close()
	if x.Method.String() == http.MethodHead || x.Status == http.StatusNoContent || x.Status == http.StatusNotModified {
		st.flush()
		return
	}
	st.relay(x, body)
}

// head makes the fields of the response. They leave with the first piece of the body, or when it is flushed.
func (st *stream) head(x *exchange.Exchange, body exchange.Source, status int) {
	if x.Own.Len() > 0 {
		x.Resp.AddAll(&x.Own)
	}
	h := st.w.Header()
	clear(h)
	h["Content-Type"] = nil // quic-go would guess one
	addFields(h, &x.Resp, "")
	switch {
	case body != nil && body.Len() >= 0 && x.Status != http.StatusNotModified:
		h["Content-Length"] = []string{strconv.FormatInt(body.Len(), 10)}
	case x.Resp.Has(exchange.IDContentLength) && (x.Method.String() == http.MethodHead || x.Status == http.StatusNotModified):
		h["Content-Length"] = []string{x.Resp.Known(exchange.IDContentLength).String()}
	}
	if via := st.client.rules.Via; via != "" {
		h.Add("Via", "3.0 "+via)
	}
	h["X-Request-Id"] = []string{x.ID.String()}
	st.arm()
	st.w.WriteHeader(status)
}

// addFields adds the fields of from that are forwarded. The prefix stands before their names.
func addFields(h http.Header, from *exchange.Head, prefix string) {
	for name, value := range from.All() {
		switch id := exchange.IDOf(name); {
		case exchange.HopByHop.Has(id), id == exchange.IDContentLength, id == exchange.IDXRequestID:
		default:
			h.Add(prefix+http.CanonicalHeaderKey(string(name)), string(value))
		}
	}
}

// relay writes the body as it comes. Nothing that is there to be written waits for what is not.
func (st *stream) relay(x *exchange.Exchange, body exchange.Source) {
	length := body.Len()
	for {
		if !body.Ready() && !st.flush() {
			break
		}
		chunk, err := body.Next()
		total := x.BytesOut + int64(len(chunk.Data))
		if err != nil || length >= 0 && (total > length || chunk.End && total != length) {
			st.breakOff(x)
			return
		}
		if len(chunk.Data) > 0 {
			st.arm()
			st.wrote = true
			if _, err := st.w.Write(chunk.Data); err != nil {
				st.clientFailed()
				break
			}
			x.BytesOut = total
		}
		if chunk.End {
			if t := body.Trailers(); t != nil {
				addFields(st.w.Header(), t, http.TrailerPrefix)
			}
			st.flush()
			return
		}
	}
}

func (st *stream) arm() { _ = st.ctrl.SetWriteDeadline(time.Now().Add(st.srv.opts.Timeouts.Write)) }

// flush sends what is written.
func (st *stream) flush() bool {
	if st.aborted {
		return false
	}
	st.arm()
	st.wrote = true
	if err := st.ctrl.Flush(); err != nil {
		st.clientFailed()
		return false
	}
	return true
}

// breakOff ends a response that cannot be completed, so that the client cannot take it for complete.
func (st *stream) breakOff(x *exchange.Exchange) {
	if x.Code == exchange.CodeNone {
		x.Code = exchange.UpstreamReset
	}
	st.aborted = true
}

func (st *stream) clientFailed() {
	st.aborted = true
	if st.x.Code == exchange.CodeNone {
		st.x.Code = exchange.ClientGone
	}
}

// Abort implements exchange.Down.
func (st *stream) Abort(*exchange.Exchange) { st.aborted = true }

var errGone = errors.New("the client does not take the response")

// Inform implements exchange.Down.
func (st *stream) Inform(status int, head *exchange.Head) error {
	if st.r.Context().Err() != nil {
		return errGone
	}
	h := st.w.Header()
	clear(h)
	addFields(h, head, "")
	st.arm()
	st.w.WriteHeader(status)
	clear(h)
	return nil
}

// Gone implements exchange.Down.
func (st *stream) Gone() bool { return st.r.Context().Err() != nil }

// StopBody implements exchange.Down.
func (st *stream) StopBody() {
	st.stopped.Store(true)
	_ = st.r.Body.Close()
}
