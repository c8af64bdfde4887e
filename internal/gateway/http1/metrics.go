package http1

import (
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/telemetry"
)

type metrics struct {
	conns  prometheus.Gauge
	parked prometheus.Gauge
	faults [256]prometheus.Counter // by exchange.Code: requests that were refused before they had a route
	panics prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		conns: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_http1_connections", Help: "Open connections of clients that speak HTTP/1.",
		}),
		parked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_http1_parked_connections", Help: "Idle connections that have given back their buffers.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_http1_panics_total", Help: "Connections that ended with a panic, which is always a fault of the gateway.",
		}),
	}
	m.conns, m.parked, m.panics = telemetry.Register(r, m.conns), telemetry.Register(r, m.parked), telemetry.Register(r, m.panics)
	faults := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_http1_malformed_requests_total", Help: "Requests that were refused while they were read, by the code of the refusal.",
	}, []string{"code"})
	faults = telemetry.Register(r, faults)
	for _, code := range exchange.Codes() {
		if code <= exchange.NotImplemented || code == exchange.Overloaded {
			m.faults[code] = faults.WithLabelValues(code.String())
		}
	}
	return m
}
