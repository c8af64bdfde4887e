package upstream

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"hansa.dev/hansa/internal/gateway/upstream/probe"
)

// checkTask checks one endpoint again and again.
type checkTask struct {
	stop context.CancelFunc
}

// startCheck starts the checks of an endpoint. Backend.mu is held.
func (e *endpoint) startCheck(s *settings) {
	if s.content.HealthCheck == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.check = &checkTask{cancel}
	e.backend.registry.tasks.Go(func() { e.runChecks(ctx, s) })
}

// stopCheck ends the checks; what they found is forgotten. Backend.mu is held.
func (e *endpoint) stopCheck() {
	if e.check == nil {
		return
	}
	e.check.stop()
	e.check = nil
	e.verdict.Store(unchecked)
	e.backend.outdated()
}

func (e *endpoint) runChecks(ctx context.Context, s *settings) {
	h := s.content.HealthCheck
	o := &e.backend.registry.opts
	p := probe.New(h, e.hostOf(s), s.content.HTTPVersion == "2", func(ctx context.Context, protocol string) (net.Conn, error) {
		return e.dialCheck(ctx, s, protocol)
	})
	interval, timeout := millis(h.IntervalMillis, 10*time.Second), millis(h.TimeoutMillis, 3*time.Second)
	good, bad := 0, 0 // in a row
	// A gateway that starts does not ask all endpoints at the same moment.
	for pause := fraction(min(interval, time.Second), o.Random()); ; pause = interval - fraction(interval*time.Duration(h.JitterPercent)/100, o.Random()) {
		if !sleep(ctx, pause) {
			return
		}
		check, cancel := context.WithTimeout(ctx, timeout)
		err := e.backend.registry.try("checking an endpoint", func() error { return p.Check(check) })
		cancel()
		if ctx.Err() != nil {
			return
		}
		first := e.verdict.Load() == unchecked
		if err == nil {
			e.checks[1].Add(1)
			good, bad = good+1, 0
			if first || good >= h.HealthyAfter {
				e.judged(ctx, healthy, nil)
			}
			continue
		}
		e.checks[0].Add(1)
		good, bad = 0, bad+1
		if first || bad >= h.UnhealthyAfter {
			e.judged(ctx, unhealthy, err)
		}
	}
}

// judged sets the verdict, unless the checks have been stopped, and says so if it is another one.
func (e *endpoint) judged(ctx context.Context, v int32, err error) {
	b := e.backend
	b.mu.Lock()
	if ctx.Err() != nil { // stopCheck holds mu: what comes after it must not count
		b.mu.Unlock()
		return
	}
	old := e.verdict.Load()
	e.setVerdict(v, b.registry.opts.Sweeper.Now())
	b.mu.Unlock()
	log := b.registry.opts.Log.With("backend", b.key.name, "organization", b.key.organization, "endpoint", e.address)
	switch {
	case v == unhealthy && old != unhealthy:
		log.Warn("an endpoint is unhealthy", slog.Any("err", err))
	case v == healthy && old == unhealthy:
		log.Info("an endpoint is healthy again")
	}
}

// hostOf is the Host that checks send if they do not say.
func (e *endpoint) hostOf(s *settings) string {
	if s.host != "" {
		return s.host
	}
	return e.name
}

// dialCheck makes a connection for a check: where the endpoint is, or at a port of its own, and as for requests.
func (e *endpoint) dialCheck(ctx context.Context, s *settings, protocol string) (net.Conn, error) {
	address := e.address
	if port := s.content.HealthCheck.Port; port != 0 {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		address = net.JoinHostPort(host, strconv.Itoa(port))
	}
	nc, err := e.backend.registry.opts.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if v := s.content.ProxyProtocol; v != "" {
		err = introduce(ctx, nc, v, netip.AddrPort{})
	}
	if err == nil && s.tls != nil {
		cfg := e.tlsConfig(s.tls).Clone()
		cfg.NextProtos = []string{protocol}
		tc := tls.Client(nc, cfg)
		if err = tc.HandshakeContext(ctx); err == nil {
			return tc, nil
		}
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return nc, nil
}

// fraction returns a time from 0 to d, at random.
func fraction(d time.Duration, random uint64) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(random % uint64(d))
}

// sleep waits; it returns false if ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
