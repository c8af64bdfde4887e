package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// schema names the form of a report. Fields may be added under the same name.
const schema = "hansa.bench/1"

// report is what one run of this command measured.
type report struct {
	Schema  string         `json:"schema"`
	Commit  string         `json:"commit"`         // of the subject hansa; "-dirty" if the work tree differs from it
	Date    string         `json:"date,omitempty"` // when it was measured, in UTC
	Machine machine        `json:"machine"`
	Params  map[string]any `json:"params"`
	Results []result       `json:"results"`
	Bars    []bar          `json:"bars"`
}

// result is what one subject did in one case, over all rounds.
type result struct {
	Case     string `json:"case"`
	Subject  string `json:"subject"`
	Version  string `json:"version"`
	Requests int64  `json:"requests"` // answered, in all rounds
	Errors   int64  `json:"errors"`   // answered with 400 and above, or not answered
	// RPS, P50 and P99 are medians over the rounds.
	RPS float64 `json:"rps"`
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	// CPU is the subject's own user and system time for one request.
	CPU spread `json:"cpu_us_per_req"`
	// RSS is the resident memory at the end of the last round, all processes of the subject together.
	RSS int64 `json:"rss_bytes"`
	// Ratio is CPU.Median divided by that of a peer, by the peer's name.
	Ratio map[string]float64 `json:"ratio,omitempty"`
	// Figures are what a case measures beside the above, by name with unit.
	Figures map[string]float64 `json:"figures,omitempty"`
}

// spread is the middle and the borders of one figure over the rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// bar is a promise: value is at most limit.
type bar struct {
	Name  string  `json:"name"`
	Limit float64 `json:"limit"`
	Value float64 `json:"value"`
	Pass  bool    `json:"pass"`
	// Informational bars are aims that do not decide the exit status.
	Informational bool `json:"informational,omitempty"`
}

func newBar(name string, limit, value float64) bar {
	return bar{Name: name, Limit: limit, Value: value, Pass: value <= limit}
}

// missed tells whether a bar that counts is missed.
func (r report) missed() bool {
	return slices.ContainsFunc(r.Bars, func(b bar) bool { return !b.Pass && !b.Informational })
}

// find returns the result of a subject in a case, or nil.
func (r report) find(name, subject string) *result {
	i := slices.IndexFunc(r.Results, func(x result) bool { return x.Case == name && x.Subject == subject })
	if i < 0 {
		return nil
	}
	return &r.Results[i]
}

// quantile returns the q-quantile of values by linear interpolation between the nearest two, 0 for none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	at := q * float64(len(v)-1)
	low := int(at)
	if low+1 == len(v) {
		return v[low]
	}
	return v[low] + (at-float64(low))*(v[low+1]-v[low])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func spreadOf(values []float64) spread {
	return spread{Median: median(values), Min: quantile(values, 0), Max: quantile(values, 1)}
}

// writeJSON writes the report as one JSON object.
func (r report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// writeText writes the report for people.
func (r report) writeText(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d cores, Linux %s, %s, commit %s\n\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Commit)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, x := range r.Results {
		if x.CPU.Median > 0 {
			fmt.Fprint(t, "case\tsubject\trequests\terrors\trps\tp50 µs\tp99 µs\tCPU µs/request\tmin–max\tRSS MB\tratios\t\n")
			break
		}
	}
	for _, x := range r.Results {
		if x.CPU.Median > 0 {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f–%.2f\t%.1f\t%s\t\n", x.Case, x.Subject, x.Requests, x.Errors,
				x.RPS, x.P50, x.P99, x.CPU.Median, x.CPU.Min, x.CPU.Max, float64(x.RSS)/1e6, ratios(x.Ratio))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range r.Results {
		for _, name := range sortedKeys(x.Figures) {
			fmt.Fprintf(w, "%s %s: %s = %s\n", x.Case, x.Subject, name, number(x.Figures[name]))
		}
	}
	fmt.Fprintln(w)
	for _, b := range r.Bars {
		verdict := "held"
		if !b.Pass {
			verdict = "MISSED"
		}
		if b.Informational {
			verdict += " (aim)"
		}
		fmt.Fprintf(w, "%s: %s, at most %s: %s\n", b.Name, number(b.Value), number(b.Limit), verdict)
	}
	return nil
}

func ratios(m map[string]float64) string {
	var parts []string
	for _, name := range sortedKeys(m) {
		parts = append(parts, fmt.Sprintf("%.2f × %s", m[name], name))
	}
	return strings.Join(parts, ", ")
}

// number writes v with two decimals if it is small, and without any otherwise.
func number(v float64) string {
	if v < 1000 {
		return strings.TrimSuffix(fmt.Sprintf("%.2f", v), ".00")
	}
	return fmt.Sprintf("%.0f", v)
}

func sortedKeys(m map[string]float64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
