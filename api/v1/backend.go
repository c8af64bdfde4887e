package v1

// BackendSpec describes a service that APIs forward to. Its connections, its health and its limits belong to each
// gateway, and all APIs that name the backend share them.
type BackendSpec struct {
	// Protocol is how the gateway talks to the endpoints: http or https. Default: http.
	Protocol string `json:"protocol,omitempty"`
	// HTTPVersion is the version of HTTP to speak, in quotes: "1.0", "1.1", "2" (over http with prior knowledge) or "auto",
	// which over https is 2 if the endpoint offers it, and else 1.1. With "1.0" a body of unknown length is read to its
	// end before it is sent, up to 1 MiB. Default: "1.1".
	HTTPVersion string `json:"httpVersion,omitempty"`
	// Endpoints are the addresses of the service. At least one, unless Discovery finds them.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Discovery finds the endpoints by DNS, instead of Endpoints.
	Discovery *Discovery `json:"discovery,omitempty"`
	// Host is the Host header that the backend sees. Default: the one of the request; "endpoint" sends the
	// address of the endpoint; anything else is sent as it stands.
	Host string `json:"host,omitempty"`
	// TLS tells how to verify an https backend.
	TLS *BackendTLS `json:"tls,omitempty"`
	// ProxyProtocol begins each connection with a PROXY header of this version, v1 or v2, that tells the address of the
	// client. A connection is then used for one client only. Default: none.
	ProxyProtocol string `json:"proxyProtocol,omitempty"`
	// LoadBalancing says which endpoint gets a request. Default: they take turns.
	LoadBalancing *LoadBalancing `json:"loadBalancing,omitempty"`
	// HealthCheck asks each endpoint again and again how it does. Default: nobody asks.
	HealthCheck *HealthCheck `json:"healthCheck,omitempty"`
	// Outliers takes endpoints out for a while that fail more often than others. Default: only those that cannot be
	// connected to are passed over.
	Outliers *OutlierEjection `json:"outliers,omitempty"`
	// Timeouts bound each phase of a call.
	Timeouts *BackendTimeouts `json:"timeouts,omitempty"`
	// Retries say which requests are tried again. Default: up to 3 times those of which nothing was sent, as no
	// connection could be made.
	Retries *Retries `json:"retries,omitempty"`
	// Hedging sends a slow request to a second endpoint. Default: never.
	Hedging *Hedging `json:"hedging,omitempty"`
	// CircuitBreaker bounds what a gateway asks of the backend at the same time.
	CircuitBreaker *CircuitBreaker `json:"circuitBreaker,omitempty"`
	// Connections bound the pool of each gateway and endpoint.
	Connections *BackendConnections `json:"connections,omitempty"`
	// Limits bound what the backend may answer.
	Limits *ResponseLimits `json:"limits,omitempty"`
}

// Endpoint is one address of a backend.
type Endpoint struct {
	// Address is host:port.
	Address string `json:"address"`
	// Priority is the rank of the endpoint, from 0, the first choice, to 15. Others are used as far as too few of the lower
	// numbers are healthy: an endpoint may take 1.4 times its share, so with 5 endpoints of priority 0 the next
	// priority gets its first requests when 2 of them are down. Default: 0.
	Priority int `json:"priority,omitempty"`
	// Weight is the share of the endpoint among those of its priority, 1 to 1000, with every method of balancing.
	// Default: 1.
	Weight int `json:"weight,omitempty"`
	// Site is the name of the Site where the endpoint stands. Of the endpoints of one priority, those in the site of
	// the gateway and those without a site are a priority above the others. Default: none.
	Site string `json:"site,omitempty"`
	// Disabled takes the endpoint out of service: it gets no requests and no checks, and finishes those that it has. If all are,
	// requests are answered with 503 upstream-none. Default: false.
	Disabled bool `json:"disabled,omitempty"`
}

// Discovery finds the endpoints of a backend by DNS. Names are resolved again when their time to live has passed. A
// failure, and an answer without any address, leave the endpoints that were found last.
type Discovery struct {
	// Type is dns, which takes each A and AAAA record of the name for an endpoint, or srv, which takes priorities,
	// weights, names and ports from SRV records (RFC 2782).
	Type string `json:"type"`
	// Name is what is looked up: "catalog.internal", or "_http._tcp.catalog.internal" for srv.
	Name string `json:"name"`
	// Port is the port of the endpoints, for dns. Default: 80, or 443 for https.
	Port int `json:"port,omitempty"`
	// Family is ipv4, ipv6 or any. Default: any.
	Family string `json:"family,omitempty"`
	// Resolvers are the DNS servers to ask, as host:port with IP addresses, one after the other. Default: those of the
	// gateway's system, after its hosts file.
	Resolvers []string `json:"resolvers,omitempty"`
	// MinTTL and MaxTTL bound the time to live of answers. Default: 5s.
	MinTTL Duration `json:"minTTL,omitempty"`
	// MaxTTL bounds the time to live of answers from above. Default: 5m.
	MaxTTL Duration `json:"maxTTL,omitempty"`
}

// LoadBalancing says which endpoint gets a request.
type LoadBalancing struct {
	// Method is one of: roundRobin (in turn), random, leastRequests (of two at random the one with fewer requests under
	// way), responseTime (of two at random the one with the lower decayed response time, times its requests under
	// way), consistentHash (by a property of the request; an endpoint more or less moves only its own share). Default: roundRobin.
	Method string `json:"method,omitempty"`
	// HashBy says what consistentHash goes by.
	HashBy *HashBy `json:"hashBy,omitempty"`
	// MaxLoadPercent bounds what consistentHash puts on one endpoint, in percent of the average of requests under way; what
	// exceeds it goes to the next endpoint of that key. 100 to 1000. Default: 125.
	MaxLoadPercent int `json:"maxLoadPercent,omitempty"`
	// Decay is the time after which a response time counts half, for responseTime. Default: 10s.
	Decay Duration `json:"decay,omitempty"`
	// SlowStart is how long an endpoint that is new or healthy again takes to reach its full share, from a tenth on. It
	// has no meaning for consistentHash. Default: 0s, at once.
	SlowStart Duration `json:"slowStart,omitempty"`
	// PanicPercent: if too little is healthy to take all requests, and fewer than so many percent of the endpoints of a
	// priority, then health is not looked at there, rather than sending everything to the few that are left. 0: never; with no
	// healthy endpoint requests are then answered with 503 upstream-none. Default: 50.
	PanicPercent *int `json:"panicPercent,omitempty"`
}

// HashBy names a property of requests; exactly one field is set. Requests without it are spread at random.
type HashBy struct {
	// Header is the name of a header field.
	Header string `json:"header,omitempty"`
	// Cookie is the name of a cookie.
	Cookie string `json:"cookie,omitempty"`
	// ClientIP is the address of the client.
	ClientIP bool `json:"clientIP,omitempty"`
}

// HealthCheck asks each endpoint again and again how it does: once per gateway, whatever the number of APIs. An endpoint
// that was never asked takes requests; its first answer decides alone.
type HealthCheck struct {
	// Type is http, tcp (a connection can be made, TLS included) or grpc (the protocol grpc.health.v1). Default: http.
	Type string `json:"type,omitempty"`
	// Method is the method to ask with, for http. Default: GET.
	Method string `json:"method,omitempty"`
	// Path is what to ask for, for http; may hold a query, and be "*" for OPTIONS. Default: "/".
	Path string `json:"path,omitempty"`
	// Host is the Host header to send, for http, or the authority for grpc. Default: that of the backend, else the address.
	Host string `json:"host,omitempty"`
	// Headers are fields to send, for http.
	Headers map[string]string `json:"headers,omitempty"`
	// Body is the content to send, for http; at most 16 kB. Default: none.
	Body string `json:"body,omitempty"`
	// Service is the service to ask for, for grpc. Default: "", the server as a whole.
	Service string `json:"service,omitempty"`
	// Statuses are the good ones, for http: "204" or "200-399". Default: ["200-299"].
	Statuses []string `json:"statuses,omitempty"`
	// ExpectHeaders are fields that a good response has with just these values, for http. Default: none.
	ExpectHeaders map[string]string `json:"expectHeaders,omitempty"`
	// Port is where to ask, if not at the port of the endpoint.
	Port int `json:"port,omitempty"`
	// Interval is the time between two checks of an endpoint. Default: 10s.
	Interval Duration `json:"interval,omitempty"`
	// JitterPercent makes each interval shorter by up to so much, so that checks of many gateways do not coincide. Default: 20.
	JitterPercent *int `json:"jitterPercent,omitempty"`
	// Timeout bounds one check. Default: 3s.
	Timeout Duration `json:"timeout,omitempty"`
	// HealthyAfter is how many good checks in a row make an endpoint healthy again. Default: 2.
	HealthyAfter int `json:"healthyAfter,omitempty"`
	// UnhealthyAfter is how many bad checks in a row make it unhealthy. Default: 3.
	UnhealthyAfter int `json:"unhealthyAfter,omitempty"`
}

// OutlierEjection takes endpoints out for a while by what becomes of requests.
type OutlierEjection struct {
	// ConsecutiveErrors ejects an endpoint after so many tries in a row that failed (no connection, a reset, a time-out,
	// garbage) or were answered with 502, 503 or 504. 0: never. Default: 5.
	ConsecutiveErrors *int `json:"consecutiveErrors,omitempty"`
	// Consecutive5xx ejects an endpoint after so many tries in a row that failed or were answered with any 5xx.
	// Default: 0, never.
	Consecutive5xx int `json:"consecutive5xx,omitempty"`
	// SuccessRate ejects endpoints whose rate of success is far below that of the others. Default: never.
	SuccessRate *SuccessRate `json:"successRate,omitempty"`
	// Interval is how often rates of success are compared. Default: 10s.
	Interval Duration `json:"interval,omitempty"`
	// EjectionTime is how long an endpoint is out the first time. Each time again it is longer by as much; each interval of
	// good conduct takes one step back. Default: 30s.
	EjectionTime Duration `json:"ejectionTime,omitempty"`
	// MaxEjectionTime bounds that. Default: 5m.
	MaxEjectionTime Duration `json:"maxEjectionTime,omitempty"`
	// MaxEjectedPercent is how much of the backend may be out at the same time; one endpoint always may if there are
	// others. Default: 10.
	MaxEjectedPercent int `json:"maxEjectedPercent,omitempty"`
}

// SuccessRate compares the rates of success of endpoints: what is lower than the average less Deviations times the
// standard deviation is ejected.
type SuccessRate struct {
	// MinEndpoints is how many endpoints must have enough requests in an interval for a comparison. Default: 5.
	MinEndpoints int `json:"minEndpoints,omitempty"`
	// MinRequests is how many requests are enough. Default: 100.
	MinRequests int `json:"minRequests,omitempty"`
	// Deviations is the distance, in thousandths of a standard deviation. Default: 1900.
	Deviations int `json:"deviations,omitempty"`
}

// BackendTimeouts bound each phase of a call to a backend.
type BackendTimeouts struct {
	// Connect bounds the making of a connection, TLS included. Default: 5s.
	Connect Duration `json:"connect,omitempty"`
	// Pending bounds the wait for a connection when all are in use; see circuitBreaker.maxPending. Default: 5s.
	Pending Duration `json:"pending,omitempty"`
	// Response bounds the time from the last byte of the request to the head of the response. Default: 30s.
	Response Duration `json:"response,omitempty"`
	// Idle bounds the silence between two pieces of a body, either way. Default: 60s.
	Idle Duration `json:"idle,omitempty"`
	// Tunnel bounds the silence, of both sides, once protocols have been switched, as for WebSocket. Default: 10m.
	Tunnel Duration `json:"tunnel,omitempty"`
	// Try bounds one try, from its begin to the head of the response. Default: 0s, no bound of its own.
	Try Duration `json:"try,omitempty"`
	// Total bounds the whole call: all tries, and the response to its last byte. Leave it at 0 for streams. Default:
	// 0s, no bound.
	Total Duration `json:"total,omitempty"`
}

// Retries say which requests are tried again, at another endpoint if there is one. Sent again is only what does no
// harm: nothing of it had been sent, or its method is one of Methods and its body, if any, is at hand (at most 64 kB).
type Retries struct {
	// Max is how often a request is tried again. 0: never. At most 10. Default: 3.
	Max *int `json:"max,omitempty"`
	// On is what calls for it: connect (no connection), reset (the connection broke before a response), timeout (no response
	// in time), gatewayError (502, 503, 504), 5xx (any), or a status such as "429". Default: [connect].
	On []string `json:"on,omitempty"`
	// Methods are those of requests that may be sent twice. Default: GET, HEAD, OPTIONS, TRACE, PUT and DELETE, the idempotent
	// ones (RFC 9110, section 9.2.2).
	Methods []string `json:"methods,omitempty"`
	// BudgetPercent bounds the tries-again under way, in percent of the requests under way. Default: 20.
	BudgetPercent *int `json:"budgetPercent,omitempty"`
	// BudgetMin is how many may be under way in any case. Default: 3.
	BudgetMin *int `json:"budgetMin,omitempty"`
	// Backoff is the longest pause before the first try again; it doubles each time, and half to all of it is waited.
	// There is no pause before another endpoint is tried because one could not be connected to. Default: 25ms.
	Backoff Duration `json:"backoff,omitempty"`
	// MaxBackoff bounds the pause. A response with a Retry-After that is longer is not tried again; one that is shorter is
	// waited for. Default: 250ms.
	MaxBackoff Duration `json:"maxBackoff,omitempty"`
}

// Hedging sends a request that takes long to a second endpoint as well. The first response wins, the other request is
// cancelled. Only requests are hedged that could be tried again.
type Hedging struct {
	// After is how long to wait for a response before. Default: 0s, by Percentile.
	After Duration `json:"after,omitempty"`
	// Percentile waits as long as so many percent of the requests of the last minute took. 50 to 99. Default: 95.
	Percentile int `json:"percentile,omitempty"`
	// BudgetPercent bounds the second requests under way, in percent of the requests under way, but for one that always
	// may be. Default: 10.
	BudgetPercent int `json:"budgetPercent,omitempty"`
}

// CircuitBreaker bounds what a gateway asks of a backend at the same time. What exceeds it is answered with 503
// upstream-busy at once, and the detail names the bound.
type CircuitBreaker struct {
	// MaxConnections bounds the connections to all endpoints together. Default: 0, no bound but that of connections.max.
	MaxConnections int `json:"maxConnections,omitempty"`
	// MaxPending is how many requests may wait for a connection when all are in use. Default: 0, none waits.
	MaxPending int `json:"maxPending,omitempty"`
	// MaxRequests bounds the requests under way. Default: 0, no bound.
	MaxRequests int `json:"maxRequests,omitempty"`
	// MaxRetries bounds the tries-again under way, beside the budget of retries. Default: 0, no bound.
	MaxRetries int `json:"maxRetries,omitempty"`
}

// BackendConnections bound a pool of connections.
type BackendConnections struct {
	// Max is how many connections a gateway holds to one endpoint; a request beyond them waits as the circuit breaker lets
	// it, or is answered with 503 upstream-busy. Default: 1024.
	Max int `json:"max,omitempty"`
	// MaxIdle is how many of them are kept when unused. Default: 128, or Max if that is lower.
	MaxIdle int `json:"maxIdle,omitempty"`
	// IdleTimeout is how long an unused connection is kept. Default: 90s.
	IdleTimeout Duration `json:"idleTimeout,omitempty"`
	// MaxAge is how old a connection may become before it is not used again. Default: 0s, no bound.
	MaxAge Duration `json:"maxAge,omitempty"`
	// MaxRequests is how many requests one connection carries; 1 keeps none alive. Default: 0, no bound.
	MaxRequests int `json:"maxRequests,omitempty"`
}

// ResponseLimits bound what a backend may answer. What exceeds them is answered with 502 upstream-too-large; if part
// of it has been passed on already it is broken off.
type ResponseLimits struct {
	// Bytes bounds the body of a response. Default: 0, no bound.
	Bytes int64 `json:"bytes,omitempty"`
	// HeaderBytes bounds the head of a response, 1 kB to 1 MB. Default: 65536.
	HeaderBytes int `json:"headerBytes,omitempty"`
	// Headers bounds the number of header fields, 10 to 250. Default: 200.
	Headers int `json:"headers,omitempty"`
}

// Split spreads the requests of an API over several backends: a new release gets one request of a hundred.
type Split struct {
	// Backends are at least two, each named once.
	Backends []SplitBackend `json:"backends"`
	// StickBy sends all requests that are equal in a property to the same backend. Default: each request on its own.
	StickBy *HashBy `json:"stickBy,omitempty"`
}

// SplitBackend is one of the backends of a Split.
type SplitBackend struct {
	// Backend is the name of the Backend.
	Backend string `json:"backend"`
	// Weight is its share, 0 to 1000; not all may be 0. With shares that sum to 100 they are percent.
	Weight int `json:"weight"`
}

// Mirror sends copies of requests to another backend, whose responses nobody sees. It never holds up or changes the
// request itself: a copy is dropped if too many wait, or if the body of the request is not at hand (it is
// longer than 64 kB, or of unknown length).
type Mirror struct {
	// Backend is the name of the Backend that gets the copies.
	Backend string `json:"backend"`
	// Percent is how many of the requests are copied, 1 to 100. Default: 100.
	Percent int `json:"percent,omitempty"`
}
