//go:build !linux

package sweep

import "time"

// Pipe carries bytes from one Conn to another without copying them. This system has none.
type Pipe struct{ held int }

func newPipe() *Pipe { return nil }

func (p *Pipe) close() {}

// Fill reads into the pipe.
func (p *Pipe) Fill(*Conn, int64) (int, error) { return 0, errPipe }

// Drain writes what the pipe holds.
func (p *Pipe) Drain(*Conn, time.Duration) error { return errPipe }

// WriteMore is Write; that more will follow makes no difference.
func (c *Conn) WriteMore(p []byte) (int, error) { return c.Write(p) }
