package linktest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// inFlight bounds what is under way on a wire. It is large, because a long delay must not bound the bandwidth.
	inFlight = 64 << 20
	// socketBuffer is how much a slow wire takes ahead of what it carries.
	socketBuffer = 256 << 10
	// piece is how much of a write arrives at once.
	piece = 16 << 10
)

// wire is one direction of a connection: bytes in order, each with a time of arrival.
type wire struct {
	faults *Faults

	mu      sync.Mutex // guards the fields below
	queue   []chunk
	size    int
	free    time.Time // when the wire has carried everything so far, without delay
	last    time.Time // arrival of the last chunk
	ended   bool      // the writer has closed; a chunk without data is its end
	err     error     // after a reset
	changed chan struct{}
}

type chunk struct {
	due  time.Time
	data []byte // nil: the end
}

func newWire(f *Faults) *wire { return &wire{faults: f, changed: make(chan struct{})} }

func (w *wire) signalLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// reset ends the wire for both sides at once.
func (w *wire) reset(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.queue, w.size = nil, 0
		w.signalLocked()
	}
}

// end sends the end of the stream after what was written.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.ended {
		return
	}
	w.ended = true
	w.pushLocked(nil)
}

func (w *wire) pushLocked(data []byte) {
	w.faults.mu.Lock()
	delay, bandwidth := w.faults.delay, w.faults.bandwidth
	w.faults.mu.Unlock()
	now := time.Now()
	if w.free.Before(now) {
		w.free = now
	}
	if bandwidth > 0 {
		w.free = w.free.Add(time.Duration(len(data)) * time.Second / time.Duration(bandwidth))
	}
	due := w.free.Add(delay)
	if due.Before(w.last) {
		due = w.last
	}
	w.last = due
	w.queue = append(w.queue, chunk{due: due, data: data})
	w.size += len(data)
	w.signalLocked()
}

// write sends p, waiting while the wire is full.
func (w *wire) write(p []byte, deadline *deadline) (n int, err error) {
	for len(p) > 0 {
		w.mu.Lock()
		if w.err != nil || w.ended {
			err := w.err
			w.mu.Unlock()
			if err == nil {
				err = net.ErrClosed
			}
			return n, err
		}
		w.faults.mu.Lock()
		bandwidth, faultsChanged := w.faults.bandwidth, w.faults.changed
		w.faults.mu.Unlock()
		now := time.Now()
		ready := now
		if bandwidth > 0 {
			ready = w.free.Add(-time.Duration(socketBuffer) * time.Second / time.Duration(bandwidth))
		}
		if w.size < inFlight && !ready.After(now) {
			k := min(len(p), piece)
			w.pushLocked(append([]byte(nil), p[:k]...))
			w.mu.Unlock()
			p, n = p[k:], n+k
			continue
		}
		changed := w.changed
		if w.size >= inFlight {
			ready = time.Time{} // the reader makes room
		}
		w.mu.Unlock()
		if !deadline.wait(ready, changed, faultsChanged) {
			return n, os.ErrDeadlineExceeded
		}
	}
	return n, nil
}

// read returns what has arrived, waiting for it.
func (w *wire) read(p []byte, deadline *deadline) (int, error) {
	for {
		if deadline.passed() {
			return 0, os.ErrDeadlineExceeded
		}
		w.mu.Lock()
		if w.err != nil {
			err := w.err
			w.mu.Unlock()
			return 0, err
		}
		w.faults.mu.Lock()
		holed, faultsChanged := w.faults.holed, w.faults.changed
		w.faults.mu.Unlock()
		var due time.Time
		if len(w.queue) > 0 && !holed {
			due = w.queue[0].due
			if !due.After(time.Now()) {
				n, err := w.popLocked(p)
				w.mu.Unlock()
				return n, err
			}
		}
		changed := w.changed
		w.mu.Unlock()
		if !deadline.wait(due, changed, faultsChanged) {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (w *wire) popLocked(p []byte) (int, error) {
	head := &w.queue[0]
	if head.data == nil {
		return 0, io.EOF
	}
	n := copy(p, head.data)
	head.data = head.data[n:]
	w.size -= n
	if len(head.data) == 0 {
		w.queue = w.queue[1:]
	}
	w.signalLocked()
	return n, nil
}

// deadline is a time that can be moved while somebody waits for it.
type deadline struct {
	mu      sync.Mutex // guards the fields below
	at      time.Time
	changed chan struct{}
}

func newDeadline() *deadline { return &deadline{changed: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && !d.at.After(time.Now())
}

// wait waits for a time (zero: none), a change of either kind, or a change of the deadline, and returns false once the
// deadline has passed.
func (d *deadline) wait(until time.Time, changed, faultsChanged <-chan struct{}) bool {
	if d.passed() {
		return false
	}
	d.mu.Lock()
	at, moved := d.at, d.changed
	d.mu.Unlock()
	if until.IsZero() || !at.IsZero() && at.Before(until) {
		until = at
	}
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-timer:
	case <-changed:
	case <-faultsChanged:
	case <-moved:
	}
	return !d.passed()
}

// conn is one end of a connection in memory.
type conn struct {
	in, out       *wire
	local, remote addr
	readBy        *deadline
	writeBy       *deadline
	once          sync.Once
	left          func()
}

var _ net.Conn = (*conn)(nil)

func newConn(in, out *wire, local, remote string, left func()) *conn {
	return &conn{in: in, out: out, local: addr(local), remote: addr(remote), readBy: newDeadline(), writeBy: newDeadline(), left: left}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p, c.readBy)
	if err != nil && err != io.EOF {
		err = &net.OpError{Op: "read", Net: "memory", Addr: c.remote, Err: err}
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p, c.writeBy)
	if err != nil {
		err = &net.OpError{Op: "write", Net: "memory", Addr: c.remote, Err: err}
	}
	return n, err
}

// Close ends both directions: the other end reads what was written and then the end; what it writes goes nowhere.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.out.end()
		c.in.reset(syscall.EPIPE)
		c.left()
	})
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.readBy.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writeBy.set(t)
	return nil
}
