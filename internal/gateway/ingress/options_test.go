package ingress

import (
	"testing"
	"time"
)

// TestPatience bounds the time for a body by what has come of it, whatever its length.
func TestPatience(t *testing.T) {
	t.Parallel()
	o := Timeouts{Body: 30 * time.Second, MinRate: 100}
	for _, tt := range []struct {
		received     int64
		waited, want time.Duration
	}{
		{0, 0, 30 * time.Second},
		{0, 20 * time.Second, 10 * time.Second},
		{150, 20 * time.Second, 11500 * time.Millisecond},
		{150, 40 * time.Second, 1},
		{1000, 20 * time.Second, 20 * time.Second},
		{10 << 30, time.Hour, 30 * time.Second},
		{1 << 60, 300 * time.Hour, 30 * time.Second},
	} {
		if got := o.Patience(tt.received, tt.waited); got != tt.want {
			t.Errorf("after %d bytes in %v: %v, want %v", tt.received, tt.waited, got, tt.want)
		}
	}
	if o.MinRate = -1; o.Patience(0, time.Hour) != o.Body {
		t.Error("a rate is asked for")
	}
}
