package http1_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestUnaskedResponses has the backend say more than it was asked, after its response was complete: what it says then must not
// become the response to the next request, which is another client's.
func TestUnaskedResponses(t *testing.T) {
	t.Parallel()
	const unasked = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"
	large := strings.Repeat("x", 100_000)
	for name, tt := range map[string]struct {
		method, response string
		idle             bool // until the clock of the gateway, which ticks, has gone on
	}{
		"body of HEAD":          {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false},
		"body of 204":           {"GET", "HTTP/1.1 204 No Content\r\n\r\n", false},
		"body of 304":           {"GET", "HTTP/1.1 304 Not Modified\r\n\r\n", false},
		"behind a large body":   {"GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(large), large), false},
		"with a large body":     {"GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n%9000s%s", "", unasked), false},
		"with a full buffer":    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 4055\r\n\r\n" + strings.Repeat("x", 4055) + unasked, false},
		"behind a short body":   {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
		"behind a chunked body": {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen, said := make(chan bool), make(chan bool)
			g := start(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				if req.URL.Path == "/next" {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
					_, _ = http.ReadRequest(r)
					return
				}
				_, _ = io.WriteString(c, tt.response)
				<-seen
				_, _ = io.WriteString(c, unasked)
				close(said)
				_, _ = http.ReadRequest(r)
			}, setup{})
			c := g.dial(t)
			c.send(tt.method + " / HTTP/1.1\r\nHost: a\r\n\r\n")
			c.receive(tt.method)
			g.records(t, 1) // so the connection to the backend has been given back
			seen <- true
			<-said
			if tt.idle {
				since := g.sweeper.Now()
				eventually(t, func() bool { return g.sweeper.Now() > since })
			}
			c.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
			if res := c.receive("GET"); res.body != "next" {
				t.Errorf("the next request got %d %q", res.StatusCode, res.body)
			}
		})
	}
}
