package h1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
)

// parsed is a head in a form that can be compared.
type parsed struct {
	first  string
	fields []string
	size   int
	err    string
}

// parse parses what is in a request or response, given in pieces of the given size.
func parse(in []byte, piece int, response bool) parsed {
	var p Parser
	var h exchange.Head
	p.Reset(DefaultLimits)
	for end := min(piece, len(in)); ; end = min(end+piece, len(in)) {
		buf := append([]byte(nil), in[:end]...) // the buffer moves
		var n int
		var err error
		if response {
			n, err = p.Response(buf, &h)
		} else {
			n, err = p.Request(buf, &h)
		}
		if err != nil {
			return parsed{err: err.Error()}
		}
		if n == 0 && end == len(in) {
			return parsed{err: "incomplete"}
		}
		if n == 0 {
			continue
		}
		got := parsed{first: fmt.Sprintf("%s %s %d", p.Method, p.Target, p.Minor), size: n}
		if response {
			got.first = fmt.Sprintf("%d %d", p.Status, p.Minor)
		}
		for name, value := range h.All() {
			got.fields = append(got.fields, fmt.Sprintf("%s=%s", name, value))
		}
		return got
	}
}

func (p parsed) String() string { return fmt.Sprintf("%s %q %d %s", p.first, p.fields, p.size, p.err) }

func TestRequestHead(t *testing.T) {
	t.Parallel()
	f := func(in, want string) {
		t.Helper()
		for _, piece := range []int{len(in), 1, 2, 7} {
			if got := parse([]byte(in), piece, false).String(); got != want {
				t.Errorf("%q in pieces of %d: %s, want %s", in, piece, got, want)
			}
		}
	}
	f("GET / HTTP/1.1\r\n\r\n", `GET / 1 [] 18 `)
	f("GET / HTTP/1.0\r\nA: b\r\n\r\nbody", `GET / 0 ["A=b"] 24 `)
	f("GET / HTTP/1.2\r\n\r\n", `GET / 1 [] 18 `)
	f("GET / HTTP/1.9\r\n\r\n", `GET / 1 [] 18 `)
	f("\r\nGET / HTTP/1.1\r\nA:b \t\r\n\tx", ` [] 0 a header line begins with white space`)
	f("\r\nGET / HTTP/1.1\r\nA:\t b \t\r\nC:\r\nD:\xff \"\t,\r\n\r\n", `GET / 1 ["A=b" "C=" "D=\xff \"\t,"] 42 `)
	f("GET / HTTP/1.1\r\nA: b", ` [] 0 incomplete`)
	f("GET / HTTP/1.1\r\nA: b\r\n\r", ` [] 0 incomplete`)
	f("GET / HT", ` [] 0 incomplete`)
}

func TestResponseHead(t *testing.T) {
	t.Parallel()
	f := func(in, want string) {
		t.Helper()
		for _, piece := range []int{len(in), 1, 2, 7} {
			if got := parse([]byte(in), piece, true).String(); got != want {
				t.Errorf("%q in pieces of %d: %s, want %s", in, piece, got, want)
			}
		}
	}
	f("HTTP/1.1 200 OK\r\n\r\n", `200 1 [] 19 `)
	f("HTTP/1.0 404 \r\nA : b\r\n\r\nx", `404 0 ["A=b"] 24 `)
	f("HTTP/1.9 200 OK\r\n\r\n", `200 1 [] 19 `)
	f("HTTP/1.: 200 OK\r\n\r\n", ` [] 0 the status line is malformed`)
	f("HTTP/1.1 999\r\n\r\n", `999 1 [] 16 `)
	f("HTTP/1.1 200 \xc3\xa9\t!\r\n\r\n", `200 1 [] 21 `)
	f("HTTP/1.1 200 O", ` [] 0 incomplete`)
	f("HTTP/1.1 200 O\x01K\r\n\r\n", ` [] 0 the status line is malformed`)
	f("HTTP/1.1 200OK\r\n\r\n", ` [] 0 the status line is malformed`)
	f("HTTP/1.1 099 OK\r\n\r\n", ` [] 0 the status line is malformed`)
	f("HTTP/2 200 OK\r\n\r\n", ` [] 0 the status line is malformed`)
	f("220 smtp.example.com\r\n", ` [] 0 the status line is malformed`)
	f("HTTP/1.1 200 OK\r\nA \t x: b\r\n\r\n", ` [] 0 the name of a header field is not a token of at most 1024 characters`)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	f := func(in string, want *exchange.Fault) {
		t.Helper()
		var p Parser
		var h exchange.Head
		p.Reset(Limits{Target: 20, Head: 100, Fields: 3})
		if n, err := p.Request([]byte(in), &h); !errors.Is(err, want) {
			t.Errorf("%q: %d, %v, want %v", in, n, err, want)
		}
	}
	f("GET /"+strings.Repeat("x", 20)+" HTTP/1.1\r\n\r\n", errTargetTooLong)
	f("GET /"+strings.Repeat("x", 50), errTargetTooLong)
	f(strings.Repeat("x", 50), errMethod)
	f("GET / HTTP/1.1\r\nA: "+strings.Repeat("x", 90), errHeadTooLarge)
	f("GET / HTTP/1.1\r\nA: "+strings.Repeat("x", 80)+"\r\n\r\n", errHeadTooLarge)
	f("GET / HTTP/1.1\r\n"+strings.Repeat("x", 90), errHeadTooLarge)
	f("GET / HTTP/1.1\r\nA: 1\r\nA: 1\r\nA: 1\r\nA: 1\r\n\r\n", errTooMany)
}

// TestSlowLine shows that a line which comes byte by byte is looked through once, not once for each byte.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	var p Parser
	var h exchange.Head
	p.Reset(Limits{Target: 1 << 20, Head: 1 << 20, Fields: 10})
	buf := []byte("GET / HTTP/1.1\r\nA: " + strings.Repeat("x", 1<<20-100))
	for end := 30; end < len(buf); end++ {
		if n, err := p.Request(buf[:end], &h); n != 0 || err != nil {
			t.Fatalf("after %d bytes: %d, %v", end, n, err)
		}
		if end > 40 && p.seen < end {
			t.Fatalf("after %d bytes only %d are known to hold no line end", end, p.seen)
		}
	}
}

// readBody reads all of a body through a reader that returns pieces of the given size, beginning with used bytes at once.
func readBody(in string, framing Framing, length int64, piece, at int) (string, *Body, error) {
	var b Body
	buf := make([]byte, 64)
	n := copy(buf[10:], in[:min(at, len(in))])
	var r io.Reader = strings.NewReader(in[n:])
	if piece == 1 {
		r = iotest.OneByteReader(r)
	}
	b.Reset(r, new(Pool), framing, length, buf, 10, 10+n)
	var all []byte
	for {
		c, err := b.Next()
		if err != nil {
			return string(all), &b, err
		}
		if all = append(all, c.Data...); c.End {
			return string(all), &b, nil
		}
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	f := func(in string, framing Framing, length int64, want, rest string, wantErr error) {
		t.Helper()
		for _, piece := range []int{1, 100} {
			for _, at := range []int{0, 1, 5, 50} {
				got, b, err := readBody(in, framing, length, piece, at)
				if !errors.Is(err, wantErr) || wantErr == nil && got != want {
					t.Errorf("%q, pieces of %d, %d at once: %q, %v, want %q, %v", in, piece, at, got, err, want, wantErr)
				}
				if err == nil && (!b.Ended() || b.Remaining() != 0) {
					t.Errorf("%q: ended %t, remaining %d", in, b.Ended(), b.Remaining())
				}
				if err == nil && at == 50 && string(b.Buffered()) != rest {
					t.Errorf("%q: %q is left, want %q", in, b.Buffered(), rest)
				}
				b.Release()
			}
		}
	}
	f("abcdefrest", Length, 6, "abcdef", "rest", nil)
	f("", Length, 0, "", "", nil)
	f("abc", Length, 6, "", "", errIncomplete)
	f("abc", NoBody, 0, "", "abc", nil)
	f("abcdef", UntilClose, -1, "abcdef", "", nil)
	f("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\nrest", Chunked, -1, "abcdef", "rest", nil)
	f("0\r\n\r\n", Chunked, -1, "", "", nil)
	f("00a;x=y ; z=\"\\\"\"\r\nabcdefghij\r\n0 ;e\r\nA: b\r\n\r\n", Chunked, -1, "abcdefghij", "", nil)
	f("A\r\nabcdefghij\r\n0\r\n\r\n", Chunked, -1, "abcdefghij", "", nil)
	f("3\r\nabc\r\n", Chunked, -1, "", "", errIncomplete)
	f("3\r\nab", Chunked, -1, "", "", errIncomplete)
	f("3\r\nabcd\r\n0\r\n\r\n", Chunked, -1, "", "", errChunkEnd)
	f("g\r\n", Chunked, -1, "", "", errChunkSize)
	f("\r\n", Chunked, -1, "", "", errChunkSize)
	f("1234567890123456\r\n", Chunked, -1, "", "", errChunkSize)
	f("3 \r\nabc\r\n", Chunked, -1, "", "", errChunkExtension)
	f("3\nabc\r\n", Chunked, -1, "", "", errChunkExtension)
	f("3;a\nb\r\nabc\r\n", Chunked, -1, "", "", errChunkExtension)
	f("3;"+strings.Repeat("x", 5000)+"\r\nabc\r\n", Chunked, -1, "", "", errChunkExcess)
	f("0\r\nA: "+strings.Repeat("x", 9000)+"\r\n\r\n", Chunked, -1, "", "", errTrailers)
	f("0\r\n"+strings.Repeat("A: b\r\n", 33)+"\r\n", Chunked, -1, "", "", errTrailers)
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	_, b, err := readBody("1\r\na\r\n0\r\nX: y\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n", Chunked, -1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(AppendLastChunk(nil, b.Trailers())), "0\r\nX: y\r\n\r\n"; got != want {
		t.Errorf("AppendLastChunk = %q, want %q", got, want)
	}
	if got := string(AppendLastChunk(nil, nil)); got != LastChunk {
		t.Errorf("AppendLastChunk(nil) = %q", got)
	}
	for n, want := range map[int]string{1: "1\r\n", 15: "f\r\n", 16: "10\r\n", 4096: "1000\r\n", 1<<31 - 1: "7fffffff\r\n"} {
		if got := string(AppendChunkHead(nil, n)); got != want {
			t.Errorf("AppendChunkHead(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestElements(t *testing.T) {
	t.Parallel()
	f := func(in string, want ...string) {
		t.Helper()
		var got []string
		Elements([]byte(in), func(e []byte) bool { got = append(got, string(e)); return true })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Elements(%q) (-want +got)\n%s", in, diff)
		}
	}
	f("")
	f(" , ,")
	f("a", "a")
	f(" a\t,b,, c d ", "a", "b", "c d")
	n := 0
	Elements([]byte("a,b"), func([]byte) bool { n++; return false })
	if n != 1 {
		t.Errorf("f was called %d times after it returned false", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	in := []byte("GET /catalog/v1/items/12345?expand=all HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n" +
		"X-API-Key: 0123456789abcdef0123456789abcdef\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n")
	var p Parser
	var h exchange.Head
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		p.Reset(DefaultLimits)
		h.Reset()
		if n, err := p.Request(in, &h); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}
