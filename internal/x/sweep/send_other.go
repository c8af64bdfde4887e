//go:build !linux

package sweep

type sender struct{}

// Send writes as Write does, from another goroutine than the one that reads or is within Loop. One goroutine may send at a
// time. The first call must come before that Loop begins.
func (c *Conn) Send(p []byte) (int, error) { return c.write(p, 0) }
