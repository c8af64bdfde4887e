package http2

import (
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h2"
	"hansa.dev/hansa/internal/telemetry"
)

type metrics struct {
	conns   prometheus.Gauge
	parked  prometheus.Gauge
	refused prometheus.Counter
	resets  prometheus.Counter
	faults  [256]prometheus.Counter         // by exchange.Code: requests that were refused before they had a route
	errors  [h2.ErrCodes]prometheus.Counter // by h2.ErrCode: connections that ended by a fault of the client
	panics  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		conns: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_http2_connections", Help: "Open connections of clients that speak HTTP/2.",
		}),
		parked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_http2_parked_connections", Help: "Idle HTTP/2 connections that have given back their buffers.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_http2_refused_streams_total", Help: "Streams that were refused since too many of their connection are being served.",
		}),
		resets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_http2_reset_streams_total", Help: "Streams that the client has reset before their response was complete.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_http2_panics_total", Help: "Streams that ended with a panic, which is always a fault of the gateway.",
		}),
	}
	faults := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_http2_malformed_requests_total", Help: "Requests that were refused while they were read, by the code of the refusal.",
	}, []string{"code"})
	errs := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hansa_http2_connection_errors_total", Help: "HTTP/2 connections that were ended for a fault of the client, by the code that the client was told.",
	}, []string{"code"})
	m.conns, m.parked, m.panics = telemetry.Register(r, m.conns), telemetry.Register(r, m.parked), telemetry.Register(r, m.panics)
	m.refused, m.resets = telemetry.Register(r, m.refused), telemetry.Register(r, m.resets)
	faults, errs = telemetry.Register(r, faults), telemetry.Register(r, errs)
	for _, code := range exchange.Codes() {
		if code <= exchange.NotImplemented {
			m.faults[code] = faults.WithLabelValues(code.String())
		}
	}
	for code := range h2.ErrCodes {
		m.errors[code] = errs.WithLabelValues(h2.ErrCode(code).String())
	}
	return m
}
