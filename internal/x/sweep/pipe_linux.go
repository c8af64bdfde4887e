package sweep

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// Pipe carries bytes from one Conn to another without copying them: it is a pipe of the system, filled and drained by
// splice(2). It is empty at first, and after every Fill it must be drained before the next. One goroutine uses it at a time.
type Pipe struct {
	r, w int
	held int // bytes in the pipe

	filling, draining func(fd uintptr) bool // callbacks of syscall.RawConn; made once
	most              int                   // to be filled in
	rest              int                   // that draining may leave
	err               error
}

func newPipe() *Pipe {
	var fd [2]int
	if syscall.Pipe2(fd[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK) != nil {
		return nil
	}
	// More than the default of 64 KiB, if the user may: if not, splice moves less at once.
	const setPipeSize = 1031 // F_SETPIPE_SZ
	_, _, _ = syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd[1]), setPipeSize, PipeBytes)
	p := &Pipe{r: fd[0], w: fd[1]}
	p.filling, p.draining = p.fillStep, p.drainStep
	return p
}

func (p *Pipe) close() {
	_ = syscall.Close(p.r) // nobody reads what is in it
	_ = syscall.Close(p.w)
}

// Fill waits for the next bytes on c and moves up to most of them, which must be more than 0, into the pipe. It returns how
// many, and fails as Read does.
func (p *Pipe) Fill(c *Conn, most int64) (int, error) {
	if !c.canRaw() {
		return 0, errPipe
	}
	p.most, p.err = int(min(most, PipeBytes)), nil
	for {
		err := c.raw.conn.Read(p.filling)
		if err == nil {
			return p.held, p.err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if err := c.woken(); err != nil {
			return 0, err
		}
	}
}

func (p *Pipe) fillStep(fd uintptr) bool {
	n, errno := splice(int(fd), p.w, p.most, 0)
	if errno == syscall.EAGAIN {
		return false // the pipe is empty, so it is the connection that has nothing
	}
	p.held, p.err = n, nil
	if errno != 0 {
		p.err = os.NewSyscallError("splice", errno)
	} else if n == 0 {
		p.err = readError(0, 0)
	}
	return true
}

// Drain writes all that the pipe holds to c, which may take within for each PieceBytes. It fails as Write does; what could not
// be written stays in the pipe.
func (p *Pipe) Drain(c *Conn, within time.Duration) error {
	p.rest, p.err = 0, nil
	if fd := c.raw.fd; fd != 0 {
		p.drainStep(uintptr(fd)) // mostly all is taken at once
		if p.held == 0 || p.err != nil {
			return p.err
		}
	}
	if !c.canRaw() {
		return errPipe
	}
	for p.held > 0 {
		p.rest, p.err = max(0, p.held-PieceBytes), nil
		c.ArmWrite(within)
		if err := p.drainPiece(c); err != nil {
			return err
		}
	}
	return nil
}

// drainPiece writes until no more is held than may be left.
func (p *Pipe) drainPiece(c *Conn) error {
	for {
		err := c.raw.conn.Write(p.draining)
		if err == nil {
			return p.err
		}
		if err := c.writeWoken(err); err != nil {
			return err
		}
	}
}

func (p *Pipe) drainStep(fd uintptr) bool {
	for p.held > p.rest {
		n, errno := splice(p.r, int(fd), p.held, 0)
		switch {
		case errno == syscall.EAGAIN:
			return false
		case errno != 0:
			p.err = os.NewSyscallError("splice", errno)
			return true
		}
		p.held -= n
	}
	return true
}

// WriteMore is Write where more will follow at once: what does not fill a packet may wait for it.
func (c *Conn) WriteMore(p []byte) (int, error) {
	if c.raw.fd == 0 || len(p) == 0 {
		return c.write(p, 0)
	}
	n, errno := rawSend(c.raw.fd, p, syscall.MSG_MORE|syscall.MSG_NOSIGNAL)
	if errno != 0 {
		n = 0
	}
	if n == len(p) {
		return n, nil
	}
	return c.write(p, n)
}
