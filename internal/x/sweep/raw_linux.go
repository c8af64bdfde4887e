package sweep

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// Reading a net.Conn begins with a system call that mostly finds nothing; only then the goroutine is parked until there
// is something. For a proxy these are two of six system calls per request. What follows leaves them out, by means of the
// standard library: the callback of syscall.RawConn.Read is called again whenever the connection may have become
// readable, and nothing obliges it to read the first time.
//
// That is safe because the runtime's poller is edge-triggered and remembers an edge until it is waited for or reset, which
// RawConn.Read does once, at its begin. Who has read everything and stays within one RawConn.Read cannot miss anything.
//
// The sockets never block, so the system calls are made without telling the scheduler, which would otherwise look for
// another thread whenever one of them takes more than 20 µs.

// raw is what a Conn needs for that.
type raw struct {
	conn syscall.RawConn
	step func(fd uintptr) bool // the callback; made once
	fd   int                   // while within RawConn.Read; 0 otherwise

	asking        bool // step is that of Ask
	wrote         bool
	sent          bool
	out, more, in []byte
	written       func()
	n             int
	err           error

	buffer  func() []byte
	handle  func(n int) Next
	stream  io.Reader // on top of the Conn, which handle's bytes come from; nil: the Conn itself
	drained bool      // the last read took all there was
	dry     bool      // nothing is worth reading before waiting

	looking     func(fd uintptr) // looks how the connection does; made once
	peeking     bool
	hung, quiet bool
	one         [1]byte
}

// canRaw tells whether c can be used in this way.
func (c *Conn) canRaw() bool {
	r := &c.raw
	if r.step == nil {
		r.step, r.looking = c.rawStep, c.rawLook
		if s, ok := c.Conn.(syscall.Conn); ok {
			r.conn, _ = s.SyscallConn() // if it fails, so will everything else
		}
	}
	return r.conn != nil
}

// Ask writes out and more, calls written unless that is nil, waits for an answer and reads what there is of it into in.
// Nothing must be left to read from before. sent tells whether any of it may have been sent. After ErrTimeout, if all was
// sent, Read may go on waiting.
func (c *Conn) Ask(out, more, in []byte, written func()) (n int, sent bool, err error) {
	if !c.canRaw() {
		return c.askSimply(out, more, in, written)
	}
	r := &c.raw
	r.asking, r.wrote, r.sent = true, false, false
	r.out, r.more, r.in, r.written, r.n, r.err = out, more, in, written, 0, nil
	err = c.rawRead()
	if !r.wrote && errors.Is(err, ErrTimeout) {
		// On a busy machine the time for the answer can be over before the question is asked.
		n, writeErr := c.WriteAll(out, more, nil)
		if r.sent = n > 0; writeErr != nil {
			err = writeErr
		} else if written != nil {
			written()
		}
	}
	r.out, r.more, r.in, r.written = nil, nil, nil, nil
	return r.n, r.sent, err
}

// Loop reads into what buffer returns, which must not be empty, and has handle called with the number of bytes, until that
// wants to leave. Meanwhile nothing must call Read. Waiting ends as that of Read does.
//
// stream is what to read from, if it is not c but something on top of it such as a tls.Conn; nil: c. It must survive
// temporary errors of reading, and gets them when there is nothing to read.
func (c *Conn) Loop(stream io.Reader, buffer func() []byte, handle func(n int) Next) error {
	if !c.canRaw() {
		if stream == nil {
			stream = c
		}
		return loopSimply(stream, buffer, handle)
	}
	r := &c.raw
	r.asking, r.err = false, nil
	r.stream, r.buffer, r.handle = stream, buffer, handle
	defer func() { r.fd, r.stream = 0, nil }() // handle may panic
	return c.rawRead()
}

// rawRead runs the callback until it is done or fails.
func (c *Conn) rawRead() error {
	r := &c.raw
	for {
		err := r.conn.Read(r.step)
		r.fd = 0
		if err == nil {
			return r.err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.woken(); err != nil {
			return err
		}
	}
}

// rawStep is called at the begin of RawConn.Read, and when the connection may have become readable. It returns true when
// it is done.
func (c *Conn) rawStep(fd uintptr) bool {
	c.raw.fd = int(fd)
	if c.raw.asking {
		return c.askStep()
	}
	return c.loopStep()
}

func (c *Conn) askStep() bool {
	r := &c.raw
	if !r.wrote {
		n, err := c.WriteAll(r.out, r.more, nil)
		r.wrote, r.sent, r.err = true, n > 0, err
		if err == nil && r.written != nil {
			r.written()
		}
		return err != nil
	}
	n, errno := rawRead(r.fd, r.in)
	if errno == syscall.EAGAIN {
		return false
	}
	r.n, r.err = n, readError(n, errno)
	return true
}

func (c *Conn) loopStep() bool {
	r := &c.raw
	r.dry = false
	for {
		p := r.buffer()
		n, err := c.loopRead(p)
		if errors.Is(err, errStarved) {
			return c.starve()
		}
		if r.err = err; n == 0 && err != nil {
			return true
		}
		if n == 0 { // a stream that has read something of its own
			continue
		}
		r.err = nil
		switch r.handle(n) {
		case Leave:
			return true
		case Wait:
			if r.stream == nil && n < len(p) { // nothing was left behind
				return c.starve()
			}
			r.dry = r.drained
		default:
			r.dry = false
		}
	}
}

// starve is called when there is nothing to read; what it returns ends the callback.
func (c *Conn) starve() bool {
	if c.Starved != nil {
		c.Starved()
	}
	return false
}

// loopRead reads from the stream if there is one, which comes back to readNow.
func (c *Conn) loopRead(p []byte) (int, error) {
	if c.raw.stream != nil {
		return c.raw.stream.Read(p)
	}
	return c.readNow(p)
}

// readNow reads what there is, within the callback. errStarved: nothing.
func (c *Conn) readNow(p []byte) (int, error) {
	r := &c.raw
	if r.dry {
		r.dry = false
		return 0, errStarved
	}
	n, errno := rawRead(r.fd, p)
	if errno == syscall.EAGAIN {
		return 0, errStarved
	}
	r.drained = n < len(p)
	return n, readError(n, errno)
}

// Read reads as a net.Conn does. ErrTimeout: the deadline has passed. ErrCancelled: the owner was cancelled.
func (c *Conn) Read(p []byte) (int, error) {
	if c.raw.stream != nil && c.raw.fd != 0 {
		return c.readNow(p)
	}
	return c.read(p)
}

func readError(n int, errno syscall.Errno) error {
	switch {
	case errno != 0:
		return os.NewSyscallError("read", errno)
	case n == 0:
		return io.EOF
	}
	return nil
}

// Write writes as a net.Conn does. ErrTimeout: the deadline has passed.
func (c *Conn) Write(p []byte) (int, error) {
	if c.raw.fd == 0 || len(p) == 0 {
		return c.write(p, 0)
	}
	// Mostly all is taken at once. What is not, or fails, is left to the net.Conn.
	n, errno := rawWrite(c.raw.fd, p)
	if errno != 0 {
		n = 0
	}
	if n == len(p) {
		return n, nil
	}
	return c.write(p, n)
}

// WriteAll writes three pieces, any of which may be empty, in one system call where the connection can do that.
func (c *Conn) WriteAll(p, q, r []byte) (int, error) {
	if len(q)+len(r) == 0 {
		return c.Write(p)
	}
	if c.raw.fd == 0 {
		return c.writeAll(p, q, r, 0)
	}
	n, errno := rawWritev(c.raw.fd, p, q, r)
	if errno != 0 {
		n = 0
	}
	if n == len(p)+len(q)+len(r) {
		return n, nil
	}
	return c.writeAll(p, q, r, n)
}
