package control

// RouteInfo is what tests see of a route.
type RouteInfo struct {
	Method, Path string
	Public       bool
	// Somewhere routes decide on each resource, Everywhere routes need the role in all organizations.
	Somewhere, Everywhere, Query bool
	Role                         Role
}

// Routes returns the surface of the API.
func Routes() []RouteInfo {
	var out []RouteInfo
	for _, rt := range routes() {
		out = append(out, RouteInfo{
			Method: rt.method, Path: rt.path, Role: rt.access.role,
			Public: rt.access.scope == scopePublic, Somewhere: rt.access.scope == scopeSome,
			Everywhere: rt.access.scope == scopeAll, Query: rt.access.scope == scopeQuery,
		})
	}
	return out
}

// What fuzz tests reach.
var (
	DecodeContinue = decodeContinue
	EncodeContinue = encodeContinue
)

// SelectorMatches parses a selector and asks it.
func SelectorMatches(s string, labels map[string]string) (bool, error) {
	sel, err := parseSelector(s)
	return sel.matches(labels), err
}
