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

// wrkLoad is load by wrk: a fixed number of keep-alive connections, each with one request under way at a time.
type wrkLoad struct {
	url         string // without a path
	host        string // of the Host header
	path        string
	paths       []string // each request is for one of them at random; none: for path
	keys        []string // each request carries one of them at random in X-API-Key; none: no such header
	body        int      // bytes to POST; 0: GET
	shut        bool     // every request has a connection of its own
	connections int

	script string // set by prepare
}

// wrkScript prepares every request before the load begins, so that wrk spends as little as it can on a request, and
// prints one line of JSON at the end. A line of its file is a path and, after a space, perhaps a key.
const wrkScript = `
local requests = {}

init = function(args)
  math.randomseed(os.time())
  wrk.headers["Host"] = %s
%s
  for line in io.lines(%s) do
    local path, key = line:match("^(%%S+) ?(.*)$")
    wrk.headers["X-API-Key"] = key ~= "" and key or nil
    requests[#requests + 1] = wrk.format(nil, path)
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

// prepare writes the Lua script of l into dir.
func (l *wrkLoad) prepare(dir string) error {
	lineFile := filepath.Join(dir, "requests.txt")
	l.script = filepath.Join(dir, "wrk.lua")
	pick := wrkPickRandom
	var lines bytes.Buffer
	for _, k := range l.keys {
		fmt.Fprintf(&lines, "%s %s\n", l.path, k)
	}
	for _, p := range l.paths {
		fmt.Fprintln(&lines, p)
	}
	if lines.Len() == 0 {
		pick = wrkFixed
	}
	more := ""
	if l.body > 0 {
		more += fmt.Sprintf("  wrk.method, wrk.body = \"POST\", string.rep(\"x\", %d)\n", l.body)
	}
	if l.shut {
		more += "  wrk.headers[\"Connection\"] = \"close\"\n"
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(lineFile, lines.Bytes(), 0o600); err != nil {
		return err
	}
	text := fmt.Sprintf(wrkScript, strconv.Quote(l.host), more, strconv.Quote(lineFile), pick)
	return os.WriteFile(l.script, []byte(text), 0o600)
}

// run implements load.
func (l *wrkLoad) run(ctx context.Context, d time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "wrk", "-t1", "-c"+strconv.Itoa(l.connections), "-d"+strconv.Itoa(int(d.Seconds()))+"s",
		"--timeout", "10s", "-s", l.script, l.url+l.path)
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
