package upstream

import (
	"fmt"
	"log/slog"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// transport is a version of HTTP on the way to endpoints. It holds no state: connections hang on the endpoint.
type transport interface {
	// try sends the request of c to e, once, and returns when the head of the final response stands in c.x.Status and
	// c.x.Resp. Informational responses go to c.down. The Source is the body; who made it calls c.over when the
	// backend has nothing more to do with the call, at the latest in Close.
	//
	// A fault means that there is no response. Then sent tells whether any of the request may have arrived; nothing of
	// the try is left, and the next try may use what c holds of the request.
	try(c *call, e *endpoint) (src exchange.Source, sent bool, f *exchange.Fault)
}

// transportOf returns the transport of a backend.
func transportOf(content *snapshot.Backend) (transport, error) {
	switch content.HTTPVersion {
	case "", "1.0", "1.1":
		return http1{}, nil
	case "2":
		return http2{}, nil
	case "auto":
		if content.TLS {
			return http2{auto: true}, nil
		}
		return http1{}, nil
	}
	return nil, fmt.Errorf("there is no HTTP version %q in this gateway", content.HTTPVersion)
}

// cannotConnect logs that a connection could not be made.
func (b *Backend) cannotConnect(e *endpoint, err error) {
	b.registry.opts.Log.Warn("cannot connect to an endpoint", slog.String("backend", b.key.name),
		slog.String("organization", b.key.organization), slog.String("endpoint", e.address), slog.Any("err", err))
}

// http1 is HTTP/1.1 and HTTP/1.0: one call at a time on each connection.
type http1 struct{}

// try implements transport. What was sent over a connection used before, which then turned out to be closed, is sent once
// more over a new one, if that does no harm: the connection may have been closed before it was sent.
func (h http1) try(c *call, e *endpoint) (exchange.Source, bool, *exchange.Fault) {
	stale, sent, f := h.once(c, e, false)
	if stale {
		_, sent, f = h.once(c, e, true)
	}
	if f != nil {
		return nil, sent, f
	}
	return c, true, nil
}

// once tries once. fresh asks for a new connection. stale says that a connection used before had been closed, and that the
// request may be sent again.
func (http1) once(c *call, e *endpoint, fresh bool) (stale, sent bool, f *exchange.Fault) {
	conn, f := e.take(c, fresh)
	if f != nil {
		return false, false, f
	}
	if conn == nil {
		var err error
		if conn, err = e.dial(c); err != nil {
			c.backend.cannotConnect(e, err)
			return false, false, errConnect
		}
	}
	c.use(e, conn)
	c.x.Tries++
	e.requests.Add(1)
	if conn.reused {
		e.reused.Add(1)
	}
	sent, err := c.send()
	if err == nil {
		err = c.receive()
	}
	if err == nil {
		return false, true, nil
	}
	f = c.fault(err)
	reused := conn.reused
	c.drop()
	return reused && f == errReset && c.received == 0 && c.mayRepeat(sent), sent, f
}
