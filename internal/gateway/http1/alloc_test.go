package http1_test

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"testing"

	"hansa.dev/hansa/internal/exchange"
)

// canned is a backend that answers each request with the same text, and allocates nothing meanwhile. The
// body of a POST is 10,000 bytes long.
func canned(text string) func(net.Conn) {
	return func(c net.Conn) {
		p, out := make([]byte, 64<<10), []byte(text)
		n := 0
		for {
			m, err := c.Read(p[n:])
			if err != nil {
				return
			}
			n += m
			head := bytes.Index(p[:n], []byte("\r\n\r\n"))
			if head < 0 || bytes.HasPrefix(p, []byte("POST")) && n < head+4+10000 {
				continue
			}
			n = 0
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}

// TestNoAllocations sends requests over a kept connection, through engine, backend pool and back, on real sockets. All
// of it, client and backend included, must allocate nothing.
func TestNoAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forgetful")
	}
	for _, tt := range []struct {
		name, in, out string
		serve         func(*exchange.Exchange, exchange.Down) bool
	}{
		{
			"get", "GET /catalog/items/1?x=y HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: test\r\nAccept: */*\r\nX-API-Key: 0123456789\r\n\r\n",
			"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", nil,
		},
		{
			"unusual get", "GET /catalog/./items//%7e HTTP/1.1\r\nHost: API.example.com\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nX-Forwarded-For: 1.2.3.4\r\nTE: trailers\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", nil,
		},
		{
			"post", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n" + string(bytes.Repeat([]byte("x"), 10000)),
			"HTTP/1.1 201 Created\r\nContent-Length: 20000\r\n\r\n" + string(bytes.Repeat([]byte("y"), 20000)), nil,
		},
		{"refusal", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", func(x *exchange.Exchange, d exchange.Down) bool {
			x.Own.SetUint(exchange.IDRetryAfter.Name(), 7)
			x.Refuse(exchange.RateLimited, "50 requests per second are the limit")
			d.Respond(x, nil)
			return true
		}},
		{"changed head", "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\n\r\n", func(x *exchange.Exchange, d exchange.Down) bool {
			x.Req.Del(exchange.IDXAPIKey.Name())
			x.Req.SetString(exchange.NameOf("X-Plan"), "gold")
			x.Own.SetString(exchange.NameOf("X-A"), "c")
			return false
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t, canned(tt.out), setup{serve: tt.serve})
			g.quiet = true
			c := g.dial(t)
			in, p := []byte(tt.in), make([]byte, 64<<10)
			want := 0
			ask := func() {
				if _, err := c.TCPConn.Write(in); err != nil {
					t.Fatal(err)
				}
				if want == 0 { // how long responses are
					n, err := c.TCPConn.Read(p)
					if err != nil {
						t.Fatal(err)
					}
					head, _, _ := bytes.Cut(p[:n], []byte("\r\n\r\n"))
					want = len(head) + 4 + bodySize(t, head)
					if _, err := io.ReadFull(c.TCPConn, p[n:want]); err != nil {
						t.Fatal(err)
					}
					return
				}
				if _, err := io.ReadFull(c.TCPConn, p[:want]); err != nil {
					t.Fatal(err)
				}
			}
			for range 50 {
				ask()
			}
			if n := testing.AllocsPerRun(300, ask); n != 0 {
				t.Errorf("%v allocations per request, want 0", n)
			}
		})
	}
}

func bodySize(t *testing.T, head []byte) int {
	t.Helper()
	if bytes.Contains(head, []byte("chunked")) {
		return len("5\r\nhello\r\n0\r\n\r\n")
	}
	_, rest, _ := bytes.Cut(head, []byte("Content-Length: "))
	digits, _, _ := bytes.Cut(rest, []byte("\r\n"))
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		t.Fatalf("%v in %q", err, head)
	}
	return n
}
