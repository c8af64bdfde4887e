package h2

// Window is how much may be sent. It may become negative when the peer changes its settings.
type Window int64

// Grow adds the increment of a WINDOW_UPDATE, or the change of a setting. It returns a *Fault if the window becomes
// larger than allowed.
func (w *Window) Grow(n int64) error {
	*w += Window(n)
	if *w > MaxWindow {
		return errWindow
	}
	return nil
}

// Increment checks the increment of a WINDOW_UPDATE.
func Increment(n uint32) error {
	if n == 0 {
		return errIncrement
	}
	return nil
}

// Credit is how much a peer may send, seen from who receives. Make it with NewCredit.
type Credit struct {
	size     int64 // of the window when nothing is under way
	left     int64 // may still be sent
	returned int64 // has been passed on, and the peer has not been told
}

// NewCredit returns the credit of a window of that size.
func NewCredit(size int64) Credit { return Credit{size: size, left: size} }

// Take books what was received. It returns false if the peer has sent more than it may.
func (c *Credit) Take(n int) bool {
	c.left -= int64(n)
	return c.left >= 0
}

// Return books what has been passed on. It returns by how much the peer's window should be incremented now: 0 until it
// is worth a frame.
func (c *Credit) Return(n int) int {
	c.returned += int64(n)
	if c.returned < c.size/4 {
		return 0
	}
	r := c.returned
	c.returned = 0
	c.left += r
	return int(r)
}
