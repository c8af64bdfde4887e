package http1_test

import (
	"runtime"
	"strings"
	"testing"
)

// TestMalformed sends what must not be forwarded. Nothing of it reaches the handler, the answer says why, and the
// connection ends, so that what follows cannot be taken for a request.
func TestMalformed(t *testing.T) {
	t.Parallel()
	g := start(t, echo, setup{})
	const host = "Host: a\r\n"
	long := strings.Repeat("x", 9<<10)
	for _, tt := range []struct {
		name, in string
		status   int
		code     string
	}{
		// Request line.
		{"http 0.9", "GET /\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"two spaces before the target", "GET  / HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"two spaces before the version", "GET /  HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"tab for a space", "GET\t/ HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-method"},
		{"tab in the target", "GET /\tx HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"space after the version", "GET / HTTP/1.1 \r\n" + host + "\r\n", 400, "bad-request-line"},
		{"space before the method", " GET / HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-method"},
		{"no version", "GET / \r\n" + host + "\r\n", 400, "bad-request-line"},
		{"lower-case protocol", "GET / http/1.1\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"other protocol", "GET / HTTQ/1.1\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"HTTP/1.:", "GET / HTTP/1.:\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"chunked and a length in HTTP/1.2", "POST / HTTP/1.2\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"no Host in HTTP/1.2", "GET / HTTP/1.2\r\n\r\n", 400, "bad-request-host"},
		{"HTTP/2.0", "GET / HTTP/2.0\r\n" + host + "\r\n", 505, "version-not-supported"},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version-not-supported"},
		{"HTTP/01.1", "GET / HTTP/01.1\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"HTTP/1.10", "GET / HTTP/1.10\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"HTTP/1,1", "GET / HTTP/1,1\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"bare LF after the request line", "GET / HTTP/1.1\n" + host + "\r\n", 400, "bad-request-header"},
		{"bare CR in the request line", "GET / HTTP/1.1\r" + host + "\r\n\r\n", 400, "bad-request-line"},
		{"bare CR in the target", "GET /\rx HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-line"},
		{"NUL in the target", "GET /\x00 HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"DEL in the target", "GET /\x7f HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"UTF-8 in the target", "GET /\xc3\xa9 HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"method with a parenthesis", "G(T / HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-method"},
		{"no method", "/ HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-method"},
		{"long method", strings.Repeat("G", 40) + " / HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-method"},
		{"two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-method"},
		{"bare LF before", "\nGET / HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-method"},
		{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad-request-method"},
		{"target too long", "GET /" + long + " HTTP/1.1\r\n" + host + "\r\n", 414, "bad-request-target-too-long"},
		{"target too long without end", "GET /" + long + long + long + long, 414, "bad-request-target-too-long"},

		// Target and host.
		{"asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"authority-form", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, "not-implemented"},
		{"CONNECT with a path", "CONNECT / HTTP/1.1\r\n" + host + "\r\n", 501, "not-implemented"},
		{"authority without CONNECT", "GET a:80 HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"relative path", "GET a/b HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"query only", "GET ?a HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"ftp", "GET ftp://a/ HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"https on http", "GET https://a/ HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"absolute without host", "GET http:///x HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-host"},
		{"absolute with user", "GET http://u@a/x HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-host"},
		{"absolute with a bad Host", "GET http://a/x HTTP/1.1\r\nHost: b c\r\n\r\n", 400, "bad-request-host"},
		{"absolute without Host", "GET http://a/x HTTP/1.1\r\n\r\n", 400, "bad-request-host"},
		{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"fragment in the query", "GET /a?b#c HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-target"},
		{"path above the root", "GET /../a HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-path"},
		{"hidden dots", "GET /a/..%2fb HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-path"},
		{"dots with parameters", "GET /a/..;x/b HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-path"},
		{"backslash", "GET /a\\..\\b HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-path"},
		{"encoded NUL", "GET /a%00 HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-path"},
		{"broken encoding", "GET /a%2 HTTP/1.1\r\n" + host + "\r\n", 400, "bad-request-path"},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400, "bad-request-host"},
		{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "bad-request-host"},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad-request-host"},
		{"two equal Hosts", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400, "bad-request-host"},
		{"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad-request-host"},
		{"list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "bad-request-host"},
		{"Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad-request-host"},
		{"Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "bad-request-host"},
		{"Host with a scheme", "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400, "bad-request-host"},
		{"Host with a bad port", "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400, "bad-request-host"},
		{"Host with a long port", "GET / HTTP/1.1\r\nHost: a:808080\r\n\r\n", 400, "bad-request-host"},
		{"Host with bad brackets", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "bad-request-host"},
		{"Host with a name in brackets", "GET / HTTP/1.1\r\nHost: [xyz]\r\n\r\n", 400, "bad-request-host"},
		{"Host behind brackets", "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, "bad-request-host"},
		{"Host in UTF-8", "GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", 400, "bad-request-host"},
		{"encoded Host", "GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", 400, "bad-request-host"},

		// Fields.
		{"space before the colon", "GET / HTTP/1.1\r\n" + host + "A : b\r\n\r\n", 400, "bad-request-header"},
		{"tab before the colon", "GET / HTTP/1.1\r\n" + host + "A\t: b\r\n\r\n", 400, "bad-request-header"},
		{"space before the colon of a length", "POST / HTTP/1.1\r\n" + host + "Content-Length : 3\r\n\r\nabc", 400, "bad-request-header"},
		{"no colon", "GET / HTTP/1.1\r\n" + host + "A\r\n\r\n", 400, "bad-request-header"},
		{"no name", "GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n", 400, "bad-request-header"},
		{"name with a space", "GET / HTTP/1.1\r\n" + host + "A b: c\r\n\r\n", 400, "bad-request-header"},
		{"name with a bracket", "GET / HTTP/1.1\r\n" + host + "A[]: c\r\n\r\n", 400, "bad-request-header"},
		{"name with a NUL", "GET / HTTP/1.1\r\n" + host + "A\x00: c\r\n\r\n", 400, "bad-request-header"},
		{"name in UTF-8", "GET / HTTP/1.1\r\n" + host + "\xc3\xa9: c\r\n\r\n", 400, "bad-request-header"},
		{"folded line", "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", 400, "bad-request-header"},
		{"folded line with a tab", "GET / HTTP/1.1\r\n" + host + "A: b\r\n\tc\r\n\r\n", 400, "bad-request-header"},
		{"folded first line", "GET / HTTP/1.1\r\n A: b\r\n" + host + "\r\n", 400, "bad-request-header"},
		{"folded coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, "bad-request-header"},
		{"bare LF after a field", "GET / HTTP/1.1\r\n" + host + "A: b\nC: d\r\n\r\n", 400, "bad-request-header"},
		{"bare LF at the end", "GET / HTTP/1.1\r\n" + host + "\n", 400, "bad-request-header"},
		{"bare CR in a value", "GET / HTTP/1.1\r\n" + host + "A: b\rC: d\r\n\r\n", 400, "bad-request-header"},
		{"CR CR LF", "GET / HTTP/1.1\r\n" + host + "A: b\r\r\n\r\n", 400, "bad-request-header"},
		{"bare CR at the end", "GET / HTTP/1.1\r\n" + host + "\rGET", 400, "bad-request-header"},
		{"NUL in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n", 400, "bad-request-header"},
		{"control character in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x01c\r\n\r\n", 400, "bad-request-header"},
		{"DEL in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x7fc\r\n\r\n", 400, "bad-request-header"},
		{"too many fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 100) + "\r\n", 431, "bad-request-headers-too-large"},
		{"too large a field", "GET / HTTP/1.1\r\n" + host + "A: " + long + long + long + long + "\r\n\r\n", 431, "bad-request-headers-too-large"},
		{"too large fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("A: "+long[:1000]+"\r\n", 40) + "\r\n", 431, "bad-request-headers-too-large"},

		// Framing.
		{"length and coding", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"coding and length", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"coding and length 0", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "bad-request-framing"},
		{"two equal lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, "bad-request-framing"},
		{"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", 400, "bad-request-framing"},
		{"negative length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -3\r\n\r\nabc", 400, "bad-request-framing"},
		{"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", 400, "bad-request-framing"},
		{"hexadecimal length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\nabc", 400, "bad-request-framing"},
		{"length with an underscore", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1_0\r\n\r\nabcdefghij", 400, "bad-request-framing"},
		{"length with a space", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1 0\r\n\r\nabc", 400, "bad-request-framing"},
		{"empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\nabc", 400, "bad-request-framing"},
		{"huge length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 9999999999999999999\r\n\r\nabc", 400, "bad-request-framing"},
		{"overflowing length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551619\r\n\r\nabc", 400, "bad-request-framing"},
		{"length with quotes", "POST / HTTP/1.1\r\n" + host + "Content-Length: \"3\"\r\n\r\nabc", 400, "bad-request-framing"},
		{"two codings", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"chunked and identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"chunked, identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"chunked, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501, "not-implemented"},
		{"gzip, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "not-implemented"},
		{"identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", 501, "not-implemented"},
		{"xchunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "not-implemented"},
		{"chunked with a parameter", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"quoted chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"chunked with a vertical tab", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400, "bad-request-header"},
		{"chunked with a comma", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"empty coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"coding in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},
		{"coding of GET with a length", "GET / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-request-framing"},

		// What speaks of the connection.
		{"nominated Host", "GET / HTTP/1.1\r\n" + host + "Connection: host\r\n\r\n", 400, "bad-request-connection"},
		{"nominated length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nConnection: close, Content-Length\r\n\r\nabc", 400, "bad-request-connection"},
		{"nominated forwarding", "GET / HTTP/1.1\r\n" + host + "Connection: X-Forwarded-For\r\n\r\n", 400, "bad-request-connection"},
		{"nominated nonsense", "GET / HTTP/1.1\r\n" + host + "Connection: a b\r\n\r\n", 400, "bad-request-connection"},
		{"other expectation", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nExpect: 200-ok\r\n\r\nabc", 417, "bad-request-expect"},
		{"malformed protocol", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket/\r\n\r\n", 400, "bad-request-upgrade"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := g.dial(t)
			c.send(tt.in + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			res := c.receive("GET")
			res.check(t, tt.status, tt.code)
			if !res.Close {
				t.Error("the response does not say that the connection ends")
			}
			if id := res.Header.Get("X-Request-Id"); len(id) != 32 || !strings.Contains(res.body, id) {
				t.Errorf("X-Request-Id %q, body %s", id, res.body)
			}
			if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type: %q", got)
			}
			if err := c.CloseWrite(); err == nil {
				c.end()
			}
		})
	}
	if n := g.served.Load(); n != 0 {
		t.Errorf("%d requests reached the handler, want none", n)
	}
}

// TestLongLists shows that a list costs memory in proportion to its length: joining its elements one by one once took the square
// of it. It is not parallel: what others allocate would count.
func TestLongLists(t *testing.T) {
	g := start(t, echo, setup{})
	c := g.dial(t)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.receive("GET")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: " + strings.Repeat("a,", 15000) + "b\r\n\r\n")
	if r := c.receive("GET"); r.StatusCode != 200 || !strings.Contains(r.body, ", a, b\r\n") {
		t.Errorf("%d %.100q", r.StatusCode, r.body)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("a list of 30 kB took %d kB of memory", n>>10)
	}
}
