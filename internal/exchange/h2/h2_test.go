package h2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
)

// encode makes a block of "name: value" lines with another encoder, which uses its table.
func encode(e *hpack.Encoder, b *bytes.Buffer, lines ...string) []byte {
	b.Reset()
	for _, l := range lines {
		i := strings.Index(l[1:], ": ") + 1
		_ = e.WriteField(hpack.HeaderField{Name: l[:i], Value: l[i+2:]})
	}
	return bytes.Clone(b.Bytes())
}

func lines(m *Message, h *exchange.Head) []string {
	var all []string
	for i, v := range []exchange.View{m.Method, m.Scheme, m.Authority, m.Path, m.Protocol, m.Status} {
		if v != nil {
			all = append(all, []string{":method", ":scheme", ":authority", ":path", ":protocol", ":status"}[i]+": "+string(v))
		}
	}
	for name, value := range h.All() {
		all = append(all, fmt.Sprintf("%s: %s", name, value))
	}
	return all
}

// TestDecode decodes what another implementation has encoded, with Huffman codes and a table that overflows.
func TestDecode(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	e, d := hpack.NewEncoder(&b), NewDecoder()
	var m Message
	var h exchange.Head
	for i := range 500 {
		in := []string{
			":method: GET", ":scheme: https", ":authority: example.com", fmt.Sprintf(":path: /%d", i%7),
			fmt.Sprintf("x-%d: %s", i%11, strings.Repeat("v", i%300)), "accept: */*", fmt.Sprintf("x-fixed: %d", i%3), "empty: ",
		}
		m.Reset(Request, &h, h1.DefaultLimits)
		if err := d.Decode(encode(e, &b, in...), &m); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if err := m.End(); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if diff := cmp.Diff(in, lines(&m, &h)); diff != "" {
			t.Fatalf("block %d (-want +got):\n%s", i, diff)
		}
		if got := string(h.AppendLines(nil, 0)); got != strings.Join(in[4:], "\r\n")+"\r\n" {
			t.Fatalf("block %d as lines: %q", i, got)
		}
	}
	if d.table.size > TableSize || len(d.table.text) > 2*TableSize {
		t.Errorf("the table counts %d and holds %d bytes", d.table.size, len(d.table.text))
	}
}

func TestDecodeFaults(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"index 0":                 "\x80",
		"index beyond the tables": "\xff\x00",
		"name beyond the tables":  "\x7f\x20\x01a",
		"endless integer":         "\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"cut integer":             "\xff\x80",
		"cut name":                "\x40\x05ab",
		"cut value":               "\x40\x01a",
		"bad huffman padding":     "\x40\x01a\x82\x00\x00",
		"huffman end of string":   "\x40\x01a\x84\xff\xff\xff\xff",
		"late table size":         "\x82\x20",
		"table size too large":    "\x3f\xe2\x1f",
	} {
		var m Message
		var h exchange.Head
		m.Reset(Request, &h, h1.DefaultLimits)
		if err := NewDecoder().Decode([]byte(in), &m); err != errCompression {
			t.Errorf("%s: %v, want %v", name, err, errCompression)
		}
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	f := func(kind Kind, want *Fault, in ...string) {
		t.Helper()
		var b bytes.Buffer
		var m Message
		var h exchange.Head
		m.Reset(kind, &h, h1.DefaultLimits)
		if err := NewDecoder().Decode(encode(hpack.NewEncoder(&b), &b, in...), &m); err != nil {
			t.Fatal(err)
		}
		err := m.End()
		if want == nil && err != nil || want != nil && err != error(want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
	get := func(more ...string) []string {
		return append([]string{":method: GET", ":scheme: http", ":path: /", ":authority: a"}, more...)
	}
	f(Request, nil, get("te: trailers", "host: a")...)
	f(Request, nil, ":method: CONNECT", ":authority: a")
	f(Request, nil, ":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /", ":authority: a")
	f(Request, errPseudo, ":method: CONNECT", ":protocol: websocket", ":authority: a")
	f(Request, errPseudo, get(":protocol: websocket")...)
	f(Request, errPseudo, ":method: CONNECT", ":authority: a", ":path: /")
	f(Request, errPseudo, ":method: GET", ":scheme: http")
	f(Request, errPseudo, ":method: GET", ":path: /")
	f(Request, errPseudo, ":scheme: http", ":path: /")
	f(Request, errPseudo, ":method: GET", ":scheme: http", ":path: ")
	f(Request, errPseudo, get(":method: GET")...)
	f(Request, errPseudo, get(":status: 200")...)
	f(Request, errPseudo, ":method: GET", ":scheme: http", "a: b", ":path: /")
	f(Request, errName, get("Upper: x")...)
	f(Request, errName, get("a b: x")...)
	f(Request, errValue, get("a: x\x00y")...)
	f(Request, errValue, get("a: x\r\nb: y")...)
	f(Request, errValue, get("a:  x")...)
	f(Request, errValue, get("a: x\t")...)
	f(Request, errValue, ":method: GET", ":scheme: http", ":path: /\r\na: b")
	f(Request, errConnection, get("connection: close")...)
	f(Request, errConnection, get("transfer-encoding: chunked")...)
	f(Request, errTE, get("te: gzip")...)
	f(Response, nil, ":status: 204", "a: b")
	f(Response, errStatus, ":status: 20")
	f(Response, errStatus, "a: b")
	f(Response, errPseudo, ":status: 200", ":path: /")
	f(Trailers, nil, "a: b")
	f(Trailers, errPseudo, ":status: 200")
}

// TestBomb decodes a small block that refers to a large entry over and over. What is over the limit is dropped, and the
// table stays in step.
func TestBomb(t *testing.T) {
	t.Parallel()
	d := NewDecoder()
	var m Message
	var h exchange.Head
	block := append([]byte{0x40, 1, 'a', 0x7f, 0x81, 0x1e}, bytes.Repeat([]byte("x"), 4000)...) // 4,000 bytes, indexed
	block = append(block, bytes.Repeat([]byte{0xbe}, 30_000)...)
	m.Reset(Request, &h, h1.DefaultLimits)
	if err := d.Decode(block, &m); err != nil {
		t.Fatal(err)
	}
	if m.End() != nil || !m.Large {
		t.Errorf("fault %v, large %v", m.fault, m.Large)
	}
	if cap(m.lines) > 4*h1.DefaultLimits.Head {
		t.Errorf("%d bytes are held", cap(m.lines))
	}
	m.Reset(Trailers, &h, h1.DefaultLimits)
	if err := d.Decode([]byte{0xbe}, &m); err != nil || len(h.Known(exchange.IDOther)) != 0 || h.Len() != 1 {
		t.Errorf("after the bomb: %v, %d fields", err, h.Len())
	}
}

// TestEncode has another implementation decode what is encoded here.
func TestEncode(t *testing.T) {
	t.Parallel()
	var h exchange.Head
	h.AddString(exchange.NameOf("Content-Type"), "text/plain")
	h.AddString(exchange.NameOf("X-Long"), strings.Repeat("y", 40_000))
	h.AddString(exchange.NameOf("Set-Cookie"), "a=b")
	h.AddString(exchange.NameOf("Connection"), "close")
	h.AddString(exchange.NameOf("X-Gone"), "z")
	h.Del(exchange.NameOf("X-Gone"))
	f := func(block []byte, want ...string) {
		t.Helper()
		var got []string
		d := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f.Name+": "+f.Value) })
		if _, err := d.Write(block); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	for _, status := range []int{100, 200, 204, 206, 304, 400, 404, 418, 500, 503} {
		f(AppendStatus([]byte{TableUpdate}, status), fmt.Sprint(":status: ", status))
	}
	f(AppendUint(AppendHead(nil, &h, exchange.HopByHop), exchange.IDContentLength, 1234),
		"content-type: text/plain", "x-long: "+strings.Repeat("y", 40_000), "set-cookie: a=b", "content-length: 1234")
	f(AppendRequestLine(nil, []byte("PUT"), true, []byte("h:1"), "/p", []byte("/q"), []byte("x=y"), nil),
		":method: PUT", ":scheme: https", ":path: /p/q?x=y", ":authority: h:1")
	f(AppendRequestLine(nil, []byte("CONNECT"), false, nil, "", []byte("/"+strings.Repeat("q", 300)), nil, []byte("websocket")),
		":method: CONNECT", ":scheme: http", ":path: /"+strings.Repeat("q", 300), ":protocol: websocket")
}

// TestFrames has another implementation read the frames that are made here.
func TestFrames(t *testing.T) {
	t.Parallel()
	block := AppendField(AppendStatus(nil, 200), exchange.IDOther, "x", strings.Repeat("v", 40_000))
	out := AppendHeaders(nil, 1, block, true)
	out = AppendReset(out, 3, EnhanceYourCalm)
	out = AppendWindowUpdate(out, 5, 77)
	out = AppendPing(out, true, [8]byte{1, 2})
	out = AppendGoAway(out, 9, ProtocolError, "why")
	out = AppendSettings(out, SettingValue{MaxFrameSize, 1 << 20}, SettingValue{InitialWindowSize, 5})
	out = AppendSettingsAck(out)
	r := http2.NewFramer(nil, bytes.NewReader(out))
	var got []string
	for {
		f, err := r.ReadFrame()
		if err != nil {
			break
		}
		line := f.Header().String()
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			line += fmt.Sprint(" ", f.ErrCode)
		case *http2.WindowUpdateFrame:
			line += fmt.Sprint(" ", f.Increment)
		case *http2.GoAwayFrame:
			line += fmt.Sprint(" ", f.LastStreamID, " ", f.ErrCode, " ", string(f.DebugData()))
		case *http2.SettingsFrame:
			line += fmt.Sprint(" ", f.NumSettings())
		}
		got = append(got, line)
	}
	want := []string{
		"[FrameHeader HEADERS flags=END_STREAM stream=1 len=16384]",
		"[FrameHeader CONTINUATION stream=1 len=16384]",
		"[FrameHeader CONTINUATION flags=END_HEADERS stream=1 len=7240]",
		"[FrameHeader RST_STREAM stream=3 len=4] ENHANCE_YOUR_CALM",
		"[FrameHeader WINDOW_UPDATE stream=5 len=4] 77",
		"[FrameHeader PING flags=ACK len=8]",
		"[FrameHeader GOAWAY len=11] 9 PROTOCOL_ERROR why",
		"[FrameHeader SETTINGS len=12] 2",
		"[FrameHeader SETTINGS flags=ACK len=0] 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	f := func(h FrameHeader, want *Fault) {
		t.Helper()
		if err := h.Check(); want == nil && err != nil || want != nil && err != error(want) {
			t.Errorf("%+v: %v, want %v", h, err, want)
		}
	}
	f(FrameHeader{Type: Data, Stream: 1, Length: MaxFrame}, nil)
	f(FrameHeader{Type: Data, Stream: 1, Length: MaxFrame + 1}, errFrameSize)
	f(FrameHeader{Type: Data}, errStreamZero)
	f(FrameHeader{Type: Settings, Stream: 1}, errStreamNotZero)
	f(FrameHeader{Type: Settings, Length: 5}, errFrameSize)
	f(FrameHeader{Type: Settings, Length: 6, Flags: FlagAck}, errFrameSize)
	f(FrameHeader{Type: Ping, Length: 7}, errFrameSize)
	f(FrameHeader{Type: WindowUpdate, Length: 3}, errFrameSize)
	f(FrameHeader{Type: Priority, Stream: 1, Length: 4}, errPrioritySize)
	f(FrameHeader{Type: GoAway, Length: 4}, errFrameSize)
	f(FrameHeader{Type: 99, Length: 4}, nil)
}

func TestWindows(t *testing.T) {
	t.Parallel()
	var w Window = 10
	if w.Grow(-20) != nil || w != -10 || w.Grow(MaxWindow) != nil || w.Grow(11) != errWindow {
		t.Errorf("window %d", w)
	}
	c := NewCredit(100)
	if !c.Take(100) || c.Take(1) {
		t.Error("credit of 100")
	}
	c = NewCredit(100)
	total := 0
	for range 100 {
		if !c.Take(7) {
			t.Fatal("a peer within its window is refused")
		}
		total += c.Return(7)
	}
	if total < 600 || total > 700 {
		t.Errorf("%d bytes were given back, want nearly 700", total)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	var b Budget
	b.Reset(0)
	n := 0
	for b.Spend(CostPing, 0) {
		n++
	}
	if n != budgetMost/CostPing {
		t.Errorf("%d pings at once", n)
	}
	for range 10 * budgetPerSecond / CostPing {
		b.Spend(CostPing, time.Second)
	}
	if b.Spend(CostPing, time.Second) {
		t.Error("a flood earns by going on")
	}
	b.Reset(0)
	for i := range 100_000 { // a client that resets every tenth of its requests
		if i%10 == 0 && !b.Spend(CostReset, 0) {
			t.Fatalf("refused after %d requests", i)
		}
		b.Earn(EarnRequest)
	}
	for range 100_000 { // updates of windows for what is sent
		b.Earn(EarnData)
		if !b.Spend(2*CostEmpty, 0) {
			t.Fatal("refused while data flows")
		}
	}
}

func TestAllocations(t *testing.T) {
	var b bytes.Buffer
	e, d := hpack.NewEncoder(&b), NewDecoder()
	var m Message
	var h exchange.Head
	in := []string{":method: GET", ":scheme: https", ":authority: example.com", ":path: /a/b/c", "accept: */*", "user-agent: test"}
	m.Reset(Request, &h, h1.DefaultLimits)
	if err := d.Decode(encode(e, &b, in...), &m); err != nil {
		t.Fatal(err)
	}
	// What is in the table now, and something that is not and must not come to be.
	block := AppendField(encode(e, &b, in...), exchange.IDOther, "x-changing", strings.Repeat("z", 40))
	coded := hpack.AppendHuffmanString(nil, "huffman")
	block = append(append(block, 0x0f, 0x0f, 0x80|byte(len(coded))), coded...)
	var out []byte
	if n := testing.AllocsPerRun(1000, func() {
		m.Reset(Request, &h, h1.DefaultLimits)
		if err := d.Decode(block, &m); err != nil || m.End() != nil {
			t.Fatal(err)
		}
		out = AppendHead(AppendStatus(out[:0], 200), &h, 0)
	}); n != 0 {
		t.Errorf("%v allocations per block, want 0", n)
	}
}

// FuzzDecode compares with another implementation, block by block on the same tables.
func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	f.Add(encode(e, &b, ":method: GET", ":scheme: http", ":path: /", "a: b"), encode(e, &b, ":method: GET", "a: b", "c: d"))
	f.Add([]byte("\x20\x82\xbe"), []byte("\x3f\xe1\x1f\x40\x01a\x01b\xbe"))
	f.Add([]byte("\x40\x81\x1f\x82\x1f\x1f"), []byte("\xc0\x10\x01a\x00"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		d := NewDecoder()
		var want []string
		other := hpack.NewDecoder(TableSize, func(f hpack.HeaderField) { want = append(want, f.Name+": "+f.Value) })
		for _, block := range [][]byte{one, two} {
			var m Message
			var h exchange.Head
			m.Reset(Trailers, &h, h1.Limits{Head: 1 << 20, Fields: exchange.MaxFields})
			want = nil
			err := d.Decode(block, &m)
			_, otherErr := other.Write(block)
			if otherErr == nil {
				otherErr = other.Close()
			}
			if err != nil {
				return // stricter in the place of table sizes
			}
			if otherErr != nil && strings.Contains(otherErr.Error(), "size update MUST occur") {
				return // it takes only one of them, though there may be two (RFC 7541, section 4.2)
			}
			if otherErr != nil {
				t.Fatalf("%x is taken, but not by the other: %v", block, otherErr)
			}
			if m.End() != nil || m.Large {
				continue
			}
			if diff := cmp.Diff(want, lines(&m, &h)); diff != "" {
				t.Fatalf("%x (-want +got):\n%s", block, diff)
			}
			if d.table.size > TableSize {
				t.Fatalf("the table counts %d", d.table.size)
			}
		}
	})
}

// FuzzFrames takes frames apart and checks that nothing reaches beyond its content.
func FuzzFrames(f *testing.F) {
	f.Add(AppendHeaders(nil, 1, []byte("block"), true))
	f.Add(AppendSettings(nil, SettingValue{MaxFrameSize, 1 << 20}))
	f.Add(append(AppendFrameHeader(nil, 7, Headers, FlagPadded|FlagPriority, 1), 1, 0, 0, 0, 3, 9, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < FrameHeaderSize {
			return
		}
		h := ParseFrameHeader(b)
		if back := ParseFrameHeader(AppendFrameHeader(nil, h.Length, h.Type, h.Flags, h.Stream)); back != h {
			t.Fatalf("%+v became %+v", h, back)
		}
		if h.Check() != nil {
			return
		}
		content := b[FrameHeaderSize:]
		if h.Type == Data || h.Type == Headers {
			if rest, _, err := h.Unpad(content); err == nil && len(rest) > len(content) {
				t.Fatal("more than there was")
			}
		}
		_ = ParseSettings(content, func(SettingValue) error { return nil })
	})
}
