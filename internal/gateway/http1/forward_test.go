package http1_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/http1"
	"hansa.dev/hansa/internal/gateway/ingress"
	"hansa.dev/hansa/internal/snapshot"
)

// scrub takes the request id out of what the backend saw.
func scrub(head string) string {
	i := strings.Index(head, "X-Request-Id: ")
	if i < 0 {
		return head + "(no request id)"
	}
	return head[:i] + "X-Request-Id: ID" + head[i+len("X-Request-Id: ")+32:]
}

// TestForward shows what the backend sees of a request.
func TestForward(t *testing.T) {
	t.Parallel()
	const fwd = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID\r\n"
	g := start(t, echo, setup{})
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "GET /a/b HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n", "GET /a/b HTTP/1.1\r\nHost: a\r\nAccept: x\r\n" + fwd},
		{"white space around values", "GET / HTTP/1.1\r\nHost:a\r\nB: \t c\t \r\nC:\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nC: \r\n" + fwd},
		{"empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + fwd},
		{"canonical path, query as it is", "GET /a/../b//%63?x=%2e%2e/../;y&z HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b/c?x=%2e%2e/../;y&z HTTP/1.1\r\nHost: a\r\n" + fwd},
		{"empty query", "GET /? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? HTTP/1.1\r\nHost: a\r\n" + fwd},
		{"later HTTP/1", "POST / HTTP/1.2\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\n" + fwd + "Transfer-Encoding: chunked\r\n\r\nabc"},
		{"host in lower case", "GET / HTTP/1.1\r\nHost: A\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + fwd},
		{"absolute-form", "GET http://a/x?y HTTP/1.1\r\nHost: b\r\n\r\n", "GET /x?y HTTP/1.1\r\nHost: a\r\n" + fwd},
		{"absolute-form without path", "GET HTTP://a?y HTTP/1.1\r\nHost: b\r\n\r\n", "GET /?y HTTP/1.1\r\nHost: a\r\n" + fwd},
		{
			"fields of the connection", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Foo\r\nFoo: 1\r\nfoo: 2\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nTE: gzip\r\nTrailer: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy-Authorization: x\r\nBar: 3\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nBar: 3\r\n" + fwd,
		},
		{
			"trailers are wanted", "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=0.5, Trailers\r\nConnection: TE\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + fwd + "TE: trailers\r\nConnection: TE\r\n",
		},
		{
			"Connection names itself", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Connection\r\nConnection: Foo\r\nFoo: 1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + fwd,
		},
		{"h2c is ignored", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + fwd},
		{
			"spoofed fields", "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nx-forwarded-for: 8.8.8.8\r\nForwarded: for=1\r\nX-Real-IP: 1\r\nX-Forwarded-Port: 1\r\nX-Request-Id: 1\r\nX_Forwarded_For: 7\r\nX_API-Key: 7\r\nmy_field: 1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nmy_field: 1\r\n" + fwd,
		},
		{"body with length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "POST / HTTP/1.1\r\nHost: a\r\n" + fwd + "Content-Length: 3\r\n\r\nabc"},
		{"body with length 0", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\n" + fwd + "Content-Length: 0\r\n"},
		{"no body", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\n" + fwd + "Content-Length: 0\r\n"},
		{"body of GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "GET / HTTP/1.1\r\nHost: a\r\n" + fwd + "Content-Length: 3\r\n\r\nabc"},
		{"method of one's own", "PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE / HTTP/1.1\r\nHost: a\r\n" + fwd},
		{
			"chunks", "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n00002;a=b;c=\"d\\\";e\"\r\nde\r\n0;x\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\n" + fwd + "Transfer-Encoding: chunked\r\n\r\nabcde",
		},
		{
			"trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: b\r\nContent-Length: 3\r\nX-Forwarded-For: 1\r\nX_API_Key: 1\r\nClient-Cert: x\r\nVia: x\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\n" + fwd + "Transfer-Encoding: chunked\r\n\r\nabc\nX-Sum: 1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := g.dial(t)
			for range 2 { // the connection is kept
				c.send(tt.in)
				res := c.receive("GET")
				res.check(t, 200, "")
				want := tt.want
				if !strings.Contains(want, "\r\n\r\n") {
					want = strings.TrimSuffix(want, "\r\n") + "\r\n\r\n"
				}
				if diff := cmp.Diff(want, scrub(res.body)); diff != "" {
					t.Errorf("the backend saw (-want +got)\n%s", diff)
				}
			}
		})
	}
}

// TestForwardOptions shows the same for gateways and backends with other settings.
func TestForwardOptions(t *testing.T) {
	t.Parallel()
	f := func(name string, s setup, in, want string, client string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			g := start(t, echo, s)
			c := g.dial(t)
			c.send(in)
			res := c.receive("GET")
			res.check(t, 200, "")
			if diff := cmp.Diff(want+"\r\n\r\n", scrub(res.body)); diff != "" {
				t.Errorf("the backend saw (-want +got)\n%s", diff)
			}
			if got := g.records(t, 1)[0].client; got != client {
				t.Errorf("the client is %q, want %q", got, client)
			}
		})
	}
	trusted := http1.Options{Options: ingress.Options{Rules: ingress.Rules{
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")},
	}}}
	f("trusted peer", setup{options: trusted},
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-For: 10.0.0.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Request-Id: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.7, 127.0.0.1\r\nX-Request-Id: ID", "1.2.3.4")
	f("trusted peer without a chain", setup{options: trusted}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID", "127.0.0.1")
	f("trusted peer with nonsense", setup{options: trusted}, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, x, 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID", "127.0.0.1")
	f("Forwarded and Via", setup{options: http1.Options{Options: ingress.Options{Rules: ingress.Rules{Forwarded: true, Via: "hansa"}}}}, "GET / HTTP/1.0\r\nHost: a:80\r\nVia: 1.1 x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a:80\r\nVia: 1.1 x\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a:80\r\nForwarded: for=127.0.0.1;host=\"a:80\";proto=http\r\nVia: 1.0 hansa\r\nX-Request-Id: ID", "127.0.0.1")
	f("the last request of a connection", setup{backend: snapshot.Backend{MaxUses: 1}}, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID\r\nTE: trailers\r\nConnection: close, TE", "127.0.0.1")
	f("trailers of HTTP/1.0", setup{backend: snapshot.Backend{HTTPVersion: "1.0"}}, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID\r\nConnection: keep-alive", "127.0.0.1")
	f("host of the backend", setup{backend: snapshot.Backend{Host: "catalog.internal"}}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: catalog.internal\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID", "127.0.0.1")
	f("another path", setup{serve: func(x *exchange.Exchange, _ exchange.Down) bool {
		x.ForwardPrefix, x.ForwardPath = "/v2", x.Path[len("/catalog"):]
		return false
	}}, "GET /catalog/items?a HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v2/items?a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID", "127.0.0.1")
	f("changed fields", setup{serve: func(x *exchange.Exchange, _ exchange.Down) bool {
		x.Req.Del(exchange.NameOf("x-api-key"))
		x.Req.SetString(exchange.NameOf("X-Plan"), "gold")
		x.Req.SetString(exchange.NameOf("Host"), "evil")
		return false
	}}, "GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\nx-plan: none\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: ID\r\nX-Plan: gold", "127.0.0.1")
}

// TestExchange shows what the handler sees of a request.
func TestExchange(t *testing.T) {
	t.Parallel()
	g := start(t, nil, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
		x.Own.SetString(exchange.IDContentType.Name(), "text/plain")
		x.Answer(200, []byte(strings.Join([]string{
			x.Protocol.String(), x.Method.String(), x.Scheme, x.Authority.String(), x.Host.String(), x.RawTarget.String(), x.Path.String(), x.Query.String(),
			x.ClientIP.String(), x.Peer.Addr().String(),
		}, " ")))
		d.Respond(x, nil)
		return true
	}})
	for in, want := range map[string]string{
		"GET /a//b?c HTTP/1.1\r\nHost: API.Example.com.:8080\r\n\r\n": "HTTP/1.1 GET http api.example.com.:8080 api.example.com /a//b?c /a/b c 127.0.0.1 127.0.0.1",
		"PUT / HTTP/1.0\r\n\r\n":                              "HTTP/1.0 PUT http   / /  127.0.0.1 127.0.0.1",
		"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n":            "HTTP/1.1 GET http [::1]:80 [::1] / /  127.0.0.1 127.0.0.1",
		"GET / HTTP/1.1\r\nHost: [::FFFF:1.2.3.4]\r\n\r\n":    "HTTP/1.1 GET http [::ffff:1.2.3.4] [::ffff:1.2.3.4] / /  127.0.0.1 127.0.0.1",
		"GET http://B:1/x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n": "HTTP/1.1 GET http b:1 b http://B:1/x /x  127.0.0.1 127.0.0.1",
	} {
		c := g.dial(t)
		c.send(in)
		res := c.receive("GET")
		if res.StatusCode != 200 || res.body != want || res.Header.Get("Content-Type") != "text/plain" || res.Header.Get("Date") == "" {
			t.Errorf("%q: %d %q %v, want %q", in, res.StatusCode, res.body, res.Header, want)
		}
	}
}
