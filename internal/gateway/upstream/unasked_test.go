package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/sweep"
)

// joined is a connection on which several records of TLS can leave together.
type joined struct {
	net.Conn
	held []byte
	hold bool
}

func (c *joined) Write(p []byte) (int, error) {
	if c.held = append(c.held, p...); c.hold {
		return len(p), nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = nil
	return len(p), err
}

// TestUnaskedOverTLS has a backend say more than it was asked, where no look at the socket finds it: the connection of TLS has
// read it already. It must not become the response to the next request.
func TestUnaskedOverTLS(t *testing.T) {
	t.Parallel()
	cert, ca := authority(t, "catalog.internal")
	const unasked = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"
	for name, tt := range map[string]struct {
		method, first, second string // what is said in two records, or in one
		want                  string
	}{
		"body of HEAD":          {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", unasked, "200 "},
		"body of 204":           {"GET", "HTTP/1.1 204 No Content\r\n\r\n", unasked, "204 "},
		"behind a short body":   {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", unasked, "200 ok"},
		"behind a chunked body": {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", unasked, "200 ok"},
		"with a full buffer":    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 4055\r\n\r\n" + strings.Repeat("x", 4055) + unasked, "", "200 " + strings.Repeat("x", 4055)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			serve := func(nc net.Conn) {
				defer nc.Close()
				j := &joined{Conn: nc}
				c := tls.Server(j, &tls.Config{Certificates: []tls.Certificate{cert}})
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if req.URL.Path == "/next" {
						_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"))
						continue
					}
					j.hold = tt.second != ""
					_, _ = c.Write([]byte(tt.first))
					if j.hold {
						j.hold = false
						_, _ = c.Write([]byte(tt.second))
					}
				}
			}
			wg.Go(func() {
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { serve(nc) })
				}
			})
			sw := sweep.New()
			r, err := New(Options{Sweeper: sw})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() { _ = sw.Run(ctx) })
			wg.Go(func() { _ = r.Run(ctx) })
			defer wg.Wait()
			defer l.Close()
			defer cancel()
			p, err := r.Prepare("", []snapshot.Backend{{
				Organization: "acme", Name: "catalog", TLS: true, CA: ca, ServerName: "catalog.internal", Endpoints: snapshot.Endpoints(l.Addr().String()),
			}})
			if err != nil {
				t.Fatal(err)
			}
			p.Commit()
			b := p.Backend("acme", "catalog")
			x := get("/")
			x.Method = exchange.View(tt.method)
			check(t, outcome(b, x, new(down)), tt.want)
			check(t, outcome(b, get("/next"), new(down)), "200 next")
		})
	}
}
