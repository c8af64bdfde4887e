package accesslog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/exchange"
)

// sample is an exchange in which every field is set. It is a pointer because exchanges must not be copied.
func sample() *exchange.Exchange {
	x := new(exchange.Exchange)
	copy(x.ID[:], "0123456789abcdef0123456789abcdef")
	x.Start = time.Date(2026, 3, 9, 7, 5, 4, 7_890_000, time.FixedZone("", 3600))
	x.Protocol = exchange.HTTP11
	x.Method, x.Host, x.Path = []byte("GET"), []byte("api.example.com"), []byte(`/catalog/v1/items/"1"`)
	x.Query, x.HasQuery = []byte("api_key=secret"), true
	x.ClientIP = []byte("192.0.2.1")
	f := &exchange.Flow{Organization: "acme", Environment: "prod", API: "catalog", Revision: 3}
	f.LogMembers = FlowMembers(f)
	x.Route = &exchange.Route{Flow: f, Operation: "getItem"}
	x.Consumer = exchange.Consumer{LogMembers: ConsumerMembers("shop", "gold")}
	x.Status, x.Code = 429, exchange.RateLimited
	x.Backend, x.Endpoint = "catalog", "127.0.0.1:9000"
	x.Duration, x.Upstream = 1234567*time.Nanosecond, 999*time.Nanosecond
	x.BytesIn, x.BytesOut = 12, 3456
	return x
}

func TestAppend(t *testing.T) {
	t.Parallel()
	got := string(Append(nil, sample(), NewPlace("eu-west", 2, 77)))
	want := `{"time":"2026-03-09T06:05:04.007Z","requestId":"0123456789abcdef0123456789abcdef",` +
		`"organization":"acme","environment":"prod","api":"catalog","revision":3,"operation":"getItem",` +
		`"application":"shop","product":"gold","method":"GET","host":"api.example.com","path":"/catalog/v1/items/\"1\"",` +
		`"status":429,"code":"rate-limited","backend":"catalog","endpoint":"127.0.0.1:9000","site":"eu-west","epoch":2,"seq":77,` +
		`"durationMs":1.234,"upstreamMs":0.000,"bytesIn":12,"bytesOut":3456,"protocol":"HTTP/1.1","clientIp":"192.0.2.1"}` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("line (-want +got):\n%s", diff)
	}
	if strings.Contains(got, "secret") {
		t.Fatal("the query was logged")
	}
}

// What came over TLS has more to tell.
func TestAppendTLS(t *testing.T) {
	t.Parallel()
	x := sample()
	plain := string(Append(nil, x, Place{}))
	x.TLS = &exchange.TLS{Version: 0x304}
	x.ClientCert = &exchange.ClientCert{Subject: `CN="alice"`, Fingerprint: "abc"}
	want := strings.TrimSuffix(plain, "}\n") + `,"tls":"1.3","clientSubject":"CN=\"alice\"","clientFingerprint":"abc"}` + "\n"
	if diff := cmp.Diff(want, string(Append(nil, x, Place{}))); diff != "" {
		t.Fatalf("line (-want +got):\n%s", diff)
	}
}

// Every line has the same fields in the same order, whatever became of the request.
func TestAppendWithoutRoute(t *testing.T) {
	t.Parallel()
	f := func(x *exchange.Exchange) (names []string) {
		t.Helper()
		dec := json.NewDecoder(bytes.NewReader(Append(nil, x, Place{})))
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name.(string))
			if _, err := dec.Token(); err != nil {
				t.Fatal(err)
			}
		}
		return names
	}
	want := strings.Fields("time requestId organization environment api revision operation application product method host " +
		"path status code backend endpoint site epoch seq durationMs upstreamMs bytesIn bytesOut protocol clientIp")
	bare := new(exchange.Exchange)
	bare.ID = sample().ID // every exchange has one
	if diff := cmp.Diff(want, f(bare)); diff != "" {
		t.Errorf("without a route (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, f(sample())); diff != "" {
		t.Errorf("with a route (-want +got):\n%s", diff)
	}
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte("/plain"), []byte("host"), "detail", int64(1))
	f.Add([]byte("/\xff\xfe\"\\\x00\n\xe2\x80\xa8"), []byte("\xed\xa0\x80"), "\U0001f600\x7f", int64(-5))
	f.Fuzz(func(t *testing.T, path, host []byte, api string, unixNano int64) {
		x := sample()
		x.Path, x.Host, x.Route.API = path, host, api
		x.Route.LogMembers = FlowMembers(x.Route.Flow)
		x.Start = time.Unix(0, unixNano)
		line := Append(nil, x, Place{})
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("a line break within the line %q", line)
		}
		if !utf8.Valid(line) {
			t.Fatalf("%q is not UTF-8", line)
		}
		var got struct {
			Path, Host, API string
			Time            time.Time
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if got.Path != readable(string(path)) || got.Host != readable(string(host)) || got.API != readable(api) {
			t.Fatalf("read back %q %q %q of %q %q %q", got.Path, got.Host, got.API, path, host, api)
		}
		if want := x.Start.Truncate(time.Millisecond); unixNano >= 0 && !got.Time.Equal(want) {
			t.Fatalf("time %v, want %v", got.Time, want)
		}
	})
}

// readable replaces every byte that is not part of UTF-8, as encoding/json does.
func readable(s string) string {
	var sb strings.Builder
	for _, r := range s {
		sb.WriteRune(r)
	}
	return sb.String()
}

func TestAppendAllocatesNothing(t *testing.T) {
	x, at := sample(), NewPlace("eu-west", 1, 2)
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(1000, func() { dst = Append(dst[:0], x, at) }); n != 0 {
		t.Fatalf("%v allocations a line, want 0", n)
	}
}

func text(line string) func([]byte) []byte {
	return func(dst []byte) []byte { return append(dst, line...) }
}

func TestWriterWritesEveryLineOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	metrics := prometheus.NewRegistry()
	w, err := New(Options{Path: path, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 500 {
				w.Write(func(b []byte) []byte { return fmt.Appendf(b, "%d-%d\n", i, j) })
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.Write(text("late\n"))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(content)) {
		seen[line]++
	}
	if len(seen) != 4000 || seen["7-499\n"] != 1 || w.Dropped() != 1 {
		t.Fatalf("%d different lines, %d dropped; want 4000 and the late one", len(seen), w.Dropped())
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "hansa_accesslog_lines_total" && f.GetMetric()[0].GetCounter().GetValue() != 4001 {
			t.Errorf("lines_total = %v, want 4001", f.GetMetric()[0])
		}
	}
}

// gate is a file that takes a write only when it is told to.
type gate struct {
	mu      sync.Mutex
	got     bytes.Buffer
	fail    error
	partial int
	open    chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	if g.open != nil {
		<-g.open
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail != nil {
		g.got.Write(p[:g.partial])
		return g.partial, g.fail
	}
	return g.got.Write(p)
}

func TestSlowFileDropsAndNeverBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		w, err := New(Options{BufferBytes: 400})
		if err != nil {
			t.Fatal(err)
		}
		w.file = g
		const line = "0123456789\n"
		for range 100 {
			w.Write(text(line))
			synctest.Wait()
		}
		if w.Dropped() == 0 || w.Dropped() == 100 {
			t.Errorf("%d of 100 lines dropped while the file was stuck", w.Dropped())
		}
		close(g.open)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, want := g.got.Len()/len(line), 100-int(w.Dropped()); got != want {
			t.Errorf("%d lines arrived, want %d", got, want)
		}
	})
}

func TestLineArrivesWithinTheInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		w, err := New(Options{FlushInterval: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		w.file = g
		for range 3 {
			g.got.Reset()
			w.Write(text("line\n"))
			time.Sleep(51 * time.Millisecond)
			synctest.Wait()
			if g.got.String() != "line\n" {
				t.Errorf("the file has %q", g.got.String())
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFaultIsShownAndPasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{fail: errors.New("no space left"), partial: 3}
		w, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		w.file = g
		flushed := func(line string) {
			w.Write(text(line))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		flushed("first\n")
		if w.Fault() != "no space left" || w.Dropped() != 1 {
			t.Errorf("Fault() = %q, %d dropped; want the fault and 1", w.Fault(), w.Dropped())
		}
		g.mu.Lock()
		g.fail = nil
		g.mu.Unlock()
		flushed("second\n")
		if w.Fault() != "" || g.got.String() != "fir\nsecond\n" {
			t.Errorf("after the fault: Fault() = %q, the file has %q", w.Fault(), g.got.String())
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	w, err := New(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(text("before\n"))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Reopen(); err != nil {
		t.Fatal(err)
	}
	w.Write(text("after\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(old) + string(now); got != "before\nafter\n" || !strings.HasSuffix(string(now), "after\n") {
		t.Fatalf("old file %q, new file %q", old, now)
	}
	if _, err := New(Options{Path: filepath.Join(dir, "no", "folder")}); err == nil {
		t.Fatal("a file in a folder that does not exist was opened")
	}
}
