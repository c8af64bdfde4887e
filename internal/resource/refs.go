package resource

import (
	"iter"

	v1 "hansa.dev/hansa/api/v1"
)

// Reference is a field that names another resource.
type Reference struct {
	Path string // of the field
	Key  v1.Key // of the resource that must exist
}

// References returns the resources that o needs to exist. Whether they do is checked by internal/compile, which sees
// all of them; so is that nothing is deleted that another resource refers to.
//
// Every resource refers to its organization, except to "default", which always exists. An APIRevision refers to its
// API alone: its backend counts only while the revision is deployed, which compile adds. Gateways and join tokens
// refer to nothing, so that a group can be deleted with what has enrolled there.
func References(o *v1.Object) []Reference {
	var refs []Reference
	add := func(path string, kind v1.Kind, name string) {
		refs = append(refs, Reference{Path: path, Key: v1.Key{Organization: o.Metadata.Organization, Kind: kind, Name: name}})
	}
	organization := func(path, name string) {
		if name != "" && name != "*" && name != v1.DefaultOrganization {
			refs = append(refs, Reference{Path: path, Key: v1.Key{Kind: v1.KindOrganization, Name: name}})
		}
	}
	switch o.Kind {
	case v1.KindGateway, v1.KindJoinToken, v1.KindGroupKey, v1.KindCertificateKey, v1.KindCertificateOrder, v1.KindACMEAccount:
		return nil
	}
	organization("metadata.organization", o.Metadata.Organization)
	switch spec := o.Spec.(type) {
	case *v1.GatewayGroupSpec:
		add("spec.site", v1.KindSite, spec.Site)
	case *v1.EnvironmentSpec:
		for i, p := range spec.Placements {
			add(join(index("spec.placements", i), "gatewayGroup"), v1.KindGatewayGroup, p.GatewayGroup)
		}
	case *v1.EnvironmentGroupSpec:
		for i, e := range spec.Environments {
			add(index("spec.environments", i), v1.KindEnvironment, e)
		}
	case *v1.BackendSpec:
		for i, e := range spec.Endpoints {
			if e.Site != "" {
				add(join(index("spec.endpoints", i), "site"), v1.KindSite, e.Site)
			}
		}
		if spec.TLS != nil && spec.TLS.ClientCertificate != "" {
			add("spec.tls.clientCertificate", v1.KindCertificate, spec.TLS.ClientCertificate)
		}
	case *v1.APISpec:
		for path, name := range Backends("spec", spec) {
			add(path, v1.KindBackend, name)
		}
	case *v1.APIRevisionSpec:
		add("spec.api", v1.KindAPI, spec.API)
	case *v1.DeploymentSpec:
		add("spec.api", v1.KindAPI, spec.API)
		add("spec.environment", v1.KindEnvironment, spec.Environment)
		if spec.Revision != 0 {
			add("spec.revision", v1.KindAPIRevision, RevisionName(spec.API, spec.Revision))
		}
	case *v1.ProductSpec:
		for i, a := range spec.APIs {
			add(index("spec.apis", i), v1.KindAPI, a)
		}
	case *v1.SubscriptionSpec:
		add("spec.application", v1.KindApplication, spec.Application)
		add("spec.product", v1.KindProduct, spec.Product)
	case *v1.PrincipalSpec:
		for i, r := range spec.Roles {
			organization(join(index("spec.roles", i), "organization"), r.Organization)
		}
	}
	return refs
}

// Backends yields the backends that an API needs, each with the path of the field that names it. path is that of the
// spec: "spec".
func Backends(path string, api *v1.APISpec) iter.Seq2[string, string] {
	return func(yield func(path, name string) bool) {
		if api.Backend != "" && !yield(join(path, "backend"), api.Backend) {
			return
		}
		if api.Split != nil {
			for i, b := range api.Split.Backends {
				if !yield(join(index(join(path, "split.backends"), i), "backend"), b.Backend) {
					return
				}
			}
		}
		if api.Mirror != nil {
			yield(join(path, "mirror.backend"), api.Mirror.Backend)
		}
	}
}
