package httpdate

import (
	"testing"
	"time"
)

func TestAt(t *testing.T) {
	var c Clock
	at := time.Date(2026, 11, 22, 5, 6, 7, 8, time.FixedZone("", 3600))
	for _, want := range []string{"Sun, 22 Nov 2026 04:06:07 GMT", "Sun, 22 Nov 2026 04:06:08 GMT"} {
		if got := c.At(at); got != want || c.At(at.Add(time.Millisecond)) != want {
			t.Errorf("At(%v) = %q, want %q", at, got, want)
		}
		if n := testing.AllocsPerRun(100, func() { c.At(at) }); n != 0 {
			t.Errorf("%v allocations within a second, want 0", n)
		}
		at = at.Add(time.Second)
	}
}
