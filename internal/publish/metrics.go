package publish

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	compileSeconds prometheus.Histogram
	roundSeconds   prometheus.Histogram
	failures       prometheus.Counter
}

func newMetrics(r prometheus.Registerer, p *Publisher) (*metrics, error) {
	m := &metrics{
		compileSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_publish_compile_seconds", Help: "How long the compilation of a state took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		roundSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_publish_round_seconds", Help: "How long it took to compile, sign and hand over what was pending.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_publish_failures_total", Help: "Rounds that did not publish all they should.",
		}),
	}
	record := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hansa_publish_record_seq", Help: "Sequence number of the newest version of the record.",
	}, func() float64 { return float64(p.opts.Record.State().Version().Seq) })
	published := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hansa_publish_published_seq", Help: "Sequence number of the newest version that was published.",
	}, p.newest)
	stuck := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hansa_publish_stuck_state", Help: "Whether the newest version of the record cannot be published; somebody must look into it.",
	}, func() float64 {
		if p.Err() != nil {
			return 1
		}
		return 0
	})
	var errs []error
	for _, c := range []prometheus.Collector{m.compileSeconds, m.roundSeconds, m.failures, record, published, stuck} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics of the publisher: %w", err)
	}
	return m, nil
}

// newest is the highest sequence number that was published.
func (p *Publisher) newest() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var seq uint64
	for _, c := range p.published {
		seq = max(seq, c.Checkpoint.Seq)
	}
	return float64(seq)
}
