package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// engine serves the connections of one protocol.
type engine interface {
	// Leave has every response from now on end its connection, or no longer.
	Leave(on bool)
	// CloseIdle closes the connections that have had a response and wait for another request.
	CloseIdle()
	// Connections is the number of open connections.
	Connections() int
	// Drain closes idle connections, waits for the others, and cuts off those that are left when ctx ends.
	Drain(ctx context.Context) error
}

// draining is how far the gateway is in going out of service.
type draining struct {
	mu    sync.Mutex  // guards what follows
	final bool        // Stop or Retire was called: there is no way back
	timer *time.Timer // of the end of DrainDelay; nil: Drain was not called
}

// ErrStopping is the error of changes to a gateway that is being stopped.
var ErrStopping = errors.New("the gateway is being stopped")

// closeIdleEvery is how often idle connections are looked for while the gateway drains: those of HTTP/3 end in no other way.
const closeIdleEvery = time.Second

// Drain takes the gateway out of service and leaves the process as it is: the health checks say draining, so that load
// balancers send nothing more; every response ends its connection; after DrainDelay idle connections are closed too.
// Connections that still come in are served. Status tells when none is left. Calling it again changes nothing.
func (g *Gateway) Drain() error {
	g.drain.mu.Lock()
	defer g.drain.mu.Unlock()
	switch {
	case g.drain.final:
		return ErrStopping
	case g.drain.timer != nil:
		return nil
	}
	g.core.health.SetDraining(true)
	g.leave(true)
	var t *time.Timer
	t = time.AfterFunc(g.opts.DrainDelay, func() {
		g.drain.mu.Lock()
		defer g.drain.mu.Unlock()
		if g.drain.timer != t || g.drain.final { // it has been taken back, and clients are told again that connections are kept
			return
		}
		for _, e := range g.doors.engines() {
			e.CloseIdle()
		}
		t.Reset(closeIdleEvery)
	})
	g.drain.timer = t
	g.opts.Log.Info("draining", "delay", g.opts.DrainDelay)
	return nil
}

// Undrain takes Drain back.
func (g *Gateway) Undrain() error {
	g.drain.mu.Lock()
	defer g.drain.mu.Unlock()
	switch {
	case g.drain.final:
		return ErrStopping
	case g.drain.timer == nil:
		return nil
	}
	g.drain.timer.Stop()
	g.drain.timer = nil
	g.leave(false)
	g.core.health.SetDraining(false)
	g.opts.Log.Info("no longer draining")
	return nil
}

// finish makes draining final. It tells whether it was already.
func (g *Gateway) finish() (again bool) {
	g.drain.mu.Lock()
	defer g.drain.mu.Unlock()
	if g.drain.timer != nil {
		g.drain.timer.Stop()
	}
	again, g.drain.final = g.drain.final, true
	g.leave(true)
	return again
}

func (g *Gateway) leave(on bool) {
	g.doors.leave(on)
}

// Connections is the number of open connections of clients.
func (g *Gateway) Connections() (n int) {
	for _, e := range g.doors.engines() {
		n += e.Connections()
	}
	return n
}

// SetMaintenance tells load balancers to send no traffic, or to send some again.
func (g *Gateway) SetMaintenance(on bool) {
	if g.core.health.SetMaintenance(on) != on {
		g.opts.Log.Info("maintenance", "on", on)
	}
}

// Stop drains the gateway and ends it: the health checks say so and responses end their connections; after DrainDelay no
// more connections are taken, idle ones are closed, requests that are under way are finished. When ctx ends, what is left
// is broken off. Stop also ends a gateway that was never started, and may be called again.
func (g *Gateway) Stop(ctx context.Context) error {
	g.core.health.SetDraining(true)
	again := g.finish()
	if g.stopRest == nil { // it was never started
		return errors.Join(g.doors.close(), g.access.Close())
	}
	if !again {
		pause(ctx, g.opts.DrainDelay)
	}
	g.doors.stop()
	err := drainEngines(ctx, g.doors.engines())
	g.doors.breakHandshakes()
	g.doors.wait()
	g.stopRest()
	adminErr := g.admin.Close()
	g.background.Wait()
	if err != nil {
		err = fmt.Errorf("drain: %w", err)
	}
	if err := g.counts.save(); err != nil {
		g.opts.Log.Warn("the counts of quotas are not kept over the restart", "err", err)
	}
	return errors.Join(err, adminErr, g.access.Close())
}

// Freeze saves the counts of quotas and leaves their file to another process from then on. It returns the counts, for
// CountsSince. Thaw takes it back.
func (g *Gateway) Freeze() (counts []byte, err error) { return g.counts.freeze() }

// Thaw undoes Freeze, when the other process is gone.
func (g *Gateway) Thaw() { g.counts.thaw() }

// Retire hands the traffic over to another process, which listens on the same sockets: this one takes no more connections,
// of which it tells by a call of closed, once; those that it has may finish within RetireLimit; those of HTTP/3, whose port
// cannot be shared, within a second. It returns when none is left; Stop must still be called, and also cuts Retire short. There
// is no way back. The health checks go on as they are, for they speak of the node and not of this process.
func (g *Gateway) Retire(ctx context.Context, closed func()) error {
	if g.finish() {
		closed()
		return ErrStopping
	}
	_ = g.adminListener.Close() // the connections that it has are soon done
	doors := g.doors.stop()
	for _, d := range doors {
		<-d.listener.Stopped()
	}
	closed()
	ctx, cancel := context.WithTimeout(ctx, g.opts.RetireLimit)
	defer cancel()
	faults := make([]error, len(doors))
	var done sync.WaitGroup
	for i, d := range doors {
		done.Go(func() { faults[i] = d.leave(ctx, portGrace) })
	}
	done.Wait()
	g.doors.wait() // also for listeners that were removed before
	return errors.Join(faults...)
}

// drainEngines drains engines, all at the same time.
func drainEngines(ctx context.Context, all []engine) error {
	faults := make([]error, len(all))
	var done sync.WaitGroup
	for i, e := range all {
		done.Go(func() { faults[i] = e.Drain(ctx) })
	}
	done.Wait()
	return errors.Join(faults...)
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
