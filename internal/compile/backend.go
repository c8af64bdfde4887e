package compile

import (
	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
)

// backend returns the content of a backend with its defaults. What is as it was in the first form of entries is written
// like that, so that older gateways go on reading it.
func backend(o *v1.Object) snapshot.Backend {
	full := resource.Clone(o)
	resource.Default(full)
	s := full.Spec.(*v1.BackendSpec)
	b := snapshot.Backend{
		Organization:      o.Metadata.Organization,
		Name:              o.Metadata.Name,
		TLS:               s.Protocol == "https",
		Host:              s.Host,
		Discovery:         discovery(s.Discovery),
		ProxyProtocol:     s.ProxyProtocol,
		ConnectMillis:     millis(s.Timeouts.Connect),
		ResponseMillis:    millis(s.Timeouts.Response),
		IdleMillis:        millis(s.Timeouts.Idle),
		TunnelMillis:      millis(s.Timeouts.Tunnel),
		TryMillis:         millis(s.Timeouts.Try),
		TotalMillis:       millis(s.Timeouts.Total),
		MaxConns:          s.Connections.Max,
		MaxIdleConns:      s.Connections.MaxIdle,
		IdleTimeoutMillis: millis(s.Connections.IdleTimeout),
		MaxAgeMillis:      millis(s.Connections.MaxAge),
		MaxUses:           s.Connections.MaxRequests,
		Balance:           balance(s.LoadBalancing),
		HealthCheck:       healthCheck(s.HealthCheck),
		Outliers:          outliers(s.Outliers),
	}
	if s.HTTPVersion != "1.1" {
		b.HTTPVersion = s.HTTPVersion
	}
	if s.TLS != nil {
		b.ServerName, b.CA, b.TLSRules = s.TLS.ServerName, s.TLS.CA, tlsRules(s.TLS)
	}
	b.Endpoints = endpoints(s.Endpoints)
	if r := s.Retries; r != nil {
		b.Retries = &snapshot.Retries{
			Max: *r.Max, On: r.On, Methods: r.Methods, BudgetPercent: *r.BudgetPercent, BudgetMin: *r.BudgetMin,
			BackoffMillis: millis(r.Backoff), MaxBackoffMillis: millis(r.MaxBackoff),
		}
	}
	if h := s.Hedging; h != nil {
		b.Hedging = &snapshot.Hedging{AfterMillis: millis(h.After), Percentile: h.Percentile, BudgetPercent: h.BudgetPercent}
	}
	if r := s.CircuitBreaker; r != nil {
		b.Breaker = &snapshot.Breaker{Connections: r.MaxConnections, Pending: r.MaxPending, Requests: r.MaxRequests, Retries: r.MaxRetries}
		b.PendingMillis = millis(s.Timeouts.Pending)
	}
	if l := s.Limits; l != nil {
		b.MaxResponseBytes, b.MaxHeadBytes, b.MaxHeadFields = l.Bytes, l.HeaderBytes, l.Headers
	}
	return b
}

// endpoints returns those that are in service.
func endpoints(all []v1.Endpoint) []snapshot.Endpoint {
	to := make([]snapshot.Endpoint, 0, len(all))
	for _, e := range all {
		if e.Disabled {
			continue
		}
		one := snapshot.Endpoint{Address: e.Address, Priority: e.Priority, Site: e.Site}
		if e.Weight != 1 {
			one.Weight = e.Weight
		}
		to = append(to, one)
	}
	return to
}

// tlsRules returns what the first form of entries does not know; nil if that is nothing.
func tlsRules(t *v1.BackendTLS) *snapshot.TLSRules {
	if len(t.SubjectNames)+len(t.Ciphers) == 0 && t.MinVersion == "" && t.ClientCertificate == "" {
		return nil
	}
	return &snapshot.TLSRules{
		SubjectNames: t.SubjectNames, MinVersion: t.MinVersion, Ciphers: t.Ciphers, ClientCertificate: t.ClientCertificate,
	}
}

func millis(d v1.Duration) int64 { return d.Std().Milliseconds() }

func discovery(d *v1.Discovery) *snapshot.Discovery {
	if d == nil {
		return nil
	}
	to := &snapshot.Discovery{
		SRV: d.Type == "srv", Name: d.Name, Port: d.Port, Resolvers: d.Resolvers,
		MinTTLMillis: millis(d.MinTTL), MaxTTLMillis: millis(d.MaxTTL),
	}
	if d.Family != "any" {
		to.Family = d.Family
	}
	return to
}

func balance(l *v1.LoadBalancing) *snapshot.Balance {
	if l == nil {
		return nil
	}
	return &snapshot.Balance{
		Method: l.Method, HashBy: hashBy(l.HashBy), MaxLoadPercent: l.MaxLoadPercent, DecayMillis: millis(l.Decay),
		SlowStartMillis: millis(l.SlowStart), PanicPercent: *l.PanicPercent,
	}
}

func hashBy(h *v1.HashBy) *snapshot.HashBy {
	if h == nil {
		return nil
	}
	return &snapshot.HashBy{Header: h.Header, Cookie: h.Cookie, ClientIP: h.ClientIP}
}

func healthCheck(h *v1.HealthCheck) *snapshot.HealthCheck {
	if h == nil {
		return nil
	}
	to := &snapshot.HealthCheck{
		Type: h.Type, Method: h.Method, Path: h.Path, Host: h.Host, Headers: h.Headers, Body: h.Body, Service: h.Service,
		ExpectHeaders: h.ExpectHeaders, Port: h.Port,
		IntervalMillis: millis(h.Interval), JitterPercent: *h.JitterPercent, TimeoutMillis: millis(h.Timeout),
		HealthyAfter: h.HealthyAfter, UnhealthyAfter: h.UnhealthyAfter,
	}
	for _, s := range h.Statuses {
		if from, through, ok := resource.StatusRange(s); ok {
			to.Statuses = append(to.Statuses, [2]int{from, through})
		}
	}
	return to
}

func outliers(o *v1.OutlierEjection) *snapshot.Outliers {
	if o == nil {
		return nil
	}
	to := &snapshot.Outliers{
		ConsecutiveErrors: *o.ConsecutiveErrors, Consecutive5xx: o.Consecutive5xx, IntervalMillis: millis(o.Interval),
		EjectionMillis: millis(o.EjectionTime), MaxEjectionMillis: millis(o.MaxEjectionTime), MaxEjectedPercent: o.MaxEjectedPercent,
	}
	if s := o.SuccessRate; s != nil {
		to.SuccessRateEndpoints, to.SuccessRateRequests, to.SuccessRateDeviations = s.MinEndpoints, s.MinRequests, s.Deviations
	}
	return to
}

// split fills in what an API forwards to, and returns the form that readers must know.
func split(api *v1.APISpec, content *snapshot.API) uint16 {
	content.Backend = api.Backend
	if s := api.Split; s != nil {
		content.Split = &snapshot.Split{StickBy: hashBy(s.StickBy)}
		for _, b := range s.Backends {
			content.Split.Backends = append(content.Split.Backends, snapshot.SplitBackend{Backend: b.Backend, Weight: b.Weight})
		}
	}
	if m := api.Mirror; m != nil {
		content.Mirror = &snapshot.Mirror{Backend: m.Backend, Percent: m.Percent}
	}
	if api.Split != nil || api.Mirror != nil {
		return snapshot.BackendReader
	}
	return firstReader
}
