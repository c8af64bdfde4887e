package upstream

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the counters of all endpoints when metrics are asked for. The counting itself is plain atomics, and what
// is gone from the configuration is gone from the metrics.
type collector struct{ r *Registry }

var endpointLabels = []string{"organization", "backend", "endpoint"}

var (
	descRequests = prometheus.NewDesc("hansa_upstream_requests_total",
		"Requests sent to an endpoint, tries included.", endpointLabels, nil)
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
		"Whether the endpoint takes its turn (1) or is passed over since it could not be connected to (0).", endpointLabels, nil)
)

// Describe implements prometheus.Collector.
func (*collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRequests, descReused, descErrors, descDials, descConnect, descConns, descUp} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	now := c.r.opts.Sweeper.Now()
	for _, b := range c.r.list() {
		seen := map[*endpoint]bool{}
		for _, e := range b.settings.Load().endpoints {
			if seen[e] {
				continue // named twice
			}
			seen[e] = true
			labels := []string{b.key.organization, b.key.name, e.address}
			counter := func(d *prometheus.Desc, v float64, more ...string) {
				ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, append(labels[:3:3], more...)...)
			}
			gauge := func(d *prometheus.Desc, v int, more ...string) {
				ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), append(labels[:3:3], more...)...)
			}
			counter(descRequests, float64(e.requests.Load()))
			counter(descReused, float64(e.reused.Load()))
			counter(descDials, float64(e.dials.Load()))
			counter(descConnect, time.Duration(e.connectNanos.Load()).Seconds())
			for i, code := range errorCodes {
				counter(descErrors, float64(e.errors[i].Load()), code.String())
			}
			used, idle := e.counts()
			gauge(descConns, used, "used")
			gauge(descConns, idle, "idle")
			up := 0
			if e.available(now) {
				up = 1
			}
			gauge(descUp, up)
		}
	}
}
