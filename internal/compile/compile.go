// Package compile turns the resources of the record into what gateways run from: one [snapshot.Set] per view, that is
// per gateway group.
//
// It is pure: a function of the state and nothing else, without clock, randomness or I/O. [Compile] looks at every
// resource, [Result.Next] only at those that changed and at what depends on them; both give the same sets, byte for
// byte, which a property test holds them to. A Result never changes. Next shares with it whatever stays the same, so that
// the control API can try a prospective state and throw the outcome away, and compiling one changed API among ten
// thousand costs well under a millisecond.
//
// A view holds its site, the environment groups with the environments that are placed on the gateway group, the APIs
// that are deployed to those environments, the backends that these need, the products that hold any of them, and the
// certificates for the hostnames and backends, with private keys that only the gateway group can open.
//
// What cannot be compiled is refused with all faults at once, as a *resource.InvalidError: dangling references, deletion
// of what others refer to, hostnames and base paths that two claim, an API deployed twice to one environment, policies
// that the gateways cannot run. A refused state leaves the Result that it was compiled from as it was. Faults name a
// resource of the change set wherever one is to blame, so that resource.Locate finds file and line.
package compile

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
)

// State is the content of the record at one version, which must never change. It is kept by the Result that is made of
// it. store.State implements it.
type State interface {
	Get(v1.Key) (*v1.Object, bool)
	// List yields the resources of a kind, of all organizations if organization is empty.
	List(kind v1.Kind, organization, after string) iter.Seq[*v1.Object]
}

// Options tune what is compiled.
type Options struct {
	// Reader is the oldest form of entries that the gateways must be able to run; a policy that needs a newer one is
	// refused. Default: snapshot.ReaderVersion.
	Reader uint16
}

// Result is a compiled state. It is immutable and safe for concurrent use.
type Result struct {
	// Views are the configurations by "<organization>/<gateway group>". The map must not be changed.
	Views map[string]*snapshot.Set
	// Changed are the names of the views that differ from the Result that this one was made from, in order; a name
	// that is missing in Views is of a view that is gone.
	Changed []string
	// Unsealed are private keys that gateway groups need and cannot open; the views of those groups lack them.
	Unsealed []Unsealed

	opts  Options
	mu    sync.Mutex // guards the cloning of world's relations
	world *world
}

// ViewName returns the name of the view of a gateway group.
func ViewName(organization, gatewayGroup string) string { return organization + "/" + gatewayGroup }

// Compile compiles the whole state, whose last change set is seq.
func Compile(st State, seq uint64, o Options) (*Result, error) {
	if o.Reader == 0 {
		o.Reader = snapshot.ReaderVersion
	}
	var all []v1.Key
	for _, info := range v1.Kinds() {
		for obj := range st.List(info.Kind, "", "") {
			all = append(all, obj.Key())
		}
	}
	nothing := &Result{Views: map[string]*snapshot.Set{}, opts: o, world: newWorld(emptyState{})}
	return nothing.next(st, seq, all, true)
}

// Next compiles a state that differs from the one of r in the changed keys at most, as change set seq. An error that
// carries faults (resource.FaultsOf) means that the state is refused. Several states may be tried from one Result, also
// at the same time.
func (r *Result) Next(st State, seq uint64, changed []v1.Key) (*Result, error) {
	return r.next(st, seq, changed, false)
}

func (r *Result) next(st State, seq uint64, changed []v1.Key, full bool) (*Result, error) {
	r.mu.Lock()
	now := r.world.clone(st)
	r.mu.Unlock()
	c := newChange(r.opts, seq, full, r.world, now)
	c.collect(changed)
	c.check()
	if err := resource.AsError(c.sorted()); err != nil {
		return nil, err
	}
	views, touched := c.views(r.Views)
	if err := resource.AsError(c.sorted()); err != nil { // entries that turned out too large
		return nil, err
	}
	return &Result{Views: views, Changed: touched, Unsealed: c.unsealed, opts: r.opts, world: now}, nil
}

// sorted returns the faults in an order that depends on them alone, each once.
func (c *change) sorted() []v1.Fault {
	slices.SortFunc(c.faults, func(a, b v1.Fault) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(c.faults)
}

// emptyState is the state before everything.
type emptyState struct{}

func (emptyState) Get(v1.Key) (*v1.Object, bool) { return nil, false }
func (emptyState) List(v1.Kind, string, string) iter.Seq[*v1.Object] {
	return func(func(*v1.Object) bool) {}
}

// views derives the new sets from the old ones.
func (c *change) views(old map[string]*snapshot.Set) (map[string]*snapshot.Set, []string) {
	edits := c.edits()
	views := maps.Clone(old)
	var touched []string
	for name, e := range edits {
		if e.gone {
			delete(views, name)
			touched = append(touched, name)
			continue
		}
		set := views[name]
		if set == nil {
			set = snapshot.NewSet()
		}
		if next := set.With(e.puts, e.dels); next != views[name] {
			views[name] = next
			touched = append(touched, name)
		}
	}
	slices.Sort(touched)
	return views, touched
}
