package control

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of one Server.
type metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	commits   *prometheus.CounterVec
	conflicts prometheus.Counter
	changes   prometheus.Counter
	keys      prometheus.Counter
	watches   prometheus.Gauge
	panics    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_control_requests_total",
			Help: "Requests to the control API by route and status code.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hansa_control_request_duration_seconds",
			Help:    "Time from the head of a request to the end of its answer, by route; watches and backups are not counted.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_control_commits_total",
			Help: "Change sets by their result: committed, unchanged, refused, conflict or failed.",
		}, []string{"result"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_control_commit_conflicts_total",
			Help: "Attempts to commit that began again because the record had moved on.",
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_control_changed_resources_total",
			Help: "Resources created, updated or deleted through the control API.",
		}),
		keys: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_control_changed_keys_total",
			Help: "Keys of subscriptions created, imported, changed or revoked through the control API.",
		}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hansa_control_watches_open",
			Help: "Watches that are open.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_control_panics_total",
			Help: "Requests that ended in a fault of the program and were answered with 500.",
		}),
	}
	reg.MustRegister(m.requests, m.seconds, m.commits, m.conflicts, m.changes, m.keys, m.watches, m.panics)
	return m
}

func (m *metrics) answered(rt *route, q *request, took time.Duration) {
	m.requests.WithLabelValues(rt.label(), strconv.Itoa(q.w.status)).Inc()
	if !rt.stream && !q.stream {
		m.seconds.WithLabelValues(rt.label()).Observe(took.Seconds())
	}
}
