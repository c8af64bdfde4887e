package http1_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"hansa.dev/hansa/internal/exchange"
)

// TestDismissed takes Leave back while a response is under way that CloseIdle has found: its client must be told that the
// connection ends with it, and not lose the next request on it.
func TestDismissed(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan bool), make(chan bool)
	g := start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			asked <- true
			<-answer
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}, setup{})
	c := g.dial(t)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	g.server.Leave(true)
	g.server.CloseIdle()
	g.server.Leave(false)
	answer <- true
	if res := c.receive("GET"); res.body != "ok" || !res.Close {
		t.Errorf("%q, closed: %t; want ok, closed", res.body, res.Close)
	}
}

// TestCloseIdleAfterBody closes connections that are idle, whatever the request before was.
func TestCloseIdleAfterBody(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
	} {
		g := start(t, nil, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
			if x.Body != nil {
				_, _ = exchange.ReadAll(nil, x.Body, 100)
			}
			x.Answer(200, []byte("ok"))
			d.Respond(x, nil)
			return true
		}})
		c := g.dial(t)
		c.send(in)
		if res := c.receive("POST"); res.body != "ok" || res.Close {
			t.Fatalf("%q, closed: %t", res.body, res.Close)
		}
		eventually(t, func() bool {
			g.server.CloseIdle()
			return g.server.Connections() == 0
		})
	}
}
