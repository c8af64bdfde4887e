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

// startHansaSubjects starts a control node and one gateway for each of the named cases. stop ends them, also after an error.
func startHansaSubjects(ctx context.Context, o options, names []string, backend string) (subjects []*subject, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, f := range slices.Backward(stops) {
			f()
		}
	}
	dir := filepath.Join(o.dir, "nodes")
	control, err := startControl(ctx, o, dir)
	if err != nil {
		return nil, stop, err
	}
	stops = append(stops, control.stop)
	if _, err := control.apply(ctx, proxyDocuments(backend)); err != nil {
		return nil, stop, err
	}
	keys := keyRecords(0, keyQuotaKeys, keyQuotaApplications)
	if _, err := control.api.ImportKeys(ctx, organization, "", client.ContentTypeKeyRecords, keys); err != nil {
		return nil, stop, err
	}
	for _, c := range proxyCases() {
		if !slices.Contains(names, c.name) {
			continue
		}
		s, end, err := startHansaSubject(ctx, o, control, dir, c)
		if err != nil {
			return nil, stop, err
		}
		stops = append(stops, end)
		subjects = append(subjects, s)
	}
	return subjects, stop, nil
}

// startHansaSubject starts the gateway of one case and waits until it serves. Only key+quota keeps an access log: the peers,
// which plain is compared with, keep none.
func startHansaSubject(ctx context.Context, o options, control *controlNode, dir string, c proxyCase) (*subject, func(), error) {
	s := &subject{
		proxyCase: c, name: subjectHansa, version: hansaVersion(ctx, o.hansa),
		load: load{host: proxyHost, path: plainPath, connections: o.connections},
	}
	log, key := "off", ""
	if c.name == caseKeyQuota {
		log, key = filepath.Join(dir, "access.log"), keyValue(keyQuotaKeys-1)
		s.load.path = keyedPath
		for i := range keyQuotaKeys {
			s.load.keys = append(s.load.keys, keyValue(i))
		}
	}
	g, err := control.startGateway(ctx, o, dir, "gateway-"+strings.ReplaceAll(c.name, "+", "-"), control.linkAddr, "--access-log", log)
	if err != nil {
		return nil, nil, err
	}
	s.addr, s.process = g.addr, g.process
	if err := g.serves(ctx, g.addr, s.load.host, s.load.path, key, 200); err != nil {
		g.stop()
		return nil, nil, err
	}
	if c.name != caseKeyQuota {
		return s, g.stop, nil
	}
	end, check, err := watchCounters(ctx, o, g, log)
	if err != nil {
		g.stop()
		return nil, nil, err
	}
	s.check = check
	return s, func() { end(); g.stop() }, nil
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
