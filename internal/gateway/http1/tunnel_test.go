package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// webSocket is a backend that upgrades every request and echoes messages, over net/http and gorilla/websocket.
func webSocket(t *testing.T) setup {
	t.Helper()
	up := websocket.Upgrader{Subprotocols: []string{"echo"}, EnableCompression: true, CheckOrigin: func(*http.Request) bool { return true }}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, http.Header{"X-Backend": {"yes"}})
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, data, err := c.ReadMessage()
			if err != nil {
				return
			}
			if err := c.WriteMessage(kind, data); err != nil {
				return
			}
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return setup{backend: snapshot.Backend{Endpoints: snapshot.Endpoints(l.Addr().String())}}
}

func dialWebSocket(t *testing.T, g *gateway) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{Subprotocols: []string{"echo"}, EnableCompression: true, WriteBufferSize: 700}
	c, res, err := d.Dial("ws://"+g.address+"/chat?room=1", nil)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	if res.Header.Get("X-Backend") != "yes" || c.Subprotocol() != "echo" || res.Header.Get("X-Request-Id") == "" {
		t.Errorf("the answer has the fields %v", res.Header)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	return c
}

// TestWebSocket speaks WebSocket with a real client to a real server: messages of all sizes, in fragments and compressed,
// pings, and the code of the end.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	g := start(t, nil, webSocket(t))
	c := dialWebSocket(t, g)
	var sent int64
	for _, size := range []int{0, 1, 125, 126, 4096, 65535, 65536, 1 << 20, 5 << 20} {
		for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			want := bytes.Repeat([]byte("a"), size)
			sent += int64(size)
			c.EnableWriteCompression(size%2 == 0)
			wrote := make(chan error, 1)
			go func() { wrote <- c.WriteMessage(kind, want) }()
			gotKind, got, err := c.ReadMessage()
			if err != nil || <-wrote != nil || gotKind != kind || !bytes.Equal(got, want) {
				t.Fatalf("message of %d bytes: kind %d, %d bytes, %v", size, gotKind, len(got), err)
			}
		}
	}
	pong := make(chan string, 1)
	c.SetPongHandler(func(data string) error { pong <- data; return nil })
	if err := c.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.TextMessage, []byte("after the ping")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.ReadMessage(); err != nil || string(got) != "after the ping" || <-pong != "are you there" {
		t.Errorf("after the ping: %q, %v", got, err)
	}
	_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4000, "done"), time.Now().Add(time.Second))
	var closed *websocket.CloseError
	if _, _, err := c.ReadMessage(); !errors.As(err, &closed) || closed.Code != 4000 {
		t.Errorf("the end: %v", err)
	}
	c.Close()
	if r := g.records(t, 1)[0]; r.status != 101 || r.code != "" || r.in == 0 || r.out == 0 {
		t.Errorf("the log says %+v", r)
	}
}

// TestTunnel is about other protocols, and what becomes of the connection.
func TestTunnel(t *testing.T) {
	t.Parallel()
	const ask = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "
	// upper answers with head, and then with everything in upper case until the client has said all.
	upper := func(head string) func(net.Conn) {
		return func(c net.Conn) {
			r := bufio.NewReader(c)
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, strings.ReplaceAll(head, "$", req.Header.Get("Upgrade")))
			for {
				b, err := r.ReadByte()
				if err != nil {
					_, _ = io.WriteString(c, " and out")
					return
				}
				_, _ = c.Write(bytes.ToUpper([]byte{b}))
			}
		}
	}
	const switching = "HTTP/1.1 101 Whatever\r\nConnection: Upgrade\r\nUpgrade: $\r\n\r\n"
	t.Run("half-close by the client", func(t *testing.T) {
		t.Parallel()
		g := start(t, upper(switching), setup{})
		c := g.dial(t)
		c.send(ask + "foo/2\r\n\r\nearly ") // and within the same segment the begin of the tunnel
		res := c.receive("GET")
		if res.StatusCode != 101 || res.Header.Get("Upgrade") != "foo/2" || res.Header.Get("Connection") != "Upgrade" {
			t.Fatalf("response %d %v", res.StatusCode, res.Header)
		}
		c.send("late")
		_ = c.CloseWrite()
		rest, err := io.ReadAll(c.r)
		if string(rest) != "EARLY LATE and out" || err != nil {
			t.Errorf("through the tunnel came %q, %v", rest, err)
		}
		if r := g.records(t, 1)[0]; r.status != 101 || r.code != "" || r.in != 10 || r.out != 18 {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("half-close by the backend", func(t *testing.T) {
		t.Parallel()
		got := make(chan string, 1)
		g := start(t, func(c net.Conn) {
			r := bufio.NewReader(c)
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nhello")
			_ = c.(*net.TCPConn).CloseWrite()
			b, _ := io.ReadAll(r)
			got <- string(b)
		}, setup{})
		c := g.dial(t)
		c.send(ask + "foo\r\n\r\n")
		c.receive("GET")
		if rest, err := io.ReadAll(c.r); string(rest) != "hello" || err != nil {
			t.Errorf("through the tunnel came %q, %v", rest, err)
		}
		c.send("still here")
		_ = c.CloseWrite()
		if b := <-got; b != "still here" {
			t.Errorf("the backend got %q", b)
		}
		if r := g.records(t, 1)[0]; r.status != 101 || r.code != "" || r.in != 10 || r.out != 5 {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("the backend does not switch", func(t *testing.T) {
		t.Parallel()
		g := start(t, echo, setup{})
		c := g.dial(t)
		c.send(ask + "foo\r\nUpgrade: h2c, bar\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n")
		res := c.receive("GET")
		res.check(t, 200, "")
		if !strings.Contains(res.body, "\r\nConnection: Upgrade\r\nUpgrade: foo, bar\r\n\r\n") {
			t.Errorf("the backend saw %q", res.body)
		}
		res = c.receive("GET")
		if res.check(t, 200, ""); !strings.HasPrefix(res.body, "GET /second ") {
			t.Errorf("the backend saw %q", res.body)
		}
	})
	for _, tt := range []struct{ name, head string }{
		{"another protocol", "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: bar\r\n\r\n"},
		{"no protocol", "HTTP/1.1 101 x\r\nConnection: Upgrade\r\n\r\n"},
		{"an empty protocol", "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: \r\n\r\n"},
		{"HTTP/1.0", "HTTP/1.0 101 x\r\nConnection: Upgrade\r\nUpgrade: $\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, upper(tt.head), setup{})
			c := g.dial(t)
			c.send(ask + "foo\r\n\r\n")
			c.receive("GET").check(t, 502, "upstream-protocol")
		})
	}
	for _, tt := range []struct{ name, in string }{
		{"nobody asked", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"not in Connection", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\n\r\n"},
		{"with a body", "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: foo\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\nx"},
		{"of HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n"},
		{"to HTTP/2", ask + "h2c, HTTP/2.0, TLS/1.3\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, upper(strings.ReplaceAll(switching, "$", "foo")), setup{})
			c := g.dial(t)
			c.send(tt.in)
			c.receive("GET").check(t, 502, "upstream-protocol")
		})
	}
	t.Run("reset by the client", func(t *testing.T) {
		t.Parallel()
		gone := make(chan error, 1)
		g := start(t, func(c net.Conn) {
			upper(switching)(c)
			_, err := c.Read(make([]byte, 1))
			gone <- err
		}, setup{})
		c := g.dial(t)
		c.send(ask + "foo\r\n\r\n")
		c.receive("GET")
		_ = c.SetLinger(0)
		c.Close()
		<-gone
		if r := g.records(t, 1)[0]; r.code != "client-gone" {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("reset by the backend", func(t *testing.T) {
		t.Parallel()
		g := start(t, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, strings.ReplaceAll(switching, "$", "foo"))
				_, _ = c.Read(make([]byte, 1))
				_ = c.(*net.TCPConn).SetLinger(0)
			}
		}, setup{})
		c := g.dial(t)
		c.send(ask + "foo\r\n\r\n")
		c.receive("GET")
		c.send("x")
		if _, err := io.ReadAll(c.r); err == nil {
			t.Error("the tunnel ends as if nothing had happened")
		}
		if r := g.records(t, 1)[0]; r.code != "upstream-reset" {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		g := start(t, upper(switching), setup{backend: snapshot.Backend{TunnelMillis: 300}})
		c := g.dial(t)
		c.send(ask + "foo\r\n\r\n")
		c.receive("GET")
		if _, err := io.ReadAll(c.r); err == nil {
			t.Error("the tunnel ends as if nothing had happened")
		}
		if r := g.records(t, 1)[0]; r.code != "upstream-timeout" {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		var live atomic.Pointer[exchange.Exchange]
		g := start(t, upper(switching), setup{serve: func(x *exchange.Exchange, _ exchange.Down) bool {
			live.Store(x)
			return false
		}})
		c := g.dial(t)
		c.send(ask + "foo\r\n\r\n")
		c.receive("GET")
		live.Load().Cancel()
		if _, err := io.ReadAll(c.r); err == nil {
			t.Error("the tunnel ends as if nothing had happened")
		}
		if r := g.records(t, 1)[0]; r.code != "client-gone" {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		t.Parallel()
		g := start(t, echo, setup{})
		c := g.dial(t)
		c.send(ask + "foo/\r\n\r\n")
		c.receive("GET").check(t, 400, "bad-request-upgrade")
	})
}
