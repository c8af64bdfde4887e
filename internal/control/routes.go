package control

import (
	"net/http"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

// route is one call of the API.
type route struct {
	method, path string
	what         string // one line for the reference page
	// access is who may use it. The zero value is nobody.
	access access
	// body tells whether the call takes a body.
	body body
	// stream is set for calls whose length says nothing about the server.
	stream bool
	handle func(*Server, *request) error
}

func (rt *route) pattern() string { return rt.method + " " + rt.path }
func (rt *route) label() string   { return strings.TrimSpace(rt.method + " " + rt.path) }

type body bool

const (
	noBody  body = false
	hasBody body = true
)

// access is the role that a route asks for and the organization that it asks for it in.
type access struct {
	scope scope
	role  Role
}

type scope uint8

const (
	scopeNobody       scope = iota
	scopePublic             // without authentication
	scopeOrganization       // the role in the organization that the path names
	scopeNamed              // the role in the organization that is itself the resource
	scopeQuery              // the role in the organization that the query names, or in all
	scopeAll                // the role in all organizations
	scopeSome               // the role in some organization; the handler decides on each resource
)

func public() access          { return access{scope: scopePublic} }
func inPath(r Role) access    { return access{scopeOrganization, r} }
func inQuery(r Role) access   { return access{scopeQuery, r} }
func inAll(r Role) access     { return access{scopeAll, r} }
func somewhere(r Role) access { return access{scopeSome, r} }

// The beginnings of paths.
const (
	pathOrganization = "/api/v1/organizations/{organization}"
	pathKeys         = pathOrganization + "/subscriptions/{name}/keys"
	pathTokens       = "/api/v1/principals/{name}/tokens"
)

// The methods, short enough for a table.
const (
	get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
)

// routes returns the whole surface of the API.
func routes() []route {
	out := slices.Concat(nodeRoutes(), changeRoutes(), keyRoutes(), gatewayRoutes(), tokenRoutes())
	for _, info := range v1.Kinds() {
		out = append(out, kindRoutes(info)...)
	}
	return out
}

// nodeRoutes are about the node and the record.
func nodeRoutes() []route {
	return []route{
		// Health, for supervisors and scrapers. These show no resource.
		{
			method: get, path: "/livez", access: public(), handle: (*Server).livez,
			what: "the process answers",
		},
		{
			method: get, path: "/readyz", access: public(), handle: (*Server).readyz,
			what: "the node can take changes; `?verbose` names each check",
		},
		{
			method: get, path: "/metrics", access: public(), handle: (*Server).exposeMetrics,
			what: "metrics, for Prometheus",
		},
		{
			method: get, path: "/api/v1/status", access: somewhere(Viewer), handle: (*Server).status,
			what: "the node, the record, the caller, and what there is",
		},
		{
			method: get, path: "/api/v1/schema/{kind}", access: somewhere(Viewer), handle: (*Server).schema,
			what: "JSON Schema of a kind",
		},
		{
			method: get, path: "/api/v1/audit", access: inQuery(Admin), handle: (*Server).audit,
			what: "who changed what, newest first; parameters organization, limit, continue",
		},
		{
			method: get, path: "/api/v1/backup", access: inAll(Admin), stream: true, handle: (*Server).backup,
			what: "the whole record, as a stream",
		},
	}
}

// changeRoutes change any number of resources at once. Each resource is decided upon by commit.
func changeRoutes() []route {
	return []route{
		{
			method: post, path: "/api/v1/apply", access: somewhere(Editor), body: hasBody, handle: (*Server).apply,
			what: "make resources so, all or none; YAML or JSON documents; parameters organization, wait, reason",
		},
		{
			method: post, path: "/api/v1/plan", access: somewhere(Editor), body: hasBody, handle: (*Server).plan,
			what: "what apply would change, with both sides of each change",
		},
		{
			method: post, path: "/api/v1/delete", access: somewhere(Editor), body: hasBody, handle: (*Server).deleteAll,
			what: "delete the resources that documents name, all or none; parameters as of apply",
		},
	}
}

// keyRoutes are about the keys of subscriptions.
func keyRoutes() []route {
	return []route{
		{
			method: get, path: pathKeys, access: inPath(Viewer), handle: (*Server).listKeys,
			what: "keys of a subscription, without their values; parameters limit, continue",
		},
		{
			method: post, path: pathKeys, access: inPath(Editor), body: hasBody, handle: (*Server).createKey,
			what: "make a key; its value is in the answer, once",
		},
		{
			method: post, path: pathKeys + "/rotate", access: inPath(Editor), body: hasBody, handle: (*Server).rotateKey,
			what: "make a key in the slot of an old one, which stays valid for the overlap",
		},
		{
			method: post, path: pathKeys + "/import", access: inPath(Editor), body: hasBody, stream: true, handle: (*Server).importKeys,
			what: "add existing keys: one a line, or one JSON object a line (application/x-ndjson)",
		},
		{
			method: del, path: pathKeys + "/{key}", access: inPath(Editor), handle: (*Server).revokeKey,
			what: "revoke a key",
		},
		{
			method: post, path: pathOrganization + "/keys/import", access: inPath(Editor), body: hasBody, stream: true, handle: (*Server).importKeys,
			what: "add existing keys of many subscriptions: one JSON object a line",
		},
	}
}

// gatewayRoutes are about gateways, the tokens that they join with, and what a gateway group runs as a file, which holds
// the hashes of all keys of the organization.
func gatewayRoutes() []route {
	return []route{
		{
			method: get, path: pathOrganization + "/gateways", access: inPath(Viewer), handle: (*Server).listGateways,
			what: "gateways with what they run",
		},
		{
			method: post, path: pathOrganization + "/gateways/{name}/revoke", access: inPath(Admin), handle: (*Server).revokeGateway,
			what: "refuse a gateway on the link from now on",
		},
		{
			method: get, path: pathOrganization + "/jointokens", access: inPath(Admin), handle: (*Server).listJoinTokens,
			what: "join tokens, without their values",
		},
		{
			method: post, path: pathOrganization + "/jointokens", access: inPath(Admin), body: hasBody, handle: (*Server).createJoinToken,
			what: "make a token that one gateway joins with",
		},
		{
			method: del, path: pathOrganization + "/jointokens/{name}", access: inPath(Admin), handle: (*Server).deleteJoinToken,
			what: "take a join token back",
		},
		{
			method: get, path: pathOrganization + "/gatewaygroups/{name}/bundle", access: inPath(Admin), stream: true, handle: (*Server).exportBundle,
			what: "what the gateways of a group run, as a bundle",
		},
		{
			method: post, path: pathOrganization + "/gatewaygroups/{name}/keys", access: inPath(Admin), body: hasBody, handle: (*Server).exportGroupKeys,
			what: "the keys of a gateway group for a bundle, sealed to the public key of the caller",
		},
		{
			method: post, path: pathOrganization + "/gatewaygroups/{name}/rotate", access: inPath(Admin), handle: (*Server).rotateGroupKey,
			what: "make a new key for a gateway group and seal its secrets to it",
		},
	}
}

// tokenRoutes are about the bearer tokens of principals.
func tokenRoutes() []route {
	return []route{
		{
			method: get, path: pathTokens, access: inAll(Admin), handle: (*Server).listTokens,
			what: "bearer tokens of a principal, without their values",
		},
		{
			method: post, path: pathTokens, access: inAll(Admin), body: hasBody, handle: (*Server).createToken,
			what: "make a bearer token; its value is in the answer, once",
		},
		{
			method: del, path: pathTokens + "/{token}", access: inAll(Admin), handle: (*Server).revokeToken,
			what: "revoke a bearer token",
		},
	}
}

// kindRoutes returns the calls that every kind has: list and watch, get, put and delete. Kinds that only Hansa writes
// have neither put nor delete here, and gateways and join tokens have lists of their own above.
func kindRoutes(info v1.KindInfo) []route {
	base := "/api/v1/organizations/{organization}/" + info.Plural
	list, read, write := inPath(Viewer), inPath(Viewer), inPath(Editor)
	if info.Private {
		return nil
	}
	switch info.Kind {
	case v1.KindOrganization:
		// Whoever may read in some organization sees that one in the list.
		base, list, read, write = "/api/v1/organizations", somewhere(Viewer), access{scopeNamed, Viewer}, inAll(Admin)
	case v1.KindPrincipal:
		base, list, read, write = "/api/v1/principals", inAll(Admin), inAll(Admin), inAll(Admin)
	case v1.KindGateway:
		return []route{
			{
				method: http.MethodGet, path: base + "/{name}", access: read, handle: (*Server).getGateway,
				what: "one gateway with what it runs",
			},
			{
				method: http.MethodDelete, path: base + "/{name}", access: inPath(Admin), handle: (*Server).deleteGateway,
				what: "forget a revoked gateway",
			},
		}
	case v1.KindJoinToken:
		return nil
	}
	of := func(h func(*Server, *request, v1.KindInfo) error) func(*Server, *request) error {
		return func(s *Server, q *request) error { return h(s, q, info) }
	}
	out := []route{
		{
			method: http.MethodGet, path: base, access: list, handle: of((*Server).list),
			what: "list, or with watch=true follow; parameters selector, limit, continue, since",
		},
		{
			method: http.MethodGet, path: base + "/{name}", access: read, handle: of((*Server).get),
			what: "read one; its ETag is for If-Match",
		},
	}
	if !info.System {
		out = append(out,
			route{method: http.MethodPut, path: base + "/{name}", what: "make one so; If-Match and If-None-Match are heeded", access: write, body: hasBody, handle: of((*Server).put)},
			route{method: http.MethodDelete, path: base + "/{name}", what: "delete one; If-Match is heeded", access: write, handle: of((*Server).delete)},
		)
	}
	return out
}
