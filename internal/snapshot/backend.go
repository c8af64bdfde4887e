package snapshot

import (
	"bytes"
	"encoding/json"
)

// BackendReader is the form of the entry of a backend that asks for more than the first version of gateways knew.
const BackendReader = 2

// Backend is the content of the entry of a backend, with every default filled in. Durations are in milliseconds. What
// is nil or zero and may be is off.
type Backend struct {
	Organization  string     `json:"organization"`
	Name          string     `json:"name"`
	TLS           bool       `json:"tls,omitempty"`
	ServerName    string     `json:"serverName,omitempty"`
	CA            string     `json:"ca,omitempty"`
	Host          string     `json:"host,omitempty"`
	Endpoints     []Endpoint `json:"endpoints"`
	Discovery     *Discovery `json:"discovery,omitempty"`
	HTTPVersion   string     `json:"httpVersion,omitempty"`   // "" is 1.1
	ProxyProtocol string     `json:"proxyProtocol,omitempty"` // v1 or v2

	ConnectMillis  int64 `json:"connectMillis"`
	PendingMillis  int64 `json:"pendingMillis,omitempty"`
	ResponseMillis int64 `json:"responseMillis"`
	IdleMillis     int64 `json:"idleMillis"`
	TunnelMillis   int64 `json:"tunnelMillis,omitempty"`
	TryMillis      int64 `json:"tryMillis,omitempty"`
	TotalMillis    int64 `json:"totalMillis,omitempty"`

	MaxConns          int   `json:"maxConns"`
	MaxIdleConns      int   `json:"maxIdleConns"`
	IdleTimeoutMillis int64 `json:"idleTimeoutMillis"`
	MaxAgeMillis      int64 `json:"maxAgeMillis,omitempty"`
	MaxUses           int   `json:"maxUses,omitempty"` // requests per connection

	Balance     *Balance     `json:"balance,omitempty"`
	HealthCheck *HealthCheck `json:"healthCheck,omitempty"`
	Outliers    *Outliers    `json:"outliers,omitempty"`
	Retries     *Retries     `json:"retries,omitempty"`
	Hedging     *Hedging     `json:"hedging,omitempty"`
	Breaker     *Breaker     `json:"breaker,omitempty"`
	TLSRules    *TLSRules    `json:"tlsRules,omitempty"`

	MaxResponseBytes int64 `json:"maxResponseBytes,omitempty"`
	MaxHeadBytes     int   `json:"maxHeadBytes,omitempty"`
	MaxHeadFields    int   `json:"maxHeadFields,omitempty"`
}

// Endpoint is an address of a backend, host:port. In JSON it is a text if it is nothing but an address, as it was in the
// first form.
type Endpoint struct {
	Address  string `json:"address"`
	Priority int    `json:"priority,omitempty"`
	Weight   int    `json:"weight,omitempty"` // 0 is 1
	Site     string `json:"site,omitempty"`
}

// Endpoints returns endpoints that are nothing but addresses.
func Endpoints(addresses ...string) []Endpoint {
	all := make([]Endpoint, len(addresses))
	for i, a := range addresses {
		all[i].Address = a
	}
	return all
}

// MarshalJSON implements json.Marshaler.
func (e Endpoint) MarshalJSON() ([]byte, error) {
	if (e == Endpoint{Address: e.Address}) {
		return json.Marshal(e.Address)
	}
	type plain Endpoint
	return json.Marshal(plain(e))
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *Endpoint) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte(`"`)) {
		*e = Endpoint{}
		return json.Unmarshal(b, &e.Address)
	}
	type plain Endpoint
	return json.Unmarshal(b, (*plain)(e))
}

// Discovery finds endpoints by DNS.
type Discovery struct {
	SRV          bool     `json:"srv,omitempty"` // or A and AAAA
	Name         string   `json:"name"`
	Port         int      `json:"port,omitempty"`
	Family       string   `json:"family,omitempty"` // ipv4, ipv6 or "" for any
	Resolvers    []string `json:"resolvers,omitempty"`
	MinTTLMillis int64    `json:"minTTLMillis"`
	MaxTTLMillis int64    `json:"maxTTLMillis"`
}

// Balance says which endpoint gets a request.
type Balance struct {
	Method          string  `json:"method"`
	HashBy          *HashBy `json:"hashBy,omitempty"`
	MaxLoadPercent  int     `json:"maxLoadPercent,omitempty"`
	DecayMillis     int64   `json:"decayMillis,omitempty"`
	SlowStartMillis int64   `json:"slowStartMillis,omitempty"`
	PanicPercent    int     `json:"panicPercent"`
}

// HashBy names a property of requests; exactly one field is set.
type HashBy struct {
	Header   string `json:"header,omitempty"`
	Cookie   string `json:"cookie,omitempty"`
	ClientIP bool   `json:"clientIP,omitempty"`
}

// HealthCheck asks each endpoint how it does.
type HealthCheck struct {
	Type           string            `json:"type"` // http, tcp or grpc
	Method         string            `json:"method,omitempty"`
	Path           string            `json:"path,omitempty"`
	Host           string            `json:"host,omitempty"`
	Headers        map[string]string `json:"headers,omitempty"`
	Body           string            `json:"body,omitempty"`
	Service        string            `json:"service,omitempty"`
	Statuses       [][2]int          `json:"statuses,omitempty"` // from and to, inclusive
	ExpectHeaders  map[string]string `json:"expectHeaders,omitempty"`
	Port           int               `json:"port,omitempty"`
	IntervalMillis int64             `json:"intervalMillis"`
	JitterPercent  int               `json:"jitterPercent,omitempty"`
	TimeoutMillis  int64             `json:"timeoutMillis"`
	HealthyAfter   int               `json:"healthyAfter"`
	UnhealthyAfter int               `json:"unhealthyAfter"`
}

// Outliers takes endpoints out for a while by what becomes of requests. 0 switches a criterion off.
type Outliers struct {
	ConsecutiveErrors     int   `json:"consecutiveErrors,omitempty"`
	Consecutive5xx        int   `json:"consecutive5xx,omitempty"`
	IntervalMillis        int64 `json:"intervalMillis"`
	EjectionMillis        int64 `json:"ejectionMillis"`
	MaxEjectionMillis     int64 `json:"maxEjectionMillis"`
	MaxEjectedPercent     int   `json:"maxEjectedPercent"`
	SuccessRateEndpoints  int   `json:"successRateEndpoints,omitempty"`
	SuccessRateRequests   int   `json:"successRateRequests,omitempty"`
	SuccessRateDeviations int   `json:"successRateDeviations,omitempty"`
}

// Retries says which requests are tried again.
type Retries struct {
	Max              int      `json:"max"`
	On               []string `json:"on"` // as in api/v1
	Methods          []string `json:"methods"`
	BudgetPercent    int      `json:"budgetPercent"`
	BudgetMin        int      `json:"budgetMin"`
	BackoffMillis    int64    `json:"backoffMillis"`
	MaxBackoffMillis int64    `json:"maxBackoffMillis"`
}

// Hedging sends slow requests to a second endpoint, after a fixed time or, if that is 0, by percentile.
type Hedging struct {
	AfterMillis   int64 `json:"afterMillis,omitempty"`
	Percentile    int   `json:"percentile,omitempty"`
	BudgetPercent int   `json:"budgetPercent"`
}

// Breaker bounds what a gateway asks of a backend at the same time. 0: no bound, but for Pending, of which it means none.
type Breaker struct {
	Connections int `json:"connections,omitempty"`
	Pending     int `json:"pending,omitempty"`
	Requests    int `json:"requests,omitempty"`
	Retries     int `json:"retries,omitempty"`
}

// TLSRules is what else there is to say of TLS to a backend.
type TLSRules struct {
	SubjectNames      []string `json:"subjectNames,omitempty"`
	MinVersion        string   `json:"minVersion,omitempty"`
	Ciphers           []string `json:"ciphers,omitempty"`
	ClientCertificate string   `json:"clientCertificate,omitempty"` // name within the organization
}

// Reader returns the form that readers must know to run b.
func (b *Backend) Reader() uint16 {
	for _, e := range b.Endpoints {
		if (e != Endpoint{Address: e.Address}) {
			return BackendReader
		}
	}
	if b.Discovery != nil || b.HTTPVersion != "" || b.ProxyProtocol != "" || b.TryMillis != 0 || b.TotalMillis != 0 ||
		b.MaxAgeMillis != 0 || b.MaxUses != 0 || b.Balance != nil || b.HealthCheck != nil || b.Outliers != nil || b.Retries != nil ||
		b.Hedging != nil || b.Breaker != nil || b.TLSRules != nil || b.MaxResponseBytes != 0 || b.MaxHeadBytes != 0 || b.MaxHeadFields != 0 {
		return BackendReader
	}
	return 1
}

// Split spreads the requests of an API over backends by weight.
type Split struct {
	Backends []SplitBackend `json:"backends"`
	StickBy  *HashBy        `json:"stickBy,omitempty"`
}

// SplitBackend is one of them.
type SplitBackend struct {
	Backend string `json:"backend"`
	Weight  int    `json:"weight"`
}

// Mirror sends copies of requests to a backend.
type Mirror struct {
	Backend string `json:"backend"`
	Percent int    `json:"percent"`
}
