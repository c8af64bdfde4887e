package telemetry

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// NewLogger returns a logger of lines of key=value pairs, or of JSON.
func NewLogger(w io.Writer, level slog.Leveler, json bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Throttle lets the first of equal events through in every interval and counts the rest. Keys come from code or
// configuration, not from requests, so there is no end of the table to fear.
type Throttle struct {
	interval time.Duration

	mu   sync.Mutex
	seen map[string]*throttled // guarded by mu
}

type throttled struct {
	last       time.Time
	suppressed int
}

// NewThrottle returns a Throttle with that interval.
func NewThrottle(interval time.Duration) *Throttle {
	return &Throttle{interval: interval, seen: make(map[string]*throttled)}
}

// Allow tells whether an event at the time now may be logged, and how many were not since the last one that was.
func (t *Throttle) Allow(key string, now time.Time) (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.seen[key]
	switch {
	case e == nil:
		t.seen[key] = &throttled{last: now}
		return 0, true
	case now.Sub(e.last) < t.interval:
		e.suppressed++
		return 0, false
	}
	suppressed = e.suppressed
	*e = throttled{last: now}
	return suppressed, true
}
