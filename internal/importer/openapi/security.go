package openapi

import (
	"fmt"
	"maps"
	"slices"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
)

// secure turns requirements of API keys into the policy apiKey: for the whole API if every operation requires the same,
// otherwise for those that do. A document describes how the service itself checks its callers; the report says what the
// gateway does about it now.
func (im *importer) secure(api *v1.APISpec) {
	keys := make([]*v1.APIKeyPolicy, len(api.Operations))
	reasons := map[string]int{}
	for i := range api.Operations {
		// Of operations that were merged, the one that requires a key decides.
		why := ""
		for _, alternatives := range im.security[i] {
			if alternatives == nil {
				alternatives = im.doc.Security
			}
			if keys[i] == nil {
				keys[i], why = im.key(alternatives)
			}
		}
		reasons[why]++
	}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		im.report.note("security", NoteSecurity, "of %d of the %d operations: %s", reasons[why], len(keys), why)
	}
	same := func(k *v1.APIKeyPolicy) bool { return k != nil && *k == *keys[0] }
	if keys[0] != nil && !slices.ContainsFunc(keys, func(k *v1.APIKeyPolicy) bool { return !same(k) }) {
		api.Policies.Request = []v1.Policy{{APIKey: keys[0]}}
		return
	}
	for i, k := range keys {
		if k != nil {
			api.Operations[i].Policies.Request = []v1.Policy{{APIKey: k}}
		}
	}
}

// key returns the policy that a requirement asks for, nil if the gateway cannot enforce it or there is none, and what to
// tell about it.
func (im *importer) key(alternatives []requirement) (*v1.APIKeyPolicy, string) {
	if len(alternatives) == 0 {
		return nil, "the document requires nothing, so the gateway lets everybody pass"
	}
	var policy *v1.APIKeyPolicy
	for _, alt := range alternatives {
		if len(alt) == 0 {
			return nil, "the document lets callers pass without credentials, so the gateway does"
		}
		p, why := im.alternative(alt)
		if p == nil {
			return nil, why
		}
		if policy == nil {
			policy = p
			continue
		}
		if p.Header != "" && policy.Header == "" || p.Header == "" && policy.Query == "" {
			policy.Header, policy.Query = policy.Header+p.Header, policy.Query+p.Query // either place will do
		}
	}
	place := ""
	if policy.Header != "" {
		place = "header " + policy.Header
	}
	if policy.Query != "" {
		if place != "" {
			place += " or "
		}
		place += "query parameter " + policy.Query
	}
	return policy, fmt.Sprintf("the gateway asks for an API key of a subscription in %s and takes it away; if the service checks keys itself, write forward: true", place)
}

// alternative returns the policy for one alternative, all of whose schemes are required together.
func (im *importer) alternative(alt requirement) (*v1.APIKeyPolicy, string) {
	why := ""
	for _, name := range slices.Sorted(maps.Keys(alt)) {
		s, err := im.doc.scheme(name)
		switch {
		case err != nil:
			why = fmt.Sprintf("not checked by the gateway, since %v", err)
		case s.Type == "apiKey" && (s.In == "header" || s.In == "query"):
			p := &v1.APIKeyPolicy{Header: s.Name}
			if s.In == "query" {
				p = &v1.APIKeyPolicy{Query: s.Name}
			}
			if valid(p) {
				return p, ""
			}
			why = fmt.Sprintf("not checked by the gateway, since %.80q cannot name the %s of a key", s.Name, s.In)
		default:
			why = fmt.Sprintf("not checked by the gateway: the scheme %.80q (%s %s)", name, s.Type, s.In)
		}
	}
	return nil, why
}

// valid tells whether a policy would be accepted.
func valid(p *v1.APIKeyPolicy) bool {
	probe := object("probe", &v1.APISpec{BasePath: "/", Backend: "probe", Policies: v1.Policies{Request: []v1.Policy{{APIKey: p}}}})
	probe.Metadata.Organization = v1.DefaultOrganization
	resource.Default(probe)
	return len(resource.Validate(probe)) == 0 && (p.Header != "" || p.Query != "")
}
