package soak

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sample is what a process uses at one moment.
type sample struct {
	rss, fds   int64
	goroutines int64 // -1: not known, for the process has handed over and so shows no metrics
}

// take returns what a process uses; false if it is gone.
func (r *rig) take(pid int, serving bool) (s sample, ok bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, false
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscan(rest, &s.rss)
		}
	}
	s.rss <<= 10
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil || s.rss == 0 {
		return s, false
	}
	s.fds, s.goroutines = int64(len(files)), -1
	if serving {
		if n, err := r.metric("go_goroutines"); err == nil {
			s.goroutines = int64(n)
		}
	}
	return s, true
}

// metric reads a metric without labels of the process that serves.
func (r *rig) metric(name string) (float64, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + r.addr["admin"] + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(b, []byte("\n"+name+" "))
	if !ok {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.ParseFloat(string(line), 64)
}

// warmUp is how many samples do not count, since pools and caches fill; enough is how many others it takes to judge.
const warmUp, enough = 15, 45

// judge fails the test if what a process uses is not flat: if the median of the last third of the samples is above that of
// the first third by more than a tenth and the slack.
func judge(t testing.TB, what string, samples []int64, slack int64) {
	t.Helper()
	samples = slices.DeleteFunc(slices.Clone(samples), func(n int64) bool { return n < 0 })
	if len(samples) < warmUp+enough {
		return
	}
	samples = samples[warmUp:]
	third := len(samples) / 3
	first, last := median(samples[:third]), median(samples[len(samples)-third:])
	t.Logf("%s: %d in the first third of %d samples, %d in the last, %d to %d in all", what, first, len(samples), last,
		slices.Min(samples), slices.Max(samples))
	if last > first+first/10+slack {
		t.Errorf("%s grows from %d to %d", what, first, last)
	}
}

func median(samples []int64) int64 {
	s := slices.Sorted(slices.Values(samples))
	return s[len(s)/2]
}

// The slack of what is to be flat.
const (
	slackRSS   = 8 << 20
	slackCount = 20 // goroutines, files
)

// judgeAll judges the samples of a process in one role.
func judgeAll(t testing.TB, who string, all []sample) {
	t.Helper()
	column := func(get func(sample) int64) (out []int64) {
		for _, s := range all {
			out = append(out, get(s))
		}
		return out
	}
	judge(t, who+", resident bytes", column(func(s sample) int64 { return s.rss }), slackRSS)
	judge(t, who+", goroutines", column(func(s sample) int64 { return s.goroutines }), slackCount)
	judge(t, who+", files", column(func(s sample) int64 { return s.fds }), slackCount)
}
