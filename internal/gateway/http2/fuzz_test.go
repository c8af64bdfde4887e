package http2_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"hansa.dev/hansa/internal/gateway/http2"
)

// FuzzToHTTP1 sends a request of HTTP/2, with whatever in it, through a gateway to a backend that speaks HTTP/1: either nothing
// arrives there, or just that request, as net/http reads it, and behind it the next one.
func FuzzToHTTP1(f *testing.F) {
	f.Add("GET", "/a/../b?c", "example.com", "x-a", "b", "", []byte(nil), []byte("body"), uint8(0))
	f.Add("POST", "/", "a:80", "content-length", "4", "x-t", []byte("1"), []byte("body"), uint8(1))
	f.Add("POST", "/ HTTP/1.1\r\nx: y", "a\r\nb", "transfer-encoding", "chunked", "content-length", []byte("3"), []byte("0\r\n\r\n"), uint8(3))
	f.Add("G T", "/?a b", "a", "cookie", "a=b", "host", []byte("b"), []byte("x"), uint8(2))
	f.Add("CONNECT", "/", "a", "connection", "x", "x_forwarded_for", []byte("b"), []byte("x"), uint8(5))
	f.Add("PUT", "/%2e%2f", "a", "expect", "100-continue", "", []byte("b"), []byte("x"), uint8(7))

	type arrived struct {
		req  *http.Request
		body []byte
		err  error
	}
	seen := make(chan arrived, 10)
	address := listenPlain(f, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				seen <- arrived{err: err}
				return
			}
			if req.Header.Get("Expect") != "" {
				_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return // the client has broken off
			}
			seen <- arrived{req, body, nil}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
				return
			}
		}
	})
	g := startBefore(f, setup{alone: true}, address)
	g.quiet = true
	var ids atomic.Uint64

	f.Fuzz(func(t *testing.T, method, path, authority, name, value, trailer string, trailerValue, body []byte, flags uint8) {
		c, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		head := func(fields ...string) []byte {
			block.Reset()
			for i := 0; i < len(fields); i += 2 {
				_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			return bytes.Clone(block.Bytes())
		}
		fields := []string{":method", method, ":scheme", "http", ":path", path, ":authority", authority}
		if flags&4 != 0 {
			fields = append(fields, ":protocol", value)
		}
		if name != "" {
			fields = append(fields, name, value)
		}
		id := strconv.FormatUint(ids.Add(1), 10)
		fields = append(fields, "x-fuzz", id)
		hasBody, hasTrailers := flags&1 != 0, flags&2 != 0
		var out bytes.Buffer
		out.WriteString(xhttp2.ClientPreface)
		fr := xhttp2.NewFramer(&out, c)
		fr.AllowIllegalWrites = true
		_ = fr.WriteSettings()
		first := head(fields...)
		if len(first) > 16<<10 || len(body) > 16<<10 || len(trailerValue) > 8<<10 || len(trailer) > 8<<10 {
			return
		}
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: !hasBody && !hasTrailers, EndHeaders: true})
		if hasBody {
			_ = fr.WriteData(1, !hasTrailers, body)
		}
		if hasTrailers {
			_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(trailer, string(trailerValue)), EndStream: true, EndHeaders: true})
		}
		if _, err := c.Write(out.Bytes()); err != nil {
			t.Fatal(err)
		}
		status := fuzzStatus(fr)
		var got []arrived
		for len(seen) > 0 { // not those of before that were broken off
			if a := <-seen; a.err != nil || a.req.Header["X-Fuzz"][0] == id {
				got = append(got, a)
			}
		}
		for _, a := range got {
			if a.err != nil {
				t.Fatalf("what arrived is no request: %v", a.err)
			}
		}
		switch {
		case len(got) > 1:
			t.Fatalf("one request became %d: %+v", len(got), got)
		case len(got) == 0:
			if status == "200" {
				t.Fatal("answered, but not by the backend")
			}
			return
		case status != "200":
			return // broken off after it had arrived
		}
		req := got[0].req
		tunnel := method == "CONNECT"
		if req.Method != method && !(tunnel && req.Method == "GET") {
			t.Errorf("the method %q became %q", method, req.Method)
		}
		if !strings.EqualFold(req.Host, authority) && !strings.EqualFold(name, "host") {
			t.Errorf("the authority %q became %q", authority, req.Host)
		}
		_, query, _ := strings.Cut(path, "?")
		if req.URL.RawQuery != query || !strings.HasPrefix(req.RequestURI, "/") {
			t.Errorf("the path %q became %q", path, req.RequestURI)
		}
		if hasBody && !tunnel && !bytes.Equal(got[0].body, body) || !hasBody && len(got[0].body) > 0 {
			t.Errorf("the body %q became %q", body, got[0].body)
		}
		if len(req.TransferEncoding) > 0 && req.Header.Get("Content-Length") != "" {
			t.Errorf("the length is told twice: %v", req.Header)
		}
	})
}

// fuzzStatus reads frames until the first stream or the connection ends, and returns the status of the response; "" if there is
// none, or not all of it.
func fuzzStatus(fr *xhttp2.Framer) (status string) {
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		in, err := fr.ReadFrame()
		if err != nil {
			return ""
		}
		switch in := in.(type) {
		case *xhttp2.MetaHeadersFrame:
			if status = in.PseudoValue("status"); in.StreamEnded() {
				return status
			}
		case *xhttp2.DataFrame:
			if in.StreamEnded() {
				return status
			}
		case *xhttp2.RSTStreamFrame:
			return ""
		}
	}
}

// FuzzConnection sends whatever a client may to a connection. Every request is answered or comes to nothing, and the connection
// ends with the client.
func FuzzConnection(f *testing.F) {
	frames := func(write func(fr *xhttp2.Framer)) []byte {
		var b bytes.Buffer
		write(xhttp2.NewFramer(&b, nil))
		return b.Bytes()
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "a"}} {
		_ = enc.WriteField(h)
	}
	request := block.Bytes()
	f.Add(frames(func(fr *xhttp2.Framer) {
		_ = fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10})
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: request, EndHeaders: true, PadLength: 3})
		_ = fr.WriteDataPadded(1, false, []byte("hello"), []byte{0, 0})
		_ = fr.WriteWindowUpdate(1, 100)
		_ = fr.WriteData(1, true, nil)
	}), uint8(7))
	f.Add(frames(func(fr *xhttp2.Framer) {
		_ = fr.WriteSettings()
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: request[:3]})
		_ = fr.WriteContinuation(1, true, request[3:])
		_ = fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: request, EndStream: true, EndHeaders: true, Priority: xhttp2.PriorityParam{StreamDep: 1}})
		_ = fr.WriteRSTStream(1, xhttp2.ErrCodeCancel)
		_ = fr.WritePing(false, [8]byte{1})
		_ = fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
	}), uint8(1))
	g := start(f, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }, setup{alone: true, options: http2.Options{MaxStreams: 4}})
	g.quiet = true
	f.Fuzz(func(t *testing.T, in []byte, at uint8) {
		c, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		cut := min(int(at), len(in)) // read in two pieces, if it comes so
		_, _ = io.WriteString(c, xhttp2.ClientPreface+string(in[:cut]))
		_, _ = c.Write(in[cut:])
		if len(in)%2 == 0 { // what comes then is an end alone
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
			_, _ = io.Copy(io.Discard, c)
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, net.ErrClosed) || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection does not end: %v", err)
		}
	})
}

// listenPlain is listen for what outlives the gateway in front of it: its connections are closed first.
func listenPlain(f *testing.F, serve func(net.Conn)) string {
	f.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}
