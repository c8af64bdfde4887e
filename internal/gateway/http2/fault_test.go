package http2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
	"hansa.dev/hansa/internal/gateway/http2"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/x/sweep"
)

// raw is a client that may do anything.
type raw struct {
	t *testing.T
	net.Conn
	*xhttp2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
	dec *hpack.Decoder
}

// dial opens a connection and exchanges settings.
func (g *gateway) dial(t *testing.T, settings ...xhttp2.Setting) *raw {
	t.Helper()
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, Conn: c, Framer: xhttp2.NewFramer(c, c), dec: hpack.NewDecoder(4096, nil)}
	r.enc = hpack.NewEncoder(&r.buf)
	if _, err := io.WriteString(c, xhttp2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	r.must(r.WriteSettings(settings...))
	return r
}

func (r *raw) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// block encodes fields, "name: value", behind those of a request for /.
func (r *raw) block(method string, more ...string) []byte {
	r.buf.Reset()
	method, path, given := strings.Cut(method, " ")
	if !given {
		path = "/"
	}
	for _, l := range append([]string{":method: " + method, ":scheme: http", ":path: " + path, ":authority: a"}, more...) {
		name, value, _ := strings.Cut(l[1:], ": ")
		_ = r.enc.WriteField(hpack.HeaderField{Name: l[:1] + name, Value: value})
	}
	return r.buf.Bytes()
}

func (r *raw) request(id uint32, end bool, method string, more ...string) {
	r.t.Helper()
	r.must(r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: r.block(method, more...), EndStream: end, EndHeaders: true}))
}

// reply is what became of a stream.
type reply struct {
	status, trailer string
	grpcStatus      string
	body            int
	ended           bool
	reset           xhttp2.ErrCode
	wasReset        bool
}

// until reads frames until f is satisfied, or the connection ends; then it returns the last GOAWAY.
func (r *raw) until(f func(map[uint32]*reply) bool) (map[uint32]*reply, *xhttp2.GoAwayFrame) {
	r.t.Helper()
	all := map[uint32]*reply{}
	var away *xhttp2.GoAwayFrame
	for f == nil || !f(all) {
		fr, err := r.ReadFrame()
		if err != nil {
			if f != nil && away == nil && !errors.Is(err, io.EOF) {
				r.t.Fatalf("read: %v", err)
			}
			return all, away
		}
		id := fr.Header().StreamID
		if all[id] == nil {
			all[id] = new(reply)
		}
		a := all[id]
		switch fr := fr.(type) {
		case *xhttp2.HeadersFrame:
			r.dec.SetEmitFunc(func(f hpack.HeaderField) {
				switch {
				case f.Name == ":status":
					a.status += f.Value + " "
				case f.Name == "grpc-status":
					a.grpcStatus = f.Value
				case a.body > 0:
					a.trailer += f.Name + "=" + f.Value
				}
			})
			_, err := r.dec.Write(fr.HeaderBlockFragment())
			r.must(err)
			a.ended = a.ended || fr.StreamEnded()
		case *xhttp2.DataFrame:
			a.body += len(fr.Data())
			a.ended = a.ended || fr.StreamEnded()
		case *xhttp2.RSTStreamFrame:
			a.reset, a.wasReset = fr.ErrCode, true
		case *xhttp2.PingFrame:
			if !fr.IsAck() {
				_ = r.WritePing(true, fr.Data)
			}
		case *xhttp2.GoAwayFrame:
			away = fr
		}
	}
	return all, away
}

func over(ids ...uint32) func(map[uint32]*reply) bool {
	return func(all map[uint32]*reply) bool {
		for _, id := range ids {
			if a := all[id]; a == nil || !a.ended && !a.wasReset {
				return false
			}
		}
		return true
	}
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

// waiting is a backend that answers when its client is gone.
func waiting(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// TestFloods sends what costs work and carries nothing, for as long as the connection takes it.
func TestFloods(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		more func(r *raw, i uint32) error
	}{
		{"ping", func(r *raw, i uint32) error { return r.WritePing(false, [8]byte{byte(i)}) }},
		{"ping without reading", func(r *raw, i uint32) error { return r.WritePing(false, [8]byte{byte(i)}) }},
		{"settings", func(r *raw, i uint32) error {
			return r.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: i})
		}},
		{"priority", func(r *raw, i uint32) error {
			return r.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3, Weight: byte(i)})
		}},
		{"unknown", func(r *raw, _ uint32) error { return r.WriteRawFrame(99, 0, 0, nil) }},
		{"empty data", func(r *raw, i uint32) error {
			if i == 0 {
				r.request(1, false, "POST")
			}
			return r.WriteData(1, false, nil)
		}},
		{"window update", func(r *raw, i uint32) error {
			if i == 0 {
				r.request(1, false, "POST")
			}
			return r.WriteWindowUpdate(1, 1)
		}},
		{"rapid reset", func(r *raw, i uint32) error {
			if err := r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: r.block("GET"), EndStream: true, EndHeaders: true}); err != nil {
				return err
			}
			return r.WriteRSTStream(2*i+1, xhttp2.ErrCodeCancel)
		}},
		{"malformed requests", func(r *raw, i uint32) error {
			return r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: r.block("GET", "connection: close"), EndStream: true, EndHeaders: true})
		}},
		{"continuation", func(r *raw, i uint32) error {
			if i == 0 {
				if err := r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block("GET"), EndStream: true}); err != nil {
					return err
				}
			}
			return r.WriteContinuation(1, false, []byte("\x00\x01a\x01b"))
		}},
		{"empty continuation", func(r *raw, i uint32) error {
			if i == 0 {
				if err := r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block("GET"), EndStream: true}); err != nil {
					return err
				}
			}
			return r.WriteContinuation(1, false, nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, waiting, setup{options: http2.Options{MaxStreams: 16}})
			r := g.dial(t)
			ended := make(chan *xhttp2.GoAwayFrame, 1)
			go func() {
				var away *xhttp2.GoAwayFrame
				for {
					f, err := r.ReadFrame()
					if err != nil {
						ended <- away
						return
					}
					if a, ok := f.(*xhttp2.GoAwayFrame); ok {
						away = a
					}
				}
			}()
			sent := uint32(0)
			for ; sent < 200_000; sent++ {
				if tt.more(r, sent) != nil {
					break
				}
			}
			if n := g.active.Load(); n > 16 {
				t.Errorf("%d requests are served at a time, want at most 16", n)
			}
			away := <-ended
			if away == nil || away.ErrCode != xhttp2.ErrCodeEnhanceYourCalm {
				t.Errorf("after %d frames: %v, want ENHANCE_YOUR_CALM", sent, away)
			}
			if sent >= 200_000 {
				t.Error("the connection takes all of it")
			}
		})
	}
}

// TestLargeHeads sends heads that are larger than the limits, plainly and compressed. Each is answered, and the connection
// goes on.
func TestLargeHeads(t *testing.T) {
	t.Parallel()
	g := start(t, hello, setup{})
	r := g.dial(t)
	r.request(1, true, "GET")
	value := "x-big: " + strings.Repeat("v", 4000)
	var many, big []string
	for i := range 12 {
		big = append(big, fmt.Sprintf("x-%d: %s", i, strings.Repeat("v", 4000)))
	}
	for range 150 {
		many = append(many, "a: b")
	}
	write := func(id uint32, block []byte) {
		first := true
		for len(block) > 0 || first {
			n := min(len(block), 16<<10)
			if first {
				r.must(r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: true, EndHeaders: n == len(block)}))
			} else {
				r.must(r.WriteContinuation(id, n == len(block), block[:n]))
			}
			first, block = false, block[n:]
		}
	}
	write(3, bytes.Clone(r.block("GET", big...)))  // in full, with a table that overflows
	write(5, bytes.Clone(r.block("GET", many...))) // too many
	bomb := bytes.Clone(r.block("GET", value))
	write(7, append(bomb, bytes.Repeat([]byte{0xbe}, 10_000)...)) // the newest entry of the table
	write(9, bytes.Clone(r.block("GET", value)))
	all, _ := r.until(over(1, 3, 5, 7, 9))
	for id, want := range map[uint32]string{1: "200 ", 3: "431 ", 5: "431 ", 7: "431 ", 9: "200 "} {
		if all[id].status != want {
			t.Errorf("stream %d: status %q, want %q", id, all[id].status, want)
		}
	}
	// Far more than the limit ends the connection.
	r.must(r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 11, BlockFragment: r.block("GET"), EndStream: true}))
	for range 10 {
		_ = r.WriteContinuation(11, false, append([]byte{0, 1, 'a', 0x7f, 0x81, 0x7c}, bytes.Repeat([]byte("x"), 16_000)...))
	}
	if _, away := r.until(nil); away == nil || away.ErrCode != xhttp2.ErrCodeEnhanceYourCalm {
		t.Errorf("%v, want ENHANCE_YOUR_CALM", away)
	}
}

// TestRefusals shows what is answered, and what is reset.
func TestRefusals(t *testing.T) {
	t.Parallel()
	g := start(t, hello, setup{})
	r := g.dial(t)
	id := uint32(1)
	f := func(want string, reset xhttp2.ErrCode, lines ...string) {
		t.Helper()
		r.buf.Reset()
		for _, l := range lines {
			name, value, _ := strings.Cut(l[1:], ": ")
			_ = r.enc.WriteField(hpack.HeaderField{Name: l[:1] + name, Value: value})
		}
		r.must(r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: r.buf.Bytes(), EndStream: true, EndHeaders: true}))
		all, _ := r.until(over(id))
		if a := all[id]; a == nil || a.status != want || a.reset != reset {
			t.Errorf("%q: %+v, want status %q, reset %v", lines, a, want, reset)
		}
		id += 2
	}
	get := func(path string, more ...string) []string {
		return append([]string{":method: GET", ":scheme: http", ":path: " + path}, more...)
	}
	f("200 ", 0, get("/", ":authority: a")...)
	f("200 ", 0, get("/", "host: a")...)
	f("200 ", 0, get("/", ":authority: A:80", "host: a:80")...)
	f("400 ", 0, get("/")...)
	f("400 ", 0, get("/", ":authority: a", "host: b")...)
	f("400 ", 0, get("/", ":authority: a b")...)
	f("400 ", 0, get("/", ":authority: u@a")...)
	f("400 ", 0, get("*", ":authority: a")...)
	f("400 ", 0, get("x", ":authority: a")...)
	f("400 ", 0, get("/a b", ":authority: a")...)
	f("400 ", 0, get("/?a b", ":authority: a")...)
	f("400 ", 0, get("/?a HTTP/1.1", ":authority: a")...)
	f("400 ", 0, get("/?\xff", ":authority: a")...)
	f("400 ", 0, get("/a#b", ":authority: a")...)
	f("400 ", 0, get("/?a#b", ":authority: a")...)
	f("400 ", 0, get("/%00", ":authority: a")...)
	f("414 ", 0, get("/"+strings.Repeat("a", 9000), ":authority: a")...)
	f("400 ", 0, ":method: GET", ":scheme: https", ":path: /", ":authority: a")
	f("400 ", 0, ":method: G T", ":scheme: http", ":path: /", ":authority: a")
	f("501 ", 0, ":method: CONNECT", ":authority: a")
	f("400 ", 0, ":method: CONNECT", ":protocol: a b", ":scheme: http", ":path: /", ":authority: a")
	for _, p := range []string{"h2c", "H2C", "h2", "tls", "http"} {
		f("400 ", 0, ":method: CONNECT", ":protocol: "+p, ":scheme: http", ":path: /", ":authority: a")
	}
	f("417 ", 0, get("/", ":authority: a", "expect: x")...)
	for _, bad := range []string{"connection: close", "te: gzip", "a: b\x00c", ":other: x", "content-length: 5", "content-length: x"} {
		f("", xhttp2.ErrCodeProtocol, get("/", ":authority: a", bad)...)
	}
	f("200 ", 0, get("/", ":authority: a", "content-length: 0")...)
	got := g.records(t, int(id/2))
	if last := got[len(got)-2]; last.code != "bad-request-framing" {
		t.Errorf("record %+v", last)
	}
}

// TestSlowReader opens no window. The stream ends, and the others of the connection are served meanwhile.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	g := start(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 100_000))
	}, setup{options: http2.Options{Options: ingress.Options{Timeouts: ingress.Timeouts{Write: 300 * time.Millisecond}}}})
	r := g.dial(t, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
	r.request(1, true, "GET")
	r.request(3, true, "HEAD")
	all, _ := r.until(over(1, 3))
	if a := all[1]; a.body != 10 || a.reset != xhttp2.ErrCodeCancel {
		t.Errorf("stream 1: %+v", a)
	}
	if a := all[3]; a.status != "200 " || a.wasReset {
		t.Errorf("stream 3: %+v", a)
	}
	for _, rec := range g.records(t, 2) {
		if rec.method == "GET" && rec.code != "client-gone" {
			t.Errorf("record %+v", rec)
		}
	}
}

// TestStalledSocket reads nothing at all of a long response.
func TestStalledSocket(t *testing.T) {
	t.Parallel()
	g := start(t, func(w http.ResponseWriter, r *http.Request) {
		for range 200 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}, setup{options: http2.Options{Options: ingress.Options{Timeouts: ingress.Timeouts{Write: 300 * time.Millisecond}}}})
	r := g.dial(t, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 30})
	r.must(r.WriteWindowUpdate(0, 1<<30))
	r.request(1, true, "GET")
	if rec := g.records(t, 1)[0]; rec.code != "client-gone" || rec.out >= 100<<20 {
		t.Errorf("record %+v", rec)
	}
}

// TestSlowClients begin something and do not go on.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	with := func(t *testing.T, backend http.HandlerFunc, timeouts ingress.Timeouts) *raw { // the others are long: who is slow is not this machine
		t.Helper()
		return start(t, backend, setup{options: http2.Options{Options: ingress.Options{Timeouts: timeouts}}}).dial(t)
	}
	stuck := ingress.Timeouts{Head: 200 * time.Millisecond}
	idle := ingress.Timeouts{Idle: 600 * time.Millisecond, Park: 200 * time.Millisecond}
	for name, f := range map[string]struct {
		timeouts ingress.Timeouts
		do       func(r *raw)
		want     xhttp2.ErrCode
	}{
		"within a frame": {stuck, func(r *raw) { _, _ = r.Write([]byte{0, 0, 8, 6}) }, xhttp2.ErrCodeProtocol},
		"within a header block": {stuck, func(r *raw) {
			_ = r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.block("GET")})
		}, xhttp2.ErrCodeProtocol},
		"idle": {idle, func(r *raw) {}, xhttp2.ErrCodeNo},
		"idle but for pings": {idle, func(r *raw) {
			go func() {
				for range time.Tick(50 * time.Millisecond) {
					if r.WritePing(false, [8]byte{}) != nil {
						return
					}
				}
			}()
		}, xhttp2.ErrCodeNo},
		"idle after a request": {idle, func(r *raw) { r.request(1, true, "GET") }, xhttp2.ErrCodeNo},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := with(t, hello, f.timeouts)
			f.do(r)
			if _, away := r.until(nil); away == nil || away.ErrCode != f.want {
				t.Errorf("%v, want %v", away, f.want)
			}
		})
	}
	t.Run("pings during a request", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		r := with(t, func(w http.ResponseWriter, r *http.Request) { <-release; hello(w, r) }, ingress.Timeouts{Idle: 3 * time.Second, Park: 200 * time.Millisecond})
		r.request(1, true, "GET")
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range 40 { // longer than connections may be idle
			<-tick.C
			r.must(r.WritePing(false, [8]byte{}))
		}
		close(release)
		if all, away := r.until(over(1)); all[1].status != "200 " || away != nil {
			t.Errorf("%+v, %v", all[1], away)
		}
	})
	t.Run("within a body", func(t *testing.T) {
		t.Parallel()
		r := with(t, hello, ingress.Timeouts{Body: 200 * time.Millisecond})
		r.request(1, false, "POST", "content-length: 10")
		r.must(r.WriteData(1, false, []byte("abc")))
		if all, _ := r.until(over(1)); all[1].status != "408 " {
			t.Errorf("%+v", all[1])
		}
	})
}

// TestFlowControl sends more than the windows allow, and has a body held up by a backend that does not read.
func TestFlowControl(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var never atomic.Bool
	g := start(t, nil, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
		if x.Path.String() != "/" || x.Body == nil {
			x.Answer(200, nil)
			d.Respond(x, nil)
			return true
		}
		<-release
		if never.Load() {
			eventually(t, d.Gone)
			d.Abort(x)
			return true
		}
		n := 0
		for {
			c, err := x.Body.Next()
			n += len(c.Data)
			if err != nil || c.End {
				break
			}
		}
		x.Answer(200, strconv.AppendInt(nil, int64(n), 10))
		d.Respond(x, nil)
		return true
	}})
	r := g.dial(t)
	r.request(1, false, "POST")
	for range 16 {
		r.must(r.WriteData(1, false, make([]byte, 16<<10)))
	}
	r.request(3, true, "GET") // others go on
	if all, _ := r.until(over(3)); all[3].status != "200 " {
		t.Errorf("stream 3: %+v", all[3])
	}
	close(release)
	all, _ := r.until(func(all map[uint32]*reply) bool { return all[1] != nil }) // the window is opened
	if all[1].wasReset {
		t.Errorf("stream 1: %+v", all[1])
	}
	r.must(r.WriteData(1, true, []byte("x")))
	if all, _ = r.until(over(1)); all[1].status != "200 " {
		t.Errorf("stream 1: %+v", all[1])
	}
	for _, rec := range g.records(t, 2) {
		if rec.method == "POST" && rec.in != 256<<10+1 {
			t.Errorf("record %+v", rec)
		}
	}
	// Never read by anybody: more than the window of the stream.
	never.Store(true)
	r2 := g.dial(t)
	r2.request(1, false, "POST")
	for range 17 {
		r2.must(r2.WriteData(1, false, make([]byte, 16<<10)))
	}
	if all, _ := r2.until(over(1)); all[1].reset != xhttp2.ErrCodeFlowControl {
		t.Errorf("beyond the window: %+v", all[1])
	}
}

// TestClientResets has the backend notice.
func TestClientResets(t *testing.T) {
	t.Parallel()
	noticed := make(chan struct{})
	g := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(noticed)
	}, setup{})
	r := g.dial(t)
	r.request(1, true, "GET")
	r.until(func(all map[uint32]*reply) bool { return all[1] != nil && all[1].status != "" })
	r.must(r.WriteRSTStream(1, xhttp2.ErrCodeCancel))
	<-noticed
	if rec := g.records(t, 1)[0]; rec.code != "client-gone" {
		t.Errorf("record %+v", rec)
	}
}

// TestDrain ends a connection gracefully: the stream that is under way is served to its end.
func TestDrain(t *testing.T) {
	t.Parallel()
	for range 20 {
		if drainInTime(t) {
			return
		}
	}
	t.Error("a request that comes before the answer to the ping is not served")
}

// drainInTime tells whether this client answered the ping within the second that the gateway waits for that: a machine that
// has much else to do may not let it.
func drainInTime(t *testing.T) bool {
	t.Helper()
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	g := start(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		hello(w, r)
	}, setup{})
	t.Cleanup(let)
	r := g.dial(t)
	r.request(1, true, "GET")
	eventually(t, func() bool { return g.active.Load() == 1 })
	drained := make(chan error, 1)
	go func() { drained <- g.server.Drain(context.Background()) }()
	var lasts []uint32
	for len(lasts) < 2 {
		f, err := r.ReadFrame()
		r.must(err)
		switch f := f.(type) {
		case *xhttp2.PingFrame:
			r.request(3, true, "GET") // it did not know yet
			r.must(r.WritePing(true, f.Data))
		case *xhttp2.GoAwayFrame:
			lasts = append(lasts, f.LastStreamID)
		}
	}
	if lasts[1] == 1 {
		let()
		if err := <-drained; err != nil {
			t.Errorf("Drain: %v", err)
		}
		return false
	}
	if lasts[0] != 1<<31-1 || lasts[1] != 3 {
		t.Errorf("GOAWAY names the streams %v as the last", lasts)
	}
	// What was on its way is dropped, and its client's giving up with it.
	r.request(5, false, "POST")
	r.must(r.WriteData(5, false, []byte("late")))
	r.must(r.WriteWindowUpdate(5, 10))
	r.must(r.WriteRSTStream(5, xhttp2.ErrCodeCancel))
	r.must(r.WriteRSTStream(5, xhttp2.ErrCodeCancel))
	r.must(r.WritePing(false, [8]byte{1}))
	for answered := false; !answered; {
		f, err := r.ReadFrame()
		r.must(err)
		if f, ok := f.(*xhttp2.GoAwayFrame); ok {
			t.Fatalf("frames of a stream beyond the last: GOAWAY %v %q", f.ErrCode, f.DebugData())
		}
		p, ok := f.(*xhttp2.PingFrame)
		answered = ok && p.IsAck()
	}
	let()
	all, _ := r.until(over(1, 3))
	if all[1].status != "200 " || all[3].status != "200 " {
		t.Errorf("%+v, %+v", all[1], all[3])
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	return true
}

// TestLimits are refused when an engine is made.
func TestLimits(t *testing.T) {
	t.Parallel()
	if _, err := http2.New(http2.Options{}); err == nil {
		t.Error("an engine without a handler")
	}
	_, err := http2.New(http2.Options{Options: ingress.Options{Handler: new(handler), Sweeper: sweep.New(), Limits: h1.Limits{Fields: 1000}}})
	if err == nil {
		t.Error("an engine with 1,000 fields")
	}
}

// TestLateFrames has clients go on with requests that were answered, and reset, before they were complete: what comes late is
// dropped, and concerns no other stream.
func TestLateFrames(t *testing.T) {
	t.Parallel()
	g := start(t, nil, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
		x.Answer(200, []byte("enough"))
		d.Respond(x, nil)
		return true
	}})
	r := g.dial(t)
	const requests = 100 // more than one would think are remembered
	for i := range uint32(requests) {
		r.request(2*i+1, false, "POST")
	}
	all, _ := r.until(func(all map[uint32]*reply) bool {
		n := 0
		for _, a := range all {
			if a.wasReset && a.status == "200 " && a.reset == xhttp2.ErrCodeNo {
				n++
			}
		}
		return n == requests
	})
	if all[1] == nil || !all[1].ended {
		t.Fatalf("the first request: %+v", all[1])
	}
	for i := range uint32(requests) {
		r.must(r.WriteData(2*i+1, false, []byte("more")))
		r.buf.Reset()
		_ = r.enc.WriteField(hpack.HeaderField{Name: "x-sum", Value: strconv.Itoa(int(i))})
		r.must(r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: r.buf.Bytes(), EndStream: true, EndHeaders: true}))
	}
	const last = 2*requests + 1
	r.request(last, true, "GET")
	if all, away := r.until(over(last)); all[last] == nil || all[last].status != "200 " || away != nil {
		t.Errorf("the next request: %+v, %v", all[last], away)
	}
}

// TestEarlyResponses has a response be over before its request. What the client sends without knowing is held against the rules.
func TestEarlyResponses(t *testing.T) {
	t.Parallel()
	g := start(t, nil, setup{options: http2.Options{MaxStreams: 4}, serve: func(x *exchange.Exchange, d exchange.Down) bool {
		x.Answer(200, []byte("enough"))
		d.Respond(x, nil)
		return true
	}})
	const none = xhttp2.ErrCode(0xffff)
	for _, tt := range []struct {
		name  string
		then  func(r *raw)
		reset xhttp2.ErrCode // of stream 1
		away  bool
	}{
		{"its end", func(r *raw) { r.must(r.WriteData(1, true, []byte("test"))) }, none, false},
		{"trailers", func(r *raw) {
			r.must(r.WriteData(1, false, []byte("test")))
			r.buf.Reset()
			_ = r.enc.WriteField(hpack.HeaderField{Name: "x-sum", Value: "1"})
			r.must(r.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: r.buf.Bytes(), EndStream: true, EndHeaders: true}))
		}, none, false},
		{"too much", func(r *raw) { r.must(r.WriteData(1, false, []byte("tests"))) }, xhttp2.ErrCodeProtocol, false},
		{"too little", func(r *raw) { r.must(r.WriteData(1, true, []byte("tes"))) }, xhttp2.ErrCodeProtocol, false},
		{"a second head", func(r *raw) { r.request(1, false, "POST") }, xhttp2.ErrCodeProtocol, false},
		{"no window", func(r *raw) { r.must(r.WriteWindowUpdate(1, 1<<31-1)) }, xhttp2.ErrCodeFlowControl, false},
		{"data after a reset", func(r *raw) {
			r.must(r.WriteRSTStream(1, xhttp2.ErrCodeCancel))
			r.must(r.WriteData(1, true, []byte("test")))
		}, none, true},
		{"data after its end", func(r *raw) {
			r.must(r.WriteData(1, true, []byte("test")))
			r.must(r.WriteData(1, true, nil))
		}, none, true},
		{"nothing", func(*raw) {}, xhttp2.ErrCodeNo, false},
		{"other requests", func(r *raw) {
			for i := range uint32(4) {
				r.request(2*i+3, false, "POST")
			}
		}, xhttp2.ErrCodeNo, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := g.dial(t)
			r.request(1, false, "POST", "content-length: 4")
			if all, _ := r.until(over(1)); all[1].status != "200 " {
				t.Fatalf("%+v", all[1])
			}
			tt.then(r)
			done := func(all map[uint32]*reply) bool { return all[1] != nil && all[1].wasReset }
			if tt.reset == none {
				r.request(11, true, "GET")
				done = over(11)
			}
			all, away := r.until(done)
			got := none
			if all[1] != nil && all[1].wasReset {
				got = all[1].reset
			}
			if got != tt.reset || (away != nil) != tt.away {
				t.Errorf("got reset %v and GOAWAY %v, want %v, %t", got, away, tt.reset, tt.away)
			}
		})
	}
}

// TestForeignProtocol begins a connection with what is no HTTP.
func TestForeignProtocol(t *testing.T) {
	t.Parallel()
	c, err := net.Dial("tcp", start(t, hello, setup{}).address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "INVALID CONNECTION PREFACE\r\n\r\n")
	r := &raw{t: t, Conn: c, Framer: xhttp2.NewFramer(c, c)}
	r.must(c.SetDeadline(time.Now().Add(time.Minute)))
	if _, away := r.until(nil); away == nil || away.ErrCode != xhttp2.ErrCodeProtocol {
		t.Errorf("got %v, want GOAWAY with PROTOCOL_ERROR", away)
	}
}

// TestLongSettings has one frame change the same setting thousands of times, each of which concerns every stream.
func TestLongSettings(t *testing.T) {
	t.Parallel()
	g := start(t, hello, setup{})
	many := make([]xhttp2.Setting, 2000)
	for i := range many {
		many[i] = xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: uint32(i)}
	}
	for _, tt := range []struct {
		settings []xhttp2.Setting
		want     xhttp2.ErrCode
	}{{many, xhttp2.ErrCodeEnhanceYourCalm}, {many[:10], xhttp2.ErrCodeProtocol}} {
		r := g.dial(t)
		for range 5 {
			r.must(r.WriteSettings(tt.settings...))
		}
		_ = r.WriteRSTStream(1, xhttp2.ErrCodeCancel) // which ends the connection, if it has not ended
		if _, away := r.until(nil); away == nil || away.ErrCode != tt.want {
			t.Errorf("%d settings in a frame: %v, want %v", len(tt.settings), away, tt.want)
		}
	}
}
