package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/feed/fetch"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/localstore"
	"hansa.dev/hansa/internal/x/durable"
)

// tenancy is a gateway's hold on its data folder. While it has it, it is the only process that writes there: it follows the
// control node and persists what comes. It gives that up when it hands over to another process, and takes it up again if
// the other one does not get far enough.
type tenancy struct {
	tenancyMu sync.Mutex // guards what follows
	disk      *localstore.Store
	members   *membership
	leaveOff  func(context.Context) error // ends the loop of members
}

// stopFollowing is how long the link may take to end.
const stopFollowing = 10 * time.Second

func (g *Gateway) membership() *membership {
	g.tenancyMu.Lock()
	defer g.tenancyMu.Unlock()
	return g.members
}

func (g *Gateway) linkFault() error { return g.membership().linkFault() }
func (g *Gateway) diskFault() error { return g.membership().diskFault() }

// openDisk takes up the tenancy. lock is that of the disk, if it is held already.
func (g *Gateway) openDisk(lock *durable.Lock) error {
	dir := g.folder.Path("state")
	var disk *localstore.Store
	var err error
	if lock == nil {
		disk, err = localstore.Open(dir, g.sealer, g.log)
	} else {
		disk, err = localstore.OpenLocked(dir, lock, g.sealer, g.log)
	}
	if err != nil {
		return err
	}
	member, err := identity.OpenMember(g.folder, g.sealer)
	if err != nil {
		return errors.Join(err, disk.Close())
	}
	g.tenancyMu.Lock()
	defer g.tenancyMu.Unlock()
	g.disk = disk
	g.members = &membership{opts: &g.opts, log: g.log, register: &scope{Registerer: g.registry}, disk: disk, member: member, sink: g.sinkOrNil()}
	return nil
}

func (g *Gateway) sinkOrNil() fetch.Sink {
	if g.sink == nil {
		return nil // and not an interface with nothing in it
	}
	return g.sink
}

// followAgain begins to follow the control node.
func (g *Gateway) followAgain() {
	stop := g.run("membership", g.membership().run)
	g.tenancyMu.Lock()
	defer g.tenancyMu.Unlock()
	g.leaveOff = stop
}

// freeze ends all writing to the data folder, which stays locked, and returns the lock of the disk.
func (g *Gateway) freeze(ctx context.Context) (*durable.Lock, error) {
	g.tenancyMu.Lock()
	stop, disk, members := g.leaveOff, g.disk, g.members
	g.disk = nil
	g.tenancyMu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopFollowing)
	defer cancel()
	err := stop(ctx)
	lock, closeErr := disk.Release()
	if s, ok := members.register.(*scope); ok {
		s.release()
	}
	return lock, errors.Join(err, closeErr)
}

// thaw takes up the tenancy again from what is on the disk.
func (g *Gateway) thaw(ctx context.Context, lock *durable.Lock) error {
	if err := g.openDisk(lock); err != nil {
		return err
	}
	if err := g.membership().open(ctx); err != nil {
		return err
	}
	g.traffic.Thaw()
	g.followAgain()
	return nil
}

// leaveFolder gives up the data folder at the end.
func (g *Gateway) leaveFolder() error {
	g.tenancyMu.Lock()
	disk := g.disk
	g.disk = nil
	g.tenancyMu.Unlock()
	if g.handedOver.Load() {
		return nil // it is the successor's
	}
	var err error
	if disk != nil {
		err = disk.Close()
	}
	return errors.Join(err, g.folder.Close())
}

// scope registers metrics that can be taken back together.
type scope struct {
	prometheus.Registerer
	mu  sync.Mutex
	all []prometheus.Collector // guarded by mu
}

// Register implements prometheus.Registerer.
func (s *scope) Register(c prometheus.Collector) error {
	err := s.Registerer.Register(c)
	if err == nil {
		s.mu.Lock()
		s.all = append(s.all, c)
		s.mu.Unlock()
	}
	return err
}

// MustRegister implements prometheus.Registerer.
func (s *scope) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := s.Register(c); err != nil {
			panic(err) // as the method that it stands for does
		}
	}
}

// release takes all metrics back.
func (s *scope) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		s.Unregister(c)
	}
	s.all = nil
}
