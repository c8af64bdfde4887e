package handshake

import (
	"container/list"
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// Conn is a connection after its handshake.
type Conn struct {
	tls       *tls.Conn
	transport transport
	session   *Session
	protocol  string

	began   time.Time
	element *list.Element // among the pending handshakes; guarded by Server.mu
}

// Protocol returns what was negotiated by ALPN: HTTP1, HTTP2, or "" if the client offered nothing.
func (c *Conn) Protocol() string { return c.protocol }

// TLS returns what is known of the connection, for the exchanges on it.
func (c *Conn) TLS() *exchange.TLS { return &c.session.TLS }

// Over has the connection read from nc and write to it from now on, instead of what the handshake was made on, and returns
// what engines read requests from.
func (c *Conn) Over(nc net.Conn) (net.Conn, error) {
	c.transport.Conn = nc
	return c.tls, nil
}

// transport is what a tls.Conn reads from and writes to.
type transport struct {
	net.Conn
	rule    *Rule // of the name that the client has asked for
	evicted atomic.Bool
}
