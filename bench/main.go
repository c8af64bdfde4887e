// Command bench measures Hansa next to other servers on one machine.
//
//	go run ./bench [flags] CASE...
//	go run ./bench report FILE
//
// The second makes the page docs/reference/performance.md of a report.
//
// The cases:
//
//	proxy          all of the following but feed
//	plain          forward a small request to a small answer
//	key+quota      the same with 10,000 keys of 1,000 applications at random, a quota for each, a JSON access log to a file and
//	               metrics read every 5 seconds; the log and the metrics must add up to the requests answered
//	tls            plain over TLS 1.3, on kept connections
//	tls-handshake  plain over TLS 1.3, a full handshake for each request
//	tls-resume     the same, but sessions are resumed
//	h2, h2-tls     plain by HTTP/2, without TLS and over it, to a backend that speaks HTTP/1.1
//	h2-grpc        unary calls with messages of 100 bytes, HTTP/2 without TLS on both sides
//	64k, 1m        answers of 64 kB and 1 MB
//	post-16k       requests of 16 kB
//	routes         routes-1, routes-1000 and routes-100000: plain with so many routes, asked for 10,000 paths at random, the
//	               same ones in each
//	conns          plain on 200 connections while 10,000 are idle, and the memory of an idle connection
//	latency        plain in an open loop, at half of the requests per second that nginx reaches in plain
//	feed           10,000 APIs: how long a change takes to be served and how many bytes it costs, restart, memory, and a
//	               million credentials
//
// What proxy compares is CPU time for one request: user and system time of the subject's own processes, divided by the
// requests that wrk saw answered. That holds still when subject, backend and wrk share the cores, which requests per
// second do not. Every subject has as many threads as the machine has cores, keeps its connections on both sides open, and
// has the same nginx behind it. Rounds of the subjects take turns; ratios are of medians. The peers log nothing and check
// nothing, also where hansa does.
//
// The report goes to standard output, as JSON with --json, and progress to standard error. The exit status is 0 if every bar
// held, 3 if one was missed, 1 if something could not be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// subjectHansa is the name of the subject that everything is about.
const subjectHansa = "hansa"

// options are the flags.
type options struct {
	peers       []string
	subjects    []string
	rounds      int
	seconds     int
	connections int
	cores       int
	changes     int
	apis        int
	credentials int
	hansa       string // path of the binary
	keep        bool
	json        bool

	rate float64 // of the open loop, requests per second
	dir  string  // for everything that the run writes
}

func (o options) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// warmUp is how long a subject is under load before its first round.
func (o options) warmUp() time.Duration {
	return max(time.Second, time.Duration(o.seconds)*time.Second/4).Truncate(time.Second)
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:])
	cancel()
	os.Exit(status)
}

// The exit statuses.
const (
	exitHeld        = 0
	exitNotMeasured = 1
	exitUsage       = 2
	exitMissed      = 3
)

func run(ctx context.Context, args []string) int {
	if len(args) > 0 && args[0] == commandReport {
		if err := writePage(os.Stdout, args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return exitUsage
		}
		return exitHeld
	}
	o, cases, err := parseArgs(args)
	if errors.Is(err, flag.ErrHelp) {
		return exitHeld
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitUsage
	}
	r, err := measure(ctx, o, cases)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: not measured:", err)
		return exitNotMeasured
	}
	write := r.writeText
	if o.json {
		write = r.writeJSON
	}
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitNotMeasured
	}
	if r.missed() {
		return exitMissed
	}
	return exitHeld
}

func parseArgs(args []string) (options, []string, error) {
	var o options
	var peers, subjects string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&peers, "peers", strings.Join(peerNames(), ","), "servers to measure next to hansa")
	f.StringVar(&subjects, "subjects", subjectHansa, "empty: the peers alone")
	f.IntVar(&o.rounds, "rounds", 7, "rounds of every subject")
	f.IntVar(&o.seconds, "seconds", 5, "length of a round")
	f.IntVar(&o.connections, "connections", 64, "kept connections of the load")
	f.IntVar(&o.cores, "cores", runtime.NumCPU(), "threads of every server")
	f.IntVar(&o.changes, "changes", 200, "feed: changes to measure")
	f.IntVar(&o.apis, "apis", 10_000, "feed: APIs")
	f.IntVar(&o.credentials, "credentials", 1_000_000, "feed: credentials in the end")
	f.StringVar(&o.hansa, "hansa", "", "binary to measure (default: built from the work tree)")
	f.BoolVar(&o.keep, "keep", false, "keep the folder with configurations, logs and data")
	f.BoolVar(&o.json, "json", false, "report as JSON")
	var cases []string
	for len(args) > 0 { // cases and flags in any order
		if err := f.Parse(args); err != nil {
			return o, nil, err
		}
		if args = f.Args(); len(args) > 0 {
			cases, args = append(cases, args[0]), args[1:]
		}
	}
	o.peers, o.subjects = split(peers), split(subjects)
	for _, p := range o.peers {
		if !slices.Contains(peerNames(), p) {
			return o, nil, fmt.Errorf("unknown peer %q", p)
		}
	}
	if len(cases) == 0 {
		return o, nil, fmt.Errorf("name a case: %s", strings.Join(allCases(), ", "))
	}
	for _, c := range cases {
		if c != caseFeed && len(chosen(c)) == 0 {
			return o, nil, fmt.Errorf("unknown case %q; there are %s", c, strings.Join(allCases(), ", "))
		}
	}
	if o.rounds < 1 || o.seconds < 1 || o.connections < 1 {
		return o, nil, errors.New("rounds, seconds and connections are at least 1")
	}
	return o, cases, nil
}

func split(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
}

// measure runs the cases in a folder of its own.
func measure(ctx context.Context, o options, cases []string) (report, error) {
	r := report{
		Schema: schema, Commit: commit(ctx), Date: time.Now().UTC().Format(time.DateOnly), Machine: thisMachine(), Results: []result{}, Bars: []bar{},
		Params: map[string]any{"rounds": o.rounds, "seconds": o.seconds, "connections": o.connections, "cores": o.cores},
	}
	dir, err := os.MkdirTemp("", "hansa-bench-")
	if err != nil {
		return r, err
	}
	o.dir = dir
	if o.keep {
		o.progress("everything is kept in %s", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	if o.hansa == "" && slices.Contains(o.subjects, subjectHansa) {
		o.progress("building hansa")
		o.hansa = filepath.Join(dir, "hansa.bin") // "hansa" is the folder of the subject
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.hansa, "./cmd/hansa")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return r, fmt.Errorf("build hansa: %w: %s", err, out)
		}
	}
	var proxy []string
	feed := false
	for _, c := range cases {
		if c == caseFeed {
			feed = true
		}
		proxy = append(proxy, chosen(c)...)
	}
	if len(proxy) > 0 {
		if err := measureProxy(ctx, o, proxy, &r); err != nil {
			return r, err
		}
	}
	if feed {
		r.Params["apis"], r.Params["changes"], r.Params["credentials"] = o.apis, o.changes, o.credentials
		if err := measureFeed(ctx, o, &r); err != nil {
			return r, err
		}
	}
	return r, nil
}
