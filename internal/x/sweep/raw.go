package sweep

import "io"

// Next says how a Loop goes on.
type Next uint8

// What the handle of a Loop may want.
const (
	// Leave ends the loop.
	Leave Next = iota
	// ReadOn reads what there is.
	ReadOn
	// Wait waits for more to come. It saves a system call where nothing can be there yet: after a response to a client
	// that waits for it. The end of the connection, if it came together with what was handled last, is not noticed before its
	// deadline or more data: arm one if something is under way.
	Wait
)

// askSimply is Ask by the means of every net.Conn.
func (c *Conn) askSimply(out, more, in []byte, written func()) (n int, sent bool, err error) {
	if n, err = c.WriteAll(out, more, nil); err != nil {
		return 0, n > 0, err
	}
	if written != nil {
		written()
	}
	n, err = c.Read(in)
	return n, true, err
}

// loopSimply is Loop by the means of every net.Conn.
func loopSimply(stream io.Reader, buffer func() []byte, handle func(n int) Next) error {
	for {
		n, err := stream.Read(buffer())
		if n == 0 && err != nil {
			return err
		}
		if n > 0 && handle(n) == Leave {
			return nil
		}
	}
}
