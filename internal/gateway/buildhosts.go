package gateway

import (
	"fmt"
	"slices"

	"hansa.dev/hansa/internal/gateway/handshake"
	"hansa.dev/hansa/internal/gateway/router"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/pathpattern"
)

// makeGroups changes what base paths are behind the hostnames.
func (b *builder) makeGroups(ch *change, d diff) error {
	for _, key := range d.dels[snapshot.ClassHosts] {
		ch.parts.groups[key] = nil
	}
	var after map[environment][]*api // made when it is first needed
	for _, e := range d.puts[snapshot.ClassHosts] {
		spec, err := snapshot.Decode[snapshot.Hosts](e)
		if err != nil {
			return refuse(e.Key, "", err)
		}
		g := &group{spec: spec}
		if spec.TLS != nil {
			if g.rule, err = handshake.NewRule(e.Key, spec.TLS); err != nil {
				return refuse(e.Key, "tls", err)
			}
		}
		if old := b.parts.groups[e.Key]; old != nil && old.sameAPIs(g) {
			g.bases, err = b.alter(ch, old) // only the hostnames are new
		} else {
			if after == nil {
				after = b.byEnvironment(ch)
			}
			g.bases, err = g.fill(after)
		}
		if err != nil {
			return refuse(e.Key, "environments", err)
		}
		ch.parts.groups[e.Key] = g
	}
	for key, g := range b.parts.groups {
		if _, done := ch.parts.groups[key]; done {
			continue
		}
		bases, err := b.alter(ch, g)
		if err != nil {
			return refuse(key, "environments", err)
		}
		if bases != g.bases {
			ch.parts.groups[key] = &group{spec: g.spec, rule: g.rule, bases: bases}
		}
	}
	return b.makeHosts(ch)
}

// environment is the identity of an environment.
type environment struct{ organization, name string }

// byEnvironment returns all APIs as they are after the change.
func (b *builder) byEnvironment(ch *change) map[environment][]*api {
	all := make(map[environment][]*api)
	add := func(a *api) {
		if a != nil {
			e := environment{a.life.organization, a.life.environment}
			all[e] = append(all[e], a)
		}
	}
	for key, a := range b.parts.apis {
		if _, changed := ch.parts.apis[key]; !changed {
			add(a)
		}
	}
	for _, a := range ch.parts.apis {
		add(a)
	}
	return all
}

// sameAPIs tells whether two groups stand for the same APIs.
func (g *group) sameAPIs(h *group) bool {
	return g.spec.Organization == h.spec.Organization && slices.Equal(g.spec.Environments, h.spec.Environments)
}

// fill makes the base paths of a group from all APIs.
func (g *group) fill(all map[environment][]*api) (*router.Bases[*api], error) {
	var puts []router.BaseEntry[*api]
	for _, name := range g.spec.Environments {
		for _, a := range all[environment{g.spec.Organization, name}] {
			puts = append(puts, router.BaseEntry[*api]{Base: a.base, Value: a})
		}
	}
	return new(router.Bases[*api]).With(puts, nil)
}

// in tells whether an API belongs to a group.
func (g *group) in(a *api) bool {
	return g.spec.Organization == a.life.organization && slices.Contains(g.spec.Environments, a.life.environment)
}

// alter applies the changed APIs to the base paths of a group.
func (b *builder) alter(ch *change, g *group) (*router.Bases[*api], error) {
	var puts []router.BaseEntry[*api]
	var dels []pathpattern.Base
	for key, a := range ch.parts.apis {
		if was := b.parts.apis[key]; was != nil && g.in(was) {
			dels = append(dels, was.base)
		}
		if a != nil && g.in(a) {
			puts = append(puts, router.BaseEntry[*api]{Base: a.base, Value: a})
		}
	}
	if len(puts)+len(dels) == 0 {
		return g.bases, nil
	}
	return g.bases.With(puts, dels)
}

// makeHosts joins hostnames and groups.
func (b *builder) makeHosts(ch *change) error {
	if len(ch.parts.groups) == 0 && b.current != nil {
		ch.plan.hosts = b.current.hosts
		return nil
	}
	names := make(map[string]*group)
	owner := make(map[string]string)
	add := func(key string, g *group) error {
		if g == nil {
			return nil
		}
		for _, name := range g.spec.Hostnames {
			if other, taken := owner[name]; taken && other != key {
				return refuse(key, "hostnames", fmt.Errorf("the hostname %q belongs to %s too", name, other))
			}
			names[name], owner[name] = g, key
		}
		return nil
	}
	for key, g := range b.parts.groups {
		if _, changed := ch.parts.groups[key]; changed {
			continue
		}
		if err := add(key, g); err != nil {
			return err
		}
	}
	for key, g := range ch.parts.groups {
		if err := add(key, g); err != nil {
			return err
		}
	}
	ch.plan.hosts = router.NewHosts(names)
	return nil
}
