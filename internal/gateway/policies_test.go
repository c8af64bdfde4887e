package gateway

import (
	"testing"

	"hansa.dev/hansa/internal/policyspec"
)

// The table of policies and what policyspec says of them must be about the same policies.
func TestPoliciesAreThoseOfPolicyspec(t *testing.T) {
	t.Parallel()
	table := policies()
	for _, spec := range policyspec.All() {
		if table[spec.Name] == nil {
			t.Errorf("policyspec knows %s, the gateway does not", spec.Name)
		}
		delete(table, spec.Name)
	}
	for name := range table {
		t.Errorf("the gateway knows %s, policyspec does not", name)
	}
}
