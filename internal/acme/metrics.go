package acme

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
)

// metrics are those of one Worker.
type metrics struct {
	orders, failures, requests *prometheus.CounterVec
	seconds                    prometheus.Histogram
	certificates, expiry       *prometheus.Desc

	record Record
	now    func() time.Time
}

func newMetrics(r prometheus.Registerer, record Record, now func() time.Time) (*metrics, error) {
	m := &metrics{
		record: record, now: now,
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_acme_attempts_total", Help: "Attempts to have a certificate issued by a CA, by result: issued or failed.",
		}, []string{"result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_acme_failures_total", Help: "Attempts to have a certificate issued that failed, by reason.",
		}, []string{"reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_acme_requests_total", Help: "Requests to CAs, by class of status, or error if there was no answer.",
		}, []string{"code"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_acme_issue_duration_seconds", Help: "How long attempts took that had a certificate issued.",
			Buckets: []float64{.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}),
		certificates: prometheus.NewDesc("hansa_acme_certificates_current",
			"Certificates that come from CAs, by state: issued, pending or failed; failed ones may still be served.", []string{"state"}, nil),
		expiry: prometheus.NewDesc("hansa_acme_certificates_next_expiry_timestamp_seconds",
			"When the first of the certificates that came from CAs expires.", nil, nil),
	}
	for _, c := range []prometheus.Collector{m.orders, m.failures, m.requests, m.seconds, m} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.certificates; ch <- m.expiry }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	state := m.record.State()
	counts := map[string]int{"issued": 0, "pending": 0, "failed": 0}
	var first time.Time
	for o := range state.List(v1.KindCertificate, "", "") {
		spec := o.Spec.(*v1.CertificateSpec)
		if spec.ACME == nil {
			continue
		}
		key, order := keyOf(state, o.Key()), orderOf(state, o.Key())
		switch {
		case order != nil && order.Failures > 0:
			counts["failed"]++
		case issued(spec, key):
			counts["issued"]++
		default:
			counts["pending"]++
		}
		if key != nil && (first.IsZero() || key.NotAfter.Before(first)) {
			first = key.NotAfter
		}
	}
	for name, n := range counts {
		ch <- prometheus.MustNewConstMetric(m.certificates, prometheus.GaugeValue, float64(n), name)
	}
	if !first.IsZero() {
		ch <- prometheus.MustNewConstMetric(m.expiry, prometheus.GaugeValue, float64(first.Unix()))
	}
}
