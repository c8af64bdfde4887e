package gateway

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/gateway/accesslog"
)

// names is a registerer that notes what the metrics are called.
type names struct {
	prometheus.Registerer
	list []string
}

func (n *names) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc, 100)
	c.Describe(ch)
	close(ch)
	fqName := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range ch {
		n.list = append(n.list, fqName.FindStringSubmatch(d.String())[1])
	}
	return nil
}

// The reference page lists the metrics that there are.
func TestReferenceListsTheMetrics(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile(`\bhansa_[a-z0-9_]+`).FindAllString(string(page), -1)
	n := new(names)
	newGuard(nil, n)
	if _, err := newMetrics(n, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	w, err := accesslog.New(accesslog.Options{Metrics: n})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(listed)
	slices.Sort(n.list)
	if diff := cmp.Diff(n.list, slices.Compact(listed)); diff != "" {
		t.Errorf("metrics in docs/reference/gateway.md (-there are +listed):\n%s", diff)
	}
}
