package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/telemetry"
	"hansa.dev/hansa/internal/x/guard"
)

// other stands in labels for what belongs to no API: requests without a route.
const other = "_other"

// metrics are those of requests and of configuration. What is counted for each request is counted in plain atomics
// that hang on routes, and collected when somebody asks.
type metrics struct {
	unrouted  operationCounts
	durations telemetry.Histogram // of what has no route
	refusals  [256]atomic.Uint64  // by code
	keys      [numKeyOutcomes]atomic.Uint64

	healthChecks          prometheus.Counter
	challenges            prometheus.Counter
	applied               prometheus.Counter
	refused               prometheus.Counter
	ok                    prometheus.Gauge
	at, epoch, seq        prometheus.Gauge
	applySeconds          prometheus.Histogram
	requests, duration    *prometheus.Desc
	refusal, key, limited *prometheus.Desc
	streamsDesc           *prometheus.Desc
	revocations           *prometheus.Desc

	apis    func() []*api
	groups  func() []*group
	streams *streams
}

// keyOutcome is what became of a look-up of a key.
type keyOutcome uint8

const (
	keyGood keyOutcome = iota
	keyMissing
	keyInvalid
	keyExpired
	keyRevoked
	keyNotSubscribed
	numKeyOutcomes
)

func (o keyOutcome) String() string {
	return [...]string{"good", "missing", "invalid", "expired", "revoked", "not_subscribed"}[o]
}

// newMetrics makes and registers the metrics. apis and groups return what is there of each.
func newMetrics(r prometheus.Registerer, apis func() []*api, groups func() []*group, streams *streams) (*metrics, error) {
	m := &metrics{
		apis: apis, groups: groups, streams: streams,
		healthChecks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_gateway_health_checks_total", Help: "Health checks that were answered; they are not counted as requests.",
		}),
		challenges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_gateway_challenges_total", Help: "Requests of CAs that validate a hostname by ACME over HTTP, and were answered.",
		}),
		applied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_gateway_config_applied_total", Help: "Configurations that came into force.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_gateway_config_refused_total", Help: "Configurations that were refused because they cannot be run.",
		}),
		ok: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_gateway_config_last_reload_successful", Help: "Whether the last configuration that arrived came into force.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_gateway_config_last_reload_success_timestamp_seconds", Help: "When a configuration last came into force.",
		}),
		epoch: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_gateway_config_epoch", Help: "The epoch of the configuration in force.",
		}),
		seq: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_gateway_config_seq", Help: "The number of the change set of the configuration in force.",
		}),
		applySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_gateway_config_apply_seconds", Help: "How long it took to build a configuration and bring it into force.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
		requests: prometheus.NewDesc("hansa_gateway_requests_total",
			"Requests that are over, by operation and class of status.", []string{"organization", "environment", "api", "operation", "class"}, nil),
		duration: prometheus.NewDesc("hansa_gateway_request_duration_seconds",
			"Time from the first byte of a request to the last of its response.", []string{"organization", "environment", "api"}, nil),
		refusal: prometheus.NewDesc("hansa_gateway_refusals_total",
			"Requests that the gateway itself refused or broke off, by code.", []string{"code"}, nil),
		key: prometheus.NewDesc("hansa_gateway_key_lookups_total",
			"Requests of which an API key was asked, by outcome.", []string{"outcome"}, nil),
		limited: prometheus.NewDesc("hansa_gateway_limit_refusals_total",
			"Requests that were refused because of a limit.", []string{"organization", "environment", "api", "policy"}, nil),
		revocations: prometheus.NewDesc("hansa_tls_client_crl_expiry_timestamp_seconds",
			"When the first list of revoked client certificates of an environment group expires, in Unix time: from then on clients of that CA are refused.",
			[]string{"organization", "environment_group"}, nil),
		streamsDesc: prometheus.NewDesc("hansa_gateway_streams_current",
			"Exchanges with a long body that are under way.", nil, nil),
	}
	m.unrouted.name = other
	var errs []error
	for _, c := range []prometheus.Collector{
		m, m.healthChecks, m.challenges, m.applied, m.refused, m.ok, m.at, m.epoch, m.seq, m.applySeconds,
	} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register the metrics of the gateway: %w", err)
	}
	return m, nil
}

// newGuard returns what keeps a panic of what the engines do not see from ending the process.
func newGuard(log *slog.Logger, r prometheus.Registerer) *guard.Guard {
	return guard.New(log, telemetry.Register(r, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "hansa_gateway_panics_total",
		Help: "Panics of policies, of backends and of what works for them in the background. Each has cost one request, connection or task, and is always a fault of the gateway.",
	})))
}

// inForce tells of a configuration that came into force.
func (m *metrics) inForce(c snapshot.Checkpoint, at time.Time, took time.Duration) {
	m.applied.Inc()
	m.ok.Set(1)
	m.at.Set(float64(at.UnixMilli()) / 1000)
	m.epoch.Set(float64(c.Epoch))
	m.seq.Set(float64(c.Seq))
	m.applySeconds.Observe(took.Seconds())
}

// count counts an exchange that is over.
func (m *metrics) count(x *exchange.Exchange) {
	class := x.Status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	counts, durations := &m.unrouted, &m.durations
	var l *life // none of what has no route
	if r := x.Route; r != nil {
		l = r.Owner.(*life)
		counts, durations = r.Data.(*operationCounts), &l.durations
	}
	counts.classes[class].Add(1)
	durations.Observe(x.Duration)
	if x.Consumer.Record != nil || x.Code == exchange.KeyMissing || x.Code == exchange.KeyInvalid {
		m.keys[outcome(x.Code)].Add(1)
	}
	if x.Code == exchange.CodeNone {
		return
	}
	m.refusals[x.Code].Add(1)
	if l != nil {
		switch x.Code {
		case exchange.RateLimited:
			l.limited[0].Add(1)
		case exchange.QuotaExceeded, exchange.QuotaNoRights:
			l.limited[1].Add(1)
		}
	}
}

// outcome is what a code says about the key; all but some codes say that it was good.
func outcome(c exchange.Code) keyOutcome {
	switch c {
	case exchange.KeyMissing:
		return keyMissing
	case exchange.KeyInvalid:
		return keyInvalid
	case exchange.KeyExpired:
		return keyExpired
	case exchange.Revoked:
		return keyRevoked
	case exchange.NotSubscribed:
		return keyNotSubscribed
	}
	return keyGood
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.requests, m.duration, m.refusal, m.key, m.limited, m.streamsDesc, m.revocations} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What was never counted is left out: there may be tens of thousands of
// operations.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, a := range m.apis() {
		l := a.life
		for _, c := range a.counts {
			m.collectOperation(ch, c, l.organization, l.environment, l.api)
		}
		if l.durations.Count() > 0 {
			ch <- l.durations.Metric(m.duration, l.organization, l.environment, l.api)
		}
		for i, policy := range [...]string{"rateLimit", "quota"} {
			if n := l.limited[i].Load(); n > 0 {
				ch <- counter(m.limited, n, l.organization, l.environment, l.api, policy)
			}
		}
	}
	m.collectOperation(ch, &m.unrouted, other, other, other)
	if m.durations.Count() > 0 {
		ch <- m.durations.Metric(m.duration, other, other, other)
	}
	for _, code := range exchange.Codes() {
		if n := m.refusals[code].Load(); n > 0 {
			ch <- counter(m.refusal, n, code.String())
		}
	}
	for o := range numKeyOutcomes {
		ch <- counter(m.key, m.keys[o].Load(), o.String())
	}
	for _, g := range m.groups() {
		if g.rule == nil || g.rule.RevocationsUntil().IsZero() {
			continue
		}
		until := float64(g.rule.RevocationsUntil().Unix())
		ch <- prometheus.MustNewConstMetric(m.revocations, prometheus.GaugeValue, until, g.spec.Organization, g.spec.Name)
	}
	ch <- prometheus.MustNewConstMetric(m.streamsDesc, prometheus.GaugeValue, float64(m.streams.count()))
}

func (m *metrics) collectOperation(ch chan<- prometheus.Metric, c *operationCounts, organization, environment, api string) {
	for i, class := range [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		if n := c.classes[i].Load(); n > 0 {
			ch <- counter(m.requests, n, organization, environment, api, c.name, class)
		}
	}
}

func counter(desc *prometheus.Desc, n uint64, labels ...string) prometheus.Metric {
	m, err := prometheus.NewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}
