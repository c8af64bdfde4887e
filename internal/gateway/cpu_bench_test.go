package gateway

import (
	"syscall"
	"testing"
	"time"
)

// processorTime is what the process has used, user and system. It is what benchmarks of this package report beside the
// time on the wall, which others on the machine have a part in.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// measure runs f for every iteration and reports the processor time of one.
func measure(b *testing.B, f func()) {
	b.Helper()
	b.ReportAllocs()
	n := 0
	began := processorTime(b)
	for b.Loop() {
		f()
		n++
	}
	b.ReportMetric(float64(processorTime(b)-began)/float64(n), "cpu-ns/op")
}
