package accesslog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options say where lines go. The zero value writes nowhere.
type Options struct {
	// Path is the file to append to; it is made if need be. "-" is standard output, "" nowhere.
	Path string
	// BufferBytes bounds what waits to be written. Default: 8 MiB, some 16,000 lines.
	BufferBytes int
	// FlushInterval is the longest time that a line waits while the disk is idle. Default: 100 ms.
	FlushInterval time.Duration
	// Log takes the first fault of every minute.
	Log *slog.Logger
	// Metrics is where the counters are registered; may be nil.
	Metrics prometheus.Registerer
}

// Writer writes lines to a file from a goroutine of its own. It is safe for concurrent use.
type Writer struct {
	path     string
	max      int
	interval time.Duration
	log      *slog.Logger

	lines, dropped, faults atomic.Uint64
	fault                  atomic.Pointer[string] // nil while the last write went well

	mu     sync.Mutex
	active []byte // guarded by mu
	closed bool   // guarded by mu

	wake chan struct{} // there is a first line
	full chan struct{} // the buffer is half full
	stop chan struct{}
	done chan struct{}

	fileMu sync.Mutex
	file   io.Writer // guarded by fileMu
	closer io.Closer // guarded by fileMu; nil if there is nothing to close
	torn   bool      // guarded by fileMu: the file ends in half a line
}

// New opens the file and starts to write. Close it.
func New(o Options) (*Writer, error) {
	w := &Writer{
		path: o.Path, max: o.BufferBytes, interval: o.FlushInterval, log: o.Log,
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	if w.max <= 0 {
		w.max = 8 << 20
	}
	if w.interval <= 0 {
		w.interval = 100 * time.Millisecond
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if err := w.open(); err != nil {
		return nil, err
	}
	if o.Metrics != nil {
		if err := w.register(o.Metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("register the metrics of the access log: %w", err), w.closeFile())
		}
	}
	go w.run()
	return w, nil
}

func (w *Writer) register(r prometheus.Registerer) error {
	counter := func(opts prometheus.CounterOpts, v *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(opts, func() float64 { return float64(v.Load()) })
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		counter(prometheus.CounterOpts{
			Name: "hansa_accesslog_lines_total", Help: "Lines that were given to the access log.",
		}, &w.lines),
		counter(prometheus.CounterOpts{
			Name: "hansa_accesslog_lines_dropped_total", Help: "Lines that were lost because the disk was slow, full or broken.",
		}, &w.dropped),
		counter(prometheus.CounterOpts{
			Name: "hansa_accesslog_write_faults_total", Help: "Writes to the access log that did not succeed.",
		}, &w.faults),
	} {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}

// Enabled tells whether lines go anywhere.
func (w *Writer) Enabled() bool { return w.path != "" }

// Write has one line appended to what is to be written. It never waits for the file: if the buffer is full the line is
// dropped.
func (w *Writer) Write(line func(dst []byte) []byte) {
	w.lines.Add(1)
	before, after := w.append(line)
	switch {
	case after == before:
		w.dropped.Add(1)
	case after > w.max/4:
		signal(w.full)
	}
	if before == 0 && after > 0 {
		signal(w.wake)
	}
}

// append appends a line and returns how much was in the buffer before and is after that; as much if there is no room.
func (w *Writer) append(line func(dst []byte) []byte) (before, after int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before = len(w.active)
	if w.closed {
		return before, before
	}
	if b := line(w.active); len(b) <= w.max/2 { // the other half may be on its way to the file
		w.active = b
	}
	return before, len(w.active)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Fault returns what is wrong with the file at present, or "".
func (w *Writer) Fault() string {
	if p := w.fault.Load(); p != nil {
		return *p
	}
	return ""
}

// Dropped returns the number of lines that were lost.
func (w *Writer) Dropped() uint64 { return w.dropped.Load() }

// Reopen opens the path anew, after the file was moved away. If that fails the old file stays in use.
func (w *Writer) Reopen() error {
	if w.path == "" || w.path == "-" {
		return nil
	}
	return w.open()
}

// Close writes what is buffered and closes the file. Lines that come later are dropped.
func (w *Writer) Close() error {
	w.mu.Lock()
	was := w.closed
	w.closed = true
	w.mu.Unlock()
	if was {
		<-w.done
		return nil
	}
	close(w.stop)
	<-w.done
	return w.closeFile()
}

func (w *Writer) open() error {
	var file io.Writer = io.Discard
	var closer io.Closer
	switch w.path {
	case "":
	case "-":
		file = os.Stdout
	default:
		f, err := os.OpenFile(w.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("open access log: %w", err)
		}
		file, closer = f, f
	}
	w.fileMu.Lock()
	old := w.closer
	w.file, w.closer, w.torn = file, closer, false
	w.fileMu.Unlock()
	if old != nil {
		if err := old.Close(); err != nil {
			return fmt.Errorf("close access log: %w", err)
		}
	}
	return nil
}

func (w *Writer) closeFile() error {
	w.fileMu.Lock()
	defer w.fileMu.Unlock()
	c := w.closer
	w.file, w.closer = io.Discard, nil
	if c == nil {
		return nil
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("close access log: %w", err)
	}
	return nil
}

// run moves what is buffered to the file. It batches: after the first line it waits for more.
func (w *Writer) run() {
	defer close(w.done)
	var spare []byte
	var said time.Time
	timer := time.NewTimer(w.interval)
	defer timer.Stop()
	for stopping := false; !stopping; {
		select {
		case <-w.wake:
			timer.Reset(w.interval)
			select {
			case <-timer.C:
			case <-w.full:
			case <-w.stop:
				stopping = true
			}
		case <-w.stop:
			stopping = true
		}
		w.mu.Lock()
		batch := w.active
		w.active = spare[:0]
		w.mu.Unlock()
		if err := w.flush(batch); err != nil && time.Since(said) >= time.Minute {
			said = time.Now()
			w.log.Warn("the access log cannot be written; lines are dropped", "path", w.path, "err", err, "dropped", w.dropped.Load())
		}
		spare = batch
	}
}

// flush writes a batch of lines. What cannot be written is lost: keeping it would only move the loss to later lines.
func (w *Writer) flush(batch []byte) error {
	if len(batch) == 0 {
		return nil
	}
	n, err := w.writeWhole(batch)
	if err == nil {
		w.fault.Store(nil)
		return nil
	}
	w.faults.Add(1)
	for _, c := range batch[n:] {
		if c == '\n' {
			w.dropped.Add(1)
		}
	}
	text := err.Error()
	w.fault.Store(&text)
	return err
}

// writeWhole writes a batch and sees to it that half a line left by an earlier fault does not spoil the next one.
func (w *Writer) writeWhole(batch []byte) (int, error) {
	w.fileMu.Lock()
	defer w.fileMu.Unlock()
	if w.torn {
		if _, err := w.file.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		w.torn = false
	}
	n, err := w.file.Write(batch)
	w.torn = err != nil && n > 0 && batch[n-1] != '\n'
	return n, err
}
