package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
)

// change is the work of one call: from the resources that changed to what depends on them. Sets hold names joined with
// their organization.
type change struct {
	opts Options
	seq  uint64
	full bool // everything is new: entries take the seq of their resources
	old  *world
	now  *world

	keys         map[v1.Key]bool // resources that changed, appeared or went away
	groups       set             // gateway groups whose site entry changes, and those that come or go
	hosts        set             // environment groups to write again
	regrouped    set             // environment groups whose environments changed
	environments set             // environments whose placements changed
	deployments  set             // deployments to compile again
	backends     set             // backends to write again, or to place again
	products     set             // products, likewise
	certificates set             // certificates, likewise
	units        []unitChange

	faults   []v1.Fault
	unsealed []Unsealed
}

// unitChange is a unit before and after; nil where there is none.
type unitChange struct{ before, after *unit }

func newChange(opts Options, seq uint64, full bool, old, now *world) *change {
	return &change{
		opts: opts, seq: seq, full: full, old: old, now: now, keys: map[v1.Key]bool{}, groups: set{}, hosts: set{},
		regrouped: set{}, environments: set{}, deployments: set{}, backends: set{}, products: set{}, certificates: set{},
	}
}

// compareKeys orders keys for messages and for the order of work.
func compareKeys(a, b v1.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Name, b.Name))
}

// collect finds what changed, and everything that depends on it.
func (c *change) collect(changed []v1.Key) {
	for _, k := range changed {
		before, was := c.old.Get(k)
		after, is := c.now.Get(k)
		if (was || is) && before != after && !c.keys[k] {
			c.keys[k] = true
			if was {
				c.now.removeRefs(before)
			}
			if is {
				c.now.addRefs(after)
			}
		}
	}
	for k := range c.keys {
		c.dependents(k)
	}
	for _, name := range sorted(c.deployments) {
		c.recompile(parted(name))
	}
	for name := range c.environments {
		c.replace(parted(name))
	}
	c.collectCertificates()
}

// dependents notes what a changed resource affects.
func (c *change) dependents(k v1.Key) {
	name := joined(k.Organization, k.Name)
	switch k.Kind {
	case v1.KindSite:
		c.note(c.groups, k, v1.KindGatewayGroup)
	case v1.KindGatewayGroup:
		c.groups.add(name)
	case v1.KindEnvironment:
		c.note(c.hosts, k, v1.KindEnvironmentGroup)
		if !slices.Equal(c.old.placements(k.Organization, k.Name), c.now.placements(k.Organization, k.Name)) {
			c.environments.add(name)
		}
	case v1.KindEnvironmentGroup:
		c.hosts.add(name)
		c.rehost(k)
	case v1.KindBackend:
		c.backends.add(name)
	case v1.KindAPI:
		for _, d := range c.now.referrers(k, v1.KindDeployment) {
			if s := spec[v1.DeploymentSpec](c.now, d); s != nil && s.Revision == 0 {
				c.deployments.add(joined(d.Organization, d.Name))
			}
		}
	case v1.KindAPIRevision:
		c.note(c.deployments, k, v1.KindDeployment)
	case v1.KindDeployment:
		c.deployments.add(name)
	case v1.KindProduct:
		c.products.add(name)
	}
}

// note adds to names what referred or refers to k.
func (c *change) note(names set, k v1.Key, kind v1.Kind) {
	for _, w := range []*world{c.old, c.now} {
		for _, r := range w.referrers(k, kind) {
			names.add(joined(r.Organization, r.Name))
		}
	}
}

// rehost brings the hostnames of an environment group up to date.
func (c *change) rehost(k v1.Key) {
	before, after := spec[v1.EnvironmentGroupSpec](c.old, k), spec[v1.EnvironmentGroupSpec](c.now, k)
	var was, is []string
	if before != nil {
		was = before.Environments
		for _, h := range before.Hostnames {
			c.now.removeHost(k, strings.ToLower(h))
		}
	}
	if after != nil {
		is = after.Environments
		for _, h := range after.Hostnames {
			c.now.addHost(k, strings.ToLower(h))
		}
	}
	if !slices.Equal(was, is) {
		c.regrouped.add(joined(k.Organization, k.Name))
	}
}

// recompile brings the unit of a deployment up to date.
func (c *change) recompile(organization, name string) {
	k := v1.Key{Organization: organization, Kind: v1.KindDeployment, Name: name}
	var u unitChange
	if d := spec[v1.DeploymentSpec](c.old, k); d != nil {
		u.before = c.old.unitOf(k, d)
	}
	if u.before != nil {
		c.now.removeUnit(u.before)
	}
	if d := spec[v1.DeploymentSpec](c.now, k); d != nil {
		u.after = c.unit(k, d)
	}
	if u.after != nil {
		c.now.addUnit(u.after)
	}
	c.units = append(c.units, u)
	if u.before != nil && u.after != nil && u.before.environment == u.after.environment && u.before.api == u.after.api {
		if !slices.Equal(u.before.backends, u.after.backends) {
			c.placeBackends(u.before)
			c.placeBackends(u.after)
		}
		return
	}
	for _, u := range []*unit{u.before, u.after} {
		if u != nil {
			c.placeBackends(u)
			c.placeProducts(u)
		}
	}
}

// replace notes everything in an environment whose placements changed.
func (c *change) replace(organization, environment string) {
	for _, w := range []*world{c.old, c.now} {
		for _, u := range w.units.with(organization, environment) {
			c.placeBackends(u)
			c.placeProducts(u)
			if w == c.now && !c.deployments[joined(organization, u.deployment)] {
				c.units = append(c.units, unitChange{u, u})
			}
		}
	}
}

func (c *change) placeBackends(u *unit) {
	for _, b := range u.backends {
		c.backends.add(joined(u.organization, b))
	}
}

func (c *change) placeProducts(u *unit) {
	c.note(c.products, v1.Key{Organization: u.organization, Kind: v1.KindAPI, Name: u.api}, v1.KindProduct)
}

// check finds what keeps the new state from being compiled.
func (c *change) check() {
	for k := range c.keys {
		if o, ok := c.now.Get(k); ok {
			c.dangling(o)
		} else {
			c.inUse(k)
		}
		if k.Kind == v1.KindEnvironmentGroup {
			c.hostnames(k)
		}
	}
	for _, u := range c.units {
		if u.after != nil && u.before != u.after {
			c.deployment(u.after)
		}
	}
	for name := range c.regrouped {
		c.regroup(parted(name))
	}
	c.checkCertificates()
}

// fault records a fault of a resource.
func (c *change) fault(k v1.Key, path, code, value, message, remedy string) {
	c.faults = append(c.faults, v1.Fault{
		Kind: string(k.Kind), Name: k.Name, Organization: k.Organization, Path: path,
		Code: code, Value: value, Message: message, Remedy: remedy,
	})
}

func (c *change) dangling(o *v1.Object) {
	for _, r := range resource.References(o) {
		if _, ok := c.now.Get(r.Key); ok {
			continue
		}
		remedy := "create it, or correct the name"
		if c.keys[r.Key] {
			remedy = "it is deleted by the same change; delete or change this resource too"
		}
		c.fault(o.Key(), r.Path, resource.CodeDangling, r.Key.Name, fmt.Sprintf("there is no %s", r.Key), remedy)
	}
}

// inUse refuses the deletion of what others refer to. Referrers that change as well have a dangling reference, which
// says the same at a better place.
func (c *change) inUse(k v1.Key) {
	var users []v1.Key
	for _, r := range c.now.referrers(k, "") {
		if !c.keys[r] {
			users = append(users, r)
		}
	}
	if k.Kind == v1.KindBackend {
		for t := range c.now.uses.with(k.Organization, k.Name) { // by a pinned revision, which has no reference of its own
			for _, u := range c.now.units.with(k.Organization, t[2], t[3], t[4]) {
				if d := (v1.Key{Organization: k.Organization, Kind: v1.KindDeployment, Name: u.deployment}); u.pinned && !c.keys[d] {
					users = append(users, d)
				}
			}
		}
	}
	if len(users) == 0 {
		return
	}
	slices.SortFunc(users, compareKeys)
	const shown = 5
	names := make([]string, 0, shown)
	for _, u := range users[:min(len(users), shown)] {
		names = append(names, u.String())
	}
	list := strings.Join(names, ", ")
	if more := len(users) - shown; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	c.fault(k, "metadata.name", resource.CodeInUse, k.Name, fmt.Sprintf("it cannot be deleted, since others refer to it: %s", list), "delete or change those first, or in the same change")
}

func (c *change) hostnames(k v1.Key) {
	g := spec[v1.EnvironmentGroupSpec](c.now, k)
	if g == nil {
		return
	}
	for i, h := range g.Hostnames {
		for t := range c.now.hosts.with(strings.ToLower(h)) {
			other := v1.Key{Organization: t[1], Kind: v1.KindEnvironmentGroup, Name: t[2]}
			if other == k || c.keys[other] && compareKeys(other, k) > 0 {
				continue // of two that change, the second in order is blamed
			}
			owner := other.String()
			if other.Organization != k.Organization {
				owner = "an environment group of another organization"
			}
			c.fault(k, fmt.Sprintf("spec.hostnames[%d]", i), resource.CodeHostnameClash, h, fmt.Sprintf("%q belongs to %s already", h, owner), "take it away there first, or write another hostname")
		}
	}
}

// deployment checks a new or changed unit against all others.
func (c *change) deployment(u *unit) {
	self := v1.Key{Organization: u.organization, Kind: v1.KindDeployment, Name: u.deployment}
	for _, name := range u.backends {
		b := v1.Key{Organization: u.organization, Kind: v1.KindBackend, Name: name}
		if _, ok := c.now.Get(b); !ok && u.pinned {
			c.fault(self, "spec.revision", resource.CodeDangling, name, fmt.Sprintf("that revision of API %s is forwarded to %s, which does not exist", u.api, b), "create the backend, or deploy another revision")
		}
	}
	for _, other := range c.now.units.with(u.organization, u.environment, u.api) {
		if c.blames(u, other) {
			c.fault(self, "spec", resource.CodeDuplicateDeployment, u.api, fmt.Sprintf("Deployment %s puts the same API into the same environment", other.deployment), "keep one of the two")
		}
	}
	env := v1.Key{Organization: u.organization, Kind: v1.KindEnvironment, Name: u.environment}
	for _, g := range c.now.referrers(env, v1.KindEnvironmentGroup) {
		c.basePaths(g, u)
	}
}

// regroup checks the units of an environment group whose environments changed.
func (c *change) regroup(organization, name string) {
	g := v1.Key{Organization: organization, Kind: v1.KindEnvironmentGroup, Name: name}
	s := spec[v1.EnvironmentGroupSpec](c.now, g)
	if s == nil {
		return
	}
	for _, env := range s.Environments {
		for _, u := range c.now.units.with(organization, env) {
			if !c.deployments[joined(organization, u.deployment)] { // deployment has looked at those
				c.basePaths(g, u)
			}
		}
	}
}

// basePaths checks that no other unit of an environment group has the base path of u.
func (c *change) basePaths(group v1.Key, u *unit) {
	g := spec[v1.EnvironmentGroupSpec](c.now, group)
	if g == nil {
		return
	}
	for _, env := range g.Environments {
		for t := range c.now.bases.with(u.organization, u.base, env) {
			other := &unit{organization: u.organization, environment: env, api: t[3], deployment: t[4]}
			if other.api == u.api && env == u.environment || !c.blames(u, other) {
				continue
			}
			what := fmt.Sprintf("API %s, deployed to environment %s,", other.api, env)
			if other.api == u.api {
				what = fmt.Sprintf("the same API, deployed to environment %s as well,", env)
			}
			k, path := c.culprit(u, group)
			c.fault(k, path, resource.CodeBasePathClash, u.base, fmt.Sprintf("%s answers under %s in environment group %s", what, u.base, group.Name),
				"give one of them another base path, or keep their environments in different environment groups")
		}
	}
}

// blames tells whether a conflict of u and other is reported for u: each is reported once, for one that changed.
func (c *change) blames(u, other *unit) bool {
	if u.deployment == other.deployment {
		return false
	}
	changed := c.deployments[joined(u.organization, u.deployment)]
	if otherChanged := c.deployments[joined(other.organization, other.deployment)]; changed != otherChanged {
		return changed
	}
	return u.deployment > other.deployment
}

// culprit returns the resource and the field of the change set that made u conflict within a group.
func (c *change) culprit(u *unit, group v1.Key) (v1.Key, string) {
	api := v1.Key{Organization: u.organization, Kind: v1.KindAPI, Name: u.api}
	deployment := v1.Key{Organization: u.organization, Kind: v1.KindDeployment, Name: u.deployment}
	switch {
	case c.keys[api] && !u.pinned:
		return api, "spec.basePath"
	case c.keys[deployment]:
		return deployment, "spec.environment"
	case c.keys[group]:
		return group, "spec.environments"
	}
	return deployment, "spec.revision"
}
