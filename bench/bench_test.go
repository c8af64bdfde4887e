package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "hansa.dev/hansa/api/v1"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func TestQuantile(t *testing.T) {
	t.Parallel()
	f := func(values []float64, q, want float64) {
		t.Helper()
		if got := quantile(values, q); got != want {
			t.Errorf("quantile(%v, %v) = %v, want %v", values, q, got, want)
		}
	}
	f(nil, 0.5, 0)
	f([]float64{7}, 0.99, 7)
	f([]float64{3, 1, 2}, 0.5, 2)
	f([]float64{4, 1, 3, 2}, 0.5, 2.5)
	f([]float64{10, 0}, 0.99, 9.9)
	f([]float64{3, 1, 2}, 0, 1)
	f([]float64{3, 1, 2}, 1, 3)

	values := []float64{3, 1, 2}
	if got, want := spreadOf(values), (spread{Median: 2, Min: 1, Max: 3}); got != want || values[0] != 3 {
		t.Errorf("spreadOf = %+v and values = %v, want %+v and values as they were", got, values, want)
	}
}

// testReport is a report with every kind of result and bar.
func testReport() report {
	of := func(name, subject string, cpu ...float64) result {
		s := subject + " 1.0"
		return result{Case: name, Subject: subject, Version: s, Requests: 1000, RPS: 2000.5, P50: 40, P99: 900, CPU: spreadOf(cpu), RSS: 20_000_000}
	}
	r := report{
		Schema: schema, Commit: "0123456789ab", Date: "2026-11-22", Machine: machine{CPU: "a CPU", Cores: 2, Kernel: "6.1", Go: "go1.26"},
		Params: map[string]any{"rounds": 3, "seconds": 5, "connections": 64, "open_loop_rps": 1000.0},
		Results: []result{
			of(casePlain, "nginx", 20, 21, 19),
			of(casePlain, "haproxy", 25, 25, 25),
			of(casePlain, peerEnvoy, 70, 70, 70),
			of(casePlain, subjectHansa, 18, 19, 18.5),
			of(caseKeyQuota, subjectHansa, 30, 26, 28),
			of(caseLatency, "nginx", 20, 20, 20),
			of(caseLatency, subjectHansa, 21, 21, 21),
			of(caseRoutes1, subjectHansa, 20, 20, 20),
			of(caseRoutes100k, subjectHansa, 22, 22, 22),
			of(caseConns, subjectHansa, 22, 22, 22),
			{Case: caseFeed, Subject: subjectHansa, Version: "hansa 1.0", Requests: 50, RSS: 100, Figures: map[string]float64{"change_served_p99_ms": 12.5}},
		},
	}
	r.find(caseConns, subjectHansa).Figures = map[string]float64{figureIdle: 9000, figureIdleTLS: 30_000}
	r.find(caseLatency, subjectHansa).P99 = 1100
	judgeProxy(&r)
	r.Bars = append(r.Bars, newBar("feed change_served_p99_ms", 250, 12.5))
	return r
}

func TestReport(t *testing.T) {
	t.Parallel()
	f := func(name string, write func(report, io.Writer) error) {
		t.Helper()
		var got bytes.Buffer
		if err := write(testReport(), &got); err != nil {
			t.Fatal(err)
		}
		golden(t, name, got.Bytes())
	}
	f("report.json", report.writeJSON)
	f("report.txt", report.writeText)
	f("page.md", report.writePage)
}

// TestPerformancePage tells when the page in the documentation and the report that it was made of, or the limits, have
// moved apart.
func TestPerformancePage(t *testing.T) {
	t.Parallel()
	const dir = "../docs/reference/"
	var got bytes.Buffer
	if err := writePage(&got, []string{dir + "performance.json"}); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(dir+"performance.md", got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(dir + "performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("performance.md is not what performance.json says; go run ./bench report makes it anew (-want +got):\n%s", diff)
	}
}

func TestWritePageRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"testdata/report.txt"}, {"nowhere.json"}} {
		if err := writePage(io.Discard, args); err == nil {
			t.Errorf("report %v = nil, want an error", args)
		}
	}
	var page bytes.Buffer
	if err := writePage(&page, []string{"testdata/report.json"}); err != nil || !strings.Contains(page.String(), "| plain |") {
		t.Errorf("the page is %v:\n%s", err, page.String())
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestMissed(t *testing.T) {
	t.Parallel()
	f := func(cpu float64, informational, want bool) {
		t.Helper()
		r := report{Results: []result{
			{Case: casePlain, Subject: "nginx", CPU: spreadOf([]float64{20})},
			{Case: casePlain, Subject: subjectHansa, CPU: spreadOf([]float64{cpu})},
		}}
		judgeProxy(&r)
		if len(r.Bars) != 1 {
			t.Fatalf("bars %+v, want one", r.Bars)
		}
		r.Bars[0].Informational = informational
		if got := r.missed(); got != want {
			t.Errorf("missed() = %t with the bars %+v, want %t", got, r.Bars, want)
		}
	}
	f(20, false, false)
	f(21, false, true)
	f(21, true, false)
}

func TestCases(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	last, seen := "", map[string]bool{}
	for _, c := range proxyCases() {
		if known[c.name] {
			t.Errorf("%s is there twice", c.name)
		}
		known[c.name] = true
		if c.group != last && seen[c.group] {
			t.Errorf("the group %s of %s is in two pieces", c.group, c.name)
		}
		last, seen[c.group] = c.group, true
		if c.base != "" && !known[c.base] {
			t.Errorf("the base %s of %s does not stand before it", c.base, c.name)
		}
		for _, l := range c.limits {
			if !slices.Contains(peerNames(), l.peer) {
				t.Errorf("a limit of %s names the peer %q", c.name, l.peer)
			}
		}
	}
	f := func(name string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, chosen(name)); diff != "" {
			t.Errorf("chosen(%q) (-want +got):\n%s", name, diff)
		}
	}
	f(caseTLS, caseTLS)
	f("routes", caseRoutes1, caseRoutes1k, caseRoutes100k)
	f("nonsense")
	if got := chosen("proxy"); len(got) != len(proxyCases()) {
		t.Errorf("chosen(proxy) = %v, want all", got)
	}
	if got := groups([]string{caseKeyQuota, case64k, casePlain}); len(got) != 2 || len(got[0]) != 2 || got[1][0].name != case64k {
		t.Errorf("groups = %+v", got)
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat("42 (a (b) c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 5 0 1000 104857600 2500 18446744073709551615 1 1 0 0")
	if err != nil {
		t.Fatal(err)
	}
	want := procStat{pid: 42, parent: 7, cpu: 2500 * time.Millisecond, rss: 2500 * int64(os.Getpagesize())}
	if got != want {
		t.Errorf("parseStat = %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "42 name S 7", "42 (name) S 7 1", "x (name) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 5 0 1000 104857600 2500 1"} {
		if got, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	// The shell's child works for a moment and then waits; the shell only waits for it.
	p, err := startProcess(t.TempDir(), "sh", "sh", "-c", "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60'; :")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.waitFor(t.Context(), "busy", func() bool {
		u, err := p.usage()
		return err == nil && u.cpu >= 20*time.Millisecond && u.rss > 0
	}); err != nil {
		t.Error(err)
	}
	if peak, err := p.peakRSS(); err != nil || peak <= 0 {
		t.Errorf("peakRSS() = %d, %v, want more than 0", peak, err)
	}
	p.stop()
	if err := waitGone(p.cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}

// waitGone waits until nothing runs in the process group.
func waitGone(group int) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
			return nil
		}
		<-tick.C
	}
	return fmt.Errorf("processes of the group %d are left", group)
}

func TestWaitForEnds(t *testing.T) {
	t.Parallel()
	p, err := startProcess(t.TempDir(), "sh", "sh", "-c", "echo no such luck")
	if err != nil {
		t.Fatal(err)
	}
	err = p.waitFor(t.Context(), "ready", func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("waitFor = %v, want an error with what the program printed", err)
	}
}

func TestParseCollections(t *testing.T) {
	t.Parallel()
	got, err := parseCollections([]byte("gc 1 @0.021s 2%: 0.1+0.2+0.3 ms clock, 0.1+0.2/0.3/0.4+0.5 ms cpu, 4->5->3 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P\n" +
		"level=INFO msg=\"10->20->30 MB, GC forced\"\n" +
		"gc 2 @120.5s 0%: 0.1+0.2+0.3 ms clock, 0.1+0.2/0.3/0.4+0.5 ms cpu, 40->41->20 MB, 42 MB goal, 0 MB stacks, 0 MB globals, 2 P\nGC forced\n"))
	if want := (collections{forced: 1, left: 20 << 20}); err != nil || got != want {
		t.Errorf("parseCollections = %+v, %v, want %+v", got, err, want)
	}
}

func TestParseSample(t *testing.T) {
	t.Parallel()
	got, err := parseSample("Running 1s test\nSAMPLE {\"requests\": 10, \"errors\": 1, \"duration_us\": 2000000, \"p50_us\": 40, \"p99_us\": 99}\n")
	want := sample{Requests: 10, Errors: 1, Micros: 2_000_000, P50: 40, P99: 99}
	if err != nil || got != want {
		t.Errorf("parseSample = %+v, %v, want %+v", got, err, want)
	}
	if rps := got.rps(); rps != 5 {
		t.Errorf("rps() = %v, want 5", rps)
	}
	if _, err := parseSample("unable to connect"); err == nil {
		t.Error("parseSample of a text without a sample = nil, want an error")
	}
}

func TestAgrees(t *testing.T) {
	t.Parallel()
	f := func(s sample, counted int64, ok bool) {
		t.Helper()
		if err := s.agrees(counted, 64); (err == nil) != ok {
			t.Errorf("agrees(%d) of %+v = %v, want ok = %v", counted, s, err, ok)
		}
	}
	f(sample{Requests: 1000}, 1000, true)
	f(sample{Requests: 1000}, 1064, true)
	f(sample{Requests: 1000}, 999, false)
	f(sample{Requests: 1000}, 1065, false)
	f(sample{Requests: 1000, Errors: 1}, 1000, false)
}

func TestSumMetrics(t *testing.T) {
	t.Parallel()
	got, err := sumMetrics(strings.NewReader(`# HELP a_total Things.
# TYPE a_total counter
a_total{api="x y",code="200"} 3
a_total{api="z}",code="429"} 4e2 1700000000000
b 1.5
`))
	if diff := cmp.Diff(map[string]float64{"a_total": 403, "b": 1.5}, got); err != nil || diff != "" {
		t.Errorf("sumMetrics: %v, (-want +got):\n%s", err, diff)
	}
	if _, err := sumMetrics(strings.NewReader("a x\n")); err == nil {
		t.Error("sumMetrics of a value that is no number = nil, want an error")
	}
}

func TestCounter(t *testing.T) {
	t.Parallel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() { // ends with the listener
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, line+line)
			c.Close()
		}
	}()
	c, err := newCounter(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", c.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello\nhello\n" {
		t.Errorf("the echo is %q, %v", got, err)
	}
	c.close()
	if got := c.bytes.Load(); got != 18 {
		t.Errorf("counted %d bytes, want 18", got)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	parts := append(feedDocuments("127.0.0.1:9000", 2500), proxyDocuments("127.0.0.1:9000", "127.0.0.1:9001"))
	kinds := map[v1.Kind]int{}
	for _, part := range parts {
		for _, text := range strings.Split(part, "---\n")[1:] {
			var o v1.Object
			if err := json.Unmarshal([]byte(text), &o); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			kinds[o.Kind]++
			if spec, ok := o.Spec.(*v1.APISpec); ok && strings.HasPrefix(o.Metadata.Name, "api-") {
				if len(spec.Operations) < 5 || len(spec.Policies.Request)+len(spec.Policies.Response) < 2 {
					t.Fatalf("%s has too few operations or policies", o.Metadata.Name)
				}
			}
		}
	}
	if len(parts) != 4 || kinds[v1.KindAPI] != 2504 || kinds[v1.KindDeployment] != 2504 ||
		kinds[v1.KindEnvironmentGroup] != feedHosts+1 || kinds[v1.KindSubscription] != keyQuotaApplications {
		t.Errorf("%d parts with %v", len(parts), kinds)
	}
}

func TestKeyRecords(t *testing.T) {
	t.Parallel()
	var got []v1.KeyImport
	dec := json.NewDecoder(keyRecords(8, 11, 10))
	for dec.More() {
		var k v1.KeyImport
		if err := dec.Decode(&k); err != nil {
			t.Fatal(err)
		}
		got = append(got, k)
	}
	if len(got) != 3 || got[0].Subscription != "app-000008" || got[2].Subscription != "app-000000" || len(got[0].SHA256) != 64 || got[0].SHA256 == got[1].SHA256 {
		t.Errorf("keyRecords = %+v", got)
	}
}

func TestParseArgs(t *testing.T) {
	t.Parallel()
	o, cases, err := parseArgs([]string{"plain", "--rounds", "3", "feed", "--peers=nginx", "--json"})
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 3 || !o.json || len(o.peers) != 1 || strings.Join(cases, " ") != "plain feed" {
		t.Errorf("parseArgs = %+v, %v", o, cases)
	}
	for _, bad := range []string{"", "plain --peers=apache", "plain --rounds=0", "plain --nonsense", "plane"} {
		if _, _, err := parseArgs(strings.Fields(bad)); err == nil {
			t.Errorf("parseArgs(%q) = nil, want an error", bad)
		}
	}
}
