package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hansa.dev/hansa/client"
)

// requestsMetric counts the requests that a gateway has answered.
const requestsMetric = "hansa_gateway_requests_total"

// hansas are the nodes of hansa: a control node and its gateways. Each part is started when it is first needed.
type hansas struct {
	o       options
	dir     string
	backend string
	grpc    string
	cert    certificate
	version string
	control *controlNode
	plain   *gatewayNode
	stops   []func()
}

func (h *hansas) stop() {
	for _, f := range slices.Backward(h.stops) {
		f()
	}
}

// startControl starts the control node with the resources of the cases of proxy.
func (h *hansas) startControl(ctx context.Context) (err error) {
	if h.control != nil {
		return nil
	}
	h.dir, h.version = filepath.Join(h.o.dir, "nodes"), hansaVersion(ctx, h.o.hansa)
	if h.control, err = startControl(ctx, h.o, h.dir); err != nil {
		return err
	}
	h.stops = append(h.stops, h.control.stop)
	if _, err := h.control.apply(ctx, proxyDocuments(h.backend, h.grpc)); err != nil {
		return err
	}
	keys := keyRecords(0, keyQuotaKeys, keyQuotaApplications)
	_, err = h.control.api.ImportKeys(ctx, organization, "", client.ContentTypeKeyRecords, keys)
	return err
}

// gateway starts a gateway that listens for everything.
func (h *hansas) gateway(ctx context.Context, name, log string, argv ...string) (*gatewayNode, error) {
	if err := h.startControl(ctx); err != nil {
		return nil, err
	}
	g, err := h.control.startGateway(ctx, h.o, h.dir, name, h.control.linkAddr, append(argv, "--access-log", log,
		"--https-addr", "127.0.0.1:0", "--tls-cert-file", h.cert.cert, "--tls-key-file", h.cert.key)...)
	if err != nil {
		return nil, err
	}
	h.stops = append(h.stops, g.stop)
	return g, g.serves(ctx, g.addr, proxyHost, plainPath, "", 200)
}

// subject returns hansa under one case. Only key+quota keeps an access log: the peers, which the others are compared with, keep
// none.
func (h *hansas) subject(ctx context.Context, c proxyCase) (s *subject, err error) {
	s = &subject{proxyCase: c, name: subjectHansa}
	var g *gatewayNode
	switch c.name {
	case caseKeyQuota:
		log := filepath.Join(h.o.dir, "access.log")
		if g, err = h.gateway(ctx, "gateway-key-quota", log); err != nil {
			return nil, err
		}
		if err := g.serves(ctx, g.addr, proxyHost, keyedPath, keyValue(keyQuotaKeys-1), 200); err != nil {
			return nil, err
		}
		end, check, err := watchCounters(ctx, h.o, g, log)
		if err != nil {
			return nil, err
		}
		h.stops = append(h.stops, end)
		s.check = check
	case caseRoutes1, caseRoutes1k, caseRoutes100k:
		if g, err = h.routes(ctx, c.name); err != nil {
			return nil, err
		}
	default:
		if h.plain == nil {
			if h.plain, err = h.gateway(ctx, "gateway-plain", "off"); err != nil {
				return nil, err
			}
		}
		g = h.plain
	}
	s.version, s.process, s.at = h.version, g.process, place{addr: g.addr, tls: g.tls, h2: g.addr}
	return s, nil
}

// routes starts a gateway with the routes of a case, from a bundle.
func (h *hansas) routes(ctx context.Context, name string) (*gatewayNode, error) {
	dir := filepath.Join(h.o.dir, name)
	documents, bundle := filepath.Join(dir, "resources"), filepath.Join(dir, "bench.bundle")
	if err := os.MkdirAll(documents, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(documents, "bench.yaml"), []byte(routeDocuments(h.backend, name)), 0o600); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, h.o.hansa, "bundle", "build", "-f", documents, "-o", bundle)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the bundle: %w: %s", err, out)
	}
	g, err := startGatewayAgain(ctx, h.o, dir, name, "127.0.0.1:0", "--bundle", bundle, "--access-log", "off")
	if err != nil {
		return nil, err
	}
	h.version = hansaVersion(ctx, h.o.hansa)
	h.stops = append(h.stops, g.stop)
	return g, g.serves(ctx, g.addr, proxyHost, routePath(0), "", 200)
}

func hansaVersion(ctx context.Context, hansa string) string {
	out, err := exec.CommandContext(ctx, hansa, "version").Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(line, "hansa ")
}

// watchCounters reads the metrics of g every few seconds until end is called. check compares the metrics and the lines of the
// access log with each other, and what they counted since now with what the load saw answered.
func watchCounters(ctx context.Context, o options, g *gatewayNode, log string) (end func(), check func(context.Context, sample) error, err error) {
	before, _, err := counted(ctx, g, log)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(scrapeEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if _, err := g.scrape(ctx); err != nil && ctx.Err() == nil {
					o.progress("metrics: %v", err)
				}
			}
		}
	}()
	end = func() {
		cancel()
		<-done
	}
	check = func(ctx context.Context, total sample) error {
		// The log is written a little later than the answer, and wrk leaves when requests are still under way.
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var metrics, lines int64
		var countErr error
		err := g.waitFor(ctx, "done counting", func() bool {
			metrics, lines, countErr = counted(ctx, g, log)
			return countErr == nil && metrics == lines
		})
		if err != nil {
			return fmt.Errorf("the metrics count %d requests, the access log %d: %w", metrics, lines, errors.Join(countErr, err))
		}
		return total.agrees(metrics-before, int64((o.rounds+1)*o.connections))
	}
	return end, check, nil
}

// agrees compares what the load saw answered with what the gateway counted, which may be more by the requests that were under
// way when wrk ended.
func (s sample) agrees(counted, underWay int64) error {
	if s.Errors > 0 {
		return fmt.Errorf("%d of %d requests failed", s.Errors, s.Requests)
	}
	if counted < s.Requests || counted > s.Requests+underWay {
		return fmt.Errorf("the gateway counts %d requests, wrk saw %d answered and left at most %d under way", counted, s.Requests, underWay)
	}
	return nil
}

// counted returns how many requests the metrics of g and its access log count.
func counted(ctx context.Context, g *gatewayNode, log string) (metrics, lines int64, err error) {
	sums, err := g.scrape(ctx)
	if err != nil {
		return 0, 0, err
	}
	total, ok := sums[requestsMetric]
	if !ok {
		return 0, 0, errors.New("the gateway has no metric " + requestsMetric)
	}
	lines, err = countLines(log)
	return int64(total), lines, err
}

func countLines(file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var n int64
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		switch _, err := lines.ReadSlice('\n'); {
		case err == nil:
			n++
		case errors.Is(err, io.EOF):
			return n, nil // a line that is being written does not count yet
		default:
			return n, err
		}
	}
}
