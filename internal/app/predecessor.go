package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hansa.dev/hansa/internal/gateway"
	"hansa.dev/hansa/internal/x/durable"
	"hansa.dev/hansa/internal/x/fdpass"
)

// How a gateway hands over to another process. The old one starts the new one with one end of a conversation, and:
//
//	old → offer      with the sockets that it listens on and the locks of the data folder
//	    ← prepared   the new program runs and has understood its settings
//	      (the old one stops following the control node and writing to the data folder, for good if all goes well)
//	old → folder     the data folder is the new one's
//	    ← ready      it has taken the configuration from there, and its addresses
//	old → serve
//	    ← accepting  it serves; the sockets are shared, so that nobody finds them closed
//	      (the old one takes no more connections and lets those that it has finish)
//
// Until accepting the old process serves. If the new one ends or is late before that, the old one says abandoned, kills it
// with all that it has started, waits until they are gone, and takes up the folder again. If the old one ends, at whatever step, the new one goes on: it has the sockets
// and the locks.
const (
	handoverProtocol = 1

	stepPrepared  = "prepared"
	stepFolder    = "folder"
	stepReady     = "ready"
	stepServe     = "serve"
	stepAccepting = "accepting"
	stepAbandoned = "abandoned"
)

// offer is the first message.
type offer struct {
	Protocol int          `json:"protocol"`
	PID      int          `json:"pid"`
	Sockets  []socketName `json:"sockets"` // a file for each of them, then the locks of the folder and of the disk
	// Added are the listeners that were added by hand, LogLevel the level that was set by hand.
	Added    []gateway.Listener `json:"added,omitempty"`
	LogLevel string             `json:"logLevel,omitempty"`
}

type socketName struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// step is every other message.
type step struct {
	Step string `json:"step"`
	// Version is that of the new program; prepared has it.
	Version string `json:"version,omitempty"`
	// Configured, Epoch, Seq and Digest say what the new process has; ready has them.
	Configured bool   `json:"configured,omitempty"`
	Epoch      uint64 `json:"epoch,omitempty"`
	Seq        uint64 `json:"seq,omitempty"`
	Digest     string `json:"digest,omitempty"`
}

// patience is how long a new process waits for its predecessor, which is at work all that time.
const handoverPatience = 5 * time.Minute

// errAlone: the predecessor has ended. It is not a fault: all that is needed is here.
var errAlone = errors.New("the predecessor has ended")

// predecessor is the process that hands over to this one. A nil one is none.
type predecessor struct {
	conn    *fdpass.Conn
	offer   offer
	sockets []gateway.Socket
	locks   [2]*durable.Lock // of the folder and of the disk, until they are taken
}

// meetPredecessor takes what the predecessor offers and waits until the data folder is this process's.
func (g *Gateway) meetPredecessor(ctx context.Context) error {
	if g.opts.Predecessor == nil {
		return nil
	}
	p := &predecessor{conn: g.opts.Predecessor}
	g.pred = p
	g.onStop("predecessor", time.Second, func(context.Context) error { return p.close() })
	files, err := p.conn.Receive(&p.offer, handoverPatience)
	if err != nil {
		return fmt.Errorf("receive the offer of the predecessor: %w", err)
	}
	if err := p.take(g.opts.Data, files); err != nil {
		return err
	}
	if g.opts.Level != nil && p.offer.LogLevel != "" {
		if err := g.opts.Level.UnmarshalText([]byte(p.offer.LogLevel)); err != nil {
			return fmt.Errorf("log level of the predecessor: %w", err)
		}
		g.levelByHand.Store(true)
	}
	g.log.InfoContext(ctx, "taking over", "predecessor", p.offer.PID, "sockets", len(p.sockets))
	if err := p.exchange(step{Step: stepPrepared, Version: g.opts.Version}, stepFolder); err != nil && !errors.Is(err, errAlone) {
		return err
	}
	return nil
}

// take makes sockets and locks of the files of the offer.
func (p *predecessor) take(data string, files []*os.File) (err error) {
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if p.offer.Protocol != handoverProtocol || len(files) != len(p.offer.Sockets)+len(p.locks) {
		return fmt.Errorf("the predecessor hands over by protocol %d with %d files; this program knows protocol %d", p.offer.Protocol, len(files), handoverProtocol)
	}
	for _, name := range p.offer.Sockets {
		l, err := net.FileListener(files[0])
		if err != nil {
			return fmt.Errorf("take over the socket of listener %q: %w", name.Name, err)
		}
		p.sockets = append(p.sockets, gateway.Socket{Name: name.Name, Address: name.Address, Listener: l})
		_ = files[0].Close() // the listener has a copy
		files = files[1:]
	}
	for i, dir := range []string{data, filepath.Join(data, "state")} {
		f := files[0]
		files = files[1:]
		if p.locks[i], err = durable.AdoptLock(dir, f); err != nil {
			return fmt.Errorf("take over the data folder: %w", err)
		}
	}
	return nil
}

// exchange says how far this process is and waits for the next step. The error is errAlone if the predecessor has ended.
func (p *predecessor) exchange(at step, next string) error {
	if err := p.conn.Send(at, nil, handoverPatience); err != nil {
		return errAlone // nobody reads any more
	}
	var s step
	_, err := p.conn.Receive(&s, handoverPatience)
	switch {
	case errors.Is(err, io.EOF):
		return errAlone
	case err != nil:
		return fmt.Errorf("wait for the predecessor: %w", err)
	case s.Step != next:
		return fmt.Errorf("the predecessor says %q, not %q", s.Step, next)
	}
	return nil
}

func (p *predecessor) folderLock() *durable.Lock { return p.lock(0) }
func (p *predecessor) diskLock() *durable.Lock   { return p.lock(1) }

// lock hands out a lock, once.
func (p *predecessor) lock(i int) *durable.Lock {
	if p == nil {
		return nil
	}
	l := p.locks[i]
	p.locks[i] = nil
	return l
}

// takeSockets hands out the sockets, once.
func (p *predecessor) takeSockets() []gateway.Socket {
	if p == nil {
		return nil
	}
	all := p.sockets
	p.sockets = nil
	return all
}

// added returns the listeners that were added by hand, but for those that the settings have now too.
func (p *predecessor) added(have []gateway.Listener) []gateway.Listener {
	if p == nil {
		return nil
	}
	return without(p.offer.Added, have)
}

// without returns those of all whose name none of the others has.
func without(all, others []gateway.Listener) []gateway.Listener {
	return slices.DeleteFunc(slices.Clone(all), func(l gateway.Listener) bool {
		return slices.ContainsFunc(others, func(o gateway.Listener) bool { return cmp.Compare(o.Name, l.Name) == 0 })
	})
}

// close lets go of what nobody has taken.
func (p *predecessor) close() error {
	faults := []error{p.conn.Close()}
	for _, s := range p.sockets {
		faults = append(faults, s.Listener.Close())
	}
	for _, l := range p.locks {
		if l != nil {
			faults = append(faults, l.Leave())
		}
	}
	return errors.Join(faults...)
}

// awaitTraffic says that this process could serve and waits until it should.
func (g *Gateway) awaitTraffic(context.Context) error {
	if g.pred == nil {
		return nil
	}
	st := g.traffic.Status()
	err := g.pred.exchange(step{
		Step: stepReady, Configured: st.Generation > 0, Epoch: st.Epoch, Seq: st.Seq, Digest: st.Digest,
	}, stepServe)
	if errors.Is(err, errAlone) {
		g.log.Warn("the predecessor has ended before its time; going on without it")
		return nil
	}
	return err
}

// takeOver says that this process serves. From here on it is alone responsible.
func (g *Gateway) takeOver(ctx context.Context) error {
	if g.pred == nil {
		return nil
	}
	g.folder.Lock().Sign()
	g.disk.Lock().Sign()
	if err := g.pred.conn.Send(step{Step: stepAccepting}, nil, time.Second); err != nil {
		g.log.WarnContext(ctx, "the predecessor has ended before its time", "err", err)
	}
	return nil
}
