package http2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pattern is a body that tells byte by byte whose it is.
func pattern(id, size int) []byte {
	one := fmt.Sprintf("<%d>", id)
	return []byte(strings.Repeat(one, size/len(one)+1)[:size])
}

// sizes are those of bodies: below and above what is collected, copied, taken, and passed through a pipe.
var sizes = []int{0, 1, 100, 3000, 6000, 20_000, 40_000, 70_000, 200_000}

// mixedBackend answers requests in every way that a backend can, good or bad, as X-Do asks for it: with a pattern of their X-Id.
// wrong is told what it was sent that is not of one piece.
func mixedBackend(wrong func(format string, args ...any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, _ := strconv.Atoi(r.Header.Get("X-Id"))
		size, _ := strconv.Atoi(r.Header.Get("X-Size"))
		if path := fmt.Sprint("/", id); r.URL.Path != path {
			wrong("request %d has the path %s", id, r.URL.Path)
		}
		do := r.Header.Get("X-Do")
		if do == "abort" {
			panic(http.ErrAbortHandler)
		}
		if !strings.HasPrefix(do, "early") {
			got, err := io.ReadAll(r.Body)
			if want, _ := strconv.Atoi(r.Header.Get("X-Sent")); err == nil && !bytes.Equal(got, pattern(id, want)) {
				wrong("request %d: the body of %d bytes arrived as %d, %.40q", id, want, len(got), got)
			}
		}
		body := pattern(id, size)
		w.Header().Set("X-Id", strconv.Itoa(id))
		w.Header().Set("X-Size", strconv.Itoa(size))
		switch do {
		case "empty":
			w.WriteHeader(http.StatusNoContent)
			return
		case "more": // two responses, of which nobody has asked for the second
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				defer c.Close()
				if r.Method == "HEAD" {
					body = nil
				}
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Id: %d\r\nX-Size: %d\r\nContent-Length: %[2]d\r\n\r\n%[3]s"+
					"HTTP/1.1 200 OK\r\nX-Id: -1\r\nContent-Length: 4\r\n\r\nevil", id, size, body)
				_, _ = c.Read(make([]byte, 1)) // until the gateway has closed it
				return
			}
		case "length", "break":
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		flush := http.NewResponseController(w).Flush
		for half := size / 2; len(body) > 0; half = len(body) {
			n, err := w.Write(body[:half])
			if body = body[n:]; err != nil {
				return
			}
			if do == "break" {
				_ = flush()
				panic(http.ErrAbortHandler)
			}
			if strings.HasSuffix(do, "slow") {
				_ = flush()
				<-time.After(time.Millisecond)
			}
		}
	}
}

// TestNobodyGetsAnothersAnswer sends many requests at a time over few connections on both sides, in both versions of HTTP, to
// a backend that fails in every way, while clients leave at any moment. Whatever arrives at a client is its own, every byte
// of it, and so is whatever arrives at the backend.
func TestNobodyGetsAnothersAnswer(t *testing.T) {
	t.Parallel()
	requests := 400
	if os.Getenv("HANSA_SLOW") != "" {
		requests = 10_000
	}
	for _, version := range []string{"1.1", "2"} {
		t.Run("backend "+version, func(t *testing.T) {
			t.Parallel()
			b := backend2(t, false, mixedBackend(t.Errorf))
			b.Config.ErrorLog = nil
			s := setup{}
			s.backend.HTTPVersion, s.backend.MaxConns = version, 16
			g := startBefore(t, s, b.Listener.Addr().String())
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var whole, broken atomic.Int32
			var wg sync.WaitGroup
			const workers = 16
			clients := []*http.Client{mixedClient(t, g, false), mixedClient(t, g, true)}
			for worker := range workers {
				rng := rand.New(rand.NewPCG(seed, uint64(worker)))
				wg.Go(func() {
					for i := range requests / workers {
						if mixedRequest(t, g, clients[rng.IntN(2)], rng, worker*requests+i+1) {
							whole.Add(1)
						} else {
							broken.Add(1)
						}
					}
				})
			}
			wg.Wait()
			if w, b := whole.Load(), broken.Load(); w < b {
				t.Errorf("%d answers arrived whole and %d not: that shows little", w, b)
			}
			eventually(t, func() bool { return g.active.Load() == 0 })
		})
	}
}

// mixedClient is a client of either version.
func mixedClient(t *testing.T, g *gateway, two bool) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 6, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", g.address)
	}}
	tr.Protocols.SetHTTP1(!two)
	tr.Protocols.SetUnencryptedHTTP2(two)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// mixedRequest sends one request and holds the answer against it. It tells whether that arrived whole.
func mixedRequest(t *testing.T, g *gateway, c *http.Client, rng *rand.Rand, id int) bool {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	method := []string{"GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"}[rng.IntN(7)]
	do := []string{"length", "length", "length", "length", "", "", "slow", "early", "early slow", "abort", "break", "more", "empty"}[rng.IntN(13)]
	sent, size := 0, sizes[rng.IntN(len(sizes))]
	var body io.Reader
	if method == "POST" || method == "PUT" {
		sent = sizes[rng.IntN(len(sizes))]
		body = bytes.NewReader(pattern(id, sent))
		if rng.IntN(2) == 0 {
			body = io.MultiReader(body) // hides the length
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, g.url(fmt.Sprint("/", id)), body)
	if err != nil {
		t.Error(err)
		return false
	}
	for name, v := range map[string]string{"X-Id": strconv.Itoa(id), "X-Size": strconv.Itoa(size), "X-Sent": strconv.Itoa(sent), "X-Do": do} {
		req.Header.Set(name, v)
	}
	if rng.IntN(6) == 0 { // leave at some time
		time.AfterFunc(time.Duration(rng.IntN(3000))*time.Microsecond, cancel)
	}
	res, err := c.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	most := int64(1 << 20)
	if rng.IntN(8) == 0 {
		most = rng.Int64N(int64(size) + 1) // leave in the middle
	}
	got, err := io.ReadAll(io.LimitReader(res.Body, most))
	if res.StatusCode >= 500 { // the gateway's own answer
		return false
	}
	if have := res.Header.Get("X-Id"); have != strconv.Itoa(id) {
		t.Errorf("%s %d (%s, HTTP/%d) got the answer to %s, status %d", method, id, do, res.ProtoMajor, have, res.StatusCode)
	}
	if len(got) > size || !bytes.Equal(got, pattern(id, size)[:len(got)]) {
		t.Errorf("%s %d (%s, HTTP/%d) got %d bytes of %d: %.60q", method, id, do, res.ProtoMajor, len(got), size, got)
	}
	if err != nil || most < int64(size) {
		return false
	}
	if method != "HEAD" && do != "empty" && len(got) != size {
		t.Errorf("%s %d (%s, HTTP/%d) got %d bytes of %d, which look complete", method, id, do, res.ProtoMajor, len(got), size)
	}
	return true
}
