package fetch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/snapshot"
)

// realistic makes the entry of an API with five operations and two policies.
func realistic(tb testing.TB, i int, mark string) snapshot.Entry {
	tb.Helper()
	name := fmt.Sprintf("api-%05d", i)
	api := snapshot.API{
		Organization: testOrg, Environment: "prod", Name: name, Revision: 1, BasePath: "/" + name + "/v1",
		Backend: "backend-" + name, BackendPath: "/" + mark,
		Request: []snapshot.Policy{
			{Use: "apiKey", Config: []byte(`{"in":"header","name":"X-API-Key"}`)},
			{Use: "quota", Config: []byte(`{"limit":100000,"windowMillis":3600000}`)},
		},
	}
	for j := range 5 {
		api.Operations = append(api.Operations, snapshot.Operation{Name: fmt.Sprintf("operation%d", j), Method: "GET", Path: fmt.Sprintf("/things/{id}/part%d", j)})
	}
	e, err := snapshot.NewEntry(snapshot.EntryKey(snapshot.ClassAPI, testOrg, "prod", name), 1, 1, true, api)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func realisticSet(tb testing.TB, n int) []snapshot.Entry {
	puts := make([]snapshot.Entry, 0, n)
	for i := range n {
		puts = append(puts, realistic(tb, i, "first"))
	}
	return puts
}

// BenchmarkOneChange measures one change among 10,000 APIs: from publishing until the sink has it, with the disk, and the
// bytes that the control node sends.
func BenchmarkOneChange(b *testing.B) {
	a := newAuthority(b)
	c := newControl(b, a, serve.Options{})
	c.changeCredentials()
	c.change(realisticSet(b, 10_000))
	p := newProxy(b, c.addr)
	g := newGateway(b, a, b.TempDir())
	g.run(p.addr)
	g.sink.waitFor(b, c.change([]snapshot.Entry{realistic(b, 0, "warm")}))
	sent := p.down.Load()
	var took []time.Duration
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		e := realistic(b, i%10_000, fmt.Sprint("change", i))
		begin := time.Now()
		cp := c.change([]snapshot.Entry{e})
		g.sink.waitFor(b, cp)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(p.down.Load()-sent)/float64(i), "B-sent/op")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkLoadLocal measures the start from the disk: 10,000 APIs and 100,000 credentials.
func BenchmarkLoadLocal(b *testing.B) {
	a := newAuthority(b)
	set := snapshot.NewSet().With(realisticSet(b, 10_000), nil)
	table := snapshot.NewCredentials().With(credentials(0, 100_000))
	dir := b.TempDir()
	g := newGateway(b, a, dir)
	if err := g.fetcher.Offer(context.Background(), a.sign(b, snapshot.ConfigView(testOrg, testGroup), 1, 1, set), set,
		a.sign(b, snapshot.CredentialView(testOrg), 1, 1, table), table); err != nil {
		b.Fatal(err)
	}
	g.stop()
	set, table = nil, nil
	for b.Loop() {
		g := newGateway(b, a, dir)
		if g.sink.set.Len() != 10_000 || g.sink.table.Len() != 100_000 {
			b.Fatal("not everything was loaded")
		}
		g.stop()
	}
}

// TestMillionCredentials sends a million credentials from a process of their own, whose memory is measured. It takes a
// while and runs with HANSA_SLOW=1.
func TestMillionCredentials(t *testing.T) {
	const n = 1_000_000
	if os.Getenv("HANSA_TEST_MILLION") != "" {
		serveMillion(t, n)
		return
	}
	if os.Getenv("HANSA_SLOW") == "" {
		t.Skip("HANSA_SLOW is not set")
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMillionCredentials$", "-test.v")
	child.Env = append(os.Environ(), "HANSA_TEST_MILLION=1")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	addr := line(t, out, "listening ")
	g := newGateway(t, &authority{}, t.TempDir())
	g.fetcher.credentials.opts.Verify = func(snapshot.Checkpoint, bool) error { return nil }
	begin := time.Now()
	g.run(addr)
	g.sink.wait(t, "a million credentials", func(s *memorySink) bool { return s.table.Len() == n })
	t.Logf("a million credentials arrived within %v, %d MB", time.Since(begin), g.fetcher.credentials.bytes("bulk")>>20)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	peak := line(t, out, "peak ")
	t.Logf("the control node's memory at its peak: %s", peak)
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	var kb int
	if _, err := fmt.Sscan(peak, &kb); err != nil || kb > 1<<20 {
		t.Errorf("peak %s, want less than 1 GB (%v)", peak, err)
	}
	g.stop()
	runtime.GC()
}

func serveMillion(t *testing.T, n int) {
	t.Helper()
	c := newControl(t, newAuthority(t), serve.Options{})
	batch := c.table.Batch()
	for i := range n {
		if err := batch.Add(snapshot.CredentialChange{Credential: credential(i)}); err != nil {
			t.Fatal(err)
		}
	}
	c.table = batch.Table()
	c.changeCredentials(credentials(0, 1)...)
	fmt.Println("listening", c.addr)
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent closes it
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if after, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			fmt.Println("peak", strings.TrimSpace(after))
		}
	}
}

// line reads until a line with the prefix and returns the rest of it.
func line(t *testing.T, r interface{ Read([]byte) (int, error) }, prefix string) string {
	t.Helper()
	var text string
	buf := make([]byte, 1)
	for {
		if _, err := r.Read(buf); err != nil {
			t.Fatalf("waiting for %q: %v", prefix, err)
		}
		if buf[0] != '\n' {
			text += string(buf)
			continue
		}
		if after, ok := strings.CutPrefix(text, prefix); ok {
			return after
		}
		text = ""
	}
}
