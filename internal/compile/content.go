package compile

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/policyspec"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/pathpattern"
)

// What every gateway of this version can run is form 1 of an entry.
const firstReader = 1

// optional tells whether a gateway that cannot read an entry serves without it. Entries are critical where that would be
// serving something else.
func optional(class string) bool {
	return class == snapshot.ClassCertificate || class == snapshot.ClassChallenge
}

// unit compiles a deployment. It returns nil if there is nothing to compile, which has a fault elsewhere, or after
// recording one.
func (c *change) unit(k v1.Key, d *v1.DeploymentSpec) *unit {
	owner := v1.Key{Organization: k.Organization, Kind: v1.KindAPI, Name: d.API}
	path := "spec"
	if d.Revision != 0 {
		owner.Kind, owner.Name = v1.KindAPIRevision, resource.RevisionName(d.API, d.Revision)
		path = "spec.spec"
	}
	stored, ok := c.now.Get(owner)
	if !ok {
		return nil // a dangling reference
	}
	full := resource.Clone(stored)
	resource.Default(full)
	content := snapshot.API{Organization: k.Organization, Environment: d.Environment, Name: d.API}
	var api *v1.APISpec
	switch s := full.Spec.(type) {
	case *v1.APISpec:
		api, content.Revision = s, full.Metadata.Revision
	case *v1.APIRevisionSpec:
		api, content.Revision = &s.Spec, s.Revision
	}
	reader, ok := c.api(owner, path, api, &content)
	if !ok {
		return nil
	}
	deployment, _ := c.now.Get(k)
	e, ok := c.entry(owner, snapshot.EntryKey(snapshot.ClassAPI, k.Organization, d.Environment, d.API), reader, content, deployment, stored)
	if !ok {
		return nil
	}
	u := &unit{
		organization: k.Organization, environment: d.Environment, api: d.API, deployment: k.Name,
		pinned: d.Revision != 0, base: content.BasePath, entry: e,
	}
	for _, name := range resource.Backends("", api) {
		u.backends = append(u.backends, name)
	}
	slices.Sort(u.backends)
	u.backends = slices.Compact(u.backends)
	return u
}

// api fills in content from a spec with its defaults, and returns the form that readers must know.
func (c *change) api(owner v1.Key, path string, api *v1.APISpec, content *snapshot.API) (reader uint16, ok bool) {
	before := len(c.faults)
	base, err := pathpattern.ParseBase(api.BasePath)
	if err != nil {
		c.fault(owner, path+".basePath", resource.CodeInvalid, api.BasePath, err.Error(), "correct the path")
	}
	backendPath, err := pathpattern.ParseBase(api.BackendPath)
	if err != nil {
		c.fault(owner, path+".backendPath", resource.CodeInvalid, api.BackendPath, err.Error(), "correct the path")
	}
	content.BasePath, content.BackendPath = base.String(), backendPath.String()
	content.MaxRequestBytes = api.MaxRequestBytes
	reader = split(api, content)
	if reader > firstReader && reader > c.opts.Reader {
		c.fault(owner, path, resource.CodePolicyAbility, "", "not every gateway can split or mirror requests", "upgrade the gateways first, or name one backend")
	}
	content.Request = c.policies(owner, path+".policies.request", api.Policies.Request, &reader)
	content.Response = c.policies(owner, path+".policies.response", api.Policies.Response, &reader)
	content.Operations = make([]snapshot.Operation, len(api.Operations))
	for i, op := range api.Operations {
		at := fmt.Sprintf("%s.operations[%d]", path, i)
		t, err := pathpattern.ParseTemplate(op.Path)
		if err != nil {
			c.fault(owner, at+".path", resource.CodeInvalid, op.Path, err.Error(), "correct the path")
		}
		content.Operations[i] = snapshot.Operation{
			Name: op.Name, Method: op.Method, Path: t.String(),
			Request:  c.policies(owner, at+".policies.request", op.Policies.Request, &reader),
			Response: c.policies(owner, at+".policies.response", op.Policies.Response, &reader),
		}
	}
	return reader, len(c.faults) == before
}

// policies compiles a list of policies and raises reader to what they need.
func (c *change) policies(owner v1.Key, path string, steps []v1.Policy, reader *uint16) []snapshot.Policy {
	if len(steps) == 0 {
		return nil
	}
	out := make([]snapshot.Policy, 0, len(steps))
	for i, step := range steps {
		at := fmt.Sprintf("%s[%d]", path, i)
		used := resource.Used(step)
		if len(used) != 1 {
			c.fault(owner, at, resource.CodePolicyShape, "", "the step does not name exactly one policy", "name one")
			continue
		}
		p := used[0]
		needs, ok := policyspec.Lookup(p.Name)
		if !ok || needs.MinReader > c.opts.Reader {
			c.fault(owner, at+"."+p.Name, resource.CodePolicyAbility, p.Name, fmt.Sprintf("not every gateway can run the policy %s", p.Name), "upgrade the gateways first, or leave the policy out")
			continue
		}
		*reader = max(*reader, needs.MinReader)
		config, err := json.Marshal(p.Config)
		if err != nil {
			c.fault(owner, at+"."+p.Name, resource.CodeInvalid, "", err.Error(), "correct the settings")
			continue
		}
		out = append(out, snapshot.Policy{Use: p.Name, Config: config})
	}
	return out
}

// entry makes an entry for content, which was made from the given resources. owner is to blame if it cannot be made.
func (c *change) entry(owner v1.Key, key string, reader uint16, content any, from ...*v1.Object) (snapshot.Entry, bool) {
	seq := c.seq
	if c.full {
		seq = 0
		for _, o := range from {
			seq = max(seq, o.Metadata.Seq)
		}
	}
	class, _, _ := strings.Cut(key, "/")
	e, err := snapshot.NewEntry(key, seq, reader, !optional(class), content)
	if err != nil {
		code := resource.CodeInvalid
		if !errors.Is(err, snapshot.ErrMalformed) {
			err = fmt.Errorf("it cannot be encoded: %w", err)
		} else {
			code = resource.CodeEntryTooLarge
		}
		c.fault(owner, "spec", code, "", err.Error(), "split the resource into several")
		return snapshot.Entry{}, false
	}
	return e, true
}

// hostTLS returns what an environment group asks of TLS; nil if that is nothing.
func hostTLS(t *v1.HostTLS) *snapshot.HostTLS {
	if t == nil {
		return nil
	}
	h := snapshot.HostTLS{MinVersion: t.MinVersion}
	if c := t.ClientCertificate; c != nil && c.Mode != "none" {
		h.ClientCertificate, h.ClientCA, h.ClientCRL, h.ClientDepth = c.Mode, c.CA, c.CRL, c.MaxDepth
		if c.Forward != "none" {
			h.ForwardClient = c.Forward
		}
		h.ClientFromProxies = c.FromProxies
	}
	if h == (snapshot.HostTLS{}) {
		return nil
	}
	return &h
}

func product(o *v1.Object) snapshot.Product {
	s := o.Spec.(*v1.ProductSpec)
	return snapshot.Product{
		Organization: o.Metadata.Organization, Name: o.Metadata.Name, APIs: slices.Sorted(slices.Values(s.APIs)),
		Quota: limit(s.Quota), RateLimit: limit(s.RateLimit),
	}
}

func limit(l *v1.Limit) *snapshot.Limit {
	if l == nil {
		return nil
	}
	return &snapshot.Limit{Limit: l.Limit, WindowMillis: l.Window.Std().Milliseconds()}
}
