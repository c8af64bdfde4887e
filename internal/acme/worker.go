// Package acme has certificates issued and renewed by CAs (RFC 8555): the one ACME client of a cluster, however many
// gateways there are.
//
// [Worker] looks after every Certificate that says acme. What it knows stands in the record: the account with its key, the
// order with the key of the certificate to come, and what gateways are to answer the CA. Every step is written before the
// next one depends on it, so that a worker that starts after another has stopped, at whatever point, goes on with the same
// order. It writes upon what it has read; one that was replaced without noticing cannot write over what its successor did.
//
// For a certificate it
//
//  1. registers the account, once for all certificates that share it,
//  2. orders, unless an order is open,
//  3. publishes the answers to the CA's challenges, and waits until the connected gateways that serve the hostnames have
//     acknowledged them, or a bound has passed,
//  4. tells the CA to look, and waits for what it finds,
//  5. has the certificate signed, checks it, and writes it in place of the one before; the answers go in the same change.
//
// What fails is tried again, later each time, and never before the CA allows it. Gateways go on with what they have.
//
// A Worker runs where the control node leads: start and stop it by the context of Run. The package talks to the record
// through the interfaces [Record] and [Control]; package app puts them together.
package acme

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/vault"
)

// Record is what the worker reads. store.Store implements it.
type Record interface {
	State() store.State
	// Watch yields what changes after a state until ctx ends.
	Watch(ctx context.Context, after store.State) iter.Seq2[store.ChangeSet, error]
}

// Control is what the worker asks of the control node. control.Issuance implements it.
type Control interface {
	// Commit puts what build makes of the state at the head, and what follows from it. A put with a seq is refused if the
	// resource has another one by now.
	Commit(ctx context.Context, reason string, build func(store.State) ([]*v1.Object, error)) (store.Version, error)
	// Serving returns the hostnames of a certificate by the gateway groups that serve them.
	Serving(ctx context.Context, certificate v1.Key) (map[string][]string, error)
	// Await blocks until every connected gateway of the groups has acknowledged the version, or ctx ends. It returns how
	// many are connected and the names of those that have not.
	Await(ctx context.Context, organization string, groups []string, v store.Version) (connected int, missing []string)
}

// The defaults of Options.
const (
	DefaultRetry = 5 * time.Minute
	DefaultAwait = 30 * time.Second
	// parallel is how many certificates are looked after at the same time: enough that a few CAs which do not answer hold
	// nobody up.
	parallel = 16
)

// Options configure a Worker.
type Options struct {
	// Record is the record. Required.
	Record Record
	// Control writes to it and knows the gateways. Required.
	Control Control
	// Vault seals keys. Required.
	Vault *vault.Vault
	// Directories are the only ones that are asked. Default: any, as whoever may write a Certificate chooses.
	Directories []string
	// Retry is how long after an attempt that a CA has refused the next one begins; it doubles with every further one. After
	// those for which it could not be asked it is a fifth. Default: DefaultRetry.
	Retry time.Duration
	// Await bounds the wait for gateways before a CA is told to look. Default: DefaultAwait.
	Await time.Duration
	// Version is the version of the binary; CAs see it.
	Version string
	// Log is required.
	Log *slog.Logger
	// Registerer gets the metrics. Required.
	Registerer prometheus.Registerer
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Worker has certificates issued and renewed. Make it with New.
type Worker struct {
	opts    Options
	metrics *metrics

	mu   sync.Mutex // guards what follows
	rest map[v1.Key]time.Time
	asks map[v1.Key]time.Time
}

// New makes a Worker that does nothing until Run.
func New(o Options) (*Worker, error) {
	switch {
	case o.Record == nil || o.Control == nil || o.Vault == nil:
		return nil, errors.New("acme: Record, Control and Vault are required")
	case o.Log == nil || o.Registerer == nil:
		return nil, errors.New("acme: Log and Registerer are required")
	}
	if o.Retry <= 0 {
		o.Retry = DefaultRetry
	}
	if o.Await <= 0 {
		o.Await = DefaultAwait
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Log = o.Log.With("component", "acme")
	w := &Worker{opts: o, rest: map[v1.Key]time.Time{}, asks: map[v1.Key]time.Time{}}
	var err error
	w.metrics, err = newMetrics(o.Registerer, o.Record, o.Now)
	return w, err
}

// Run looks after the certificates until ctx ends, and returns when nothing of it goes on any more. It may be called again.
func (w *Worker) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	all.Go(func() { w.watch(ctx, changed) })
	running := map[v1.Key]bool{}
	done := make(chan v1.Key, parallel) // every job can end without being waited for
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		case k := <-done:
			delete(running, k)
		}
		next := w.opts.Now().Add(time.Hour)
		for _, t := range w.tasks() {
			switch {
			case running[t.key]:
			case t.due.After(w.opts.Now()):
				next = earlier(next, t.due)
			case len(running) < parallel: // else one of those that run will call again
				running[t.key] = true
				all.Go(func() {
					w.do(ctx, t)
					done <- t.key
				})
			}
		}
		timer.Reset(max(next.Sub(w.opts.Now()), 10*time.Millisecond))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// watch tells that something has changed that certificates depend on.
func (w *Worker) watch(ctx context.Context, changed chan<- struct{}) {
	for ctx.Err() == nil {
		for set, err := range w.opts.Record.Watch(ctx, w.opts.Record.State()) {
			if err != nil {
				break // it begins anew at the head; if the record has failed, the node ends
			}
			for _, c := range set.Changes {
				switch c.Key.Kind {
				case v1.KindCertificate, v1.KindEnvironmentGroup, v1.KindEnvironment, v1.KindCertificateOrder:
					select {
					case changed <- struct{}{}:
					default: // it is known
					}
				}
			}
		}
		pause(ctx, time.Second)
	}
}

// pause waits, and tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// task is a certificate and what is to be done about it next.
type task struct {
	key   v1.Key
	due   time.Time
	issue bool // or else the CA is asked when it is to be renewed
}

// tasks returns what is to be done about every certificate of a CA.
func (w *Worker) tasks() []task {
	state := w.opts.Record.State()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []task
	gone := func(k v1.Key, _ time.Time) bool { _, ok := state.Get(k); return !ok }
	maps.DeleteFunc(w.rest, gone)
	maps.DeleteFunc(w.asks, gone)
	for o := range state.List(v1.KindCertificate, "", "") {
		spec := o.Spec.(*v1.CertificateSpec)
		if spec.ACME == nil {
			continue
		}
		k := o.Key()
		t := task{key: k, issue: true, due: dueAt(spec, keyOf(state, k), orderOf(state, k))}
		if ask, ok := w.asks[k]; issued(spec, keyOf(state, k)) && (!ok || ask.Before(t.due)) && t.due.After(w.opts.Now()) {
			t.issue, t.due = false, ask
		}
		if rest := w.rest[k]; rest.After(t.due) {
			t.due = rest
		}
		out = append(out, t)
	}
	return out
}

// issued tells whether the certificate is what is asked for.
func issued(spec *v1.CertificateSpec, key *v1.CertificateKeySpec) bool {
	return key != nil && key.Asked == resource.Asked(spec)
}

// dueAt returns when the next attempt to have a certificate issued is to begin.
func dueAt(spec *v1.CertificateSpec, key *v1.CertificateKeySpec, order *v1.CertificateOrderSpec) time.Time {
	mine := order != nil && order.Asked == resource.Asked(spec)
	switch {
	case mine && (order.URL != "" || order.Failures > 0 || !issued(spec, key)):
		return order.NextAttempt
	case mine && !order.RenewAt.IsZero():
		return order.RenewAt
	case issued(spec, key):
		return key.NotAfter.Add(-key.NotAfter.Sub(key.NotBefore) / 3)
	}
	return time.Time{}
}

func keyOf(state store.State, k v1.Key) *v1.CertificateKeySpec {
	o, ok := state.Get(v1.Key{Organization: k.Organization, Kind: v1.KindCertificateKey, Name: k.Name})
	if !ok {
		return nil
	}
	return o.Spec.(*v1.CertificateKeySpec)
}

func orderOf(state store.State, k v1.Key) *v1.CertificateOrderSpec {
	o, ok := state.Get(v1.Key{Organization: k.Organization, Kind: v1.KindCertificateOrder, Name: k.Name})
	if !ok {
		return nil
	}
	return o.Spec.(*v1.CertificateOrderSpec)
}

// jobTime bounds an attempt. One that takes longer is given up; the order stays open.
const jobTime = 10 * time.Minute

// do does what is due about a certificate, and sees to it that it is not done again at once.
func (w *Worker) do(ctx context.Context, t task) {
	bounded, cancel := context.WithTimeout(ctx, jobTime)
	defer cancel()
	log := w.opts.Log.With("organization", t.key.Organization, "certificate", t.key.Name)
	j, err := w.newJob(t.key, log)
	if err == nil {
		defer j.close()
		if t.issue {
			err = j.issue(bounded)
		} else {
			err = j.askRenewal(bounded)
		}
	}
	rest := time.Second // guards against turning in a circle, whatever the record says
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, errSuperseded):
		log.DebugContext(ctx, "the certificate has changed meanwhile", "err", err)
	default:
		rest = w.opts.Retry / 5
		log.ErrorContext(ctx, "what became of a certificate cannot be written", "err", err)
	}
	w.mu.Lock()
	w.rest[t.key] = w.opts.Now().Add(rest)
	w.mu.Unlock()
}
