package resource

import (
	"fmt"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

func (c *checker) environment(e *v1.EnvironmentSpec) {
	c.short("spec.displayName", e.DisplayName)
	seen := map[string]bool{}
	for i, p := range e.Placements {
		path := join(index("spec.placements", i), "gatewayGroup")
		c.ref(path, p.GatewayGroup)
		if seen[p.GatewayGroup] {
			c.duplicate(path, p.GatewayGroup)
		}
		seen[p.GatewayGroup] = true
	}
}

func (c *checker) environmentGroup(g *v1.EnvironmentGroupSpec) {
	if len(g.Hostnames) == 0 {
		c.fault("spec.hostnames", CodeRequired, "", "an environment group needs a hostname", `write at least one, or "*" for every host`)
	}
	if len(g.Hostnames) > maxHostnames {
		c.tooMany("spec.hostnames", len(g.Hostnames), maxHostnames)
	}
	seen := map[string]bool{}
	for i, h := range g.Hostnames {
		path := index("spec.hostnames", i)
		if fault, remedy := hostnameFault(h); fault != "" {
			c.fault(path, CodeInvalid, h, fmt.Sprintf("%q is not a hostname: %s", shorten(h), fault), remedy)
		}
		if h := strings.ToLower(h); seen[h] {
			c.duplicate(path, h)
		}
		seen[strings.ToLower(h)] = true
	}
	c.refs("spec.environments", g.Environments)
	if g.TLS != nil {
		c.hostTLS(g.TLS)
	}
}
