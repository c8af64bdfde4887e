package http3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// bufferSize is how much of a request's body is read at once.
const bufferSize = 16 << 10

// stream is one request and its response, in the terms of quic-go. It is the way back to the client and the source of the
// request's body.
type stream struct {
	x      exchange.Exchange
	srv    *Server
	client *client
	r      *http.Request
	w      http.ResponseWriter
	ctrl   *http.ResponseController

	buf      [bufferSize]byte
	ahead    int           // of buf, read already
	left     int64         // of the body, by its Content-Length; -1: not known
	waited   time.Duration // for the body, together
	trailers exchange.Head
	stopped  atomic.Bool // the request's body is not wanted any more

	wrote   bool // the head of the response may have left
	aborted bool // the stream must be reset
}

// The faults of a request that the rules do not find.
var (
	errTarget        = &exchange.Fault{Code: exchange.BadRequestTarget, Detail: "the path does not begin with a slash, or holds a space or a character outside ASCII"}
	errTargetTooLong = &exchange.Fault{Code: exchange.BadRequestTargetTooLong, Detail: "the request target is longer than the limit"}
	errHost          = &exchange.Fault{Code: exchange.BadRequestHost, Detail: "the authority is not a name or an address with an optional port"}
	errScheme        = &exchange.Fault{Code: exchange.BadRequestTarget, Detail: "the scheme is not https"}
	errConnect       = &exchange.Fault{Code: exchange.NotImplemented, Detail: "CONNECT is not served"}
	errTooManyFields = &exchange.Fault{Code: exchange.BadRequestHeadersTooLarge, Detail: "there are more header fields than the limit"}
	errHeadTimeout   = &exchange.Fault{Code: exchange.BadRequestTimeout, Detail: "the request did not arrive in time"}
	errBodyTimeout   = &exchange.Fault{Code: exchange.BadRequestTimeout, Detail: "the body of the request did not arrive in time"}
	errBodyShort     = &exchange.Fault{Code: exchange.BadRequestBody, Detail: "the body is shorter than its Content-Length"}
	errBodyStopped   = &exchange.Fault{Code: exchange.ClientGone, Detail: "the body of the request is not wanted any more"}
	errBodyGone      = &exchange.Fault{Code: exchange.ClientGone, Detail: "the client broke off the body"}
)

// serve is the http.Handler: it serves one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(clientKey{}).(*client)
	if !ok {
		panic("the connection is not known") // cannot be: connContext has put it there
	}
	c.active.Add(1)
	defer c.end()
	st, ok := s.works.Get().(*stream)
	if !ok {
		st = &stream{srv: s}
	}
	st.client = c
	st.r, st.w, st.ctrl = r, w, http.NewResponseController(w)
	st.ahead, st.left, st.waited, st.wrote, st.aborted = 0, r.ContentLength, 0, false, false
	st.stopped.Store(false)
	st.trailers.Reset()
	st.x.Reset()
	stop := context.AfterFunc(r.Context(), st.x.Cancel)
	st.exchange()
	aborted := st.aborted
	if stop() { // otherwise Cancel may still be at work, and stop the body by st
		st.r, st.w, st.ctrl, st.client = nil, nil, nil, nil
		s.works.Put(st)
	}
	if aborted {
		panic(http.ErrAbortHandler) // by which quic-go resets the stream
	}
}

// end notes that one request less is under way.
func (c *client) end() {
	c.ended.Store(time.Now().UnixNano())
	c.active.Add(-1)
}

// exchange serves the exchange. What panics here is a fault of the gateway and costs the request.
func (st *stream) exchange() {
	x := &st.x
	defer st.srv.guard.Catch("serving a request", func() {
		x.Abandon()
		x.Code, st.aborted = exchange.Internal, true
		st.done()
	})
	if err := st.begin(); err != nil {
		fault, ok := errors.AsType[*exchange.Fault](err)
		if !ok {
			fault = &exchange.Fault{Code: exchange.BadRequestPath, Detail: err.Error()}
		}
		x.Body = nil
		x.Refuse(fault.Code, fault.Detail)
		st.Respond(x, nil)
	} else {
		st.srv.opts.Handler.Serve(x, st)
	}
	st.done()
}

func (st *stream) done() {
	st.x.Duration = time.Since(st.x.Start)
	st.srv.opts.Handler.Done(&st.x)
}

// begin makes the exchange out of the request.
func (st *stream) begin() error {
	x, r := &st.x, st.r
	x.Start, x.Protocol, x.Scheme = time.Now(), exchange.HTTP3, "https"
	c := st.client
	x.TLS = c.tls
	c.mu.Lock()
	c.ids.Next(&x.ID)
	c.mu.Unlock()
	c.Introduce(x)
	x.Method, x.RawTarget = exchange.View(r.Method), exchange.View(r.RequestURI)
	switch {
	case r.Method == http.MethodConnect && !extended(r):
		return errConnect
	case len(r.RequestURI) > st.srv.opts.Limits.Target:
		return errTargetTooLong
	case r.RequestURI == "" || r.RequestURI[0] != '/' || !ingress.ValidTarget(r.RequestURI):
		return errTarget
	case r.URL.Scheme != "" && r.URL.Scheme != "https":
		return errScheme
	case !ingress.SetAuthority(x, []byte(r.Host)):
		return errHost
	}
	if err := ingress.SetPath(x, []byte(r.RequestURI)); err != nil {
		return err
	}
	if !st.fields(r.Header) {
		return errTooManyFields
	}
	if f := c.rules.Announce(x, &c.Client, "3.0"); f != nil {
		return f
	}
	if extended(r) {
		if err := ingress.SetTunnel(x, []byte(r.Proto)); err != nil {
			return err
		}
		x.Body = (*tunnel)(st)
		return nil
	}
	if err := st.body(); err != nil {
		return err
	}
	if _, f := ingress.Expect(&x.Req, x.Body != nil); f != nil {
		return f
	}
	return nil
}

// extended tells whether r is an extended CONNECT (RFC 9220). quic-go puts its protocol where the version is otherwise.
func extended(r *http.Request) bool { return r.Method == http.MethodConnect && r.Proto != "HTTP/3.0" }

// fields takes the fields of the request over, but for those that speak of the connection.
func (st *stream) fields(header http.Header) bool {
	req, underscore := &st.x.Req, false
	st.x.TakesTrailers = header.Get("Te") == "trailers" // RFC 9114, section 4.2: TE holds nothing else
	for name, values := range header {
		n := exchange.NameOf(name)
		if exchange.HopByHop.Has(n.ID()) || n.ID() == exchange.IDHost || n.ID() == exchange.IDContentLength {
			continue
		}
		underscore = underscore || strings.Contains(name, "_")
		for _, v := range values {
			if req.Len() >= st.srv.opts.Limits.Fields || !req.AddString(n, v) {
				return false
			}
		}
	}
	if underscore {
		ingress.DropLookalikes(req)
	}
	return true
}

// body finds out whether the request has one. Where neither Content-Length nor the method says so, only the end of the
// stream does, which comes together with the head.
func (st *stream) body() error {
	switch st.r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		if st.left >= 0 {
			break
		}
		_ = st.ctrl.SetReadDeadline(time.Now().Add(st.srv.opts.Timeouts.Head))
		n, err := st.r.Body.Read(st.buf[:])
		if err != nil && !errors.Is(err, io.EOF) {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errHeadTimeout
			}
			return errBodyGone
		}
		if n == 0 && err != nil {
			return nil
		}
		st.ahead = n
	}
	if st.left != 0 {
		st.x.Body = (*source)(st)
	}
	return nil
}

// source is the stream as the source of the request's body. It may be pulled by another goroutine than the one that
// serves the request.
type source stream

// Next implements exchange.Source. Every error is a *exchange.Fault.
func (b *source) Next() (exchange.Chunk, error) {
	if b.stopped.Load() {
		return exchange.Chunk{}, errBodyStopped
	}
	n := b.ahead
	b.ahead = 0
	var err error
	t := ingress.Timeouts{Body: b.srv.opts.Timeouts.Body, MinRate: b.srv.opts.Timeouts.MinRate}
	for n == 0 && err == nil {
		from := time.Now()
		_ = b.ctrl.SetReadDeadline(from.Add(t.Patience(b.x.BytesIn, b.waited)))
		n, err = b.r.Body.Read(b.buf[:])
		b.waited += time.Since(from)
	}
	b.x.BytesIn += int64(n)
	if b.left > 0 {
		b.left -= int64(n)
	}
	chunk := exchange.Chunk{Data: b.buf[:n], End: b.left == 0}
	switch {
	case err == nil:
		return chunk, nil
	case errors.Is(err, io.EOF):
		chunk.End = true
		b.keepTrailers()
		return chunk, nil
	case b.stopped.Load():
		return exchange.Chunk{}, errBodyStopped
	case errors.Is(err, os.ErrDeadlineExceeded):
		return exchange.Chunk{}, errBodyTimeout
	case errors.Is(err, io.ErrUnexpectedEOF):
		return exchange.Chunk{}, errBodyShort
	}
	return exchange.Chunk{}, errBodyGone
}

// keepTrailers takes the trailers over. quic-go has refused those that must not be.
func (b *source) keepTrailers() {
	for name, values := range b.r.Trailer {
		for _, v := range values {
			b.trailers.AddString(exchange.NameOf(name), v)
		}
	}
	ingress.DropLookalikes(&b.trailers)
}

// Ready implements exchange.Source.
func (b *source) Ready() bool { return b.ahead > 0 }

// Len implements exchange.Source.
func (b *source) Len() int64 { return b.r.ContentLength }

// Trailers implements exchange.Source.
func (b *source) Trailers() *exchange.Head {
	if b.trailers.Len() == 0 {
		return nil
	}
	return &b.trailers
}

// Close implements exchange.Source.
func (b *source) Close() {}
