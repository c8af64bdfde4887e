package sweep

import (
	"os"
	"syscall"
)

// sender is what Send needs.
type sender struct {
	step func(fd uintptr) bool // the callback; made once
	out  []byte
	n    int
	err  error
}

// Send writes as Write does, from another goroutine than the one that reads or is within Loop. One goroutine may send at a
// time. The first call must come before that Loop begins.
func (c *Conn) Send(p []byte) (int, error) {
	if !c.canRaw() {
		return c.write(p, 0)
	}
	s := &c.sender
	if s.step == nil {
		s.step = c.sendStep
	}
	s.out, s.n = p, 0
	defer func() { s.out = nil }()
	for {
		s.err = nil
		err := c.raw.conn.Write(s.step)
		if err == nil {
			return s.n, s.err
		}
		if err := c.writeWoken(err); err != nil {
			return s.n, err
		}
	}
}

// sendStep is called at the begin of RawConn.Write, and when the connection takes more. It returns true when it is done.
func (c *Conn) sendStep(fd uintptr) bool {
	s := &c.sender
	for s.n < len(s.out) {
		n, errno := rawWrite(int(fd), s.out[s.n:])
		if errno == syscall.EAGAIN {
			return false
		}
		if errno != 0 {
			s.err = os.NewSyscallError("write", errno)
			return true
		}
		s.n += n
	}
	return true
}
