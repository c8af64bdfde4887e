package handshake

import (
	"container/list"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// Conn is a connection after its handshake.
type Conn struct {
	stream    Stream
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
// what engines read requests from: a *Stream.
func (c *Conn) Over(nc net.Conn) (net.Conn, error) {
	c.transport.Conn = nc
	return &c.stream, nil
}

// Stream is what a connection carries, in plain. One goroutine may read and one may write at a time.
type Stream struct {
	*tls.Conn
	transport *transport
}

const (
	// maxRecord is how much a record carries at most (RFC 8446, section 5.1).
	maxRecord = 16 << 10
	// corkSize is how much of what is to be sent waits for the rest at most: several records go in one system call.
	corkSize = 4 * (maxRecord + 256)
)

// Write writes p, in one system call for some 64 kB.
func (s *Stream) Write(p []byte) (int, error) {
	if len(p) <= maxRecord {
		return s.Conn.Write(p)
	}
	return s.WriteAll(p, nil, nil)
}

// WriteAll writes three pieces, any of which may be empty, as Write does.
func (s *Stream) WriteAll(p, q, r []byte) (n int, err error) {
	s.transport.cork()
	for _, piece := range [...][]byte{p, q, r} {
		if len(piece) > 0 && err == nil {
			var m int
			m, err = s.Conn.Write(piece)
			n += m
		}
	}
	if flushErr := s.transport.uncork(); err == nil {
		err = flushErr
	}
	return n, err
}

// transport is what a tls.Conn reads from and writes to.
type transport struct {
	net.Conn
	rule    *Rule // of the name that the client has asked for
	evicted atomic.Bool

	mu   sync.Mutex
	held *[]byte // guarded by mu; what waits to be sent, nil if nothing is to wait
}

var corks = sync.Pool{New: func() any { b := make([]byte, 0, corkSize); return &b }}

// Write is called by the tls.Conn, for each record.
func (t *transport) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held == nil {
		return t.Conn.Write(p)
	}
	if len(*t.held)+len(p) > corkSize {
		if err := t.flushLocked(); err != nil {
			return 0, err
		}
	}
	*t.held = append(*t.held, p...)
	return len(p), nil
}

// cork has records wait for uncork, or until there are enough of them.
func (t *transport) cork() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = corks.Get().(*[]byte)
}

func (t *transport) uncork() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.flushLocked()
	if cap(*t.held) <= 2*corkSize {
		corks.Put(t.held)
	}
	t.held = nil
	return err
}

func (t *transport) flushLocked() error {
	if len(*t.held) == 0 {
		return nil
	}
	_, err := t.Conn.Write(*t.held)
	*t.held = (*t.held)[:0]
	return err
}
