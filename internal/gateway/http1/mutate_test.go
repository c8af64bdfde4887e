package http1_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

// seedRequests are well-formed, each with a second request behind it that must stay a second one.
var seedRequests = func() (seeds []string) {
	const second = "GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for _, s := range []string{
		"GET /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-One\r\nX-One: 1\r\nX-Two: 2\r\n\r\n",
		"POST /len HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"POST /len HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX: yyyyyy\r\n\r\n",
		"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=\"y\\\"z\";w\r\nabc\r\n0\r\n\r\n",
		"POST /chunks HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n2c\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX: yyyyyy\r\n\r\n\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n",
		"PUT /expect HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
		"GET http://b:80/absolute?x HTTP/1.1\r\nHost: b:80\r\n\r\n",
		"DELETE /a/./b/../c//d;e=f/%7e/%2F?g=%2e HTTP/1.1\r\nHost: [::1]:8080\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.1 x\r\n\r\n",
		"GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
		"POST /later HTTP/1.2\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
	} {
		seeds = append(seeds, s+second)
	}
	return seeds
}()

// seedResponses are well-formed responses to GET.
var seedResponses = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
	"HTTP/1.2 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 404\r\nContent-Length: 2\r\nConnection: close, X-A\r\nX-A: b\r\n\r\nno",
	"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
}

// pieces are what mutations put in: characters and fields that readers of HTTP are known to differ about.
var pieces = []string{
	"\r", "\n", "\r\n", "\n\n", "\r\n\r\n", " ", "\t", "\v", "\f", "\x00", "\x7f", "\x80", "\xa0", "\xff", ":", ",", ";", "=", "\"", "\\", "_", "+", "-", "0", "0x", "1", "9", "a", "F", "%", "/", "..", "#", "?", "@", "*", "(", "[", "]",
	"Content-Length: 5\r\n", "Content-Length: 0\r\n", "Content-Length: 05\r\n", "Content-Length: +5\r\n", "Content-Length: 5, 5\r\n", "Content-Length : 5\r\n", "content-length:5\r\n", "Content-Length:\t5\t\r\n", "Content_Length: 5\r\n", "Content-Length: 0x5\r\n", "Content-Length: 5_0\r\n", "Content-Length:\r\n 5\r\n", "Content-Length: 99999999999999999999\r\n",
	"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: Chunked \r\n", "Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding: identity, chunked\r\n", "Transfer-Encoding:chunked\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: \x0bchunked\r\n", "Transfer-Encoding : chunked\r\n", "Transfer_Encoding: chunked\r\n", "Transfer-Encoding: \"chunked\"\r\n", "Transfer-Encoding:\r\n chunked\r\n", "X: y\r\n Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked;q=1\r\n", "Transfer-Encoding:\r\n", "TE: trailers, chunked\r\n",
	"Host: b\r\n", "Host:\r\n", "Connection: close\r\n", "Connection: Content-Length\r\n", "Connection: Transfer-Encoding\r\n", "Connection: Host\r\n", "Expect: 100-continue\r\n", "Expect: x\r\n", "Upgrade: h2c\r\nConnection: upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n", "Upgrade: foo\r\nConnection: upgrade\r\n", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "0\r\n\r\n", "\r\n0\r\n\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "ffffffffffffffff\r\n", "5;\r\n", "5 \r\n", "5\n", "5;a\nb\r\n",
}

// mutate changes a message in a few places, at random but the same for the same number.
func mutate(seeds []string, n uint64) string {
	r := rand.New(rand.NewPCG(n, 7)) // must be repeatable, guards nothing
	m := []byte(seeds[r.IntN(len(seeds))])
	for range 1 + r.IntN(3) {
		m = mutateOnce(r, m)
	}
	return string(m)
}

func mutateOnce(r *rand.Rand, m []byte) []byte {
	if len(m) == 0 {
		return m
	}
	at := r.IntN(len(m))
	if r.IntN(2) == 0 { // more often where lines end or values begin
		if i := bytes.IndexAny(m[at:], "\r\n: ,;"); i >= 0 {
			at += i
		}
	}
	piece := pieces[r.IntN(len(pieces))]
	switch r.IntN(8) {
	case 0, 1: // put a piece in
		return insert(m, at, piece)
	case 2, 3: // put a line in, or the piece where a line begins
		if i := bytes.IndexByte(m[at:], '\n'); i >= 0 {
			return insert(m, at+i+1, piece)
		}
		return insert(m, at, piece)
	case 4: // take something out
		end := min(len(m), at+1+r.IntN(3))
		return append(m[:at:at], m[end:]...)
	case 5: // change a byte
		out := bytes.Clone(m)
		out[at] = piece[0]
		return out
	case 6: // say a line twice
		lines := strings.SplitAfter(string(m), "\n")
		i := r.IntN(len(lines))
		return []byte(strings.Join(lines[:i+1], "") + strings.Join(lines[i:], ""))
	default: // change line ends or case
		text := string(m)
		switch r.IntN(4) {
		case 0:
			return []byte(strings.Replace(text, "\r\n", "\n", 1+r.IntN(3)))
		case 1:
			return []byte(strings.Replace(text, ": ", fmt.Sprintf(":%s", []string{"", "\t", "  ", " \t "}[r.IntN(4)]), 1+r.IntN(3)))
		case 2:
			return []byte(strings.Replace(text, ":", " :", 1))
		}
		return bytes.ToUpper(m)
	}
}

func insert(m []byte, at int, piece string) []byte {
	return append(append(append([]byte{}, m[:at]...), piece...), m[at:]...)
}
