package etcd

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of one Store.
type metrics struct {
	registerer    prometheus.Registerer
	collectors    []prometheus.Collector
	commitSeconds prometheus.Histogram
	applySeconds  prometheus.Histogram
	changeSets    *prometheus.CounterVec
	piecesWritten prometheus.Counter
	pieceBytes    prometheus.Counter

	piecesCollected prometheus.Counter
	databaseBytes   prometheus.Gauge
	imageTime       atomic.Int64 // Unix nanoseconds; 0: there is no image
}

// The values of the label outcome.
const (
	outcomeCommitted = "committed"
	outcomeConflict  = "conflict"
	outcomeFull      = "storage_full"
	outcomeUnknown   = "unknown"
	outcomeFailed    = "failed"
)

// newMetrics makes the metrics of s and registers them, if there is where.
func newMetrics(r prometheus.Registerer, s *Store) (*metrics, error) {
	latency := prometheus.ExponentialBuckets(0.0005, 2, 16) // 0.5 ms to 16 s
	m := &metrics{
		registerer: r,
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_store_commit_seconds", Buckets: latency,
			Help: "Time that committing a change set took, from the call until the state shows it.",
		}),
		applySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_store_apply_seconds", Buckets: latency,
			Help: "Time that reading a committed change set and deriving the state from it took.",
		}),
		changeSets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_store_change_sets_total",
			Help: "Change sets that this node tried to commit, by outcome.",
		}, []string{"outcome"}),
		piecesWritten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_store_pieces_written_total",
			Help: "Pieces of change sets and images that this node wrote.",
		}),
		pieceBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_store_piece_written_bytes_total",
			Help: "Bytes of the pieces that this node wrote, compressed.",
		}),
	}
	m.piecesCollected = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "hansa_store_pieces_collected_total",
		Help: "Pieces that were deleted because nothing named them any more.",
	})
	m.databaseBytes = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "hansa_store_database_bytes",
		Help: "Size of the file of the embedded etcd, when maintenance last looked.",
	})
	m.collectors = []prometheus.Collector{
		m.commitSeconds, m.applySeconds, m.changeSets, m.piecesWritten, m.pieceBytes, m.piecesCollected, m.databaseBytes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hansa_store_image_age_seconds",
			Help: "Age of the last image of the content; 0 if there is none.",
		}, func() float64 {
			at := m.imageTime.Load()
			if at == 0 {
				return 0
			}
			return s.opts.Now().Sub(time.Unix(0, at)).Seconds()
		}),
		stateGauge(s, "hansa_store_epoch", "Epoch of the state that this node shows.", func(s *Store) float64 { return float64(s.state.Load().Version().Epoch) }),
		stateGauge(s, "hansa_store_seq", "Seq of the state that this node shows.", func(s *Store) float64 { return float64(s.state.Load().Version().Seq) }),
		stateGauge(s, "hansa_store_resources", "Resources in the state.", func(s *Store) float64 { return float64(s.state.Load().Len()) }),
		stateGauge(s, "hansa_store_credentials", "Credentials in the state.", func(s *Store) float64 { return float64(s.state.Load().NumCredentials()) }),
	}
	for _, outcome := range []string{outcomeCommitted, outcomeConflict, outcomeFull, outcomeUnknown, outcomeFailed} {
		m.changeSets.WithLabelValues(outcome)
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range m.collectors {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		m.unregister()
		return nil, err
	}
	return m, nil
}

// stateGauge is a gauge over the state, 0 until it is loaded.
func stateGauge(s *Store, name, help string, value func(*Store) float64) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		if s.state.Load() == nil {
			return 0
		}
		return value(s)
	})
}

// unregister takes the metrics out of the registry, so that the directory can be opened again.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}
