package v1

// APISpec describes an API: a base path, its operations, where they are forwarded and what is checked on the way.
// Every change of the spec makes a new immutable revision.
type APISpec struct {
	// DisplayName is for people.
	DisplayName string `json:"displayName,omitempty"`
	// Description is for people.
	Description string `json:"description,omitempty"`
	// BasePath is the prefix, in whole segments, of every path of the API: "/catalog/v1". A segment may be "*"
	// and then matches any one non-empty segment. "/" takes every path that no other base path takes. The longest match
	// wins, and at equal length the one whose first differing segment is not "*".
	BasePath string `json:"basePath"`
	// Backend is the name of the Backend that requests are forwarded to. May be empty only if Split is set, or if every
	// operation answers by itself with the policy respond.
	Backend string `json:"backend,omitempty"`
	// Split forwards to several Backends by weight, instead of Backend.
	Split *Split `json:"split,omitempty"`
	// Mirror sends copies of requests to another Backend as well.
	Mirror *Mirror `json:"mirror,omitempty"`
	// BackendPath replaces the base path in what the backend sees. Default: "/", which sends the path below
	// the base path. To send the path unchanged repeat the base path here, "*" included; any other value has no "*".
	BackendPath string `json:"backendPath,omitempty"`
	// Operations are the calls of the API. Empty: every method and path below the base path. Otherwise what
	// matches none is answered with 404 no-route.
	Operations []Operation `json:"operations,omitempty"`
	// Policies apply to every operation, before those of the operation itself.
	Policies Policies `json:"policies,omitzero"`
	// MaxRequestBytes bounds the body of a request; a longer one is answered with 413 bad-request-body-too-large.
	// Default: 0, no bound, since bodies are streamed.
	MaxRequestBytes int64 `json:"maxRequestBytes,omitempty"`
	// Definition is the document that the API was imported from, kept for people and portals. It never reaches
	// a gateway.
	Definition *Definition `json:"definition,omitempty"`
}

// Definition is the formal description of an API.
type Definition struct {
	// Format is openapi.
	Format string `json:"format"`
	// Document is the text, as it was imported. At most 20 MB.
	Document string `json:"document"`
}

// Operation is one call of an API.
type Operation struct {
	// Name is unique within the API. It stands in the access log and in metrics. 1 to 256 visible ASCII characters
	// without blanks, quotes and backslashes. Default: the method and the path, as "GET:/items/{id}".
	Name string `json:"name,omitempty"`
	// Method is an HTTP method in upper case, or "*" for any.
	Method string `json:"method"`
	// Path is the path below the base path; "/" is the base path itself, with a slash at its end or without. A
	// segment may be {name}, which matches any one non-empty segment, or hold one or more {name} between literal
	// text ("/reports/{id}.json"); a last segment "{name*}" or "*" matches the rest of the path. A slash at the end
	// is significant. Of the operations whose method matches, the first segment that differs decides: a literal one
	// wins over a mixed one, that one over {name}, that one over "*"; at equal paths a named method wins over "*".
	Path string `json:"path"`
	// Policies apply to this operation, after those of the API.
	Policies Policies `json:"policies,omitzero"`
}

// Policies are the steps that a request and its response pass, in order.
type Policies struct {
	// Request is passed before the request is forwarded.
	Request []Policy `json:"request,omitempty"`
	// Response is passed before the response is sent to the consumer.
	Response []Policy `json:"response,omitempty"`
}

// Policy is one step; exactly one of its fields is set.
type Policy struct {
	// APIKey asks for an API key of a subscription to a product that holds this API.
	APIKey *APIKeyPolicy `json:"apiKey,omitempty"`
	// RateLimit bounds the number of requests in a short window, in the gateway.
	RateLimit *RateLimitPolicy `json:"rateLimit,omitempty"`
	// Quota bounds the number of requests in a window.
	Quota *QuotaPolicy `json:"quota,omitempty"`
	// SetHeaders changes header fields.
	SetHeaders *SetHeadersPolicy `json:"setHeaders,omitempty"`
	// Respond answers the request in the gateway.
	Respond *RespondPolicy `json:"respond,omitempty"`
}

// APIKeyPolicy asks for an API key.
type APIKeyPolicy struct {
	// Header is the header field that carries the key. Default: X-API-Key, unless Query is set.
	Header string `json:"header,omitempty"`
	// Query is the query parameter that carries the key, instead of or beside the header.
	Query string `json:"query,omitempty"`
	// Forward leaves the key in what the backend sees. Default: false, the key is removed.
	Forward bool `json:"forward,omitempty"`
}

// RateLimitPolicy bounds the number of requests in a short window. Without a limit of its own it takes the
// rateLimit of the product that the key belongs to; if that has none either, nothing is bounded.
type RateLimitPolicy struct {
	// Limit is the number of requests per window.
	Limit uint64 `json:"limit,omitempty"`
	// Window is the length of the window, 1s to 1h.
	Window Duration `json:"window,omitempty"`
	// By says who shares the limit: subscription, application, clientIP or api. Default: subscription after
	// apiKey, otherwise clientIP.
	By string `json:"by,omitempty"`
}

// QuotaPolicy bounds the number of requests in a window, counted from UTC-aligned starts. Without a limit of its
// own it takes the quota of the product that the key belongs to; if that has none either, nothing is bounded.
type QuotaPolicy struct {
	// Limit is the number of requests per window.
	Limit uint64 `json:"limit,omitempty"`
	// Window is the length of the window, 1s to 366d.
	Window Duration `json:"window,omitempty"`
	// By says who shares the quota: subscription, application or api. Default: subscription after apiKey, otherwise api.
	By string `json:"by,omitempty"`
}

// SetHeadersPolicy changes header fields, of the request or of the response by the list it stands in. Fields that
// frame a message or belong to one connection are the gateway's own business and refused: Connection, Content-Length,
// Host, Keep-Alive, TE, Trailer, Transfer-Encoding, Upgrade, those that begin with Proxy-, and X-Request-Id.
type SetHeadersPolicy struct {
	// Remove takes these fields away first.
	Remove []string `json:"remove,omitempty"`
	// Set replaces fields or makes them.
	Set map[string]string `json:"set,omitempty"`
	// Add makes fields beside those that are there.
	Add map[string]string `json:"add,omitempty"`
}

// RespondPolicy answers the request in the gateway.
type RespondPolicy struct {
	// Status is the status code, 200 to 599. Default: 200. With 204 and 304 there is no body.
	Status int `json:"status,omitempty"`
	// Headers are the fields of the answer.
	Headers map[string]string `json:"headers,omitempty"`
	// Body is the content of the answer. At most 64 kB.
	Body string `json:"body,omitempty"`
}

// APIRevisionSpec is one immutable revision of an API. Its resource is named "<api>.<revision>".
type APIRevisionSpec struct {
	// API is the name of the API.
	API string `json:"api"`
	// Revision counts from 1.
	Revision uint64 `json:"revision"`
	// Spec is the spec of the API at that revision.
	Spec APISpec `json:"spec"`
}

// DeploymentSpec puts a revision of an API into an environment.
type DeploymentSpec struct {
	// API is the name of the API.
	API string `json:"api"`
	// Environment is the name of the Environment.
	Environment string `json:"environment"`
	// Revision is the revision to serve. Default: 0, always the latest.
	Revision uint64 `json:"revision,omitempty"`
}
