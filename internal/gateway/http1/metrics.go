package http1

import (
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
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
	faults := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_http1_malformed_requests_total", Help: "Requests that were refused while they were read, by the code of the refusal.",
	}, []string{"code"})
	for _, code := range exchange.Codes() {
		if code <= exchange.NotImplemented || code == exchange.Overloaded {
			m.faults[code] = faults.WithLabelValues(code.String())
		}
	}
	if r != nil {
		r.MustRegister(m.conns, m.parked, m.panics, faults)
	}
	return m
}
