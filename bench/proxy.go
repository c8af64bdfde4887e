package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// The cases of proxy.
const (
	casePlain    = "plain"
	caseKeyQuota = "key+quota"
)

// The sizes of key+quota.
const (
	keyQuotaKeys         = 10_000
	keyQuotaApplications = 1_000
)

// scrapeEvery is how often metrics are read while key+quota is measured.
const scrapeEvery = 5 * time.Second

// proxyCase is one case of proxy: the same load on every subject that has it, round by round.
type proxyCase struct {
	name string
	// peers tells whether the peers run this case too. If not, hansa is compared with what they do in plain.
	peers bool
	// limit is the bar: the CPU for one request, divided by nginx's in plain.
	limit         float64
	informational bool
}

func proxyCases() []proxyCase {
	return []proxyCase{
		{name: casePlain, peers: true, limit: 1.0, informational: true},
		{name: caseKeyQuota, limit: 1.25},
	}
}

// subject is one server under one case.
type subject struct {
	proxyCase
	name, version string
	addr          string
	process       *process
	load          load
	script        string // of wrk
	// check is called after the last round with the sum of what wrk counted, warm-up included. nil: nothing to check.
	check func(context.Context, sample) error

	warmUp  *sample // before the first round
	samples []sample
	cpu     []float64 // µs for one request, by round
	rss     int64
}

// measureProxy runs the named cases and adds their results and bars to r.
func measureProxy(ctx context.Context, o options, names []string, r *report) error {
	programs := map[string]string{"wrk": "wrk", "nginx": "nginx-light"} // nginx is the backend, too
	for _, p := range peerSpecs() {
		if slices.Contains(o.peers, p.name) {
			programs[p.argv[0]] = p.pkg
		}
	}
	if err := need(programs); err != nil {
		return err
	}
	subjects, stop, err := startSubjects(ctx, o, names)
	defer stop()
	if err != nil {
		return err
	}
	o.progress("%d rounds of %d s for each of %d subjects", o.rounds, o.seconds, len(subjects))
	for round := range o.rounds {
		for _, s := range subjects {
			if err := s.round(ctx, o); err != nil {
				return fmt.Errorf("%s %s, round %d: %w", s.proxyCase.name, s.name, round+1, err)
			}
		}
	}
	for _, s := range subjects {
		if s.check != nil {
			if err := s.check(ctx, total(append(s.samples, *s.warmUp))); err != nil {
				return fmt.Errorf("%s %s: %w", s.proxyCase.name, s.name, err)
			}
		}
		r.Results = append(r.Results, s.result())
	}
	judgeProxy(r)
	return nil
}

// judgeProxy fills in the ratios and the bars of proxy.
func judgeProxy(r *report) {
	for _, c := range proxyCases() {
		for i := range r.Results {
			x := &r.Results[i]
			if x.Case != c.name {
				continue
			}
			for _, peer := range peerSpecs() {
				base := r.find(c.name, peer.name)
				if !c.peers {
					base = r.find(casePlain, peer.name)
				}
				if base != nil && base.Subject != x.Subject && base.CPU.Median > 0 {
					if x.Ratio == nil {
						x.Ratio = map[string]float64{}
					}
					x.Ratio[peer.name] = x.CPU.Median / base.CPU.Median
				}
			}
		}
		if x := r.find(c.name, subjectHansa); x != nil && x.Ratio["nginx"] > 0 {
			b := newBar(c.name+" CPU / nginx plain", c.limit, x.Ratio["nginx"])
			b.Informational = c.informational
			r.Bars = append(r.Bars, b)
		}
	}
}

// startSubjects starts the backend, the peers and hansa for the named cases. stop ends them all, also after an error.
func startSubjects(ctx context.Context, o options, names []string) (subjects []*subject, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, f := range slices.Backward(stops) {
			f()
		}
	}
	backend, err := startServer(ctx, o.dir, "backend", backendConfig, "", o.cores, "nginx", "-e", "stderr", "-p", ".", "-c")
	if err != nil {
		return nil, stop, err
	}
	stops = append(stops, backend.stop)
	plain := load{host: proxyHost, path: plainPath, connections: o.connections}
	for _, p := range peerSpecs() {
		if !slices.Contains(o.peers, p.name) {
			continue
		}
		s, err := startServer(ctx, o.dir, p.name, p.config, backend.addr, o.cores, p.argv...)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, s.stop)
		subjects = append(subjects, &subject{
			proxyCase: proxyCases()[0], name: p.name, version: p.findVersion(ctx), addr: s.addr, process: s.process, load: plain,
		})
	}
	if slices.Contains(o.subjects, subjectHansa) {
		of, end, err := startHansaSubjects(ctx, o, names, backend.addr)
		stops = append(stops, end)
		if err != nil {
			return nil, stop, err
		}
		subjects = append(subjects, of...)
	}
	for _, s := range subjects {
		dir := filepath.Join(o.dir, "wrk-"+s.name+"-"+s.proxyCase.name)
		if s.script, err = s.load.script(dir); err != nil {
			return nil, stop, err
		}
	}
	return subjects, stop, nil
}

// round puts load on s once, after a shorter warm-up before the first, and keeps what was seen.
func (s *subject) round(ctx context.Context, o options) error {
	if s.warmUp == nil {
		sample, err := s.load.run(ctx, s.addr, s.script, o.warmUp())
		if err != nil {
			return err
		}
		s.warmUp = &sample
	}
	before, err := s.process.usage()
	if err != nil {
		return err
	}
	sample, err := s.load.run(ctx, s.addr, s.script, time.Duration(o.seconds)*time.Second)
	if err != nil {
		return err
	}
	after, err := s.process.usage()
	if err != nil {
		return err
	}
	if sample.Requests == 0 {
		return errors.New("no request was answered")
	}
	cpu := float64((after.cpu - before.cpu).Microseconds()) / float64(sample.Requests)
	s.samples, s.cpu, s.rss = append(s.samples, sample), append(s.cpu, cpu), after.rss
	o.progress("%-10s %-8s %7.0f requests/s, %6.2f µs CPU a request", s.proxyCase.name, s.name, sample.rps(), cpu)
	return nil
}

func (s sample) rps() float64 { return float64(s.Requests) / (float64(s.Micros) / 1e6) }

// total adds up the requests of several rounds.
func total(samples []sample) sample {
	var t sample
	for _, x := range samples {
		t.Requests += x.Requests
		t.Errors += x.Errors
	}
	return t
}

func (s *subject) result() result {
	of := func(f func(sample) float64) float64 {
		var values []float64
		for _, x := range s.samples {
			values = append(values, f(x))
		}
		return median(values)
	}
	sum := total(s.samples)
	return result{
		Case: s.proxyCase.name, Subject: s.name, Version: s.version, Requests: sum.Requests, Errors: sum.Errors,
		RPS: of(sample.rps),
		P50: of(func(x sample) float64 { return x.P50 }),
		P99: of(func(x sample) float64 { return x.P99 }),
		CPU: spreadOf(s.cpu), RSS: s.rss,
	}
}
