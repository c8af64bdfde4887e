package compile

import (
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
)

// world is a state with what is derived from it, as far as looking it up must be fast.
type world struct {
	State
	// refs has a row {to: organization, kind, name; from: organization, kind, name} for each reference.
	refs relation[struct{}]
	// hosts has a row {hostname, organization, environment group} for each hostname.
	hosts relation[struct{}]
	// children has a row {parent, organization, environment group, hostname} for each exact hostname: "b.c" for a.b.c.
	children relation[struct{}]
	// units has a row {organization, environment, API, deployment} for each deployment.
	units relation[*unit]
	// bases has a row {organization, base path, environment, API, deployment} for each unit.
	bases relation[struct{}]
	// uses has a row {organization, backend, environment, API, deployment} for each backend of each unit.
	uses relation[struct{}]
}

// unit is an API as it is deployed to one environment.
type unit struct {
	organization, environment, api, deployment string

	pinned   bool     // to a revision; otherwise it is the latest
	base     string   // canonical base path
	backends []string // in order
	entry    snapshot.Entry
}

func newWorld(st State) *world {
	return &world{
		State: st, refs: newRelation[struct{}](), hosts: newRelation[struct{}](), children: newRelation[struct{}](), units: newRelation[*unit](),
		bases: newRelation[struct{}](), uses: newRelation[struct{}](),
	}
}

func (w *world) clone(st State) *world {
	return &world{State: st, refs: w.refs.clone(), hosts: w.hosts.clone(), children: w.children.clone(), units: w.units.clone(), bases: w.bases.clone(), uses: w.uses.clone()}
}

func (w *world) addHost(k v1.Key, hostname string) {
	w.hosts.put(tuple{hostname, k.Organization, k.Name}, struct{}{})
	if row, ok := childRow(k, hostname); ok {
		w.children.put(row, struct{}{})
	}
}

func (w *world) removeHost(k v1.Key, hostname string) {
	w.hosts.delete(tuple{hostname, k.Organization, k.Name})
	if row, ok := childRow(k, hostname); ok {
		w.children.delete(row)
	}
}

func childRow(k v1.Key, hostname string) (tuple, bool) {
	_, parent, ok := strings.Cut(hostname, ".")
	return tuple{parent, k.Organization, k.Name, hostname}, ok && !strings.HasPrefix(hostname, "*")
}

func (w *world) addUnit(u *unit) {
	w.units.put(tuple{u.organization, u.environment, u.api, u.deployment}, u)
	w.bases.put(tuple{u.organization, u.base, u.environment, u.api, u.deployment}, struct{}{})
	for _, b := range u.backends {
		w.uses.put(tuple{u.organization, b, u.environment, u.api, u.deployment}, struct{}{})
	}
}

func (w *world) removeUnit(u *unit) {
	w.units.delete(tuple{u.organization, u.environment, u.api, u.deployment})
	w.bases.delete(tuple{u.organization, u.base, u.environment, u.api, u.deployment})
	for _, b := range u.backends {
		w.uses.delete(tuple{u.organization, b, u.environment, u.api, u.deployment})
	}
}

// unitOf returns the unit of a deployment as w has it, or nil.
func (w *world) unitOf(k v1.Key, d *v1.DeploymentSpec) *unit {
	for _, u := range w.units.with(k.Organization, d.Environment, d.API, k.Name) {
		return u
	}
	return nil
}

func (w *world) addRefs(o *v1.Object) {
	for _, r := range resource.References(o) {
		w.refs.put(refRow(r.Key, o.Key()), struct{}{})
	}
}

func (w *world) removeRefs(o *v1.Object) {
	for _, r := range resource.References(o) {
		w.refs.delete(refRow(r.Key, o.Key()))
	}
}

func refRow(to, from v1.Key) tuple {
	return tuple{to.Organization, string(to.Kind), to.Name, from.Organization, string(from.Kind), from.Name}
}

// referrers returns the resources that refer to k: those of its own organization that are of one kind or, if kind is
// empty, all.
func (w *world) referrers(k v1.Key, kind v1.Kind) []v1.Key {
	prefix := []string{k.Organization, string(k.Kind), k.Name}
	if kind != "" {
		prefix = append(prefix, k.Organization, string(kind))
	}
	var keys []v1.Key
	for t := range w.refs.with(prefix...) {
		keys = append(keys, v1.Key{Organization: t[3], Kind: v1.Kind(t[4]), Name: t[5]})
	}
	return keys
}

// spec returns the spec of a resource, or nil if there is none.
func spec[S any](w *world, k v1.Key) *S {
	o, ok := w.Get(k)
	if !ok {
		return nil
	}
	s, _ := any(o.Spec).(*S)
	return s
}

// placements returns the gateway groups that run an environment.
func (w *world) placements(organization, environment string) []string {
	env := spec[v1.EnvironmentSpec](w, v1.Key{Organization: organization, Kind: v1.KindEnvironment, Name: environment})
	if env == nil {
		return nil
	}
	groups := make([]string, len(env.Placements))
	for i, p := range env.Placements {
		groups[i] = p.GatewayGroup
	}
	return groups
}

// deployed returns the environments that an API is deployed to.
func (w *world) deployed(organization, api string) []string {
	var envs []string
	for _, k := range w.referrers(v1.Key{Organization: organization, Kind: v1.KindAPI, Name: api}, v1.KindDeployment) {
		if d := spec[v1.DeploymentSpec](w, k); d != nil && !slices.Contains(envs, d.Environment) {
			envs = append(envs, d.Environment)
		}
	}
	return envs
}

// groupsOfHosts returns the gateway groups whose views need an environment group.
func (w *world) groupsOfHosts(k v1.Key) set {
	groups := set{}
	if g := spec[v1.EnvironmentGroupSpec](w, k); g != nil {
		for _, env := range g.Environments {
			groups.add(w.placements(k.Organization, env)...)
		}
	}
	return groups
}

// groupsOfBackend returns the gateway groups whose views need a backend.
func (w *world) groupsOfBackend(organization, backend string) set {
	groups := set{}
	for env := range w.uses.next(organization, backend) {
		groups.add(w.placements(organization, env)...)
	}
	return groups
}

// groupsOfProduct returns the gateway groups whose views need a product.
func (w *world) groupsOfProduct(k v1.Key) set {
	groups := set{}
	p := spec[v1.ProductSpec](w, k)
	if p == nil {
		return groups
	}
	all := 0
	for range w.List(v1.KindGatewayGroup, k.Organization, "") {
		all++
	}
	seen := set{}
	for _, api := range p.APIs {
		if len(groups) == all {
			break // a product of thousands of APIs is mostly decided by its first
		}
		for _, env := range w.deployed(k.Organization, api) {
			if !seen[env] {
				seen.add(env)
				groups.add(w.placements(k.Organization, env)...)
			}
		}
	}
	return groups
}

// set is a set of names.
type set map[string]bool

func (s set) add(names ...string) {
	for _, n := range names {
		s[n] = true
	}
}

// Names of resources of several organizations are joined by a slash, which names do not hold.

func joined(names ...string) string { return strings.Join(names, "/") }

func parted(s string) (organization, name string) {
	organization, name, _ = strings.Cut(s, "/")
	return organization, name
}
