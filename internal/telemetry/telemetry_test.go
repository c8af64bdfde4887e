package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h Histogram
	for _, d := range []time.Duration{0, 500 * time.Microsecond, 501 * time.Microsecond, time.Second, time.Minute} {
		h.Observe(d)
	}
	desc := prometheus.NewDesc("hansa_test_duration_seconds", "A test.", []string{"api"}, nil)
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(collector{desc, h.Metric(desc, "catalog")}); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := families[0].GetMetric()[0].GetHistogram()
	if got.GetSampleCount() != 5 || h.Count() != 5 {
		t.Errorf("%d samples, want 5", got.GetSampleCount())
	}
	if want := 61.001001; got.GetSampleSum() != want {
		t.Errorf("sum %v, want %v", got.GetSampleSum(), want)
	}
	want := map[float64]uint64{0.0005: 2, 0.001: 3, 0.5: 3, 1: 4, 30: 4}
	for _, b := range got.GetBucket() {
		if n, ok := want[b.GetUpperBound()]; ok && n != b.GetCumulativeCount() {
			t.Errorf("%d up to %v s, want %d", b.GetCumulativeCount(), b.GetUpperBound(), n)
		}
	}
	if len(got.GetBucket()) != numBounds {
		t.Errorf("%d buckets, want %d", len(got.GetBucket()), numBounds)
	}
}

// collector is one metric.
type collector struct {
	desc   *prometheus.Desc
	metric prometheus.Metric
}

func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c collector) Collect(ch chan<- prometheus.Metric) { ch <- c.metric }

func TestObserveAllocatesNothing(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

func TestNewLogger(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	log := NewLogger(&buf, slog.LevelWarn, true)
	log.Info("quiet")
	log.Warn("loud", "path", "x")
	if got := buf.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"msg":"loud","path":"x"`) {
		t.Fatalf("logged %q", got)
	}
}

func TestNewRegistry(t *testing.T) {
	t.Parallel()
	r, err := NewRegistry("v1", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "hansa_build_info" {
			return
		}
	}
	t.Fatal("hansa_build_info is missing")
}

func BenchmarkObserve(b *testing.B) {
	b.ReportAllocs()
	var h Histogram
	for b.Loop() {
		h.Observe(3 * time.Millisecond)
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	count := func() prometheus.Counter {
		return Register(r, prometheus.NewCounter(prometheus.CounterOpts{Name: "things_total", Help: "Things."}))
	}
	one, other := count(), count()
	if one != other {
		t.Error("the second is not the first")
	}
	if c := Register[prometheus.Collector](nil, one); c != one {
		t.Error("without a registry another metric is returned")
	}
	defer func() {
		if recover() == nil {
			t.Error("another metric of the same name is taken")
		}
	}()
	Register(r, prometheus.NewGauge(prometheus.GaugeOpts{Name: "things_total", Help: "Other things."}))
}
