package http1_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/internal/snapshot"
)

// random is n bytes that no two places have in common.
func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// TestLargeBodies sends bodies of all sizes around those at which they begin to pass through pipes, both ways and to
// slow readers, and looks that every byte arrives and is counted.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	const most = 9 << 20
	data := random(most)
	g := start(t, func(c net.Conn) {
		r := bufio.NewReaderSize(c, 512)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			sum := sha256.New()
			if _, err := io.Copy(sum, req.Body); err != nil {
				return
			}
			var n int
			_, _ = fmt.Sscanf(req.URL.Path, "/%d", &n)
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Sum: %x\r\n\r\n", n, sum.Sum(nil)); err != nil {
				return
			}
			if _, err := c.Write(data[:n]); err != nil {
				return
			}
		}
	}, setup{})
	c := g.dial(t)
	count := 0
	for _, n := range []int{0, 1, 4 << 10, 31 << 10, 32 << 10, 36 << 10, 40 << 10, 64 << 10, 65 << 10, 256<<10 + 4<<10, 1 << 20, most} {
		fmt.Fprintf(c, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", n, n)
		go func() { _, _ = c.Write(data[:n]) }()
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(body, data[:n]) {
			t.Errorf("of %d bytes came %d, %v", n, len(body), err)
		}
		if got, want := res.Header.Get("X-Sum"), fmt.Sprintf("%x", sha256.Sum256(data[:n])); got != want {
			t.Errorf("of %d bytes the backend read others", n)
		}
		count++
		if r := g.records(t, count)[count-1]; r.in != int64(n) || r.out != int64(n) || r.code != "" {
			t.Errorf("of %d bytes the log says %+v", n, r)
		}
	}
}

// TestLargeBodyBroken breaks off bodies that pass through pipes, at either end.
func TestLargeBodyBroken(t *testing.T) {
	t.Parallel()
	half := func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 500000))
		}
	}
	t.Run("by the backend", func(t *testing.T) {
		t.Parallel()
		g := start(t, half, setup{})
		c := g.dial(t)
		c.send(get)
		if res := c.receive("GET"); res.err == nil {
			t.Errorf("a broken body of %d bytes looks whole", len(res.body))
		}
		if r := g.records(t, 1)[0]; r.code != "upstream-reset" && r.code != "bad-request-body" && r.code != "upstream-protocol" {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("by a silent backend", func(t *testing.T) {
		t.Parallel()
		g := start(t, func(c net.Conn) {
			half(c)
			_, _ = c.Read(make([]byte, 1))
		}, setup{backend: snapshot.Backend{IdleMillis: 200}})
		c := g.dial(t)
		c.send(get)
		if res := c.receive("GET"); res.err == nil {
			t.Errorf("a broken body of %d bytes looks whole", len(res.body))
		}
		if r := g.records(t, 1)[0]; r.code != "upstream-timeout" {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("by the client that reads", func(t *testing.T) {
		t.Parallel()
		g := start(t, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
				_, _ = c.Write(make([]byte, 100000000))
			}
		}, setup{})
		c := g.dial(t)
		c.send(get)
		if _, err := http.ReadResponse(c.r, nil); err != nil {
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		c.Close()
		if r := g.records(t, 1)[0]; r.code != "client-gone" || r.out == 100000000 {
			t.Errorf("the log says %+v", r)
		}
	})
	t.Run("by the client that sends", func(t *testing.T) {
		t.Parallel()
		read := make(chan int64, 1)
		g := start(t, func(c net.Conn) {
			if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				n, _ := io.Copy(io.Discard, req.Body)
				read <- n
			}
		}, setup{})
		c := g.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 500000))
		c.Close()
		if n := <-read; n >= 1000000 {
			t.Errorf("the backend read %d bytes", n)
		}
		g.records(t, 1)
	})
	t.Run("by a backend that answers early", func(t *testing.T) {
		t.Parallel()
		g := start(t, says("HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno\n"), setup{})
		c := g.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
		go func() { _, _ = c.Write(make([]byte, 100000000)) }()
		c.receive("POST").check(t, 403, "")
		_ = c.SetDeadline(time.Now())
	})
}
