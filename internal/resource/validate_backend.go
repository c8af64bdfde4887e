package resource

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
)

// The bounds of backends.
const (
	maxPriority  = 15
	maxWeight    = 1000
	maxSplit     = 32
	maxResolvers = 8
	leastTime    = 10 * time.Millisecond
	mostConnect  = 5 * time.Minute
	mostWait     = 24 * time.Hour
)

func (c *checker) backend(b *v1.BackendSpec) {
	c.enum("spec.protocol", "BackendSpec.protocol", b.Protocol)
	c.enum("spec.httpVersion", "BackendSpec.httpVersion", b.HTTPVersion)
	c.enum("spec.proxyProtocol", "BackendSpec.proxyProtocol", b.ProxyProtocol)
	if b.ProxyProtocol != "" && (b.HTTPVersion == "2" || b.HTTPVersion == "auto") {
		c.fault("spec.proxyProtocol", CodeInvalid, b.ProxyProtocol, "a connection of HTTP/2 carries the requests of many clients", `write httpVersion: "1.1", or remove proxyProtocol`)
	}
	if b.Discovery != nil {
		c.discovery(b)
	} else {
		c.endpoints(b.Endpoints)
	}
	if b.Host != "endpoint" {
		c.backendHost("spec.host", b.Host, `write a host name, host:port or "endpoint"`)
	}
	if b.TLS != nil {
		c.backendTLS(b)
	}
	c.balancing(b.LoadBalancing)
	c.healthCheck(b.HealthCheck)
	c.outliers(b.Outliers)
	c.backendTimeouts(b.Timeouts)
	c.retries(b.Retries)
	c.hedging(b.Hedging)
	if r := b.CircuitBreaker; r != nil {
		const path, most = "spec.circuitBreaker", 1_000_000
		c.number(path+".maxConnections", int64(r.MaxConnections), 0, most)
		c.number(path+".maxPending", int64(r.MaxPending), 0, most)
		c.number(path+".maxRequests", int64(r.MaxRequests), 0, most)
		c.number(path+".maxRetries", int64(r.MaxRetries), 0, most)
	}
	c.backendConnections(b.Connections)
	if l := b.Limits; l != nil {
		c.number("spec.limits.bytes", l.Bytes, 0, 1<<50)
		c.number("spec.limits.headerBytes", int64(l.HeaderBytes), 1<<10, 1<<20)
		c.number("spec.limits.headers", int64(l.Headers), 10, 250)
	}
}

// backendHost checks a Host header that is to be sent.
func (c *checker) backendHost(path, host, remedy string) {
	if host == "" || hostFault(host) == "" || addressFault(host) == "" || addressFault(host+":80") == "" { // the last: IPv6 in brackets
		return
	}
	c.fault(path, CodeInvalid, host, "the host is not one: "+addressFault(host), remedy)
}

func (c *checker) endpoints(endpoints []v1.Endpoint) {
	if len(endpoints) == 0 {
		c.fault("spec.endpoints", CodeRequired, "", "a backend needs an endpoint", `write at least one: [{address: "10.0.0.1:8080"}]`)
	}
	if len(endpoints) > maxEndpoints {
		c.tooMany("spec.endpoints", len(endpoints), maxEndpoints)
	}
	seen := map[string]bool{}
	for i, e := range endpoints {
		at := index("spec.endpoints", i)
		path := join(at, "address")
		if fault := addressFault(e.Address); fault != "" {
			remedy := `write host:port, such as "catalog.internal:8080" or "[2001:db8::1]:443"`
			if strings.Contains(e.Address, "://") {
				remedy = "write host:port alone; spec.protocol says http or https"
			}
			c.fault(path, CodeInvalid, e.Address, fmt.Sprintf("%q is not an address: %s", shorten(e.Address), fault), remedy)
		}
		if seen[e.Address] {
			c.duplicate(path, e.Address)
		}
		seen[e.Address] = true
		c.number(join(at, "priority"), int64(e.Priority), 0, maxPriority)
		c.number(join(at, "weight"), int64(e.Weight), 1, maxWeight)
		if e.Site != "" {
			c.ref(join(at, "site"), e.Site)
		}
	}
}

func (c *checker) discovery(b *v1.BackendSpec) {
	const path = "spec.discovery"
	d := b.Discovery
	if len(b.Endpoints) > 0 {
		c.fault(path, CodeInvalid, "", "endpoints are set as well", "remove one of the two")
	}
	if d.Type == "" {
		c.fault(path+".type", CodeRequired, "", "the type is empty", "write dns or srv")
	}
	c.enum(path+".type", "Discovery.type", d.Type)
	c.enum(path+".family", "Discovery.family", d.Family)
	if fault := hostFault(strings.TrimSuffix(d.Name, ".")); fault != "" {
		c.fault(path+".name", nameCode(d.Name), d.Name, fmt.Sprintf("%q is not a name: %s", shorten(d.Name), fault), "write a DNS name such as catalog.internal")
	} else if _, err := netip.ParseAddr(d.Name); err == nil {
		c.fault(path+".name", CodeInvalid, d.Name, "it is an IP address, which needs no discovery", "write it in spec.endpoints")
	}
	switch d.Type {
	case "dns":
		c.number(path+".port", int64(d.Port), 1, 65535)
	case "srv":
		if d.Port != 0 {
			c.fault(path+".port", CodeInvalid, strconv.Itoa(d.Port), "SRV records say the port", "remove the field")
		}
	}
	if len(d.Resolvers) > maxResolvers {
		c.tooMany(path+".resolvers", len(d.Resolvers), maxResolvers)
	}
	for i, r := range d.Resolvers {
		if _, err := netip.ParseAddrPort(r); err != nil {
			c.fault(index(path+".resolvers", i), CodeInvalid, r, fmt.Sprintf("%q is not an IP address with a port", shorten(r)), `write "10.0.0.2:53"`)
		}
	}
	c.between(path+".minTTL", d.MinTTL, time.Second, time.Hour)
	c.between(path+".maxTTL", d.MaxTTL, time.Second, 24*time.Hour)
	if d.MinTTL > d.MaxTTL {
		c.fault(path+".minTTL", CodeOutOfRange, d.MinTTL.String(), "it is above maxTTL", "write no more than "+d.MaxTTL.String())
	}
}

func (c *checker) balancing(l *v1.LoadBalancing) {
	if l == nil {
		return
	}
	const path = "spec.loadBalancing"
	c.enum(path+".method", "LoadBalancing.method", l.Method)
	hashing, timing := l.Method == "consistentHash", l.Method == "responseTime"
	switch {
	case hashing && l.HashBy == nil:
		c.fault(path+".hashBy", CodeRequired, "", "consistentHash needs to know what to go by", "write {header: NAME}, {cookie: NAME} or {clientIP: true}")
	case hashing:
		c.hashBy(path+".hashBy", l.HashBy)
		c.number(path+".maxLoadPercent", int64(l.MaxLoadPercent), 100, 1000)
	default:
		c.only(path+".hashBy", l.HashBy == nil, "method: consistentHash")
		c.only(path+".maxLoadPercent", l.MaxLoadPercent == 0, "method: consistentHash")
	}
	if timing {
		c.between(path+".decay", l.Decay, 100*time.Millisecond, time.Hour)
	} else {
		c.only(path+".decay", l.Decay == 0, "method: responseTime")
	}
	c.between(path+".slowStart", l.SlowStart, 0, time.Hour)
	c.optional(path+".panicPercent", l.PanicPercent, 0, 100)
}

// only reports a field that is set though it has a meaning only with something else.
func (c *checker) only(path string, unset bool, with string) {
	if !unset {
		c.fault(path, CodeInvalid, "", "it has a meaning only with "+with, "remove the field")
	}
}

// optional checks a number that may be absent.
func (c *checker) optional(path string, n *int, least, most int64) {
	if n != nil {
		c.number(path, int64(*n), least, most)
	}
}

func (c *checker) hashBy(path string, h *v1.HashBy) {
	n := 0
	for _, set := range []bool{h.Header != "", h.Cookie != "", h.ClientIP} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.fault(path, CodeInvalid, "", fmt.Sprintf("%d of its fields are set", n), "set exactly one: header, cookie or clientIP")
	}
	if h.Header != "" && !validToken(h.Header) {
		c.fault(path+".header", CodeInvalid, h.Header, fmt.Sprintf("%q is not the name of a header field", shorten(h.Header)), "write a name such as X-Tenant")
	}
	if h.Cookie != "" && !validToken(h.Cookie) {
		c.fault(path+".cookie", CodeInvalid, h.Cookie, fmt.Sprintf("%q is not the name of a cookie", shorten(h.Cookie)), "write a name such as session")
	}
}

func (c *checker) healthCheck(h *v1.HealthCheck) {
	if h == nil {
		return
	}
	const path = "spec.healthCheck"
	c.enum(path+".type", "HealthCheck.type", h.Type)
	if h.Type == "http" {
		c.httpCheck(path, h)
	} else {
		c.only(path+".method", h.Method == "", "type: http")
		c.only(path+".path", h.Path == "", "type: http")
		c.only(path+".headers", len(h.Headers) == 0, "type: http")
		c.only(path+".body", h.Body == "", "type: http")
		c.only(path+".statuses", len(h.Statuses) == 0, "type: http")
		c.only(path+".expectHeaders", len(h.ExpectHeaders) == 0, "type: http")
	}
	if h.Type != "grpc" {
		c.only(path+".service", h.Service == "", "type: grpc")
	}
	c.short(path+".service", h.Service)
	c.only(path+".host", h.Host == "" || h.Type != "tcp", "type: http or grpc")
	c.backendHost(path+".host", h.Host, "write a host name or host:port")
	if h.Port != 0 {
		c.number(path+".port", int64(h.Port), 1, 65535)
	}
	c.between(path+".interval", h.Interval, 100*time.Millisecond, 24*time.Hour)
	c.optional(path+".jitterPercent", h.JitterPercent, 0, 90)
	c.between(path+".timeout", h.Timeout, leastTime, mostConnect)
	c.number(path+".healthyAfter", int64(h.HealthyAfter), 1, 100)
	c.number(path+".unhealthyAfter", int64(h.UnhealthyAfter), 1, 100)
}

func (c *checker) httpCheck(path string, h *v1.HealthCheck) {
	if !validMethod(h.Method) || h.Method == "*" {
		c.fault(path+".method", CodeInvalid, h.Method, fmt.Sprintf("%q is not a method", shorten(h.Method)), "write a method in upper case, such as GET")
	}
	if !(h.Path == "*" && h.Method == "OPTIONS") && (!strings.HasPrefix(h.Path, "/") || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f })) {
		c.fault(path+".path", CodeInvalid, h.Path, fmt.Sprintf("%q is not a path", shorten(h.Path)), "write a path such as /healthz, percent-encoded where need be")
	}
	c.textOf(path+".path", h.Path, 4096, false)
	c.textOf(path+".body", h.Body, 16<<10, true)
	if len(h.Headers) > maxLabels {
		c.tooMany(path+".headers", len(h.Headers), maxLabels)
	}
	if len(h.ExpectHeaders) > maxLabels {
		c.tooMany(path+".expectHeaders", len(h.ExpectHeaders), maxLabels)
	}
	for _, name := range sortedKeys(h.ExpectHeaders) {
		if !validToken(name) || !validFieldValue(h.ExpectHeaders[name]) {
			c.fault(key(path+".expectHeaders", name), CodeInvalid, name, fmt.Sprintf("%q cannot be expected like that", shorten(name)), "write the name and the value of a header field")
		}
	}
	for _, name := range sortedKeys(h.Headers) {
		if !validToken(name) || !validFieldValue(h.Headers[name]) || strings.EqualFold(name, "Host") || strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Transfer-Encoding") {
			c.fault(key(path+".headers", name), CodeInvalid, name, fmt.Sprintf("%q cannot be sent like that", shorten(name)), "write the name and the value of a header field; Host has a field of its own")
		}
	}
	for i, s := range h.Statuses {
		if _, _, ok := StatusRange(s); !ok {
			c.fault(index(path+".statuses", i), CodeInvalid, s, fmt.Sprintf("%q is not a status or a range of them", shorten(s)), `write "204" or "200-399"`)
		}
	}
}

// StatusRange reads a status, "204", or a range of them, "200-399".
func StatusRange(s string) (from, to int, ok bool) {
	lo, hi, ranged := strings.Cut(s, "-")
	if !ranged {
		hi = lo
	}
	from, ok1 := status(lo)
	to, ok2 := status(hi)
	return from, to, ok1 && ok2 && from <= to
}

func status(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && len(s) == 3 && n >= 100 && n <= 599
}

func (c *checker) outliers(o *v1.OutlierEjection) {
	if o == nil {
		return
	}
	const path = "spec.outliers"
	c.optional(path+".consecutiveErrors", o.ConsecutiveErrors, 0, 10_000)
	c.number(path+".consecutive5xx", int64(o.Consecutive5xx), 0, 10_000)
	c.between(path+".interval", o.Interval, time.Second, time.Hour)
	c.between(path+".ejectionTime", o.EjectionTime, 100*time.Millisecond, 24*time.Hour)
	c.between(path+".maxEjectionTime", o.MaxEjectionTime, 100*time.Millisecond, 24*time.Hour)
	if o.EjectionTime > o.MaxEjectionTime {
		c.fault(path+".ejectionTime", CodeOutOfRange, o.EjectionTime.String(), "it is above maxEjectionTime", "write no more than "+o.MaxEjectionTime.String())
	}
	c.number(path+".maxEjectedPercent", int64(o.MaxEjectedPercent), 1, 100)
	if s := o.SuccessRate; s != nil {
		c.number(path+".successRate.minEndpoints", int64(s.MinEndpoints), 2, maxEndpoints)
		c.number(path+".successRate.minRequests", int64(s.MinRequests), 1, 1_000_000)
		c.number(path+".successRate.deviations", int64(s.Deviations), 100, 100_000)
	}
}

func (c *checker) backendTimeouts(t *v1.BackendTimeouts) {
	if t == nil {
		return
	}
	const path = "spec.timeouts"
	c.between(path+".connect", t.Connect, leastTime, mostConnect)
	c.between(path+".pending", t.Pending, leastTime, mostConnect)
	c.between(path+".response", t.Response, leastTime, mostWait)
	c.between(path+".idle", t.Idle, leastTime, mostWait)
	c.between(path+".tunnel", t.Tunnel, time.Second, 7*24*time.Hour)
	if t.Try != 0 {
		c.between(path+".try", t.Try, leastTime, mostWait)
	}
	if t.Total != 0 {
		c.between(path+".total", t.Total, leastTime, mostWait)
	}
}

func (c *checker) retries(r *v1.Retries) {
	if r == nil {
		return
	}
	const path = "spec.retries"
	c.optional(path+".max", r.Max, 0, 10)
	for i, on := range r.On {
		words := []string{"connect", "reset", "timeout", "gatewayError", "5xx"}
		if n, ok := status(on); !slices.Contains(words, on) && (!ok || n < 400) {
			c.fault(index(path+".on", i), CodeInvalid, on, fmt.Sprintf("%q is no reason to try again", shorten(on)),
				didYouMean(on, words, "write one of: "+joinWords(words)+", or a status from 400 on"))
		}
	}
	for i, m := range r.Methods {
		if !validMethod(m) || m == "*" {
			c.fault(index(path+".methods", i), CodeInvalid, m, fmt.Sprintf("%q is not a method", shorten(m)), "write a method in upper case, such as GET")
		}
	}
	c.optional(path+".budgetPercent", r.BudgetPercent, 0, 100)
	c.optional(path+".budgetMin", r.BudgetMin, 0, 10_000)
	c.between(path+".backoff", r.Backoff, time.Millisecond, time.Minute)
	c.between(path+".maxBackoff", r.MaxBackoff, r.Backoff.Std(), 5*time.Minute)
}

func (c *checker) hedging(h *v1.Hedging) {
	if h == nil {
		return
	}
	const path = "spec.hedging"
	if h.After != 0 && h.Percentile != 0 {
		c.fault(path+".percentile", CodeInvalid, strconv.Itoa(h.Percentile), "after is set as well", "remove one of the two")
	}
	if h.After != 0 {
		c.between(path+".after", h.After, time.Millisecond, 5*time.Minute)
	} else {
		c.number(path+".percentile", int64(h.Percentile), 50, 99)
	}
	c.number(path+".budgetPercent", int64(h.BudgetPercent), 1, 100)
}

func (c *checker) backendConnections(n *v1.BackendConnections) {
	if n == nil {
		return
	}
	const path = "spec.connections"
	c.number(path+".max", int64(n.Max), 1, 65_536)
	c.number(path+".maxIdle", int64(n.MaxIdle), 1, int64(max(n.Max, 1)))
	c.between(path+".idleTimeout", n.IdleTimeout, time.Second, 24*time.Hour)
	if n.MaxAge != 0 {
		c.between(path+".maxAge", n.MaxAge, time.Second, 366*24*time.Hour)
	}
	c.number(path+".maxRequests", int64(n.MaxRequests), 0, 1_000_000_000)
}
