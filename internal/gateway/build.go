package gateway

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/gateway/challenge"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/secrets"
	"hansa.dev/hansa/internal/policyspec"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// backends keeps the backends of routes, by name, and what survives changes of their configuration: connections,
// counters. It is an upstream.Registry; tests put others in its place.
type backends interface {
	// Prepare checks a complete set of backends, as seen from a site. It changes nothing.
	Prepare(site string, all []snapshot.Backend) (backendPlan, error)
}

// backendPlan is a complete set of backends that can be put in force.
type backendPlan interface {
	// Backend returns the handle of a backend, nil if there is none of that name. It stays the same as long as there
	// is one, and must not be called before Commit.
	Backend(organization, name string) exchange.Backend
	Commit()
}

// builder makes plans. It holds what the present plan was made from, by key of entry, so that a change costs its own
// size. It is for one goroutine at a time.
type builder struct {
	factories   map[string]policy.Factory
	specs       map[string]policyspec.Spec
	credentials policy.Credentials
	engine      policy.Engine
	clients     *quota.Clients
	subjects    *quota.Subjects
	backends    backends
	secrets     *secrets.Opener // nil: nothing that is sealed is opened

	set     *snapshot.Set
	current *plan
	parts   parts
	handles backendPlan // the one in force
}

// parts are the pieces of a plan by key of entry.
type parts struct {
	apis     map[string]*api
	backends map[string]*snapshot.Backend
	groups   map[string]*group

	challenges map[string]*snapshot.Challenges
}

func newParts() parts {
	return parts{apis: map[string]*api{}, backends: map[string]*snapshot.Backend{}, groups: map[string]*group{}, challenges: map[string]*snapshot.Challenges{}}
}

// change is a plan that has been built and is not in force yet.
type change struct {
	plan     *plan
	set      *snapshot.Set
	parts    parts           // changed pieces only; nil for those that are gone
	backends backendPlan     // nil if none changed
	secrets  *secrets.Change // nil if none changed
	removed  []*api          // APIs that are gone
	undo     []func()
}

func newBuilder() *builder {
	specs := map[string]policyspec.Spec{}
	for _, s := range policyspec.All() {
		specs[s.Name] = s
	}
	return &builder{
		factories: policies(), specs: specs, set: snapshot.NewSet(), parts: newParts(),
	}
}

// refuse is the error about an entry that cannot be run.
func refuse(entry, field string, err error) error {
	return &snapshot.Refusal{Code: snapshot.RefusedCannotRun, Entry: entry, Field: field, Detail: err.Error()}
}

// build makes the plan of a configuration. It changes nothing: commit does, and abandon if it is not to be.
func (b *builder) build(c snapshot.Checkpoint, set *snapshot.Set) (_ *change, err error) {
	ch := &change{set: set, plan: &plan{checkpoint: c}, parts: newParts()}
	defer func() {
		if err != nil {
			b.abandon(ch)
		}
	}()
	diff := newDiff(set, b.set)
	if err := errors.Join(b.site(ch, diff), b.products(ch, diff), b.makeBackends(ch, diff), b.openSecrets(ch, diff), b.makeChallenges(ch, diff)); err != nil {
		return nil, err
	}
	if err := b.makeAPIs(ch, diff); err != nil {
		return nil, err
	}
	if err := b.makeGroups(ch, diff); err != nil {
		return nil, err
	}
	return ch, nil
}

// commit makes a change the present one.
func (b *builder) commit(ch *change) {
	merge(b.parts.apis, ch.parts.apis)
	merge(b.parts.groups, ch.parts.groups)
	merge(b.parts.backends, ch.parts.backends)
	merge(b.parts.challenges, ch.parts.challenges)
	if ch.backends != nil {
		b.handles = ch.backends
	}
	for _, a := range ch.removed {
		a.life.removed.Store(true)
		b.subjects.Release(a.life.subjectID)
	}
	b.set, b.current = ch.set, ch.plan
}

// abandon undoes what a change that is not to be has taken hold of.
func (b *builder) abandon(ch *change) {
	for _, undo := range ch.undo {
		undo()
	}
}

// merge applies changed pieces: the zero value removes.
func merge[V comparable](present, changed map[string]V) {
	var gone V
	for key, v := range changed {
		if v == gone {
			delete(present, key)
		} else {
			present[key] = v
		}
	}
}

// diff is what is different between two configurations, by class.
type diff struct {
	puts map[string][]snapshot.Entry
	dels map[string][]string
}

// newDiff leaves out what this build cannot read and may pass over (contract N-2): such an entry is as if it was not
// there.
func newDiff(set, old *snapshot.Set) diff {
	d := diff{puts: map[string][]snapshot.Entry{}, dels: map[string][]string{}}
	puts, dels := set.Diff(old)
	for _, e := range puts {
		if e.MinReader > snapshot.ReaderVersion {
			dels = append(dels, e.Key)
			continue
		}
		d.puts[e.Class()] = append(d.puts[e.Class()], e)
	}
	for _, key := range dels {
		class, _, _ := strings.Cut(key, "/")
		d.dels[class] = append(d.dels[class], key)
	}
	return d
}

func (d diff) touches(class string) bool { return len(d.puts[class])+len(d.dels[class]) > 0 }

// openSecrets opens the certificates that changed. One that cannot be opened keeps nothing from being served.
func (b *builder) openSecrets(ch *change, d diff) (err error) {
	if b.secrets == nil || !d.touches(snapshot.ClassCertificate) {
		return nil
	}
	if ch.secrets, err = b.secrets.Prepare(d.puts[snapshot.ClassCertificate], d.dels[snapshot.ClassCertificate]); err != nil {
		return &snapshot.Refusal{Code: snapshot.RefusedCannotRun, Detail: err.Error()}
	}
	return nil
}

// makeChallenges makes the answers to CAs that validate hostnames.
func (b *builder) makeChallenges(ch *change, d diff) (err error) {
	if !d.touches(snapshot.ClassChallenge) {
		if b.current != nil {
			ch.plan.challenges = b.current.challenges
		}
		return nil
	}
	for _, key := range d.dels[snapshot.ClassChallenge] {
		ch.parts.challenges[key] = nil
	}
	for _, e := range d.puts[snapshot.ClassChallenge] {
		c, err := snapshot.Decode[snapshot.Challenges](e)
		if err != nil {
			return refuse(e.Key, "", err)
		}
		ch.parts.challenges[e.Key] = &c
	}
	after := maps.Clone(b.parts.challenges)
	merge(after, ch.parts.challenges)
	all := make([]snapshot.Challenges, 0, len(after))
	for _, c := range after {
		all = append(all, *c)
	}
	ch.plan.challenges, err = challenge.New(all)
	return err
}

func (b *builder) site(ch *change, d diff) error {
	if b.current != nil {
		ch.plan.site = b.current.site
	}
	for _, e := range d.puts[snapshot.ClassSite] {
		s, err := snapshot.Decode[snapshot.Site](e)
		if err != nil {
			return refuse(e.Key, "", err)
		}
		ch.plan.site = s.Name
	}
	ch.plan.place = accesslog.NewPlace(ch.plan.site, ch.plan.checkpoint.Epoch, ch.plan.checkpoint.Seq)
	return nil
}

func (b *builder) products(ch *change, d diff) error {
	if b.current != nil && !d.touches(snapshot.ClassProduct) {
		ch.plan.products = b.current.products
		return nil
	}
	products := policy.Products{}
	if b.current != nil {
		products = maps.Clone(b.current.products)
	}
	for _, key := range d.dels[snapshot.ClassProduct] {
		if names := strings.Split(key, "/"); len(names) == 3 {
			delete(products, credential.NewProductID(names[1], names[2]))
		}
	}
	for _, e := range d.puts[snapshot.ClassProduct] {
		spec, err := snapshot.Decode[snapshot.Product](e)
		if err != nil {
			return refuse(e.Key, "", err)
		}
		p, err := policy.NewProduct(spec)
		if err != nil {
			return refuse(e.Key, "", err)
		}
		products[credential.NewProductID(spec.Organization, spec.Name)] = p
	}
	ch.plan.products = products
	return nil
}

func (b *builder) makeBackends(ch *change, d diff) error {
	if !d.touches(snapshot.ClassBackend) && !d.touches(snapshot.ClassSite) && b.handles != nil {
		return nil
	}
	for _, key := range d.dels[snapshot.ClassBackend] {
		ch.parts.backends[key] = nil
	}
	entries := d.puts[snapshot.ClassBackend]
	specs, errs := make([]snapshot.Backend, len(entries)), make([]error, len(entries))
	parallel(len(entries), func(i int) {
		var err error
		if specs[i], err = snapshot.Decode[snapshot.Backend](entries[i]); err != nil {
			errs[i] = refuse(entries[i].Key, "", err)
		}
	})
	if err := first(errs); err != nil {
		return err
	}
	for i, e := range entries {
		ch.parts.backends[e.Key] = &specs[i]
	}
	after := maps.Clone(b.parts.backends)
	merge(after, ch.parts.backends)
	all := make([]snapshot.Backend, 0, len(after))
	for _, spec := range after {
		all = append(all, *spec)
	}
	var err error
	if ch.backends, err = b.backends.Prepare(ch.plan.site, all); err != nil {
		return &snapshot.Refusal{Code: snapshot.RefusedCannotRun, Detail: err.Error()}
	}
	return nil
}

// backend returns the handle of a backend as it is after the change.
func (b *builder) backend(ch *change, organization, name string) exchange.Backend {
	if ch.backends != nil {
		return ch.backends.Backend(organization, name)
	}
	return b.handles.Backend(organization, name)
}

// makeAPIs makes the APIs that changed, several at a time.
func (b *builder) makeAPIs(ch *change, d diff) error {
	entries := d.puts[snapshot.ClassAPI]
	for _, key := range d.dels[snapshot.ClassAPI] {
		if a := b.parts.apis[key]; a != nil {
			ch.parts.apis[key] = nil
			ch.removed = append(ch.removed, a)
		}
	}
	made := make([]*api, len(entries))
	errs := make([]error, len(entries))
	var mu sync.Mutex // guards ch.undo
	parallel(len(entries), func(i int) {
		e := entries[i]
		l, fresh := b.lifeOf(e)
		if fresh {
			mu.Lock()
			ch.undo = append(ch.undo, func() { b.subjects.Release(l.subjectID) })
			mu.Unlock()
		}
		made[i], errs[i] = b.makeAPI(ch, e, l)
	})
	for i, e := range entries {
		ch.parts.apis[e.Key] = made[i]
	}
	if err := first(errs); err != nil {
		return err
	}
	return b.dangling(ch, d.dels[snapshot.ClassBackend])
}

// dangling refuses to take backends away from APIs that stay.
func (b *builder) dangling(ch *change, gone []string) error {
	if len(gone) == 0 {
		return nil
	}
	for key, a := range b.parts.apis {
		if _, changed := ch.parts.apis[key]; changed {
			continue
		}
		for _, name := range a.backends {
			if slices.Contains(gone, name) {
				return refuse(key, "backend", fmt.Errorf("there is no %s any more", name))
			}
		}
	}
	return nil
}

// first returns the first error and how many there are.
func first(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	return fmt.Errorf("%w (and %d more)", errs[0], len(errs)-1)
}

// parallel calls f for 0 to n-1, on as many goroutines as there are processors.
func parallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), (n+15)/16)
	if workers < 2 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
