// Package linktest makes networks with faults for tests: delay, stalls, cuts, refusals and bounded bandwidth, all set by
// the test and in force at once. A [Network] is in memory and works inside testing/synctest, where half a minute of delay
// costs nothing; a [Proxy] stands before a real TCP address. Both have the same [Faults]. [Run] is the suite of what a
// link must do over either. A [ConnectProxy] is an HTTP proxy with the CONNECT method.
//
// Everything is safe for concurrent use and ends with the test that made it. The package is for tests of link, of what
// runs over links, and of the whole product.
package linktest

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Faults are what a test can do to a network. The zero state is a perfect network.
type Faults struct {
	mu        sync.Mutex // guards the fields below
	delay     time.Duration
	bandwidth int
	refusing  bool
	holed     bool
	changed   chan struct{} // closed at the next change
	pairs     map[*pair]struct{}
	closed    bool
}

// pair is one connection: two wires and what to call when it is cut.
type pair struct {
	there, back *wire
	onCut       func()
}

func newFaults() *Faults {
	return &Faults{changed: make(chan struct{}), pairs: make(map[*pair]struct{})}
}

// SetDelay sets how long bytes take each way; a round trip takes twice as long. Bytes that are on their way keep
// theirs, and none overtakes another.
func (f *Faults) SetDelay(d time.Duration) { f.set(func() { f.delay = d }) }

// SetBandwidth bounds what one connection carries each way, in bytes a second. 0: no bound.
func (f *Faults) SetBandwidth(bytesPerSecond int) { f.set(func() { f.bandwidth = bytesPerSecond }) }

// Refuse makes new connections fail, or lets them in again.
func (f *Faults) Refuse(on bool) { f.set(func() { f.refusing = on }) }

// Blackhole makes the network swallow everything without a sign, new connections and ends of connections included.
// When it is over, what was swallowed arrives late, as TCP sends it again.
func (f *Faults) Blackhole(on bool) { f.set(func() { f.holed = on }) }

// Cut ends all connections at once, at both ends with a reset, and returns how many there were.
func (f *Faults) Cut() int {
	f.mu.Lock()
	var all []*pair
	for p := range f.pairs {
		all = append(all, p)
	}
	clear(f.pairs)
	f.mu.Unlock()
	for _, p := range all {
		p.there.reset(syscall.ECONNRESET)
		p.back.reset(syscall.ECONNRESET)
		if p.onCut != nil {
			p.onCut()
		}
	}
	return len(all)
}

// Connections returns how many connections are open.
func (f *Faults) Connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pairs)
}

func (f *Faults) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// shut refuses everything from now on.
func (f *Faults) shut() {
	f.set(func() { f.closed = true })
	f.Cut()
}

// enter waits as long as the network swallows new connections, and tells whether this one is let in.
func (f *Faults) enter(ctx context.Context) error {
	for {
		f.mu.Lock()
		holed, refusing, changed := f.holed, f.refusing, f.changed
		if f.closed {
			holed, refusing = false, true
		}
		f.mu.Unlock()
		if refusing {
			return syscall.ECONNREFUSED
		}
		if !holed {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

func (f *Faults) newPair(onCut func()) *pair {
	p := &pair{there: newWire(f), back: newWire(f), onCut: onCut}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pairs[p] = struct{}{}
	return p
}

// leave forgets a pair whose connection has ended by itself.
func (f *Faults) leave(p *pair) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pairs, p)
}

// Network is a network in memory. Addresses are any host:port.
type Network struct {
	*Faults

	mu        sync.Mutex // guards listeners
	listeners map[string]*listener
}

// NewNetwork makes a network that is shut when the test ends.
func NewNetwork(tb testing.TB) *Network {
	n := &Network{Faults: newFaults(), listeners: make(map[string]*listener)}
	tb.Cleanup(n.shut)
	return n
}

// Listen takes an address of the network. It panics if the address is taken.
func (n *Network) Listen(address string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		panic("linktest: address " + address + " is taken")
	}
	l := &listener{network: n, address: addr(address), incoming: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[address] = l
	return l
}

// Dial connects to an address. It takes one round trip.
func (n *Network) Dial(ctx context.Context, address string) (net.Conn, error) {
	if err := n.enter(ctx); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: err}
	}
	n.Faults.mu.Lock()
	trip := 2 * n.delay
	n.Faults.mu.Unlock()
	if trip > 0 {
		t := time.NewTimer(trip)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: context.Cause(ctx)}
		case <-t.C:
		}
	}
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: syscall.ECONNREFUSED}
	}
	p := n.newPair(nil)
	client := newConn(p.back, p.there, "client", address, func() { n.leave(p) })
	server := newConn(p.there, p.back, address, "client", func() { n.leave(p) })
	select {
	case l.incoming <- server:
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: context.Cause(ctx)}
	}
}

type listener struct {
	network  *Network
	address  addr
	incoming chan net.Conn
	done     chan struct{}
	once     sync.Once
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close gives the address back.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		defer l.network.mu.Unlock()
		delete(l.network.listeners, string(l.address))
		close(l.done)
	})
	return nil
}

// Addr returns the address.
func (l *listener) Addr() net.Addr { return l.address }

type addr string

// Network returns "memory".
func (addr) Network() string { return "memory" }

// String returns the address.
func (a addr) String() string { return string(a) }
