// Package flush lets many goroutines write to one connection at few system calls: whoever has something to say appends it to
// one piece of memory, and one goroutine writes that. What comes together while it writes goes out together by the next
// write.
//
// A [Buffer] has no lock of its own: it is guarded by that of what it belongs to, since what is appended mostly goes with
// other changes. It runs its goroutine from the first Kick to End.
package flush

import (
	"errors"
	"runtime"
	"sync"
)

// Buffer is what waits to be written. Set Mu, Write and, if wanted, the others before the first Kick. All of it but Write is
// guarded by Mu.
type Buffer struct {
	// Mu guards the Buffer.
	Mu *sync.Mutex
	// Write writes all of p. It is called without Mu, by one goroutine at a time.
	Write func(p []byte) error
	// Taken is called, with Mu, when what was in Out is about to be written, so that there is room in it again.
	Taken func()
	// Failed is called, with Mu, when Write has failed or something has panicked. Nothing is written after that.
	Failed func(error)
	// Guard catches what panics in the goroutine: a guard.Guard. Default: nothing does.
	Guard Guard
	// Keep bounds the memory that is kept. 0: all of it is.
	Keep int

	// Out is what waits to be written. Append to it, and Kick.
	Out []byte

	cond          sync.Cond
	writing       []byte
	running, idle bool
	ending        int // calls of End
	broken        bool
}

// Guard ends a panic, by a method that is deferred: then is called after it.
type Guard interface {
	Catch(what string, then func())
}

// Kick has what is in Out written. It requires Mu.
func (b *Buffer) Kick() {
	switch {
	case b.broken:
		b.Out = b.Out[:0]
	case !b.running:
		b.cond.L = b.Mu
		b.running = true
		go b.run()
	case b.idle:
		b.idle = false
		b.cond.Broadcast()
	}
}

// Broken tells whether nothing can be written any more. It requires Mu.
func (b *Buffer) Broken() bool { return b.broken }

// Break says that nothing can be written any more. It requires Mu.
func (b *Buffer) Break() {
	b.broken = true
	b.Out = b.Out[:0]
}

// End waits until everything is written and the goroutine has ended. A Kick after that starts it again. It requires Mu,
// which it releases while it waits.
func (b *Buffer) End() {
	b.ending++
	b.cond.Broadcast()
	for b.running { // a Kick meanwhile may have started it once more: it ends by itself
		b.cond.Wait()
	}
	b.ending--
}

// Swap replaces the memory. It requires Mu, and that End has returned.
func (b *Buffer) Swap(out, writing []byte) (oldOut, oldWriting []byte) {
	oldOut, oldWriting = b.Out[:0], b.writing[:0]
	b.Out, b.writing = out, writing
	return oldOut, oldWriting
}

// run writes until it is told to end. It lets all goroutines that are ready to run do so before each write: what they have to
// say goes out by the same system call.
func (b *Buffer) run() {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	defer func() {
		b.running = false
		b.cond.Broadcast()
	}()
	if b.Guard != nil {
		defer b.Guard.Catch("writing to a connection", func() { b.fail(errPanicked) })
	}
	for {
		for len(b.Out) == 0 && b.ending == 0 {
			b.idle = true
			b.cond.Wait()
		}
		b.idle = false
		if len(b.Out) == 0 {
			break
		}
		b.Mu.Unlock()
		runtime.Gosched()
		b.Mu.Lock()
		b.Out, b.writing = b.writing[:0], b.Out
		if b.Taken != nil {
			b.Taken()
		}
		err := b.write()
		if b.Keep > 0 && cap(b.writing) > b.Keep {
			b.writing = nil
		}
		if err != nil {
			b.fail(err)
		}
	}
}

// write writes what was taken out, without Mu.
func (b *Buffer) write() error {
	b.Mu.Unlock()
	defer b.Mu.Lock()
	return b.Write(b.writing)
}

var errPanicked = errors.New("writing panicked")

// fail says that nothing can be written any more, and why.
func (b *Buffer) fail(err error) {
	if b.broken {
		return
	}
	b.Break()
	if b.Failed != nil {
		b.Failed(err)
	}
}
