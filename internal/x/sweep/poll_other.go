//go:build !linux

package sweep

// Hung tells whether the other end has closed the connection or its sending side. Here the system is not asked.
func (c *Conn) Hung() bool { return false }

// Quiet tells whether there is nothing to read on the connection, not even its end. Here the system is not asked.
func (c *Conn) Quiet() bool { return true }
