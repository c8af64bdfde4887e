package sweep

import (
	"errors"
	"sync"
)

// PipeBytes bounds what one Fill puts into a Pipe.
const PipeBytes = 256 << 10

// PieceBytes is what the other end of a connection must accept at a time.
const PieceBytes = 64 << 10

// maxPipes is how many pipes are kept for later use; each is two file descriptors.
const maxPipes = 64

// errPipe says that a connection cannot be used with a Pipe.
var errPipe = errors.New("the connection has no file descriptor")

// pipes are pipes that wait to be used.
type pipes struct {
	mu     sync.Mutex
	free   []*Pipe // guarded by mu
	closed bool    // guarded by mu
}

// Pipe returns an empty pipe, or nil if there is none to be had: for want of file descriptors, or on systems other than
// Linux. Give it back with Put.
func (s *Sweeper) Pipe() *Pipe {
	ps := &s.pipes
	ps.mu.Lock()
	if n := len(ps.free); n > 0 {
		p := ps.free[n-1]
		ps.free = ps.free[:n-1]
		ps.mu.Unlock()
		return p
	}
	ps.mu.Unlock()
	return newPipe()
}

// Put takes a pipe back. One that is not empty, since what it held could not be written, is closed.
func (s *Sweeper) Put(p *Pipe) {
	ps := &s.pipes
	ps.mu.Lock()
	keep := p.held == 0 && !ps.closed && len(ps.free) < maxPipes
	if keep {
		ps.free = append(ps.free, p)
	}
	ps.mu.Unlock()
	if !keep {
		p.close()
	}
}

// close closes the pipes that are free, and lets the others be closed when they are put back.
func (ps *pipes) close() {
	ps.mu.Lock()
	free := ps.free
	ps.free, ps.closed = nil, true
	ps.mu.Unlock()
	for _, p := range free {
		p.close()
	}
}
