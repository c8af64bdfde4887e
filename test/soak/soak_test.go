package soak

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"os"
	"testing"
	"time"

	"hansa.dev/hansa/internal/gateway"
)

// shortSoak is how long the ordinary tests run.
const shortSoak = 20 * time.Second

// TestSoak changes everything about a gateway under traffic.
func TestSoak(t *testing.T) {
	duration := shortSoak
	if text := os.Getenv("HANSA_SOAK"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("HANSA_SOAK: %v", err)
		}
	}
	r := newRig(t)
	all := protocols()
	tr := startTraffic(r, all)
	t.Cleanup(func() { tr.once.Do(func() { close(tr.stop) }); tr.workers.Wait() })
	mem := make(map[int][]int64) // resident memory by process, every second
	pid := r.pid()
	var retired []int
	upgrades := []time.Duration{duration / 3, 2 * duration / 3}
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; time.Since(began) < duration; n++ {
		<-tick.C
		r.change(n)
		if len(upgrades) > 0 && time.Since(began) > upgrades[0] {
			upgrades = upgrades[1:]
			retired = append(retired, r.upgrade())
			pid = r.pid()
		}
		mem[pid] = append(mem[pid], rss(pid))
	}
	tr.end(t, all)
	for _, pid := range retired {
		eventually(t, "the end of a process that has handed over", gone(pid))
	}
	if len(retired) != 2 {
		t.Errorf("%d upgrades", len(retired))
	}
	for pid, samples := range mem {
		checkMemory(t, pid, samples)
	}
}

// change makes the changes of second n.
func (r *rig) change(n int) {
	r.t.Helper()
	r.apply(r.backend(n))
	eventually(r.t, "configuration", func() error { return r.marked(n) })
	ctx := r.t.Context()
	switch n % 4 {
	case 0:
		serial := r.newCertificate()
		eventually(r.t, "certificate", func() error { return r.shows(serial) })
	case 1:
		if _, err := r.admin.AddListener(ctx, gateway.Listener{Name: "extra", Address: "127.0.0.1:0"}); err != nil {
			r.t.Errorf("add a listener: %v", err)
		}
	case 2:
		if _, err := r.admin.SetLogLevel(ctx, []string{"debug", "info"}[n/4%2]); err != nil {
			r.t.Errorf("log level: %v", err)
		}
	case 3:
		if _, err := r.admin.RemoveListener(ctx, "extra"); err != nil {
			r.t.Errorf("remove a listener: %v", err)
		}
		if _, err := r.admin.Reload(ctx); err != nil {
			r.t.Errorf("reload: %v", err)
		}
	}
}

// marked returns nil once change n is in force.
func (r *rig) marked(n int) error {
	c, err := r.dial("http")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = get(c, bufio.NewReader(c), "/marker", fmt.Sprint(n))
	return err
}

// shows returns nil once new connections see the certificate with that number.
func (r *rig) shows(serial int64) error {
	c, err := r.open("https")
	if err != nil {
		return err
	}
	defer c.Close()
	if got := c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != serial {
		return fmt.Errorf("certificate %d, want %d", got, serial)
	}
	return nil
}

// checkMemory fails the test if the memory of a process grows: if the line through the samples, but for the first fifth,
// rises by more than a tenth of their mean and 8 MiB.
func checkMemory(t testing.TB, pid int, samples []int64) {
	t.Helper()
	samples = samples[len(samples)/5:]
	if len(samples) < 30 {
		return // nothing can be told of so few
	}
	var sumX, sumY, sumXX, sumXY float64
	for i, y := range samples {
		x := float64(i)
		sumX, sumY, sumXX, sumXY = sumX+x, sumY+float64(y), sumXX+x*x, sumXY+x*float64(y)
	}
	n := float64(len(samples))
	rise := (n*sumXY - sumX*sumY) / (n*sumXX - sumX*sumX) * n
	mean := sumY / n
	t.Logf("process %d: %.1f MiB on average over %d s, trend %+.1f MiB", pid, mean/(1<<20), len(samples), rise/(1<<20))
	if rise > mean/10+8<<20 {
		t.Errorf("process %d grows by %.1f MiB in %d s", pid, rise/(1<<20), len(samples))
	}
}
