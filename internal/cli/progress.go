package cli

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// progressAfter is how long a command is silent at first: what is quick needs no progress.
const progressAfter = 2 * time.Second

// progress shows on a terminal how far a long command is. Off a terminal it does nothing.
type progress struct {
	out   io.Writer // nil: nobody reads it
	verb  string
	done  atomic.Int64 // bytes
	total int64        // -1: not known
	stop  chan struct{}
	once  sync.Once
	wait  sync.WaitGroup
}

// progress begins to show progress, in place of what is shown so far; the caller must call end. What is printed ends it too.
func (s *session) progress(verb string) *progress {
	s.endProgress()
	p := &progress{verb: verb, total: -1, stop: make(chan struct{})}
	s.shown = p
	if terminal(s.err) {
		p.out = s.err
		p.wait.Go(p.run)
	}
	return p
}

// endProgress takes away what is shown.
func (s *session) endProgress() {
	if s.shown != nil {
		s.shown.end()
	}
}

func (p *progress) run() {
	began := time.Now()
	tick := time.NewTicker(progressAfter / 4)
	defer tick.Stop()
	shown := false
	for {
		select {
		case <-p.stop:
			if shown {
				fmt.Fprint(p.out, "\r\x1b[K")
			}
			return
		case now := <-tick.C:
			if now.Sub(began) < progressAfter {
				continue
			}
			shown = true
			fmt.Fprintf(p.out, "\r\x1b[K%s%s, %s", p.verb, p.amount(), now.Sub(began).Truncate(time.Second))
		}
	}
}

func (p *progress) amount() string {
	done := p.done.Load()
	switch total := p.total; {
	case done == 0:
		return ""
	case total > 0 && done >= total:
		return " (all sent, waiting for the answer)"
	case total > 0:
		return fmt.Sprintf(" %d %% of %s", done*100/total, size(total))
	}
	return " " + size(done)
}

// reader counts what is read from r. total is the length, or -1.
func (p *progress) reader(r io.Reader, total int64) io.Reader {
	if p.out == nil {
		return r // as it is, so that its length stays visible
	}
	p.total = total
	return io.TeeReader(r, p)
}

// Write counts bytes.
func (p *progress) Write(b []byte) (int, error) {
	p.done.Add(int64(len(b)))
	return len(b), nil
}

// end stops the display and takes it away. It may be called again.
func (p *progress) end() {
	p.once.Do(func() { close(p.stop) })
	p.wait.Wait()
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10_000_000_000:
		return fmt.Sprintf("%d GB", n/1_000_000_000)
	case n >= 10_000_000:
		return fmt.Sprintf("%d MB", n/1_000_000)
	case n >= 10_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d bytes", n)
}
