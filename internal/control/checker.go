package control

import (
	"fmt"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
)

// checker finds what is wrong with a prospective state.
type checker struct{}

func newChecker() *checker { return &checker{} }

func (c *checker) check(_, next store.State, e edit) []v1.Fault {
	var faults []v1.Fault
	for _, o := range e.puts {
		for _, ref := range references(next, o) {
			if _, ok := next.Get(ref.Key); !ok {
				faults = append(faults, v1.Fault{
					Kind: string(o.Kind), Organization: o.Metadata.Organization, Name: o.Metadata.Name, Path: ref.Path,
					Value: ref.Key.Name, Code: resource.CodeDangling,
					Message: fmt.Sprintf("there is no %s", ref.Key), Remedy: "apply it before, or in the same call",
				})
			}
		}
	}
	return faults
}
