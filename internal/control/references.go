package control

import (
	"fmt"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
)

// revisionKey returns the identity of a revision of an API.
func revisionKey(organization, api string, revision uint64) v1.Key {
	return v1.Key{Organization: organization, Kind: v1.KindAPIRevision, Name: resource.RevisionName(api, revision)}
}

// references returns what o mentions. A deployment also mentions the backend of the revision that it pins, since that
// may be another one than the newest revision names.
func references(state store.State, o *v1.Object) []resource.Reference {
	refs := resource.References(o)
	if spec, ok := o.Spec.(*v1.DeploymentSpec); ok && spec.Revision != 0 {
		if r, ok := state.Get(revisionKey(o.Metadata.Organization, spec.API, spec.Revision)); ok {
			if backend := r.Spec.(*v1.APIRevisionSpec).Spec.Backend; backend != "" {
				key := v1.Key{Organization: o.Metadata.Organization, Kind: v1.KindBackend, Name: backend}
				refs = append(refs, resource.Reference{Path: "spec.revision", Key: key})
			}
		}
	}
	return refs
}

// maxNamed bounds how many referrers a refusal names.
const maxNamed = 20

// checkDeletes refuses the deletion of what the prospective state still mentions or holds, and names the referrers.
func checkDeletes(next store.State, deletes []v1.Key) error {
	gone := map[v1.Key]bool{}
	organizations := map[string]bool{}
	for _, k := range deletes {
		gone[k] = true
		if k.Kind != v1.KindOrganization {
			organizations[k.Organization] = true
			continue
		}
		if k.Name == v1.DefaultOrganization {
			return problem.New(problem.InUse, "organization %q exists in every cluster and cannot be deleted", k.Name)
		}
		if held := held(next, k.Name); len(held) > 0 {
			return problem.New(problem.InUse, "organization %q still holds %s: delete them first, or in the same call", k.Name, enumerate(held))
		}
		organizations[""] = true // principals name organizations
	}
	referrers := map[v1.Key][]string{}
	for organization := range organizations {
		for o := range everything(next, organization) {
			for _, ref := range references(next, o) {
				if name := o.Key().String(); gone[ref.Key] && !slices.Contains(referrers[ref.Key], name) {
					referrers[ref.Key] = append(referrers[ref.Key], name)
				}
			}
		}
	}
	for _, k := range deletes { // in the order of the request, so that the answer is always the same
		if list := referrers[k]; len(list) > 0 {
			return problem.New(problem.InUse, "%s is referred to by %s: delete or change them first, or in the same call", k, enumerate(list))
		}
	}
	return nil
}

// held names what an organization holds, up to one more than is shown.
func held(state store.State, organization string) []string {
	var out []string
	for o := range everything(state, organization) {
		if out = append(out, o.Key().String()); len(out) > maxNamed {
			break
		}
	}
	return out
}

// everything yields all resources of an organization, or those that belong to none if it is "". Revisions are passed
// over: they go with their API.
func everything(state store.State, organization string) func(yield func(*v1.Object) bool) {
	return func(yield func(*v1.Object) bool) {
		for _, info := range v1.Kinds() {
			if info.Global != (organization == "") || info.Kind == v1.KindAPIRevision {
				continue
			}
			for o := range state.List(info.Kind, organization, "") {
				if !yield(o) {
					return
				}
			}
		}
	}
}

func enumerate(names []string) string {
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and more", strings.Join(names[:maxNamed], ", "))
	}
	return strings.Join(names, ", ")
}
