package http1_test

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa.dev/hansa/internal/exchange"
)

// corpus is how many mutations are tried of either kind.
func corpus() uint64 {
	if os.Getenv("HANSA_SLOW") != "" {
		return 20_000
	}
	return 1500
}

// seen is a request as one reader understands it.
type seen struct {
	method, target, host string
	body                 int64
}

// recorder is a backend that keeps all that it is sent, and answers every request that net/http can read.
type recorder struct {
	mu   sync.Mutex
	idle *sync.Cond
	raw  [][]byte // guarded by mu; what came on each
}

func newRecorder() *recorder {
	r := new(recorder)
	r.idle = sync.NewCond(&r.mu)
	return r
}

func (r *recorder) serve(c net.Conn) {
	var raw bytes.Buffer
	in := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			break
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			break
		}
		if _, err := io.WriteString(c, "HTTP/1.1 299 Seen\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"); err != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, in) // until the gateway has no more to say
	r.mu.Lock()
	r.raw = append(r.raw, raw.Bytes())
	r.idle.Broadcast()
	r.mu.Unlock()
}

// take waits until n connections have ended, and returns what came on them.
func (r *recorder) take(n int) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.raw) < n {
		r.idle.Wait()
	}
	raw := r.raw
	r.raw = nil
	return raw
}

// readAll reads the requests that stand in raw as net/http does. broken is what ended it before the end of raw.
func readAll(raw []byte) (all []seen, broken error) {
	r := bufio.NewReader(bytes.NewReader(raw))
	for {
		if _, err := r.Peek(1); err != nil {
			return all, nil
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return all, err
		}
		n, err := io.Copy(io.Discard, req.Body)
		if err != nil {
			return all, err
		}
		all = append(all, seen{req.Method, req.RequestURI, req.Host, n})
	}
}

// forwarded is a message of the corpus and what became of it.
type forwarded struct {
	in   string
	raw  [][]byte // what the backend was sent
	ours []seen   // the requests that were answered by the backend, as the gateway understood them
}

// forwardAll sends every message on a connection of its own and calls check with what became of it.
func forwardAll(t *testing.T, n uint64, message func(uint64) string, check func(forwarded)) {
	t.Helper()
	rec := newRecorder()
	var mu sync.Mutex
	var ours []seen // guarded by mu
	tries := 0      // guarded by mu
	g := start(t, rec.serve, setup{serve: func(x *exchange.Exchange, d exchange.Down) bool {
		target := x.Path.String()
		if x.HasQuery {
			target += "?" + x.Query.String()
		}
		s := seen{x.Method.String(), target, x.Authority.String(), 0}
		body, v := x.Route.Backend.Call(x, d)
		if v == exchange.Abort {
			d.Abort(x)
		} else {
			d.Respond(x, body)
		}
		mu.Lock()
		defer mu.Unlock()
		tries += x.Tries
		if x.Status == 299 {
			s.host = cmp.Or(s.host, x.Endpoint) // HTTP/1.0 without Host: the backend gets its own address
			s.body = x.BytesIn
			ours = append(ours, s)
		}
		return true
	}})
	g.quiet = true
	for i := range n {
		in := message(i)
		c, err := net.Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		go func() {
			_, _ = io.WriteString(c, in)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: no end", in)
		}
		_ = c.Close()
		mu.Lock()
		f, n := forwarded{in: in, ours: ours}, tries
		ours, tries = nil, 0
		mu.Unlock()
		f.raw = rec.take(n)
		check(f)
	}
}

// judge looks that a reader finds exactly the requests in f that the gateway meant to forward.
func (f *forwarded) judge(t *testing.T, who string, read func([]byte) ([]seen, error)) {
	t.Helper()
	var theirs []seen
	for _, raw := range f.raw {
		all, err := read(raw)
		theirs = append(theirs, all...)
		var broken *net.OpError
		if err != nil && len(all) > 0 && !errors.As(err, &broken) {
			t.Errorf("%q was forwarded as %q, of which %s understands %v and then %v", f.in, raw, who, all, err)
		}
	}
	order := func(a, b seen) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) } // connections end in any order
	ours := slices.SortedFunc(slices.Values(f.ours), order)
	if slices.SortFunc(theirs, order); !slices.Equal(theirs, ours) {
		t.Errorf("%q was forwarded as %q:\n%s understands %v\nthe gateway meant  %v", f.in, f.raw, who, theirs, f.ours)
	}
}

// TestRequestsReadAlike forwards thousands of well- and ill-formed requests, and looks that net/http reads what is forwarded
// as the gateway has read what came: nothing more, nothing else, nothing less.
func TestRequestsReadAlike(t *testing.T) {
	t.Parallel()
	count, accepted := 0, 0
	forwardAll(t, corpus(), func(n uint64) string {
		if int(n) < len(seedRequests) {
			return seedRequests[n]
		}
		return mutate(seedRequests, n)
	}, func(f forwarded) {
		count++
		accepted += len(f.ours)
		f.judge(t, "net/http", readAll)
		for _, raw := range f.raw {
			if before, _, ok := bytes.Cut(raw, []byte("\r\n\r\n")); ok && bytes.Contains(bytes.ReplaceAll(before, []byte("\r\n"), nil), []byte("\n")) {
				t.Errorf("%q was forwarded with a bare line feed: %q", f.in, raw)
			}
		}
		f.compareWithOrigin(t)
	})
	if accepted < count/3 {
		t.Errorf("of %d messages %d requests were forwarded: the corpus has too little that is well-formed", count, accepted)
	}
	t.Logf("%d messages, %d requests forwarded", count, accepted)
}

// compareWithOrigin looks that the gateway did not read another request than net/http does from the very bytes of the client,
// as long as both take them. A proxy in front that reads like net/http then agrees with what is behind.
func (f *forwarded) compareWithOrigin(t *testing.T) {
	t.Helper()
	theirs, _ := readAll([]byte(strings.TrimPrefix(f.in, "\r\n")))
	for i := range min(len(theirs), len(f.ours)) {
		if theirs[i].method != f.ours[i].method || theirs[i].body != f.ours[i].body {
			t.Errorf("%q is %v for net/http and %v for the gateway", f.in, theirs, f.ours)
			return
		}
	}
}

// TestResponsesReadAlike has a backend send thousands of well- and ill-formed responses. The client must get one response to
// its request, or none, and then the response to its second request and nothing else.
func TestResponsesReadAlike(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var text string
	g := start(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			// What is incomplete stays so, and the gateway learns of it soon.
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path == "/second" {
				if _, err := io.WriteString(c, "HTTP/1.1 203 Second\r\nContent-Length: 6\r\n\r\nsecond"); err != nil {
					return
				}
				continue
			}
			mu.Lock()
			out := text
			mu.Unlock()
			if _, err := io.WriteString(c, out); err != nil {
				return
			}
		}
	}, setup{})
	g.quiet = true
	n := corpus() / 5
	whole := 0
	for i := range n {
		mu.Lock()
		if text = mutate(seedResponses, i); int(i) < len(seedResponses) {
			text = seedResponses[i]
		}
		out := text
		mu.Unlock()
		c := g.dial(t)
		c.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		first, err := finalResponse(c.r)
		if err == nil { // otherwise it was broken off, and the client knows
			whole++
			judgeSecond(t, c, out, first)
		}
		c.Close()
	}
	if whole < int(n)/2 {
		t.Errorf("of %d responses %d came through: the corpus has too little that is well-formed", n, whole)
	}
}

// judgeSecond looks at what follows the first response, if the connection goes on: exactly the second one.
func judgeSecond(t *testing.T, c *client, out string, first response) {
	t.Helper()
	second, err := finalResponse(c.r)
	if err != nil {
		return
	}
	if strings.Contains(second.body, `"code":"upstream-reset"`) {
		return // the backend was quicker to close than the gateway to ask again
	}
	if second.StatusCode != 203 || second.body != "second" {
		t.Errorf("%q came to be %d %q, and after that %d %q", out, first.StatusCode, first.body, second.StatusCode, second.body)
	}
	if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
		t.Errorf("%q: after both responses comes %q", out, rest)
	}
}

// finalResponse reads the next response that is not informational.
func finalResponse(r *bufio.Reader) (response, error) {
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: "GET"})
		if err != nil {
			return response{}, err
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return response{}, err
		}
		if res.StatusCode >= 200 {
			return response{res, string(body), nil}, nil
		}
	}
}
