package http1_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// raw sends a request and returns all that comes back until the connection ends, without request id and date.
func raw(t *testing.T, g *gateway, in string) string {
	t.Helper()
	c := g.dial(t)
	c.send(in)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	text := string(out)
	for {
		i := strings.Index(text, "X-Request-Id: ")
		if i < 0 {
			break
		}
		text = text[:i] + text[i+len("X-Request-Id: ")+34:]
	}
	for {
		i := strings.Index(text, "Date: ")
		if i < 0 {
			break
		}
		text = text[:i] + text[i+len("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"):]
	}
	if i := strings.Index(text, `,"requestId"`); i >= 0 {
		text = text[:i]
	}
	if err != nil {
		text += "!" + "reset"
	}
	return text
}

const (
	get   = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	get10 = "GET / HTTP/1.0\r\n\r\n"
	head  = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
)

// TestRespond shows what the client sees of a response, for each backend that is well-behaved.
func TestRespond(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, out, want string }{
		{"length", get, "HTTP/1.1 200 Fine\r\nA: b\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\nabc"},
		{"length 0", get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"chunks", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"},
		{"no chunks", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"chunks for HTTP/1.0", get10, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"},
		{"until close", get, "HTTP/1.1 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
		{"until close for HTTP/1.0", get10, "HTTP/1.0 200 OK\r\n\r\nabc", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"},
		{"keep-alive of HTTP/1.0", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc"},
		{"close of HTTP/1.1", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"},
		{"HEAD", head, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"},
		{"HEAD of chunks", head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
		{"204", get, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304", get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n"},
		{"no reason", get, "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"},
		{"unknown status", get, "HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 799 \r\nContent-Length: 0\r\n\r\n"},
		{"space before a colon", get, "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n"},
		{
			"fields of the connection", get, "HTTP/1.1 200 OK\r\nConnection: X, Keep-Alive\r\nX: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nProxy-Authenticate: b\r\nY: 2\r\nX-Request-Id: theirs 4567890123456789012345678\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nY: 2\r\nContent-Length: 0\r\n\r\n",
		},
		{"Connection names itself", get, "HTTP/1.1 200 OK\r\nConnection: connection\r\nConnection: X\r\nX: 1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{
			"informational", get, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		},
		{"informational for HTTP/1.0", get10, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{"trailers not asked for", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"},
		{
			"trailers", "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\nSet-Cookie: z\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
		},
		{"more than asked for", get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"},
		{"pipelined", get + get10, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, says(tt.out), setup{})
			if diff := cmp.Diff(tt.want, raw(t, g, tt.in)); diff != "" {
				t.Errorf("the client saw (-want +got)\n%s", diff)
			}
			slow := start(t, slowly(tt.out), setup{})
			got := raw(t, slow, tt.in)
			if strings.Contains(tt.want, "chunked") {
				got, tt.want = dechunk(t, got), dechunk(t, tt.want)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("byte by byte the client saw (-want +got)\n%s", diff)
			}
		})
	}
}

// slowly is says, one byte at a time.
func slowly(text string) func(net.Conn) {
	return func(c net.Conn) {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetNoDelay(true)
		}
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			for i := range len(text) {
				if _, err := c.Write([]byte{text[i]}); err != nil {
					return
				}
			}
			if !strings.Contains(text, "Content-Length") && !strings.Contains(text, "chunked") {
				return
			}
		}
	}
}

// dechunk makes chunked responses comparable however they were cut.
func dechunk(t *testing.T, text string) string {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(text))
	var all strings.Builder
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return all.String()
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		head := res.Header.Clone()
		all.WriteString(res.Status + "\n")
		_ = head.Write(&all)
		all.Write(body)
		_ = res.Trailer.Write(&all)
	}
}

// TestRespondFaults shows what the client sees if the backend fails.
func TestRespondFaults(t *testing.T) {
	t.Parallel()
	const (
		protocol = "502 Bad Gateway|upstream-protocol"
		reset    = "502 Bad Gateway|upstream-reset"
	)
	many := strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 11)
	for _, tt := range []struct{ name, out, want string }{
		{"garbage", "SSH-2.0-OpenSSH_9.2\r\n", protocol},
		{"nothing", "", reset},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-Le", protocol},
		{"HTTP/2", "HTTP/2 200\r\nContent-Length: 0\r\n\r\n", protocol},
		{"bad status", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", protocol},
		{"status 099", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", protocol},
		{"status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", protocol},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", protocol},
		{"bare LF in the head", "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", protocol},
		{"NUL", "HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 0\r\n\r\n", protocol},
		{"folded", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n", protocol},
		{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", protocol},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", protocol},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", protocol},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", protocol},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", protocol},
		{"switched", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", protocol},
		{"too many informs", many + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", protocol},
		{"head too large", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", "502 Bad Gateway|upstream-too-large"},
		{"body ends at once", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "!"},
		{"body ends early", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "!"},
		{"chunks end early", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "!"},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n", protocol},
		{"bad first chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nabc", protocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				_, _ = io.WriteString(c, tt.out)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			}, setup{})
			c := g.dial(t)
			c.send(get)
			res, err := http.ReadResponse(c.r, nil)
			for err == nil && res.StatusCode < 200 {
				res, err = http.ReadResponse(c.r, nil)
			}
			if tt.want == "!" {
				// Whatever was passed on must not look complete.
				if err == nil {
					if _, err = io.ReadAll(res.Body); err == nil {
						t.Errorf("status %d and a complete body", res.StatusCode)
					}
				}
				return
			}
			status, code, _ := strings.Cut(tt.want, "|")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || res.Status != status || !strings.Contains(string(body), `"code":"`+code+`"`) {
				t.Errorf("%s %q %v, want %s", res.Status, body, err, tt.want)
			}
			if got := g.records(t, 1)[0]; got.code != code || got.status != res.StatusCode {
				t.Errorf("recorded %d %q", got.status, got.code)
			}
		})
	}
}

// TestConnectFaults shows what the client sees if there is no backend.
func TestConnectFaults(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	holder, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nobody := holder.LocalAddr().String() // where nobody listens, and nobody else can as long as this connection exists
	t.Cleanup(func() { holder.Close(); l.Close() })
	g := start(t, nil, setup{backend: snapshot.Backend{Endpoints: snapshot.Endpoints(nobody)}})
	c := g.dial(t)
	for range 2 {
		c.send(get)
		c.receive("GET").check(t, 502, "upstream-connect") // and the connection is kept
	}
	c.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.receive("HEAD").check(t, 502, "")
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
	c.receive("POST").check(t, 502, "upstream-connect")

	none := start(t, nil, setup{})
	c = none.dial(t)
	c.send(get)
	c.receive("GET").check(t, 503, "upstream-none")

	// With another endpoint nobody notices.
	both := start(t, echo, setup{backend: snapshot.Backend{Endpoints: snapshot.Endpoints(nobody)}})
	c = both.dial(t)
	for range 4 {
		c.send(get)
		c.receive("GET").check(t, 200, "")
	}
}

// TestRefuse shows refusals and answers of the handler.
func TestRefuse(t *testing.T) {
	t.Parallel()
	g := start(t, nil, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
		switch string(x.Path) {
		case "/refuse":
			x.Own.SetUint(exchange.IDRetryAfter.Name(), 7)
			x.Refuse(exchange.RateLimited, "slow down")
		case "/abort":
			d.Abort(x)
			return true
		case "/panic":
			panic("a fault of the gateway, on purpose")
		default:
			x.Own.SetString(exchange.NameOf("X-A"), "b")
			x.Own.SetString(exchange.IDDate.Name(), "Sun, 06 Nov 1994 08:49:37 GMT")
			x.Answer(203, []byte("hello"))
		}
		d.Respond(x, nil)
		return true
	}})
	c := g.dial(t)
	for range 2 {
		c.send("GET /refuse HTTP/1.1\r\nHost: a\r\n\r\n")
		res := c.receive("GET")
		res.check(t, 429, "rate-limited")
		if res.Header.Get("Retry-After") != "7" || !strings.Contains(res.body, `"detail":"slow down"`) {
			t.Errorf("%v %s", res.Header, res.body)
		}
		c.send("GET /answer HTTP/1.1\r\nHost: a\r\n\r\n")
		res = c.receive("GET")
		res.check(t, 203, "")
		if res.Header.Get("X-A") != "b" || len(res.Header["Date"]) != 1 || res.Header.Get("Date") != "Sun, 06 Nov 1994 08:49:37 GMT" || res.body != "hello" {
			t.Errorf("%v %s", res.Header, res.body)
		}
		// A short body that nobody wants is read, so that the connection can be kept.
		c.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n" + strings.Repeat("x", 10000))
		c.receive("POST").check(t, 429, "rate-limited")
	}
	// A long one costs the connection, but not the response.
	c.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat("x", 200000))
	res := c.receive("POST")
	if res.check(t, 429, "rate-limited"); !res.Close {
		t.Error("the response does not say that the connection ends")
	}
	// So does one that the client has not been told to send.
	c = g.dial(t)
	c.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	res = c.receive("POST")
	if res.check(t, 429, "rate-limited"); !res.Close {
		t.Error("the response does not say that the connection ends")
	}
	c = g.dial(t)
	c.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
	c.receive("GET").check(t, 500, "internal")
	c.end()
	c = g.dial(t)
	c.send("GET /abort HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, err := io.ReadAll(c); err == nil || len(got) > 0 {
		t.Errorf("after Abort: %q, %v", got, err)
	}
}

// TestPanic shows that a fault of the gateway in the middle of an exchange leaves nothing behind.
func TestPanic(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 1)
	g := start(t, func(c net.Conn) {
		if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.Copy(io.Discard, c)
		}
		ended <- struct{}{}
	}, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
		if _, v := x.Route.Backend.Call(x, d); v != exchange.Continue {
			t.Errorf("Call = %v", v)
		}
		panic("a fault of the gateway, on purpose")
	}})
	for _, in := range []string{get, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
		c := g.dial(t)
		c.send(in)
		c.receive("GET").check(t, 500, "internal")
		<-ended
	}
	for _, r := range g.records(t, 2) {
		if r.status != 500 || r.code != "internal" {
			t.Errorf("recorded %d %q", r.status, r.code)
		}
	}
}

// TestBodies passes bodies of many sizes through, both ways, with and without known lengths.
func TestBodies(t *testing.T) {
	t.Parallel()
	g := start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			res := &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{}}
			if req.ContentLength < 0 {
				res.ContentLength, res.TransferEncoding = -1, []string{"chunked"}
			}
			if err := res.Write(c); err != nil {
				return
			}
		}
	}, setup{})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	t.Cleanup(client.CloseIdleConnections)
	var data [3 << 20]byte
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	for _, size := range []int{0, 1, 100, 3000, 4000, 4096, 8192, 20000, 65535, 65536, 65537, 100000, 1 << 20, 3 << 20} {
		for _, known := range []bool{true, false} {
			req, err := http.NewRequest("POST", "http://"+g.address+"/", bytes.NewReader(data[:size]))
			if err != nil {
				t.Fatal(err)
			}
			if !known {
				req.ContentLength, req.Body = -1, io.NopCloser(io.MultiReader(bytes.NewReader(data[:size])))
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatalf("%d bytes, known %t: %v", size, known, err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !bytes.Equal(got, data[:size]) {
				t.Errorf("%d bytes, known %t: got %d, %v", size, known, len(got), err)
			}
		}
	}
	for _, r := range g.records(t, 28) {
		if r.in != r.out {
			t.Errorf("counted %d bytes in and %d out", r.in, r.out)
		}
	}
}

// TestExpect shows that the 100 of the backend makes its way to the client, and its refusal as well.
func TestExpect(t *testing.T) {
	t.Parallel()
	g := start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Header.Get("Expect") == "" || req.URL.Path == "/no" {
			_, _ = io.WriteString(c, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		body, err := io.ReadAll(req.Body)
		if err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: "+string(rune('0'+len(body)))+"\r\n\r\n"+string(body))
		}
	}, setup{})
	c := g.dial(t)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	c.receive("POST").check(t, 100, "")
	c.send("body")
	res := c.receive("POST")
	if res.check(t, 200, ""); res.body != "body" {
		t.Errorf("body %q", res.body)
	}
	c = g.dial(t)
	c.send("POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	if res = c.receive("POST"); !res.Close {
		t.Error("the response does not say that the connection ends")
	}
	res.check(t, 417, "")
}

// TestEarlyResponse shows that a response may be complete before the request is.
func TestEarlyResponse(t *testing.T) {
	t.Parallel()
	g := start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
		_, _ = io.Copy(io.Discard, r)
	}, setup{})
	for _, framing := range []string{"Content-Length: 10000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffff\r\n"} {
		c := g.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: a\r\n" + framing + "begin")
		res := c.receive("POST")
		if res.check(t, 413, ""); res.body != "no!" || !res.Close {
			t.Errorf("%q, close %t", res.body, res.Close)
		}
		c.end()
	}
	g.records(t, 2)
}

// TestStreaming shows that nothing waits for more: a piece that has come is passed on, in both directions at once.
func TestStreaming(t *testing.T) {
	t.Parallel()
	g := start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		p := make([]byte, 100)
		for {
			n, err := req.Body.Read(p)
			if n > 0 {
				_, _ = io.WriteString(c, string(rune('0'+n))+"\r\n"+string(p[:n])+"\r\n")
			}
			if err != nil {
				break
			}
		}
		_, _ = io.WriteString(c, "0\r\n\r\n")
	}, setup{})
	c := g.dial(t)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two", "three"} {
		c.send(string(rune('0'+len(word))) + "\r\n" + word + "\r\n")
		p := make([]byte, len(word))
		if _, err := io.ReadFull(res.Body, p); err != nil || string(p) != word {
			t.Fatalf("got %q, %v, want %q", p, err, word)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("rest %q, %v", rest, err)
	}
}

// TestBadBody shows requests whose head was good and whose body is not. What was forwarded ends without looking complete.
func TestBadBody(t *testing.T) {
	t.Parallel()
	const chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, tt := range []struct {
		name, in string
		code     string
	}{
		{"no size", chunked + "\r\n", "bad-request-body"},
		{"size with a sign", chunked + "+3\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"size with 0x", chunked + "0x3\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"size too long", chunked + "00000000000000003\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"size overflows", chunked + "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"size with a space before", chunked + " 3\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"size with a space behind", chunked + "3 \r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"size with bare LF", chunked + "3\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"size with bare CR", chunked + "3\rabc\r\n0\r\n\r\n", "bad-request-body"},
		{"extension with bare LF", chunked + "3;a\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"extension with NUL", chunked + "3;a\x00\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"quoted end of line", chunked + "3;a=\"\r\n\"\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"long extension", chunked + "3;" + strings.Repeat("a", 5000) + "\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"many extensions", chunked + strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\na\r\n", 20) + "0\r\n\r\n", "bad-request-body"},
		{"data too long", chunked + "3\r\nabcd\r\n0\r\n\r\n", "bad-request-body"},
		{"data too short", chunked + "5\r\nabc\r\n0\r\n\r\n", "bad-request-body"},
		{"data with bare LF", chunked + "3\r\nabc\n0\r\n\r\n", "bad-request-body"},
		{"trailer with bare LF", chunked + "0\r\nA: b\n\r\n", "bad-request-header"},
		{"trailer without colon", chunked + "0\r\nA\r\n\r\n", "bad-request-header"},
		{"folded trailer", chunked + "0\r\nA: b\r\n c\r\n\r\n", "bad-request-header"},
		{"large trailers", chunked + "0\r\n" + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 10) + "\r\n", "bad-request-body"},
		{"many trailers", chunked + "0\r\n" + strings.Repeat("A: b\r\n", 40) + "\r\n", "bad-request-body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			g := start(t, func(c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err == nil {
					_, err = io.ReadAll(req.Body)
				}
				ended <- err
			}, setup{})
			c := g.dial(t)
			c.send(tt.in + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			res := c.receive("POST")
			if res.check(t, 400, tt.code); !res.Close {
				t.Error("the response does not say that the connection ends")
			}
			if err := <-ended; err == nil {
				t.Error("the backend saw a complete request")
			}
			if g.served.Load() != 1 {
				t.Errorf("%d requests were served", g.served.Load())
			}
		})
	}
}

// TestClientLeaves shows that a client that goes away ends what is done for it.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, in string
		reset    bool
		code     string
	}{
		{"waiting for the response", get, false, "client-gone"},
		{"waiting, with a reset", get, true, "client-gone"},
		// A client that has closed its sending side alone could still read these.
		{"in a short body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc", false, "bad-request-body"},
		{"in a long body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc", false, "bad-request-body"},
		{"in chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", false, "bad-request-body"},
		{"in chunks, with a reset", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true, "client-gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			begun, ended := make(chan struct{}), make(chan error, 1)
			short := strings.Contains(tt.name, "short")
			g := start(t, func(c net.Conn) {
				p := make([]byte, 10)
				_, _ = io.ReadFull(c, p)
				close(begun)
				_, err := io.Copy(io.Discard, c)
				ended <- err
			}, setup{})
			c := g.dial(t)
			c.send(tt.in)
			if !short { // a short body is read before the backend is called
				<-begun
			}
			if tt.reset {
				_ = c.SetLinger(0)
			}
			c.Close()
			if !short {
				select {
				case <-ended:
				case <-time.After(time.Minute):
					t.Fatal("the call of the backend goes on")
				}
			}
			if got := g.records(t, 1)[0]; got.code != tt.code {
				t.Errorf("recorded %d %q, want %q", got.status, got.code, tt.code)
			}
		})
	}
}

// TestClientStopsReading is the slow reader: its connection is closed in time, whichever way the body passes, and so is the
// backend's.
func TestClientStopsReading(t *testing.T) {
	t.Parallel()
	for _, framing := range []string{"Content-Length: 1000000000", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			s := setup{}
			s.options.Timeouts.Write = time.Second
			g := start(t, func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					ended <- err
					return
				}
				_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n"+framing+"\r\n\r\n")
				for p := []byte("10000\r\n" + strings.Repeat("x", 64<<10) + "\r\n"); err == nil; {
					_, err = c.Write(p)
				}
				ended <- err
			}, s)
			c := g.dial(t)
			begin := time.Now()
			c.send(get)
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Fatal("the call of the backend goes on")
			}
			if took := time.Since(begin); took < time.Second || took > 25*time.Second {
				t.Errorf("it took %v, and a client may be silent for a second, where it would be 30 by default", took)
			}
			if got := g.records(t, 1)[0]; got.code != "client-gone" {
				t.Errorf("recorded %q", got.code)
			}
		})
	}
}

// TestHalfClosed shows that a client may close its sending side and still gets what comes soon.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	g := start(t, echo, setup{})
	c := g.dial(t)
	c.send(get)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.receive("GET").check(t, 200, "")
	c.end()
}

// TestByteByByte sends requests one byte at a time.
func TestByteByByte(t *testing.T) {
	t.Parallel()
	g := start(t, echo, setup{})
	c := g.dial(t)
	for _, in := range []string{
		"\r\nGET /x HTTP/1.1\r\nHost: a\r\nAccept:  y \r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
	} {
		for i := range len(in) {
			c.send(in[i : i+1])
		}
		res := c.receive("GET")
		res.check(t, 200, "")
		if strings.HasPrefix(in, "POST") && !strings.Contains(res.body, "abcde") {
			t.Errorf("the backend saw %q", res.body)
		}
	}
}

// TestPipelined sends many requests at once.
func TestPipelined(t *testing.T) {
	t.Parallel()
	g := start(t, echo, setup{})
	c := g.dial(t)
	const n = 300 // more than fits into any buffer
	go func() {
		for i := range n {
			text := get
			if i%3 == 1 {
				text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
			} else if i%3 == 2 {
				text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
			}
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}()
	for i := range n {
		res := c.receive("GET")
		if res.check(t, 200, ""); strings.HasSuffix(res.body, "hello") != (i%3 != 0) {
			t.Fatalf("response %d: %q", i, res.body)
		}
	}
}

// TestBodiesShareMemory has many requests wait for a backend that has their bodies already, so that the memory of the bodies is used
// again meanwhile. Nothing else may have been in it. Requests come alone and one behind the other.
func TestBodiesShareMemory(t *testing.T) {
	t.Parallel()
	const clients = 8
	arrived, answer := make(chan bool, clients), make(chan bool)
	g := start(t, func(c net.Conn) {
		pipe := wait{Conn: c, before: func() { arrived <- true; <-answer }}
		echo(&pipe)
	}, setup{})
	text := func(client, round int) (path, text string) {
		path = fmt.Sprintf("/%d/%d", client, round)
		size := []int{3000, 6000, 12_000, 31_000}[(client+round)%4]
		filler := strings.Repeat("f", []int{10, 5000}[round/4%2])
		return path, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nX-Filler: %s\r\nContent-Length: %d\r\n\r\n%s", path, filler, size,
			strings.Repeat(path, size/len(path)+1)[:size])
	}
	var all []*client
	for range clients {
		all = append(all, g.dial(t))
	}
	const rounds = 8
	bodies := map[string]int64{}
	for round := range rounds {
		for i, c := range all {
			path, one := text(i, round)
			bodies[path] = int64(len(one) - strings.Index(one, "\r\n\r\n") - 4)
			switch next := ""; {
			case i%2 == 1: // pairs, one behind the other
				if _, next = text(i, round+1); round%2 == 0 {
					c.send(one + next)
				}
			default:
				c.send(one)
			}
		}
		for range all {
			<-arrived
		}
		for range all {
			answer <- true
		}
		for i, c := range all {
			path, one := text(i, round)
			res := c.receive("POST")
			_, body, _ := strings.Cut(one, "\r\n\r\n")
			if res.check(t, 200, ""); !strings.HasPrefix(res.body, "POST "+path+" ") || !strings.HasSuffix(res.body, "\r\n\r\n"+body) {
				t.Fatalf("%s: the backend saw %.80q ...", path, res.body)
			}
		}
	}
	for _, r := range g.records(t, clients*rounds) {
		if bodies[r.path] != r.in || r.method != "POST" || r.host != "a" {
			t.Errorf("recorded: %+v", r)
		}
		delete(bodies, r.path)
	}
	if len(bodies) > 0 {
		t.Errorf("not recorded: %v", bodies)
	}
}

// wait is a connection that calls before before it writes.
type wait struct {
	net.Conn
	before func()
}

func (w *wait) Write(p []byte) (int, error) {
	w.before()
	return w.Conn.Write(p)
}

// TestStopBodyEndsWithTheRequest has the backend lose interest in a body that has come to its end, or of which it has taken nothing.
// Neither concerns the next request on the connection.
func TestStopBodyEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	for name, pull := range map[string]bool{"after the end": true, "before the begin": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, echo, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
				if x.Body != nil {
					if pull {
						if _, err := exchange.ReadAll(nil, x.Body, 1<<20); err != nil {
							t.Error(err)
						}
					}
					d.StopBody()
				}
				x.Answer(200, []byte("done"))
				d.Respond(x, nil)
				return true
			}})
			c := g.dial(t)
			body := strings.Repeat("b", 40_000) // more than is collected, less than is too much to drop
			for range 3 {
				c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n" + body)
				c.receive("POST").check(t, 200, "")
				c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				c.receive("GET").check(t, 200, "")
			}
		})
	}
}
