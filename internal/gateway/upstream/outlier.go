package upstream

import (
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"hansa.dev/hansa/internal/snapshot"
)

// outlier is what is remembered of the conduct of an endpoint.
type outlier struct {
	errors, fives atomic.Int32 // in a row
	good, all     atomic.Int64 // tries since rates were last compared
	times         atomic.Int32 // that it was ejected, less those forgiven
}

// status takes in the status of a response.
func (o *outlier) status(e *endpoint, s *settings, status int) {
	rules := s.content.Outliers
	if rules.SuccessRateRequests > 0 {
		o.all.Add(1)
		if status < 500 {
			o.good.Add(1)
		}
	}
	o.add(&o.errors, status >= 502 && status <= 504, rules.ConsecutiveErrors, e, s)
	o.add(&o.fives, status >= 500, rules.Consecutive5xx, e, s)
}

// failure takes in a try without a response.
func (o *outlier) failure(e *endpoint, s *settings) {
	rules := s.content.Outliers
	if rules.SuccessRateRequests > 0 {
		o.all.Add(1)
	}
	o.add(&o.errors, true, rules.ConsecutiveErrors, e, s)
	o.add(&o.fives, true, rules.Consecutive5xx, e, s)
}

// add counts what happens in a row, and ejects the endpoint if it is too much.
func (o *outlier) add(row *atomic.Int32, bad bool, most int, e *endpoint, s *settings) {
	switch {
	case most == 0:
	case !bad:
		if row.Load() != 0 {
			row.Store(0)
		}
	case int(row.Add(1)) == most: // once, whoever comes after
		e.backend.eject(e, s)
		row.Store(0)
	}
}

// eject takes an endpoint out for a while, if not too many are out.
func (b *Backend) eject(e *endpoint, s *settings) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ejectLocked(e, s.content.Outliers)
}

func (b *Backend) ejectLocked(e *endpoint, rules *snapshot.Outliers) {
	now := b.registry.opts.Sweeper.Now()
	all, out := 0, 0
	for _, p := range b.places {
		all++
		if time.Duration(p.ejected.Load()) > now {
			if out++; p.endpoint == e {
				return
			}
		}
	}
	if all < 2 || out+1 > max(1, all*rules.MaxEjectedPercent/100) {
		return
	}
	n := min(time.Duration(e.outlier.times.Add(1)), 1000)
	d := min(n*millis(rules.EjectionMillis, 30*time.Second), millis(rules.MaxEjectionMillis, 5*time.Minute))
	e.ejected.Store(int64(now + d))
	e.since.Store(int64(now + d)) // then it starts slowly
	e.ejections.Add(1)
	b.outdated()
	b.registry.opts.Log.Warn("an endpoint is ejected", slog.String("backend", b.key.name), slog.String("organization", b.key.organization),
		slog.String("endpoint", e.address), slog.Duration("for", d))
}

// judge compares the rates of success of all endpoints, if it is time to, and forgives those that did well.
func (b *Backend) judge(now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rules := b.settings.content.Outliers
	if rules == nil || now-b.judged < millis(rules.IntervalMillis, 10*time.Second) {
		return
	}
	b.judged = now
	rates := map[*endpoint]float64{}
	var sum float64
	for _, p := range b.places {
		o := &p.outlier
		good, all := o.good.Swap(0), o.all.Swap(0)
		if n := o.times.Load(); n > 0 && time.Duration(p.ejected.Load()) <= now {
			o.times.Store(n - 1)
		}
		if _, twice := rates[p.endpoint]; !twice && all > 0 && all >= int64(rules.SuccessRateRequests) && rules.SuccessRateRequests > 0 {
			rates[p.endpoint] = float64(good) / float64(all)
			sum += float64(good) / float64(all)
		}
	}
	if len(rates) == 0 || len(rates) < rules.SuccessRateEndpoints {
		return
	}
	mean, variance := sum/float64(len(rates)), 0.
	for _, r := range rates {
		variance += (r - mean) * (r - mean) / float64(len(rates))
	}
	least := mean - math.Sqrt(variance)*float64(rules.SuccessRateDeviations)/1000
	for _, p := range b.places { // in order, so that the bound of ejections hits the same each time
		if r, ok := rates[p.endpoint]; ok && r < least {
			b.ejectLocked(p.endpoint, rules)
		}
	}
}
