package http1

import (
	"errors"

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
	if r != nil {
		m.conns, m.parked, m.panics = registered(r, m.conns), registered(r, m.parked), registered(r, m.panics)
	}
	faults := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_http1_malformed_requests_total", Help: "Requests that were refused while they were read, by the code of the refusal.",
	}, []string{"code"})
	if r != nil {
		faults = registered(r, faults)
	}
	for _, code := range exchange.Codes() {
		if code <= exchange.NotImplemented || code == exchange.Overloaded {
			m.faults[code] = faults.WithLabelValues(code.String())
		}
	}
	return m
}

// registered registers c, or returns what another server has registered: there is one for every listener.
func registered[C prometheus.Collector](r prometheus.Registerer, c C) C {
	err := r.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return already.ExistingCollector.(C)
	}
	if err != nil {
		panic(err) // as MustRegister does: it is a mistake in the program
	}
	return c
}
