package resource

import (
	"time"

	v1 "hansa.dev/hansa/api/v1"
)

// defaultBackend fills in the defaults of a backend. What is switched on by being there at all, such as a health check,
// stays away if it is.
func defaultBackend(b *v1.BackendSpec) {
	or(&b.Protocol, "http")
	or(&b.HTTPVersion, "1.1")
	orNew(&b.Timeouts)
	orDuration(&b.Timeouts.Connect, 5*time.Second)
	orDuration(&b.Timeouts.Pending, 5*time.Second)
	orDuration(&b.Timeouts.Response, 30*time.Second)
	orDuration(&b.Timeouts.Idle, time.Minute)
	orDuration(&b.Timeouts.Tunnel, 10*time.Minute)
	orNew(&b.Connections)
	or(&b.Connections.Max, 1024)
	or(&b.Connections.MaxIdle, min(128, b.Connections.Max))
	orDuration(&b.Connections.IdleTimeout, 90*time.Second)
	for i := range b.Endpoints {
		or(&b.Endpoints[i].Weight, 1)
	}
	defaultDiscovery(b)
	defaultBalancing(b.LoadBalancing)
	defaultHealthCheck(b.HealthCheck)
	defaultOutliers(b.Outliers)
	defaultRetries(b.Retries)
	if h := b.Hedging; h != nil {
		if h.After == 0 {
			or(&h.Percentile, 95)
		}
		or(&h.BudgetPercent, 10)
	}
	if l := b.Limits; l != nil {
		or(&l.HeaderBytes, 64<<10)
		or(&l.Headers, 200)
	}
}

func defaultDiscovery(b *v1.BackendSpec) {
	d := b.Discovery
	if d == nil {
		return
	}
	if d.Type == "dns" {
		port := 80
		if b.Protocol == "https" {
			port = 443
		}
		or(&d.Port, port)
	}
	or(&d.Family, "any")
	orDuration(&d.MinTTL, 5*time.Second)
	orDuration(&d.MaxTTL, 5*time.Minute)
}

func defaultBalancing(l *v1.LoadBalancing) {
	if l == nil {
		return
	}
	or(&l.Method, "roundRobin")
	orValue(&l.PanicPercent, 50)
	switch l.Method {
	case "consistentHash":
		or(&l.MaxLoadPercent, 125)
	case "responseTime":
		orDuration(&l.Decay, 10*time.Second)
	}
}

func defaultHealthCheck(h *v1.HealthCheck) {
	if h == nil {
		return
	}
	or(&h.Type, "http")
	if h.Type == "http" {
		or(&h.Method, "GET")
		or(&h.Path, "/")
		if len(h.Statuses) == 0 {
			h.Statuses = []string{"200-299"}
		}
	}
	orDuration(&h.Interval, 10*time.Second)
	orValue(&h.JitterPercent, 20)
	orDuration(&h.Timeout, 3*time.Second)
	or(&h.HealthyAfter, 2)
	or(&h.UnhealthyAfter, 3)
}

func defaultOutliers(o *v1.OutlierEjection) {
	if o == nil {
		return
	}
	orValue(&o.ConsecutiveErrors, 5)
	orDuration(&o.Interval, 10*time.Second)
	orDuration(&o.EjectionTime, 30*time.Second)
	orDuration(&o.MaxEjectionTime, 5*time.Minute)
	or(&o.MaxEjectedPercent, 10)
	if s := o.SuccessRate; s != nil {
		or(&s.MinEndpoints, 5)
		or(&s.MinRequests, 100)
		or(&s.Deviations, 1900)
	}
}

func defaultRetries(r *v1.Retries) {
	if r == nil {
		return
	}
	orValue(&r.Max, 3)
	if len(r.On) == 0 {
		r.On = []string{"connect"}
	}
	if len(r.Methods) == 0 {
		r.Methods = []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
	}
	orValue(&r.BudgetPercent, 20)
	orValue(&r.BudgetMin, 3)
	orDuration(&r.Backoff, 25*time.Millisecond)
	orDuration(&r.MaxBackoff, 250*time.Millisecond)
}

func orDuration(p *v1.Duration, def time.Duration) { or(p, v1.Duration(def)) }

// orNew makes a block that is not there.
func orNew[T any](p **T) {
	if *p == nil {
		*p = new(T)
	}
}

// orValue fills in a number of which 0 means something.
func orValue(p **int, def int) {
	if *p == nil {
		*p = &def
	}
}
