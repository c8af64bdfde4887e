package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// The sizes of key+quota.
const (
	keyQuotaKeys         = 10_000
	keyQuotaApplications = 1_000
)

// scrapeEvery is how often metrics are read while key+quota is measured.
const scrapeEvery = 5 * time.Second

// subject is one server under one case.
type subject struct {
	proxyCase
	name, version string
	process       *process
	at            place
	load          load
	// check is called after the last round with the sum of what the load counted, warm-up included. nil: nothing to check.
	check func(context.Context, sample) error

	warmUp  *sample // before the first round
	samples []sample
	cpu     []float64 // µs for one request, by round
	rss     int64
	figures map[string]float64
}

// rig is everything that the cases of proxy need: the backends, the peers and hansa.
type rig struct {
	o       options
	peers   []peerSpec
	running map[string]*server // peers by name
	version map[string]string  // of the peers
	params  serverParams
	cert    certificate
	hansas  hansas
	stops   []func()
}

// newRig starts the backends. stop ends everything, also after an error.
func newRig(ctx context.Context, o options) (*rig, error) {
	r := &rig{o: o, running: map[string]*server{}, version: map[string]string{}}
	programs := map[string]string{"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light"} // nginx is the backend, too
	envoy := ""
	if slices.Contains(o.peers, peerEnvoy) {
		var err error
		if envoy, err = installEnvoy(ctx, ".cache"); err != nil {
			return r, err
		}
	}
	for _, p := range peerSpecs(envoy, o.cores) {
		if slices.Contains(o.peers, p.name) {
			r.peers = append(r.peers, p)
			programs[p.argv[0]] = p.pkg
		}
	}
	if err := need(programs); err != nil {
		return r, err
	}
	var err error
	if r.cert, err = makeCertificate(o.dir, time.Now()); err != nil {
		return r, err
	}
	files, err := writeFiles(o.dir)
	if err != nil {
		return r, err
	}
	backend, err := startServer(ctx, o.dir, backendSpec(), serverParams{Cores: o.cores, Files: files})
	if err != nil {
		return r, err
	}
	r.stops = append(r.stops, backend.stop)
	grpcAddr, stop, err := startGRPC()
	if err != nil {
		return r, err
	}
	r.stops = append(r.stops, stop)
	r.params = serverParams{
		Backend: backend.addr, GRPC: grpcAddr, Cores: o.cores, Cert: r.cert.cert, Key: r.cert.key, CertKey: r.cert.both,
	}
	r.hansas = hansas{o: o, backend: backend.addr, grpc: grpcAddr, cert: r.cert}
	return r, nil
}

// writeFiles writes what the backend serves under /bytes/.
func writeFiles(dir string) (string, error) {
	dir = filepath.Join(dir, "files")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if os.Getuid() == 0 { // workers of nginx are somebody else then
		if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
			return "", err
		}
	}
	for _, size := range []int{64 << 10, 1 << 20} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i * 7)
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(size)), body, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func (r *rig) stop() {
	r.hansas.stop()
	for _, f := range slices.Backward(r.stops) {
		f()
	}
}

// peer returns a peer under a case. It is started when it is first needed.
func (r *rig) peer(ctx context.Context, p peerSpec, c proxyCase) (*subject, error) {
	s := r.running[p.name]
	if s == nil {
		var err error
		if s, err = startServer(ctx, r.o.dir, p, r.params); err != nil {
			return nil, err
		}
		r.stops = append(r.stops, s.stop)
		r.running[p.name], r.version[p.name] = s, p.findVersion(ctx)
	}
	return &subject{
		proxyCase: c, name: p.name, version: r.version[p.name], process: s.process, at: place{addr: s.addr, tls: s.tls, h2: s.h2},
	}, nil
}

// subjects returns the subjects of some cases that are measured together.
func (r *rig) subjects(ctx context.Context, group []proxyCase) ([]*subject, error) {
	var all []*subject
	first := group[0]
	if first.base != "" { // the peers do not have it, but what it is compared with
		first = caseNamed(first.base)
	}
	for _, p := range r.peers {
		if group[0].group == groupRoutes {
			break
		}
		s, err := r.peer(ctx, p, first)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	for _, c := range group {
		if !slices.Contains(r.o.subjects, subjectHansa) {
			continue
		}
		s, err := r.hansas.subject(ctx, c)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	for _, s := range all {
		if err := verify(ctx, s.proxyCase, s.at); err != nil {
			return nil, fmt.Errorf("%s %s: %w", s.proxyCase.name, s.name, err)
		}
		var err error
		if s.load, err = loadFor(s.proxyCase, r.o, s.at, filepath.Join(r.o.dir, "load-"+s.name+"-"+s.proxyCase.name)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// measureProxy runs the named cases and adds their results and bars to rep.
func measureProxy(ctx context.Context, o options, names []string, rep *report) error {
	r, err := newRig(ctx, o)
	defer func() { r.stop() }()
	if err != nil {
		return err
	}
	for _, group := range groups(names) {
		if group[0].load == kindOpen {
			if r.o.rate, err = r.halfOfPeak(ctx, rep); err != nil {
				return err
			}
			rep.Params["open_loop_rps"] = r.o.rate
		}
		if err := r.measure(ctx, group, rep); err != nil {
			return err
		}
	}
	judgeProxy(rep)
	return nil
}

// measure measures some cases together, round by round.
func (r *rig) measure(ctx context.Context, group []proxyCase, rep *report) error {
	subjects, err := r.subjects(ctx, group)
	if err != nil {
		return err
	}
	r.o.progress("%s: %d rounds of %d s for each of %d subjects", group[0].group, r.o.rounds, r.o.seconds, len(subjects))
	for round := range r.o.rounds {
		for _, s := range subjects {
			if err := s.round(ctx, r.o); err != nil {
				return fmt.Errorf("%s %s, round %d: %w", s.proxyCase.name, s.name, round+1, err)
			}
		}
	}
	for _, s := range subjects {
		sum := total(append(s.samples, *s.warmUp))
		if sum.Errors > 0 {
			return fmt.Errorf("%s %s: %d of %d requests failed", s.proxyCase.name, s.name, sum.Errors, sum.Requests)
		}
		if s.check != nil {
			if err := s.check(ctx, sum); err != nil {
				return fmt.Errorf("%s %s: %w", s.proxyCase.name, s.name, err)
			}
		}
		if s.proxyCase.load == kindIdle {
			if err := r.idleMemory(ctx, s); err != nil {
				return fmt.Errorf("memory of idle connections of %s: %w", s.name, err)
			}
		}
		rep.Results = append(rep.Results, s.result())
	}
	return nil
}

// halfOfPeak returns half of the requests per second that nginx answers in plain. It is measured if it has not been.
func (r *rig) halfOfPeak(ctx context.Context, rep *report) (float64, error) {
	if x := rep.find(casePlain, "nginx"); x != nil {
		return x.RPS / 2, nil
	}
	i := slices.IndexFunc(r.peers, func(p peerSpec) bool { return p.name == "nginx" })
	if i < 0 {
		return 0, errors.New("the rate of latency is half of nginx's peak: name nginx among the peers")
	}
	s, err := r.peer(ctx, r.peers[i], caseNamed(casePlain))
	if err != nil {
		return 0, err
	}
	if s.load, err = loadFor(s.proxyCase, r.o, s.at, filepath.Join(r.o.dir, "load-peak")); err != nil {
		return 0, err
	}
	for range 3 {
		if err := s.round(ctx, r.o); err != nil {
			return 0, err
		}
	}
	return s.result().RPS / 2, nil
}

// round puts load on s once, after a shorter warm-up before the first, and keeps what was seen.
func (s *subject) round(ctx context.Context, o options) error {
	if p, ok := s.load.(preparer); ok {
		if err := p.before(ctx); err != nil {
			return err
		}
		defer p.after()
	}
	if s.warmUp == nil {
		sample, err := s.load.run(ctx, o.warmUp())
		if err != nil {
			return err
		}
		s.warmUp = &sample
	}
	before, err := s.process.usage()
	if err != nil {
		return err
	}
	sample, err := s.load.run(ctx, time.Duration(o.seconds)*time.Second)
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
	o.progress("%-13s %-8s %7.0f requests/s, %7.2f µs CPU a request, p99 %.0f µs", s.proxyCase.name, s.name, sample.rps(), cpu, sample.P99)
	return nil
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
		CPU: spreadOf(s.cpu), RSS: s.rss, Figures: s.figures,
	}
}
