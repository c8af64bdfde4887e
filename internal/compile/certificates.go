package compile

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/certpem"
)

// Certificates go to the gateway groups that serve one of their hostnames, and to those whose backends are called with
// them. The private key is in the record once for each of these groups, sealed to the group's key in use. A group that it
// is not sealed to yet is listed in Result.Unsealed, and whoever can open the key seals it and compiles again.

// Unsealed is a private key that a gateway group needs and cannot open.
type Unsealed struct {
	Organization, Certificate, GatewayGroup string
}

// parents yields what wildcards can cover a hostname: "*.b.c", "*.c" and "*" for a.b.c and for *.b.c.
func parents(hostname string, yield func(string)) {
	for rest := hostname; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		yield("*." + parent)
		rest = parent
	}
	yield("*")
}

// environmentGroups yields the environment groups of an organization that have a hostname which a name of a certificate is
// good for. The wildcard of a certificate stands for one label, that of an environment group for any number.
func (w *world) environmentGroups(organization, name string, yield func(group string)) {
	with := func(hostname string) {
		for t := range w.hosts.with(hostname, organization) {
			yield(t[2])
		}
	}
	with(name)
	if parent, ok := strings.CutPrefix(name, "*."); ok {
		for t := range w.children.with(parent, organization) {
			yield(t[2])
		}
	}
	parents(name, func(wildcard string) {
		if wildcard != name {
			with(wildcard)
		}
	})
}

// certificateNames returns the names that a certificate is to be shown for: those that are written, or its own.
func (w *world) certificateNames(k v1.Key) []string {
	s := spec[v1.CertificateSpec](w, k)
	if s == nil {
		return nil
	}
	if len(s.Hostnames) > 0 {
		return s.Hostnames
	}
	if key := spec[v1.CertificateKeySpec](w, certificateKey(k)); key != nil {
		return key.Names
	}
	return nil
}

func certificateKey(k v1.Key) v1.Key {
	return v1.Key{Organization: k.Organization, Kind: v1.KindCertificateKey, Name: k.Name}
}

// hostnamesIn returns, for each gateway group that needs a certificate, the hostnames that it is shown for there. A group
// that needs it only for its backends has none.
func (w *world) hostnamesIn(k v1.Key) map[string][]string {
	out := map[string][]string{}
	for _, name := range w.certificateNames(k) {
		w.environmentGroups(k.Organization, name, func(group string) {
			for g := range w.groupsOfHosts(v1.Key{Organization: k.Organization, Kind: v1.KindEnvironmentGroup, Name: group}) {
				if !slices.Contains(out[g], name) {
					out[g] = append(out[g], name)
				}
			}
		})
	}
	for _, b := range w.referrers(k, v1.KindBackend) {
		for g := range w.groupsOfBackend(b.Organization, b.Name) {
			if _, ok := out[g]; !ok {
				out[g] = nil
			}
		}
	}
	return out
}

// collectCertificates notes the certificates that a change affects, once everything else is noted. A change of hostnames
// or placements looks at all certificates of the organization: it is rare, and looking is cheap.
func (c *change) collectCertificates() {
	all := set{}
	for name := range c.hosts {
		organization, _ := parted(name)
		all.add(organization)
	}
	for k := range c.keys {
		switch k.Kind {
		case v1.KindGroupKey:
			all.add(k.Organization)
		case v1.KindCertificate, v1.KindCertificateKey, v1.KindCertificateOrder:
			c.certificates.add(joined(k.Organization, k.Name))
		}
	}
	for organization := range all {
		for _, w := range []*world{c.old, c.now} {
			for o := range w.List(v1.KindCertificate, organization, "") {
				c.certificates.add(joined(organization, o.Metadata.Name))
			}
		}
	}
	for name := range c.backends {
		organization, n := parted(name)
		for _, w := range []*world{c.old, c.now} {
			if o, ok := w.Get(v1.Key{Organization: organization, Kind: v1.KindBackend, Name: n}); ok {
				for _, r := range resource.References(o) {
					if r.Key.Kind == v1.KindCertificate {
						c.certificates.add(joined(organization, r.Key.Name))
					}
				}
			}
		}
	}
}

// checkCertificates refuses certificates for hostnames that are not the organization's.
func (c *change) checkCertificates() {
	for _, name := range sorted(c.certificates) {
		organization, n := parted(name)
		k := v1.Key{Organization: organization, Kind: v1.KindCertificate, Name: n}
		s := spec[v1.CertificateSpec](c.now, k)
		if s == nil {
			continue
		}
		for i, h := range s.Hostnames {
			owned := false
			c.now.environmentGroups(organization, h, func(string) { owned = true })
			if !owned {
				c.fault(k, fmt.Sprintf("spec.hostnames[%d]", i), resource.CodeHostnameUnowned, h,
					fmt.Sprintf("%q is no hostname of an environment group of organization %s", h, organization),
					"add it to an environment group, or take it out here")
			}
		}
	}
}

// editCertificate writes a certificate into the views of the groups that need it, to each sealed to its own key.
func (c *change) editCertificate(e editor, name string) {
	organization, n := parted(name)
	k := v1.Key{Organization: organization, Kind: v1.KindCertificate, Name: n}
	key := snapshot.EntryKey(snapshot.ClassCertificate, organization, n)
	challenge := snapshot.EntryKey(snapshot.ClassChallenge, organization, n)
	now := c.now.hostnamesIn(k)
	for g := range c.old.hostnamesIn(k) {
		e.del(organization, g, key) // what is put again is not deleted
		e.del(organization, g, challenge)
	}
	for _, g := range slices.Sorted(maps.Keys(now)) {
		if entry, ok := c.certificate(k, g, now[g]); ok {
			e.put(organization, g, entry)
		}
		if entry, ok := c.challenges(k, now[g]); ok {
			e.put(organization, g, entry)
		}
	}
}

// challenges makes the entry of what the gateways of a group answer a CA that validates some of the hostnames. It returns
// false if nothing is validated.
func (c *change) challenges(k v1.Key, hostnames []string) (snapshot.Entry, bool) {
	o, ok := c.now.Get(v1.Key{Organization: k.Organization, Kind: v1.KindCertificateOrder, Name: k.Name})
	if !ok {
		return snapshot.Entry{}, false
	}
	content := snapshot.Challenges{Organization: k.Organization, Certificate: k.Name}
	for _, ch := range o.Spec.(*v1.CertificateOrderSpec).Challenges {
		if slices.Contains(hostnames, ch.Hostname) {
			content.Challenges = append(content.Challenges, snapshot.Challenge{
				Type: ch.Type, Hostname: ch.Hostname, Token: ch.Token, KeyAuthorization: ch.KeyAuthorization,
			})
		}
	}
	if len(content.Challenges) == 0 {
		return snapshot.Entry{}, false
	}
	return c.entry(k, snapshot.EntryKey(snapshot.ClassChallenge, k.Organization, k.Name), firstReader, content, o)
}

// GroupsOf returns the gateway groups that serve hostnames of a certificate, each with those hostnames.
func (r *Result) GroupsOf(organization, certificate string) map[string][]string {
	out := r.world.hostnamesIn(v1.Key{Organization: organization, Kind: v1.KindCertificate, Name: certificate})
	maps.DeleteFunc(out, func(_ string, hostnames []string) bool { return len(hostnames) == 0 })
	return out
}

// certificate makes the entry of a certificate for one gateway group. It returns false if there is
// nothing that the group could open.
func (c *change) certificate(k v1.Key, group string, hostnames []string) (snapshot.Entry, bool) {
	o, ok := c.now.Get(k)
	if !ok {
		return snapshot.Entry{}, false
	}
	held, ok := c.now.Get(certificateKey(k))
	if !ok {
		return snapshot.Entry{}, false
	}
	s, private := o.Spec.(*v1.CertificateSpec), held.Spec.(*v1.CertificateKeySpec)
	chain := s.Certificate
	if s.ACME != nil {
		// The hostnames may have changed since it was issued.
		chain = private.Certificate
		hostnames = slices.DeleteFunc(slices.Clone(hostnames), func(h string) bool { return !certpem.Covers(private.Names, h) })
	}
	if chain == "" {
		return snapshot.Entry{}, false
	}
	groupKey := spec[v1.GroupKeySpec](c.now, v1.Key{Organization: k.Organization, Kind: v1.KindGroupKey, Name: group})
	if groupKey == nil || len(groupKey.Versions) == 0 {
		return snapshot.Entry{}, false
	}
	at := slices.IndexFunc(private.Groups, func(b v1.SealedToGroup) bool {
		return b.GatewayGroup == group && b.KeyID == groupKey.Versions[0].ID
	})
	if at < 0 {
		c.unsealed = append(c.unsealed, Unsealed{Organization: k.Organization, Certificate: k.Name, GatewayGroup: group})
		return snapshot.Entry{}, false
	}
	sealed, err := base64.StdEncoding.DecodeString(private.Groups[at].Sealed)
	if err != nil {
		return snapshot.Entry{}, false // Hansa wrote it; there is nothing that a user could mend
	}
	content := snapshot.Certificate{
		Organization: k.Organization, Name: k.Name, Hostnames: slices.Sorted(slices.Values(hostnames)), Chain: chain,
		Fingerprint: private.Fingerprint, KeyID: private.Groups[at].KeyID, SealedKey: sealed,
	}
	return c.entry(k, snapshot.EntryKey(snapshot.ClassCertificate, k.Organization, k.Name), firstReader, content, o, held)
}
