package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns the registry of a process, with the metrics of the Go runtime and of the process itself.
// version is shown as a label of hansa_build_info.
func NewRegistry(version, role string) (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "hansa_build_info", Help: "Always 1; the labels tell what runs here.",
		ConstLabels: prometheus.Labels{"version": version, "role": role},
	})
	info.Set(1)
	for _, c := range []prometheus.Collector{
		info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the process: %w", err)
		}
	}
	return r, nil
}
