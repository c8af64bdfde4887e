package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// load is one way to put load on a subject with wrk: a fixed number of keep-alive connections, each with one request under
// way at a time.
type load struct {
	host        string // of the Host header
	path        string
	keys        []string // each request carries one of them at random in X-API-Key; none: no such header
	connections int
}

// sample is what wrk saw in one round.
type sample struct {
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`
	Micros   int64   `json:"duration_us"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
}

// wrkScript prepares every request before the load begins, so that wrk spends as little as it can on a request, and
// prints one line of JSON at the end.
const wrkScript = `
local requests = {}

init = function(args)
  math.randomseed(os.time())
  wrk.headers["Host"] = %s
  for line in io.lines(%s) do
    wrk.headers["X-API-Key"] = line
    requests[#requests + 1] = wrk.format("GET", %s)
  end
end

%s

done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'SAMPLE {"requests": %%d, "errors": %%d, "duration_us": %%d, "p50_us": %%d, "p99_us": %%d}\n',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
`

// With one request there is nothing to choose; wrk then never enters Lua while it runs, see wrk.request in its source.
const (
	wrkPickRandom = `request = function() return requests[math.random(#requests)] end`
	wrkFixed      = ``
)

// script writes the Lua script of l into dir and returns its path.
func (l load) script(dir string) (string, error) {
	keyFile, script := filepath.Join(dir, "keys.txt"), filepath.Join(dir, "wrk.lua")
	pick := wrkPickRandom
	if len(l.keys) == 0 {
		pick = wrkFixed
	}
	var keys bytes.Buffer
	for _, k := range l.keys {
		keys.WriteString(k + "\n")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(keyFile, keys.Bytes(), 0o600); err != nil {
		return "", err
	}
	text := fmt.Sprintf(wrkScript, strconv.Quote(l.host), strconv.Quote(keyFile), strconv.Quote(l.path), pick)
	return script, os.WriteFile(script, []byte(text), 0o600)
}

// run puts load on addr for the given time. Requests that are under way at the end are not counted.
func (l load) run(ctx context.Context, addr, script string, d time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "wrk", "-t1", "-c"+strconv.Itoa(l.connections), "-d"+strconv.Itoa(int(d.Seconds()))+"s",
		"--timeout", "10s", "-s", script, "http://"+addr+l.path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w: %s", err, stderr.Bytes())
	}
	s, err := parseSample(string(out))
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w in %q", err, out)
	}
	return s, nil
}

func parseSample(out string) (sample, error) {
	var s sample
	for line := range strings.Lines(out) {
		if text, ok := strings.CutPrefix(line, "SAMPLE "); ok {
			return s, json.Unmarshal([]byte(text), &s)
		}
	}
	return s, fmt.Errorf("no line SAMPLE")
}
