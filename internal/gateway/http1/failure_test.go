package http1_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// resets closes c so that the other end is told at once and whatever it has sent.
func resets(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// drip writes text one byte at a time.
func drip(w io.Writer, text string) {
	for i := range len(text) {
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return
		}
	}
}

// TestBackendFails shows what becomes of a request when its backend fails at each stage: a status and a code, in the log and
// in the body as far as there still is one. Meanwhile and afterwards a backend of good health is served through the same
// gateway.
func TestBackendFails(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	request := func(c net.Conn) *bufio.Reader {
		r := bufio.NewReader(c)
		_, _ = http.ReadRequest(r)
		return r
	}
	post := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + strings.Repeat("x", 5000000)
	answered := make(chan struct{}) // closed when the client has the answer of a backend that takes nothing
	for _, tt := range []struct {
		name, in string
		serve    func(net.Conn)
		status   int // 0: the response begins with 200 and is broken off
		code     string
	}{
		{"reset when accepted", "", resets, 502, ""},
		{"reset after the request", "", func(c net.Conn) { request(c); resets(c) }, 502, "upstream-reset"},
		{"closed after the request", "", func(c net.Conn) { request(c) }, 502, "upstream-reset"},
		{"half-closed after the request", "", func(c net.Conn) {
			r := request(c)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, r)
		}, 502, "upstream-reset"},
		{"reset within the head", "", func(c net.Conn) { request(c); _, _ = io.WriteString(c, ok[:20]); resets(c) }, 502, ""},
		{"closed within the head", "", func(c net.Conn) { request(c); _, _ = io.WriteString(c, ok[:20]) }, 502, "upstream-protocol"},
		{"reset within the body of the request", post, func(c net.Conn) {
			request(c)
			resets(c)
		}, 502, "upstream-reset"},
		{"closed within the body of the response", "", func(c net.Conn) { request(c); _, _ = io.WriteString(c, ok+strings.Repeat("x", 50000)) }, 0, ""},
		{"reset within the body of the response", "", func(c net.Conn) {
			request(c)
			_, _ = io.WriteString(c, ok+strings.Repeat("x", 50000))
			resets(c)
		}, 0, ""},
		{"silent", "", func(c net.Conn) { _, _ = io.Copy(io.Discard, request(c)) }, 504, "upstream-timeout"},
		{"silent within the body", "", func(c net.Conn) {
			r := request(c)
			_, _ = io.WriteString(c, ok+"x")
			_, _ = io.Copy(io.Discard, r)
		}, 0, "upstream-timeout"},
		{"takes nothing of the body", post, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 10))
			<-answered
		}, 504, "upstream-timeout"},
		{"a head without end", "", func(c net.Conn) {
			request(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X-Bomb: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, 502, ""},
		{"a line without end", "", func(c net.Conn) {
			request(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Bomb: ")
			for {
				if _, err := io.WriteString(c, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, 502, ""},
		{"informs for ever", "", func(c net.Conn) {
			request(c)
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"); err != nil {
					return
				}
			}
		}, 502, "upstream-protocol"},
		{"a byte at a time", "", func(c net.Conn) { request(c); drip(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") }, 200, ""},
		{"chunks a byte at a time", "", func(c net.Conn) {
			request(c)
			drip(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\no\r\n1\r\nk\r\n0\r\nX: y\r\n\r\n")
		}, 200, ""},
		{"an answer before the body", post, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 10))
			_, _ = io.WriteString(c, "HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}, 413, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			good := start(t, echo, setup{})
			var s setup
			if tt.code == "upstream-timeout" { // no other case may end in time, however slow the machine is
				s.backend.IdleMillis = 300
				if tt.status != 0 {
					s.backend.ResponseMillis = 300
				}
			}
			g := start(t, tt.serve, s)
			c := g.dial(t)
			in := tt.in
			if in == "" {
				in = get
			}
			go func() { _, _ = io.WriteString(c, in) }()
			res, err := http.ReadResponse(c.r, nil)
			for err == nil && res.StatusCode < 200 {
				res, err = http.ReadResponse(c.r, nil)
			}
			if err != nil {
				t.Fatalf("no response: %v", err)
			}
			body, err := io.ReadAll(res.Body)
			if tt.name == "takes nothing of the body" {
				close(answered)
			}
			got := response{res, string(body), err}
			if tt.status != 0 {
				got.check(t, tt.status, tt.code)
			} else if res.StatusCode != 200 || err == nil {
				t.Errorf("%d with %d bytes and %v, want 200 and a broken body", res.StatusCode, len(body), err)
			}
			if r := g.records(t, 1)[0]; tt.code != "" && r.code != tt.code {
				t.Errorf("the log says %+v, want %s", r, tt.code)
			}
			other := good.dial(t)
			other.send(get)
			other.receive("GET").check(t, 200, "")
		})
	}
}

// TestHalfClosedInThePool uses a connection again that the backend has half-closed meanwhile: nothing of that is seen but a
// little time.
func TestHalfClosedInThePool(t *testing.T) {
	t.Parallel()
	g := start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, r)
	}, setup{})
	c := g.dial(t)
	c.send(get) // makes the connection
	c.receive("GET").check(t, 200, "")
	eventually(t, func() bool { // a machine that has much else to do delays some
		began := time.Now()
		c.send(get)
		c.receive("GET").check(t, 200, "")
		return time.Since(began) < 800*time.Millisecond
	})
}

// TestClientFails has clients fail at each stage. Each costs itself: the request that was not complete is not forwarded as if
// it were, and others are served.
func TestClientFails(t *testing.T) {
	t.Parallel()
	const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
	const chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	g := start(t, echo, setup{})
	for name, text := range map[string]string{
		"nothing": "", "half a line": "GET / HT", "half a head": "GET / HTTP/1.1\r\nHost: a\r\nX: ", "no body": post, "half a body": post + "hello",
		"half the chunks": chunks, "half a chunk": chunks + "5\r\nhel", "half a size": chunks + "5",
		"half the trailers": chunks + "0\r\nX: y\r\n", "a request and a half": get + "GET /half HTTP/1.1\r\nHos",
	} {
		for how, end := range map[string]func(c *client){
			"reset": func(c *client) { resets(c.TCPConn) }, "closed": func(c *client) { c.Close() },
			"half-closed": func(c *client) { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c) },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				c := g.dial(t)
				c.send(text)
				end(c)
			})
		}
	}
	c := g.dial(t)
	drip(c, "POST /slowly HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
	res := c.receive("POST")
	if res.check(t, 200, ""); !strings.HasSuffix(res.body, "\r\n\r\nhello\nX-Sum: 1") {
		t.Errorf("of a request that came a byte at a time the backend saw %q", res.body)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.done {
		if r.status == 200 && r.method == "POST" && r.path != "/slowly" {
			t.Errorf("a request that was not complete was answered: %+v", r)
		}
	}
}

// TestHeaderBombs sends heads that only grow. They end with a refusal at the limit, whatever would have followed.
func TestHeaderBombs(t *testing.T) {
	t.Parallel()
	g := start(t, echo, setup{})
	for name, piece := range map[string]string{
		"fields": "X: y\r\n", "large fields": "X: " + strings.Repeat("y", 4000) + "\r\n", "one line": strings.Repeat("y", 4000),
		"names": strings.Repeat("n", 4000) + ": v\r\n",
	} {
		c := g.dial(t)
		go func() {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nZ: "); err != nil {
				return
			}
			for {
				if _, err := fmt.Fprint(c, piece); err != nil {
					return
				}
			}
		}()
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if res.StatusCode != 431 && res.StatusCode != 400 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
		c.Close()
	}
}
