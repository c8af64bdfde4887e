package handshake

import (
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/telemetry"
)

type metrics struct {
	results  *prometheus.CounterVec
	duration prometheus.Histogram
	pending  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_tls_handshakes_total",
			Help: "Handshakes, by what became of them: full, resumed, failed, timeout, refused since there were too many, or challenge of ACME.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "hansa_tls_handshake_duration_seconds",
			Help:    "How long the handshakes took that succeeded, the client's part included.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_tls_pending_handshakes",
			Help: "Handshakes that are under way.",
		}),
	}
	m.results, m.duration, m.pending = telemetry.Register(r, m.results), telemetry.Register(r, m.duration), telemetry.Register(r, m.pending)
	for _, result := range []string{"full", "resumed", "failed", "timeout", "refused", "challenge"} {
		m.results.WithLabelValues(result)
	}
	return m
}

func (m *metrics) count(c *Conn, err error, took time.Duration) {
	var timeout net.Error
	result := "failed"
	switch {
	case err == nil:
		m.duration.Observe(took.Seconds())
		result = "full"
		if c.session.Resumed {
			result = "resumed"
		}
	case errors.Is(err, errBusy) || errors.Is(err, errClosed) || c.transport.evicted.Load():
		result = "refused"
	case errors.Is(err, errChallenge):
		result = "challenge"
	case errors.As(err, &timeout) && timeout.Timeout():
		result = "timeout"
	}
	m.results.WithLabelValues(result).Inc()
}
