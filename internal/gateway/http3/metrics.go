package http3

import (
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/telemetry"
)

type metrics struct {
	conns   prometheus.Gauge
	refused prometheus.Counter
	panics  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		conns: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_http3_connections", Help: "Open connections of clients that speak HTTP/3, handshakes included.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_http3_refused_connections_total", Help: "Connections that were refused because there were too many.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_http3_panics_total", Help: "Requests that ended with a panic of the engine, which is always a fault of the gateway.",
		}),
	}
	m.conns, m.refused, m.panics = telemetry.Register(r, m.conns), telemetry.Register(r, m.refused), telemetry.Register(r, m.panics)
	return m
}
