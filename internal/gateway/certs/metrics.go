package certs

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics tells about the certificates of a store.
type metrics struct {
	mu     sync.Mutex
	stores map[*Store]struct{} // guarded by mu

	lookups                   *prometheus.CounterVec
	found, byDefault, unknown prometheus.Counter
	faults                    *prometheus.CounterVec
	staples                   *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		stores: map[*Store]struct{}{},
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_tls_certificate_lookups_total",
			Help: "Handshakes by the certificate that was chosen: one for the name, the default one, or none.",
		}, []string{"result"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_tls_certificate_faults_total",
			Help: "Certificates that could not be read, by source; the ones before them stay in use.",
		}, []string{"source"}),
		staples: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_tls_ocsp_requests_total",
			Help: "Questions to OCSP responders, by what came of them.",
		}, []string{"result"}),
	}
	m.found = m.lookups.WithLabelValues("found")
	m.byDefault = m.lookups.WithLabelValues("default")
	m.unknown = m.lookups.WithLabelValues("none")
	return m
}

var (
	entriesDesc = prometheus.NewDesc("hansa_tls_certificate_entries", "Certificates that the gateway holds, by source.",
		[]string{"source"}, nil)
	expiryDesc = prometheus.NewDesc("hansa_tls_certificate_expiry_timestamp_seconds",
		"When the first of the certificates of a source expires, in Unix time.", []string{"source"}, nil)
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- entriesDesc
	ch <- expiryDesc
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.stores {
		for _, c := range s.counts() {
			if s.opts.Name != "" {
				c.source += ":" + s.opts.Name
			}
			ch <- prometheus.MustNewConstMetric(entriesDesc, prometheus.GaugeValue, float64(c.entries), c.source)
			if c.entries > 0 {
				ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(c.expires), c.source)
			}
		}
	}
}

func (m *metrics) add(s *Store) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stores[s] = struct{}{}
}

func (m *metrics) remove(s *Store) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.stores, s)
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m, m.lookups, m.faults, m.staples} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register the metrics of certificates: %w", err)
		}
	}
	return nil
}
