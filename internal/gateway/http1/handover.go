package http1

import "bytes"

// http2Begin is what a client says first that knows of itself that HTTP/2 is spoken here (RFC 9113, section 3.4). The method is
// reserved for that, so that nothing more needs to be looked at.
var http2Begin = []byte("PRI ")

// handOver has the connection served by the engine for HTTP/2. It stays among those that Drain waits for and cuts off.
func (c *conn) handOver() {
	h := HandOver{Conn: c.info, TCP: &c.tcp, Stream: c.stream, Read: bytes.Clone(c.buf[:c.filled])}
	c.release()
	c.srv.handed.Add(1)
	c.srv.metrics.conns.Dec()
	defer func() {
		c.srv.handed.Add(-1)
		c.srv.metrics.conns.Inc()
	}()
	c.srv.HTTP2(h)
}
