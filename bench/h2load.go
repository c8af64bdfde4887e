package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// How the streams of HTTP/2 are spread: as many as there are connections in the other cases, over a few connections, as
// clients of HTTP/2 do.
const (
	h2Connections = 8
	h2Streams     = 8
)

// h2Load is load by h2load: a fixed number of connections, each with a fixed number of streams under way.
type h2Load struct {
	argv []string
	log  string // file with a line for each request
}

// newH2load returns the load of a case in HTTP/2.
func newH2load(name string, o options, at place, dir string) (*h2Load, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &h2Load{log: filepath.Join(dir, "requests.log")}
	url, more := "http://"+at.h2+plainPath, []string(nil)
	switch name {
	case caseH2TLS:
		url = "https://" + at.tls + plainPath
	case caseGRPC:
		body := filepath.Join(dir, "request.bin")
		if err := writeGRPCRequest(body); err != nil {
			return nil, err
		}
		url, more = "http://"+at.h2+grpcPath, []string{"--data", body, "-H", "content-type: application/grpc", "-H", "te: trailers"}
	}
	l.argv = append([]string{
		"-t1", "-c" + strconv.Itoa(h2Connections), "-m" + strconv.Itoa(h2Streams), "-H", ":authority: " + proxyHost, "--log-file", l.log,
	}, more...)
	l.argv = append(l.argv, url)
	return l, nil
}

// run implements load.
func (l *h2Load) run(ctx context.Context, d time.Duration) (sample, error) {
	if err := os.WriteFile(l.log, nil, 0o600); err != nil { // h2load appends
		return sample{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "h2load", append([]string{"-D", strconv.Itoa(int(d.Seconds()))}, l.argv...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, fmt.Errorf("h2load: %w: %s", err, stderr.Bytes())
	}
	s, err := parseH2load(string(out))
	if err != nil {
		return sample{}, fmt.Errorf("h2load: %w in %q", err, out)
	}
	s.Micros = d.Microseconds()
	log, err := os.Open(l.log)
	if err != nil {
		return sample{}, err
	}
	defer log.Close()
	latencies, err := parseH2loadLog(log)
	s.P50, s.P99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
	return s, err
}

var h2loadRequests = regexp.MustCompile(`(?m)^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, `)

// parseH2load reads how many requests were answered and how many of them with success.
func parseH2load(out string) (sample, error) {
	m := h2loadRequests.FindStringSubmatch(out)
	if m == nil {
		return sample{}, errors.New("no line with the number of requests")
	}
	done, err := strconv.ParseInt(m[1], 10, 64)
	good, err2 := strconv.ParseInt(m[2], 10, 64)
	return sample{Requests: done, Errors: done - good}, errors.Join(err, err2)
}

// parseH2loadLog reads the time that each request took, in microseconds: the third column.
func parseH2loadLog(r io.Reader) ([]float64, error) {
	var all []float64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) < 3 {
			return nil, fmt.Errorf("%d columns in the line %q", len(fields), lines.Text())
		}
		v, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, lines.Err()
}
