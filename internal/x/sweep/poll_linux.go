package sweep

import "syscall"

// tcpEstablished is the state of a connection that neither end has closed (include/net/tcp_states.h).
const tcpEstablished = 1

// Hung tells whether the other end has closed the connection or its sending side. Bytes that wait to be read do not hide
// that. Where the system or the kind of connection cannot tell, Hung is false. It is for the goroutine that reads.
func (c *Conn) Hung() bool {
	c.raw.hung, c.raw.peeking = false, false
	c.look()
	return c.raw.hung
}

// Quiet tells whether there is nothing to read on the connection, not even its end. Where the system or the kind of
// connection cannot tell, Quiet is true. It is for the goroutine that reads.
func (c *Conn) Quiet() bool {
	c.raw.quiet, c.raw.peeking = true, true
	c.look()
	return c.raw.quiet
}

// look asks the system how the connection does.
func (c *Conn) look() {
	if c.canRaw() {
		_ = c.raw.conn.Control(c.raw.looking) // it fails if the connection is closed, and then nobody asks
	}
}

func (c *Conn) rawLook(fd uintptr) {
	if c.raw.peeking {
		_, _, err := syscall.Recvfrom(int(fd), c.raw.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.raw.quiet = err == syscall.EAGAIN
		return
	}
	// The first byte of struct tcp_info is the state.
	info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
	c.raw.hung = err == nil && info&0xff != tcpEstablished
}
