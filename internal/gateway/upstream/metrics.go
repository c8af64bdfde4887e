package upstream

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the counters of all backends when metrics are asked for. The counting itself is plain atomics, and what
// is gone from the configuration is gone from the metrics.
type collector struct{ r *Registry }

var (
	backendLabels  = []string{"organization", "backend"}
	endpointLabels = []string{"organization", "backend", "endpoint"}
)

// The metrics of endpoints.
var (
	descRequests = prometheus.NewDesc("hansa_upstream_requests_total",
		"Requests sent to an endpoint, tries included.", endpointLabels, nil)
	descActive = prometheus.NewDesc("hansa_upstream_requests_current",
		"Requests that are under way at an endpoint.", endpointLabels, nil)
	descReused = prometheus.NewDesc("hansa_upstream_reused_connections_total",
		"Requests that were sent over a connection used before.", endpointLabels, nil)
	descErrors = prometheus.NewDesc("hansa_upstream_errors_total",
		"Tries that failed, by the code that a refusal of the request carries.", append(endpointLabels[:3:3], "code"), nil)
	descDials = prometheus.NewDesc("hansa_upstream_connects_total",
		"Connections that were tried to be made.", endpointLabels, nil)
	descConnect = prometheus.NewDesc("hansa_upstream_connect_seconds_total",
		"Time spent on making connections, TLS included.", endpointLabels, nil)
	descConns = prometheus.NewDesc("hansa_upstream_connections",
		"Open connections to an endpoint, by what they do: used or idle.", append(endpointLabels[:3:3], "state"), nil)
	descUp = prometheus.NewDesc("hansa_upstream_endpoint_available",
		"Whether the endpoint takes its turn (1) or is passed over (0): it is unhealthy, ejected, or could not be connected to.", endpointLabels, nil)
	descHealthy = prometheus.NewDesc("hansa_upstream_endpoint_healthy",
		"Whether health checks find the endpoint healthy (1) or not (0); absent if there are none.", endpointLabels, nil)
	descEjected = prometheus.NewDesc("hansa_upstream_endpoint_ejected",
		"Whether the endpoint is ejected as an outlier (1) or not (0).", endpointLabels, nil)
	descEjections = prometheus.NewDesc("hansa_upstream_ejections_total",
		"How often the endpoint was ejected as an outlier.", endpointLabels, nil)
	descChecks = prometheus.NewDesc("hansa_upstream_health_checks_total",
		"Health checks of an endpoint, by outcome: good or bad.", append(endpointLabels[:3:3], "outcome"), nil)
)

// The metrics of backends.
var (
	descRetries = prometheus.NewDesc("hansa_upstream_retries_total",
		"Requests that were tried again.", backendLabels, nil)
	descNoBudget = prometheus.NewDesc("hansa_upstream_budget_exhausted_total",
		"Requests that were not tried again, or not sent a second time, since the budget for that was used up.", backendLabels, nil)
	descHedges = prometheus.NewDesc("hansa_upstream_hedges_total",
		"Slow requests that were sent a second time.", backendLabels, nil)
	descWins = prometheus.NewDesc("hansa_upstream_hedges_won_total",
		"Requests that were answered faster where they were sent the second time.", backendLabels, nil)
	descPending = prometheus.NewDesc("hansa_upstream_pending_requests",
		"Requests that wait for a connection.", backendLabels, nil)
	descBreaker = prometheus.NewDesc("hansa_upstream_breaker_refusals_total",
		"What the circuit breaker refused, by bound: connections, pending, requests or retries.", append(backendLabels[:2:2], "bound"), nil)
	descOpen = prometheus.NewDesc("hansa_upstream_breaker_open",
		"Whether a bound of the circuit breaker is reached at present (1) or not (0).", append(backendLabels[:2:2], "bound"), nil)
	descMirrored = prometheus.NewDesc("hansa_upstream_mirrored_total",
		"Copies of requests that a mirror sent to the backend.", backendLabels, nil)
	descDropped = prometheus.NewDesc("hansa_upstream_mirror_dropped_total",
		"Copies of requests that were not sent, by reason: busy (too many are under way) or body (it is not at hand).", append(backendLabels[:2:2], "reason"), nil)
	descResolutions = prometheus.NewDesc("hansa_upstream_resolutions_total",
		"Look-ups of the endpoints of a backend in DNS, by outcome: good or bad.", append(backendLabels[:2:2], "outcome"), nil)
)

// Describe implements prometheus.Collector.
func (*collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRequests, descActive, descReused, descErrors, descDials, descConnect, descConns, descUp, descHealthy, descEjected,
		descEjections, descChecks, descRetries, descNoBudget, descHedges, descWins, descPending, descBreaker, descOpen, descMirrored,
		descDropped, descResolutions,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := c.r.opts.Sweeper.Now()
	for _, b := range c.r.list() {
		m := meter{ch, []string{b.key.organization, b.key.name}}
		b.collect(m)
		seen := map[*endpoint]bool{}
		t := b.table.Load()
		for _, p := range t.places {
			if !seen[p.endpoint] { // it may be named twice
				seen[p.endpoint] = true
				p.endpoint.collect(meter{ch, append(m.labels[:2:2], p.address)}, t.settings, now)
			}
		}
	}
}

// meter emits metrics that share their first labels.
type meter struct {
	ch     chan<- prometheus.Metric
	labels []string
}

func (m meter) counter(d *prometheus.Desc, v float64, more ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, append(m.labels[:len(m.labels):len(m.labels)], more...)...)
}

func (m meter) gauge(d *prometheus.Desc, v int64, more ...string) {
	m.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), append(m.labels[:len(m.labels):len(m.labels)], more...)...)
}

func (m meter) claim(d *prometheus.Desc, v bool, more ...string) {
	n := int64(0)
	if v {
		n = 1
	}
	m.gauge(d, n, more...)
}

func (e *endpoint) collect(m meter, s *settings, now time.Duration) {
	m.counter(descRequests, float64(e.requests.Load()))
	m.gauge(descActive, e.active.Load())
	m.counter(descReused, float64(e.reused.Load()))
	m.counter(descDials, float64(e.dials.Load()))
	m.counter(descConnect, time.Duration(e.connectNanos.Load()).Seconds())
	for i, code := range errorCodes {
		m.counter(descErrors, float64(e.errors[i].Load()), code.String())
	}
	used, idle := e.pool.counts()
	m.gauge(descConns, int64(used), "used")
	m.gauge(descConns, int64(idle), "idle")
	st := e.stateAt(now)
	m.claim(descUp, st.healthy && !st.refused)
	if s.content.HealthCheck != nil {
		m.claim(descHealthy, e.verdict.Load() != unhealthy)
		m.counter(descChecks, float64(e.checks[0].Load()), "bad")
		m.counter(descChecks, float64(e.checks[1].Load()), "good")
	}
	if s.content.Outliers != nil {
		m.claim(descEjected, time.Duration(e.ejected.Load()) > now)
		m.counter(descEjections, float64(e.ejections.Load()))
	}
}

func (b *Backend) collect(m meter) {
	s := b.table.Load().settings
	m.counter(descRetries, float64(b.retries.Load()))
	m.counter(descNoBudget, float64(b.noBudget.Load()))
	if s.content.Hedging != nil {
		m.counter(descHedges, float64(b.hedges.Load()))
		m.counter(descWins, float64(b.wins.Load()))
	}
	if s.content.Breaker != nil {
		m.gauge(descPending, b.pending.Load())
		bounds := [numBreaks]int{s.breaker.Connections, s.breaker.Pending, s.breaker.Requests, s.breaker.Retries}
		present := [numBreaks]int64{b.open.Load(), b.pending.Load(), b.requests.Load(), b.retrying.Load()}
		for i, name := range breakNames {
			if bounds[i] > 0 {
				m.counter(descBreaker, float64(b.refused[i].Load()), name)
				m.claim(descOpen, present[i] >= int64(bounds[i]), name)
			}
		}
	}
	if n := b.mirror.sent.Load() + b.mirror.busy.Load() + b.mirror.noBody.Load(); n > 0 {
		m.counter(descMirrored, float64(b.mirror.sent.Load()))
		m.counter(descDropped, float64(b.mirror.busy.Load()), "busy")
		m.counter(descDropped, float64(b.mirror.noBody.Load()), "body")
	}
	if s.content.Discovery != nil {
		m.counter(descResolutions, float64(b.resolutions[0].Load()), "bad")
		m.counter(descResolutions, float64(b.resolutions[1].Load()), "good")
	}
}
