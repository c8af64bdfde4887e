package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// process is the life of one role: what was started, in order, so that it can be stopped in the opposite order, and
// what runs until then. Setting up fails half-way by calling stop, which unwinds what had been started.
type process struct {
	log    *slog.Logger
	ctx    context.Context // of the run loops; ends when stop begins to end them
	cancel context.CancelCauseFunc
	failed chan error // first run loop that ended by itself

	mu    sync.Mutex // guards stops
	stops []stopStep
}

// stopStep is one named step of stopping with its own bound.
type stopStep struct {
	name  string
	limit time.Duration
	stop  func(context.Context) error
}

// errStopping is the cause that run loops see when the process is asked to stop.
var errStopping = errors.New("the process is stopping")

func newProcess(log *slog.Logger) *process {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &process{log: log, ctx: ctx, cancel: cancel, failed: make(chan error, 1)}
}

// onStop adds a step that stop will take before all that were added earlier.
func (p *process) onStop(name string, limit time.Duration, stop func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stops = append(p.stops, stopStep{name, limit, stop})
}

// run starts a loop that lives until the process stops, or until the returned function is called. A loop that ends earlier
// ends the process.
func (p *process) run(name string, loop func(context.Context) error) (stop func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(p.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := loop(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("ended unexpectedly")
		}
		select {
		case p.failed <- fmt.Errorf("%s: %w", name, err):
		default: // another loop was first
		}
	}()
	stop = func(stopCtx context.Context) error {
		cancel(errStopping)
		select {
		case <-ended:
			return nil
		case <-stopCtx.Done():
			return stopCtx.Err()
		}
	}
	p.onStop(name, 10*time.Second, stop)
	return stop
}

// wait blocks until ctx ends (nil) or a run loop fails.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.failed:
		return err
	}
}

// stop takes the steps in reverse order, each within its bound and all within ctx. It is safe to call again.
func (p *process) stop(ctx context.Context) error {
	p.mu.Lock()
	steps := p.stops
	p.stops = nil
	p.mu.Unlock()
	var faults []error
	for i := len(steps) - 1; i >= 0; i-- {
		step := steps[i]
		began := time.Now()
		stepCtx, cancel := context.WithTimeout(ctx, step.limit)
		err := step.stop(stepCtx)
		cancel()
		if err != nil {
			faults = append(faults, fmt.Errorf("stop %s: %w", step.name, err))
		}
		p.log.Debug("stopped", "step", step.name, "took", time.Since(began), "err", err)
	}
	p.cancel(errStopping)
	return errors.Join(faults...)
}

// Ready is the content of a ready file: what a script needs to use the process that wrote it.
type Ready struct {
	PID       int               `json:"pid"`
	Addresses map[string]string `json:"addresses"`
	CAFile    string            `json:"caFile,omitempty"`
	TokenFile string            `json:"tokenFile,omitempty"`
}

// writeReady writes r to path at once: a reader sees all of it or nothing.
func writeReady(path string, r Ready) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode ready file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ready-*")
	if err != nil {
		return fmt.Errorf("write ready file %q: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // gone already if all went well
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write ready file %q: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write ready file %q: %w", path, err)
	}
	return nil
}
