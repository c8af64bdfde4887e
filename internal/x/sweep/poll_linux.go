package sweep

import "syscall"

// tcpEstablished is the state of a connection that neither end has closed (include/net/tcp_states.h).
const tcpEstablished = 1

// Hung tells whether the other end has closed the connection or its sending side. Bytes that wait to be read do not hide
// that. Where the system or the kind of connection cannot tell, Hung is false.
func (c *Conn) Hung() bool {
	hung := false
	c.control(func(fd int) {
		// The first byte of struct tcp_info is the state.
		info, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_INFO)
		hung = err == nil && info&0xff != tcpEstablished
	})
	return hung
}

// Quiet tells whether there is nothing to read on the connection, not even its end. Where the system or the kind of
// connection cannot tell, Quiet is true.
func (c *Conn) Quiet() bool {
	quiet := true
	c.control(func(fd int) {
		var p [1]byte
		_, _, err := syscall.Recvfrom(fd, p[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN
	})
	return quiet
}

// control calls f with the file descriptor, if there is one.
func (c *Conn) control(f func(fd int)) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) }) // it fails if the connection is closed, and then nobody asks
	}
}
