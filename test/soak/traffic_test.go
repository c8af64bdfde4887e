package soak

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// protocol is one kind of traffic. Another one is another row.
type protocol struct {
	name    string
	workers int
	work    func(k *task) error // does one piece of work, whole
}

// protocols are all kinds of traffic. The backend of /soak speaks HTTP/1.1, that of /soak2 HTTP/2. What is called long lasts
// as long as the soak, over all that happens meanwhile.
func protocols() []protocol {
	return slices.Concat(requests(), bodies(), streams(), tunnels(), calls(), http3s())
}

func requests() []protocol {
	return []protocol{
		{"http1", 2, func(k *task) error { return k.session("http", "/soak", 1+rand.IntN(50), 0) }},
		{"http1-short", 1, func(k *task) error { return k.session("http", "/soak", 1, 0) }},
		{"http1-idle", 2, func(k *task) error { return k.session("http", "/soak", 50, idlePause) }},
		{"http1-backend2", 1, func(k *task) error { return k.session("http", "/soak2", 1+rand.IntN(50), 0) }},
		{"tls13-resumed", 1, func(k *task) error { return k.resumed(tls.VersionTLS13) }},
		{"tls12-resumed", 1, func(k *task) error { return k.resumed(tls.VersionTLS12) }},
		{"tls-partner", 1, func(k *task) error { return k.session("partner", "/soak", 1+rand.IntN(50), 0) }},
		{"http2", 1, func(k *task) error { return k.http2("https", "/soak", 1+rand.IntN(50)) }},
		{"http2-parallel", 1, func(k *task) error { return k.http2Parallel("/soak", 1+rand.IntN(30), 5) }},
		{"http2-backend2", 1, func(k *task) error { return k.http2Parallel("/soak2", 1+rand.IntN(30), 5) }},
		{"http2-partner", 1, func(k *task) error { return k.http2("partner", "/soak", 1+rand.IntN(50)) }},
		{"h2c", 1, func(k *task) error { return k.http2("http", "/soak", 1+rand.IntN(50)) }},
	}
}

// swift and slow are large bodies; slow ones take some five seconds.
func swift() *body { return &body{left: 2<<20 + rand.IntN(2<<20), piece: 64 << 10, pause: pace} }
func slow() *body  { return &body{left: 1 << 20, piece: 10 << 10, pause: 50 * time.Millisecond} }

func bodies() []protocol {
	return []protocol{
		{"post", 1, func(k *task) error { return k.post("/soak") }},
		{"post-backend2", 1, func(k *task) error { return k.post("/soak2") }},
		{"large", 1, func(k *task) error { return k.large("http", "/soak", swift()) }},
		{"large-tls", 1, func(k *task) error { return k.large("https", "/soak", swift()) }},
		{"large-http2", 1, func(k *task) error { return k.largeHTTP2("/soak", swift()) }},
		{"large-backend2", 1, func(k *task) error { return k.largeHTTP2("/soak2", swift()) }},
		{"large-slow", 2, func(k *task) error { return k.large("http", "/soak", slow()) }},
		{"large-slow-http2", 1, func(k *task) error { return k.largeHTTP2("/soak", slow()) }},
		{"large-slow-backend2", 1, func(k *task) error { return k.large("http", "/soak2", slow()) }},
	}
}

func streams() []protocol {
	return []protocol{
		{"sse", 2, func(k *task) error { return k.sse("http", "/soak", 20+rand.IntN(60)) }},
		{"sse-http2", 2, func(k *task) error { return k.sseHTTP2("https", "/soak", 20+rand.IntN(60)) }},
		{"sse-partner", 1, func(k *task) error { return k.sse("partner", "/soak", 20+rand.IntN(60)) }},
		{"sse-long", 1, func(k *task) error { return k.sse("http", "/soak", endless) }},
		{"sse-tls-long", 1, func(k *task) error { return k.sse("https", "/soak", endless) }},
		{"sse-http2-long", 1, func(k *task) error { return k.sseHTTP2("https", "/soak", endless) }},
		{"sse-backend2-long", 1, func(k *task) error { return k.sse("http", "/soak2", endless) }},
		{"sse-http2-backend2-long", 1, func(k *task) error { return k.sseHTTP2("https", "/soak2", endless) }},
		{"sse-partner-long", 1, func(k *task) error { return k.sseHTTP2("partner", "/soak", endless) }},
	}
}

func tunnels() []protocol {
	return []protocol{
		{"talk", 1, func(k *task) error { return k.talk("http", "/soak", 40) }},
		{"talk-long", 1, func(k *task) error { return k.talk("http", "/soak", endless) }},
		{"websocket", 1, func(k *task) error { return k.webSocket("http", "/soak", 40) }},
		{"websocket-long", 1, func(k *task) error { return k.webSocket("http", "/soak", endless) }},
		{"websocket-tls-long", 1, func(k *task) error { return k.webSocket("https", "/soak", endless) }},
		{"websocket-backend2", 1, func(k *task) error { return k.webSocket("http", "/soak2", 40) }},
		{"websocket-http2", 1, func(k *task) error { return k.webSocketHTTP2("https", "/soak", 40) }},
		{"websocket-http2-long", 1, func(k *task) error { return k.webSocketHTTP2("https", "/soak", endless) }},
		{"websocket-http2-backend2-long", 1, func(k *task) error { return k.webSocketHTTP2("https", "/soak2", endless) }},
		{"websocket-partner-long", 1, func(k *task) error { return k.webSocketHTTP2("partner", "/soak", endless) }},
	}
}

func calls() []protocol {
	return []protocol{
		{"grpc-unary", 1, func(k *task) error { return k.grpc("https", unary(1+rand.IntN(50))) }},
		{"grpc-unary-h2c", 1, func(k *task) error { return k.grpc("http", unary(1+rand.IntN(50))) }},
		{"grpc-server", 1, func(k *task) error { return k.grpc("https", serverStream(20+rand.IntN(60))) }},
		{"grpc-client", 1, func(k *task) error { return k.grpc("https", clientStream(20+rand.IntN(60))) }},
		{"grpc-bidi", 1, func(k *task) error { return k.grpc("http", bidi(20+rand.IntN(60))) }},
		{"grpc-server-long", 1, func(k *task) error { return k.grpc("http", serverStream(endless)) }},
		{"grpc-client-long", 1, func(k *task) error { return k.grpc("http", clientStream(endless)) }},
		{"grpc-bidi-long", 1, func(k *task) error { return k.grpc("https", bidi(endless)) }},
	}
}

func http3s() []protocol {
	return []protocol{
		{"http3", 1, func(k *task) error {
			return k.http3("https", func(c requester) error { return k.sessionOver(c, "/soak", 1+rand.IntN(50)) })
		}},
		{"http3-partner", 1, func(k *task) error {
			return k.http3("partner", func(c requester) error { return k.sessionOver(c, "/soak", 1+rand.IntN(50)) })
		}},
		{"http3-large", 1, func(k *task) error {
			return k.http3("https", func(c requester) error { return k.largeOver(c, "/soak", slow()) })
		}},
		{"http3-sse-long", 1, func(k *task) error {
			return k.http3("https", func(c requester) error { return k.sseOver(c, "/soak", endless) })
		}},
		{"http3-sse-partner-long", 1, func(k *task) error {
			return k.http3("partner", func(c requester) error { return k.sseOver(c, "/soak2", endless) })
		}},
	}
}

const (
	// pace is the pause of a worker between two requests, so that the traffic leaves the processor to what is tested.
	pace = 20 * time.Millisecond
	// idlePause is the longest pause of clients that are idle most of the time. It is shorter than the time after which the
	// gateway closes idle connections when it drains: closing one just when a request comes is a failure that nobody can
	// help, and that clients therefore cope with (RFC 9112, section 9.3.1).
	idlePause = time.Second
)

// task is one piece of work of a worker: some requests, or a stream.
type task struct {
	*rig
	id    string          // begins the names of its requests, which are in their paths
	also  []string        // what else finds it in the access log
	stop  <-chan struct{} // closed when what has no end is to end
	count int             // requests and streams so far
}

// next names the next request.
func (k *task) next() string {
	k.count++
	return k.id + "-" + strconv.Itoa(k.count)
}

func (k *task) stopped() bool {
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

// pause waits, and tells whether it is to stop.
func (k *task) pause(d time.Duration) (stopped bool) {
	select {
	case <-k.stop:
		return true
	case <-time.After(d):
		return false
	}
}

// traffic is protocols at work.
type traffic struct {
	rig     *rig
	all     []protocol
	stop    chan struct{}
	once    sync.Once
	workers sync.WaitGroup
	done    []atomic.Int64
	failed  []atomic.Int64
	mu      sync.Mutex
	faults  []fault // guarded by mu; the first few of each protocol
}

// fault is a piece of work that failed.
type fault struct {
	began, at time.Time
	task      *task
	err       error
}

const maxFaults = 3 // that are told of each protocol

func startTraffic(r *rig, all []protocol) *traffic {
	tr := &traffic{rig: r, all: all, stop: make(chan struct{}), done: make([]atomic.Int64, len(all)), failed: make([]atomic.Int64, len(all))}
	for i := range all {
		for worker := range all[i].workers {
			tr.workers.Go(func() { tr.run(i, worker) })
		}
	}
	return tr
}

// run is one worker of a protocol.
func (tr *traffic) run(i, worker int) {
	p := &tr.all[i]
	for n := 0; ; n++ {
		k := &task{rig: tr.rig, id: fmt.Sprintf("%s-%d-%d", p.name, worker, n), stop: tr.stop}
		began := time.Now()
		err := p.work(k)
		tr.done[i].Add(int64(k.count))
		if err != nil {
			if tr.failed[i].Add(1) <= maxFaults {
				tr.mu.Lock()
				tr.faults = append(tr.faults, fault{began, time.Now(), k, err})
				tr.mu.Unlock()
			}
		}
		if k.pause(pace) {
			return
		}
	}
}

// end ends the traffic and fails the test unless everything went well.
func (tr *traffic) end(t testing.TB) {
	t.Helper()
	tr.cease()
	var out []string
	for i, p := range tr.all {
		out = append(out, fmt.Sprintf("%s %d", p.name, tr.done[i].Load()))
		if n := tr.failed[i].Load(); n > 0 {
			t.Errorf("%s: %d of %d failed", p.name, n, tr.done[i].Load())
		}
		if tr.done[i].Load() == 0 {
			t.Errorf("%s: nothing was done", p.name)
		}
	}
	t.Logf("requests and streams: %s", strings.Join(out, ", "))
	for _, f := range tr.faults {
		t.Log(tr.rig.evidence(f))
	}
}

// cease has all workers end.
func (tr *traffic) cease() {
	tr.once.Do(func() { close(tr.stop) })
	tr.workers.Wait()
}

// evidence is what is known of a fault: what was asked when, what happened to the gateway in the second before, and what the
// access log says.
func (r *rig) evidence(f fault) string {
	const stamp = "15:04:05.000"
	var b strings.Builder
	fmt.Fprintf(&b, "%s: failed at %s, having begun at %s, with its request or stream %d: %v", f.task.id,
		f.at.Format(stamp), f.began.Format(stamp), f.task.count, f.err)
	for _, e := range r.history.between(f.at.Add(-time.Second), f.at) {
		fmt.Fprintf(&b, "\n  %s to %s: %s", e.began.Format(stamp), e.ended.Format(stamp), e.what)
	}
	log, err := os.Open(r.path("access.log"))
	if err != nil {
		return b.String()
	}
	defer log.Close()
	last := fmt.Sprintf("/%s-%d\"", f.task.id, f.task.count)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		line := lines.Text()
		if strings.Contains(line, last) || slices.ContainsFunc(f.task.also, func(id string) bool { return strings.Contains(line, id) }) {
			b.WriteString("\n  " + line)
		}
	}
	return b.String()
}

// history is what has happened to the gateway.
type history struct {
	mu  sync.Mutex
	all []*occurrence // guarded by mu
}

type occurrence struct {
	what         string
	began, ended time.Time
}

// record notes that something happens for as long as do takes.
func (h *history) record(what string, do func()) {
	o := &occurrence{what: what, began: time.Now()}
	h.mu.Lock()
	h.all = append(h.all, o)
	h.mu.Unlock()
	do()
	h.mu.Lock()
	o.ended = time.Now()
	h.mu.Unlock()
}

// between returns what has happened between two times, or happens.
func (h *history) between(from, to time.Time) (out []occurrence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.all {
		if o.began.Before(to) && (o.ended.IsZero() || o.ended.After(from)) {
			out = append(out, *o)
		}
	}
	return out
}

// within tells whether something of a kind has happened between two times.
func (h *history) within(kind string, from, to time.Time) bool {
	return slices.ContainsFunc(h.between(from, to), func(o occurrence) bool { return strings.HasPrefix(o.what, kind) })
}
