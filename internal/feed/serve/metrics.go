package serve

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/snapshot"
)

type metrics struct {
	headSeq   *prometheus.GaugeVec
	followers *prometheus.GaugeVec
	sentBytes *prometheus.CounterVec
	syncs     *prometheus.CounterVec
	refusals  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, s *Server) (*metrics, error) {
	m := &metrics{
		headSeq: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_feed_head_seq",
			Help: "Sequence number of the newest checkpoint of a view.",
		}, []string{"view"}),
		followers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_feed_followers_count",
			Help: "Gateways that follow their configuration or their credentials now.",
		}, []string{"content"}),
		sentBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_feed_sent_bytes_total",
			Help: "Bytes sent to gateways, by what they are: head, inline, listing or bulk.",
		}, []string{"content", "part"}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_feed_syncs_total",
			Help: "Gateways that asked for what they lack, by how it was found.",
		}, []string{"content", "plan"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_feed_refusals_total",
			Help: "Versions that gateways refused, by code.",
		}, []string{"content", "code"}),
	}
	behind := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hansa_feed_behind_count",
		Help: "Connected gateways that do not run the newest version of their configuration and credentials.",
	}, s.behind)
	var errs []error
	for _, c := range []prometheus.Collector{m.headSeq, m.followers, m.sentBytes, m.syncs, m.refusals, behind} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics of the feed: %w", err)
	}
	return m, nil
}

func (m *metrics) sent(kind viewKind, part string, n int) {
	if n > 0 {
		m.sentBytes.WithLabelValues(kind.String(), part).Add(float64(n))
	}
}

func (m *metrics) synced(kind viewKind, plan linkv1.Plan_Kind) {
	names := map[linkv1.Plan_Kind]string{
		linkv1.Plan_KIND_CURRENT: "current", linkv1.Plan_KIND_CHANGES: "changes", linkv1.Plan_KIND_COMPARE: "compare",
	}
	m.syncs.WithLabelValues(kind.String(), names[plan]).Inc()
}

// refused counts a refusal. The code comes from a gateway, so that only known ones become a label.
func (m *metrics) refused(kind viewKind, code string) {
	known := []string{
		snapshot.RefusedSignature, snapshot.RefusedCluster, snapshot.RefusedOlder, snapshot.RefusedForked,
		snapshot.RefusedContent, snapshot.RefusedReader, snapshot.RefusedCannotRun,
	}
	if !slices.Contains(known, code) {
		code = "_other"
	}
	m.refusals.WithLabelValues(kind.String(), code).Inc()
}

// behind counts the connected gateways that are not current.
func (s *Server) behind() float64 {
	n := 0
	for _, g := range s.Gateways() {
		if g.Link && !g.Current {
			n++
		}
	}
	return float64(n)
}
