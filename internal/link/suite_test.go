package link_test

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"hansa.dev/hansa/internal/link/linktest"
)

// TestSuiteInMemory runs the suite with the default times and a delay of 30 s each way.
func TestSuiteInMemory(t *testing.T) {
	t.Parallel()
	for _, b := range linktest.Behaviours() {
		t.Run(b.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { b.Run(t, linktest.Memory(t)) })
		})
	}
}

// TestSuiteLoopback runs the suite over real connections. HANSA_SLOW=1 makes the delay 30 s each way there too.
func TestSuiteLoopback(t *testing.T) {
	t.Parallel()
	slow := os.Getenv("HANSA_SLOW") == "1"
	delay := 40 * time.Millisecond
	if slow {
		delay = 30 * time.Second
	}
	for _, b := range linktest.Behaviours() {
		if b.Slow && !slow {
			continue // takes as long as the keepalive; in memory, where time is virtual, it always runs
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			b.Run(t, linktest.Loopback(t, delay))
		})
	}
}
