//go:build !linux

package sweep

import "io"

type raw struct{}

// Ask writes out and more, calls written unless that is nil, waits for an answer and reads what there is of it into in.
// Nothing must be left to read from before. sent tells whether any of it may have been sent. After ErrTimeout, if all was
// sent, Read may go on waiting.
func (c *Conn) Ask(out, more, in []byte, written func()) (n int, sent bool, err error) {
	return c.askSimply(out, more, in, written)
}

// Loop reads into what buffer returns, which must not be empty, and has handle called with the number of bytes, until that
// wants to leave. Meanwhile nothing must call Read. Waiting ends as that of Read does.
//
// stream is what to read from, if it is not c but something on top of it such as a tls.Conn; nil: c.
func (c *Conn) Loop(stream io.Reader, buffer func() []byte, handle func(n int) Next) error {
	if stream == nil {
		stream = c
	}
	return loopSimply(stream, buffer, handle)
}

// Read reads as a net.Conn does. ErrTimeout: the deadline has passed. ErrCancelled: the owner was cancelled.
func (c *Conn) Read(p []byte) (int, error) { return c.read(p) }

// Write writes as a net.Conn does. ErrTimeout: the deadline has passed.
func (c *Conn) Write(p []byte) (int, error) { return c.write(p, 0) }

// WriteAll writes three pieces, any of which may be empty, in one system call where the connection can do that.
func (c *Conn) WriteAll(p, q, r []byte) (int, error) { return c.writeAll(p, q, r, 0) }
