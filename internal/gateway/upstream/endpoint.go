package upstream

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// endpoint is one address of a backend, with the connections to it and with all that is known of it. It stays the same
// across changes of the configuration that do not concern the way to it.
type endpoint struct {
	backend *Backend
	address string // to connect to
	name    string // what it is called: host:port, for Host and the name in TLS
	hash    uint64 // of name and address

	pool  pool
	muxes muxes

	active atomic.Int64 // requests under way
	rtt    decaying     // time to the head of a response, for responseTime

	verdict   atomic.Int32 // of health checks
	refusals  atomic.Int32 // of connections, in a row
	downUntil atomic.Int64 // on the sweeper's clock: after a refusal it is passed over
	ejected   atomic.Int64 // on the sweeper's clock: until when it is ejected
	since     atomic.Int64 // on the sweeper's clock: since when it is there, or healthy again
	outlier   outlier

	check *checkTask // guarded by Backend.mu

	// For the metrics.
	requests, reused, dials atomic.Uint64
	connectNanos            atomic.Uint64
	ejections               atomic.Uint64
	checks                  [2]atomic.Uint64 // bad and good ones
	errors                  [len(errorCodes)]atomic.Uint64
}

// The verdicts of health checks.
const (
	unchecked int32 = iota
	healthy
	unhealthy
)

func newEndpoint(b *Backend, name, address string, now time.Duration) *endpoint {
	e := &endpoint{backend: b, address: address, name: name, hash: hashOf(name + "|" + address)}
	e.since.Store(int64(now))
	e.pool.endpoint = e
	e.muxes.endpoint, e.muxes.changed = e, make(chan struct{}, 1)
	return e
}

// endpointState is how an endpoint does at a time.
type endpointState struct {
	healthy bool          // by checks, and not ejected
	refused bool          // it could not be connected to just now
	next    time.Duration // when this changes by itself
}

func (e *endpoint) stateAt(now time.Duration) endpointState {
	st := endpointState{healthy: e.verdict.Load() != unhealthy, next: never}
	if until := time.Duration(e.ejected.Load()); until > now {
		st.healthy, st.next = false, until
	}
	if until := time.Duration(e.downUntil.Load()); until > now {
		st.refused, st.next = true, min(st.next, until)
	}
	return st
}

// errorCodes are the codes that count as errors of an endpoint.
var errorCodes = [...]exchange.Code{
	exchange.UpstreamConnect, exchange.UpstreamBusy, exchange.UpstreamTimeout, exchange.UpstreamReset, exchange.UpstreamProtocol,
	exchange.UpstreamTooLarge,
}

func (e *endpoint) count(code exchange.Code) {
	for i, c := range errorCodes {
		if c == code {
			e.errors[i].Add(1)
		}
	}
}

// passOver is for how long an endpoint that could not be connected to is passed over at first; each further failure
// doubles it, up to 16 times.
const passOver = time.Second

// refused is called when a connection could not be made.
func (e *endpoint) refused(now time.Duration) {
	n := min(e.refusals.Add(1)-1, 4)
	e.downUntil.Store(int64(now + passOver<<n))
	e.backend.outdated()
}

// connected is called when a connection has been made.
func (e *endpoint) connected() {
	if e.refusals.Load() == 0 {
		return
	}
	e.refusals.Store(0)
	if e.downUntil.Swap(0) != 0 {
		e.backend.outdated()
	}
}

// setVerdict takes in what health checks say.
func (e *endpoint) setVerdict(v int32, now time.Duration) {
	old := e.verdict.Swap(v)
	if old == v {
		return
	}
	if v == healthy && old == unhealthy {
		e.since.Store(int64(now))
	}
	e.backend.outdated()
}

// decaying is a response time that rises at once and falls slowly: the peak, decayed by half in a set time (the
// peak-sensitive moving average of Finagle). An endpoint that was slow is asked again when its peak has worn off.
type decaying struct {
	mu    sync.Mutex
	value float64       // guarded by mu; nanoseconds
	stamp time.Duration // guarded by mu; when value was right, on the sweeper's clock
}

func (d *decaying) at(now, half time.Duration) float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.decayed(now, half)
}

func (d *decaying) decayed(now, half time.Duration) float64 {
	if d.value == 0 || now <= d.stamp {
		return d.value
	}
	return d.value * math.Exp2(-float64(now-d.stamp)/float64(half))
}

// observe takes in a response time.
func (d *decaying) observe(took, now, half time.Duration) {
	const share = .3 // of a sample that is below the average
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.decayed(now, half)
	if s := float64(took); s > v {
		v = s
	} else {
		v += share * (s - v)
	}
	d.value, d.stamp = v, now
}
