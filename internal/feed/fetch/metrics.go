package fetch

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/snapshot"
)

// collector shows the status of the two views as metrics.
type collector struct {
	fetcher *Fetcher

	epoch, seq, issued, age, entries, link, frozen, degraded, received, refusals *prometheus.Desc
}

func registerMetrics(r prometheus.Registerer, f *Fetcher) error {
	content := []string{"content"}
	c := &collector{
		fetcher: f,
		epoch:   prometheus.NewDesc("hansa_fetch_applied_epoch", "Epoch of the version in force.", content, nil),
		seq:     prometheus.NewDesc("hansa_fetch_applied_seq", "Sequence number of the version in force.", content, nil),
		issued:  prometheus.NewDesc("hansa_fetch_issued_timestamp_seconds", "When the checkpoint of the version in force was signed.", content, nil),
		age: prometheus.NewDesc("hansa_fetch_age_seconds",
			"How long ago the version in force was last known to be the newest; -1 if never since the start.", content, nil),
		entries:  prometheus.NewDesc("hansa_fetch_entries_count", "Entries or credentials in force.", content, nil),
		link:     prometheus.NewDesc("hansa_fetch_link_up", "Whether a control node answers.", content, nil),
		frozen:   prometheus.NewDesc("hansa_fetch_frozen_state", "Whether two contents of one version were seen and nothing is taken any more.", content, nil),
		degraded: prometheus.NewDesc("hansa_fetch_degraded_state", "Whether the version in force is not on the disk, or not wholly.", content, nil),
		received: prometheus.NewDesc("hansa_fetch_received_bytes_total", "Bytes received, by what they are: head, inline, listing or bulk.", []string{"content", "part"}, nil),
		refusals: prometheus.NewDesc("hansa_fetch_refusals_total", "Versions that were refused, by code.", []string{"content", "code"}, nil),
	}
	if err := r.Register(c); err != nil {
		return fmt.Errorf("register metrics of the feed: %w", err)
	}
	return nil
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.epoch, c.seq, c.issued, c.age, c.entries, c.link, c.frozen, c.degraded, c.received, c.refusals} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	collect(c, ch, c.fetcher.config)
	collect(c, ch, c.fetcher.credentials)
}

func collect[C snapshot.Content](c *collector, ch chan<- prometheus.Metric, f *follower[C]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, name := &f.status, f.kind.name()
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
	}
	gauge(c.epoch, float64(st.Epoch))
	gauge(c.seq, float64(st.Seq))
	issued := 0.0
	if st.Have {
		issued = float64(st.IssuedAt.UnixMilli()) / 1000
	}
	gauge(c.issued, issued)
	gauge(c.age, st.age(f.opts.Now()))
	gauge(c.entries, float64(st.Count))
	gauge(c.link, truth(st.Link))
	gauge(c.frozen, truth(st.Frozen))
	gauge(c.degraded, truth(st.Degraded != ""))
	for part, n := range f.received {
		ch <- prometheus.MustNewConstMetric(c.received, prometheus.CounterValue, float64(n), name, part)
	}
	for code, n := range f.refusals {
		ch <- prometheus.MustNewConstMetric(c.refusals, prometheus.CounterValue, float64(n), name, code)
	}
}

// age is how long ago the content was last known to be the newest, in seconds.
func (st *ViewStatus) age(now time.Time) float64 {
	switch {
	case st.Confirmed.IsZero():
		return -1
	case st.Link && st.Refusal == nil:
		return 0
	}
	return now.Sub(st.Confirmed).Seconds()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
