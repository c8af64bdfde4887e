package compile

import (
	"maps"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
)

// edit is what changes in one view.
type edit struct {
	puts []snapshot.Entry
	dels []string
	gone bool
}

// edits works out what changes in which view.
func (c *change) edits() map[string]*edit {
	e := editor{}
	for name := range c.groups {
		c.editSite(e, name)
	}
	for _, name := range sorted(c.hosts) {
		c.editHosts(e, name)
	}
	for _, u := range c.units {
		c.editUnit(e, u)
	}
	for _, name := range sorted(c.backends) {
		organization, n := parted(name)
		k := v1.Key{Organization: organization, Kind: v1.KindBackend, Name: n}
		e.place(organization, snapshot.EntryKey(snapshot.ClassBackend, organization, n), c.old.groupsOfBackend(organization, n), c.now.groupsOfBackend(organization, n),
			func() (snapshot.Entry, bool) {
				return c.writeBackend(k)
			})
	}
	for _, name := range sorted(c.products) {
		organization, n := parted(name)
		k := v1.Key{Organization: organization, Kind: v1.KindProduct, Name: n}
		e.place(organization, snapshot.EntryKey(snapshot.ClassProduct, organization, n), c.old.groupsOfProduct(k), c.now.groupsOfProduct(k),
			func() (snapshot.Entry, bool) {
				return c.write(k, snapshot.ClassProduct, func(o *v1.Object) any { return product(o) })
			})
	}
	for _, name := range sorted(c.certificates) {
		c.editCertificate(e, name)
	}
	return e
}

// write makes the entry of a resource that is the same in every view.
func (c *change) write(k v1.Key, class string, content func(*v1.Object) any) (snapshot.Entry, bool) {
	o, ok := c.now.Get(k)
	if !ok {
		return snapshot.Entry{}, false
	}
	return c.entry(k, snapshot.EntryKey(class, k.Organization, k.Name), firstReader, content(o), o)
}

// writeBackend makes the entry of a backend.
func (c *change) writeBackend(k v1.Key) (snapshot.Entry, bool) {
	o, ok := c.now.Get(k)
	if !ok {
		return snapshot.Entry{}, false
	}
	content := backend(o)
	reader := content.Reader()
	if reader > firstReader && reader > c.opts.Reader {
		c.fault(k, "spec", resource.CodePolicyAbility, "", "it asks for more than every gateway can do", "upgrade the gateways first, or leave out what is new")
		return snapshot.Entry{}, false
	}
	return c.entry(k, snapshot.EntryKey(snapshot.ClassBackend, k.Organization, k.Name), reader, content, o)
}

func (c *change) editSite(e editor, name string) {
	organization, group := parted(name)
	k := v1.Key{Organization: organization, Kind: v1.KindGatewayGroup, Name: group}
	g, ok := c.now.Get(k)
	if !ok {
		e.view(organization, group).gone = true
		return
	}
	siteName := g.Spec.(*v1.GatewayGroupSpec).Site
	site, ok := c.now.Get(v1.Key{Organization: organization, Kind: v1.KindSite, Name: siteName})
	if !ok {
		return // a dangling reference
	}
	s := site.Spec.(*v1.SiteSpec)
	content := snapshot.Site{Organization: organization, GatewayGroup: group, Name: siteName, Cloud: s.Cloud, Region: s.Region, Zone: s.Zone, Jurisdiction: s.Jurisdiction}
	if entry, ok := c.entry(k, snapshot.EntryKey(snapshot.ClassSite, organization), firstReader, content, g, site); ok {
		e.put(organization, group, entry)
	}
}

// editHosts writes an environment group, which lists in each view the environments that are there.
func (c *change) editHosts(e editor, name string) {
	organization, n := parted(name)
	key := snapshot.EntryKey(snapshot.ClassHosts, organization, n)
	k := v1.Key{Organization: organization, Kind: v1.KindEnvironmentGroup, Name: n}
	groups := c.now.groupsOfHosts(k)
	for group := range c.old.groupsOfHosts(k) {
		if !groups[group] {
			e.del(organization, group, key)
		}
	}
	for _, group := range sorted(groups) {
		o, _ := c.now.Get(k)
		s := o.Spec.(*v1.EnvironmentGroupSpec)
		content := snapshot.Hosts{Organization: organization, Name: n}
		from := []*v1.Object{o}
		for _, h := range s.Hostnames {
			content.Hostnames = append(content.Hostnames, strings.ToLower(h))
		}
		for _, env := range s.Environments {
			if slices.Contains(c.now.placements(organization, env), group) {
				content.Environments = append(content.Environments, env)
			}
			if eo, ok := c.now.Get(v1.Key{Organization: organization, Kind: v1.KindEnvironment, Name: env}); ok {
				from = append(from, eo)
			}
		}
		slices.Sort(content.Hostnames)
		slices.Sort(content.Environments)
		reader := uint16(firstReader)
		if content.TLS = hostTLS(s.TLS); content.TLS != nil {
			if reader = snapshot.ReaderHostTLS; reader > c.opts.Reader {
				c.fault(k, "spec.tls", resource.CodePolicyAbility, "", "not every gateway knows rules of TLS for hostnames", "upgrade the gateways first, or leave tls out")
				return
			}
			if content.TLS.ClientCRL != "" {
				if reader = snapshot.ReaderClientCRL; reader > c.opts.Reader {
					c.fault(k, "spec.tls.clientCertificate.crl", resource.CodePolicyAbility, "", "not every gateway knows lists of revoked certificates", "upgrade the gateways first, or leave crl out")
					return
				}
			}
		}
		if entry, ok := c.entry(k, key, reader, content, from...); ok {
			e.put(organization, group, entry)
		}
	}
}

func (c *change) editUnit(e editor, u unitChange) {
	if u.before != nil {
		for _, g := range c.old.placements(u.before.organization, u.before.environment) {
			e.del(u.before.organization, g, u.before.entry.Key)
		}
	}
	if u.after != nil { // what is put again is not deleted
		for _, g := range c.now.placements(u.after.organization, u.after.environment) {
			e.put(u.after.organization, g, u.after.entry)
		}
	}
}

// editor collects the edits of views by name.
type editor map[string]*edit

func (e editor) view(organization, group string) *edit {
	name := ViewName(organization, group)
	if e[name] == nil {
		e[name] = new(edit)
	}
	return e[name]
}

func (e editor) put(organization, group string, entry snapshot.Entry) {
	v := e.view(organization, group)
	v.puts = append(v.puts, entry)
}

func (e editor) del(organization, group, key string) {
	v := e.view(organization, group)
	v.dels = append(v.dels, key)
}

// place puts an entry into the views of the groups that need it now, and takes it out of those that no longer do.
func (e editor) place(organization, key string, before, now set, make func() (snapshot.Entry, bool)) {
	for g := range before {
		if !now[g] {
			e.del(organization, g, key)
		}
	}
	if len(now) == 0 {
		return
	}
	entry, ok := make()
	if !ok {
		return
	}
	for g := range now {
		e.put(organization, g, entry)
	}
}

func sorted(s set) []string { return slices.Sorted(maps.Keys(s)) }
