package soak

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// protocol is one kind of traffic. Another one is another row.
type protocol struct {
	name    string
	workers int
	// work does one piece of work, whole: stop does not cut it short, it tells streams without an end to end. It returns
	// how many requests there were, and the first that failed.
	work func(r *rig, stop <-chan struct{}) (int, error)
}

func protocols() []protocol {
	return []protocol{
		{"http1", 2, func(r *rig, _ <-chan struct{}) (int, error) { return r.session("http", 1+rand.IntN(50)) }},
		{"http1-short", 1, func(r *rig, _ <-chan struct{}) (int, error) { return r.session("http", 1) }},
		{"tls", 1, func(r *rig, _ <-chan struct{}) (int, error) { return r.session("https", 1+rand.IntN(20)) }},
		{"http2", 1, func(r *rig, _ <-chan struct{}) (int, error) { return r.http2(1 + rand.IntN(50)) }},
		{"http2-sse-long", 1, func(r *rig, stop <-chan struct{}) (int, error) { return r.http2Until(stop) }},
		{"post", 1, func(r *rig, _ <-chan struct{}) (int, error) { return r.post() }},
		{"sse", 4, func(r *rig, _ <-chan struct{}) (int, error) { return r.sse("/soak", 20+rand.IntN(60)) }},
		{"sse-long", 2, func(r *rig, stop <-chan struct{}) (int, error) { return r.sseUntil("/soak", stop) }},
		{"websocket", 2, func(r *rig, stop <-chan struct{}) (int, error) { return r.websocket("/soak", 40, stop) }},
		{"websocket-long", 2, func(r *rig, stop <-chan struct{}) (int, error) { return r.websocket("/soak", 1<<30, stop) }},
	}
}

// pace is the pause of a worker between two requests, so that the traffic leaves the processor to what is tested.
const pace = 2 * time.Millisecond

// open connects to a listener, over TLS if that is its name.
func (r *rig) open(listener string) (net.Conn, error) {
	c, err := r.dial(listener)
	if err != nil || listener == "http" {
		return c, err
	}
	tc := tls.Client(c, &tls.Config{RootCAs: r.roots, ServerName: hostname, NextProtos: []string{"http/1.1"}})
	if err := tc.Handshake(); err != nil {
		c.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return tc, nil
}

// session sends requests on one connection. A client of net/http would hide failures by sending requests again.
func (r *rig) session(listener string, requests int) (int, error) {
	c, err := r.open(listener)
	if err != nil {
		return 1, err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for i := range requests {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return i, err
		}
		closing, err := get(c, in, fmt.Sprintf("/soak/items/%d", i), fmt.Sprintf("item %d", i))
		if err != nil {
			return i + 1, fmt.Errorf("request %d of a connection: %w", i+1, err)
		}
		if closing {
			return i + 1, nil
		}
		wait(pace)
	}
	return requests, nil
}

func wait(d time.Duration) { <-time.After(d) }

// get sends one request and tells whether the connection ends with it.
func get(c io.Writer, in *bufio.Reader, path, want string) (closing bool, err error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, hostname); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK || string(body) != want {
		return false, fmt.Errorf("%s is answered with %d %q", path, resp.StatusCode, body)
	}
	return resp.Close, nil
}

// newHTTP2 returns a client of HTTP/2 alone, with a connection of its own. It sends a request again only if the gateway has
// said that it did not look at it (RFC 9113, section 6.8).
func (r *rig) newHTTP2() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: r.roots, ServerName: hostname},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.addr["https"])
		},
	}
}

// http2 sends requests on one connection.
func (r *rig) http2(requests int) (int, error) {
	client := r.newHTTP2()
	defer client.CloseIdleConnections()
	for i := range requests {
		req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://%s/soak/items/%d", hostname, i), nil)
		if err != nil {
			return i, err
		}
		resp, err := client.RoundTrip(req)
		if err != nil {
			return i + 1, err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("item %d", i); err != nil || resp.StatusCode != http.StatusOK || string(body) != want || resp.ProtoMajor != 2 {
			return i + 1, fmt.Errorf("%s is answered with %s %d %q, %v", req.URL.Path, resp.Proto, resp.StatusCode, body, err)
		}
		wait(pace)
	}
	return requests, nil
}

// http2Until reads a stream of events until it is to stop.
func (r *rig) http2Until(stop <-chan struct{}) (int, error) {
	client := r.newHTTP2()
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://%s/soak/events?n=%d", hostname, 1<<30), nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		return 1, err
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	for i := 0; ; i++ {
		line, err := in.ReadString('\n')
		if err == nil {
			_, err = in.ReadString('\n') // the empty line
		}
		if want := fmt.Sprintf("data: %d\n", i); err != nil || line != want {
			return 1, fmt.Errorf("after %d events: %q, %v", i, line, err)
		}
		select {
		case <-stop:
			return 1, nil
		default:
		}
	}
}

// post sends bodies, chunked and in pieces.
func (r *rig) post() (int, error) {
	c, err := r.open("http")
	if err != nil {
		return 1, err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	piece := bytes.Repeat([]byte("0123456789abcdef"), 256)
	for i := range 5 {
		fmt.Fprintf(c, "POST /soak/echo HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n", hostname)
		for range 4 {
			fmt.Fprintf(c, "%x\r\n%s\r\n", len(piece), piece)
			wait(pace)
		}
		if _, err := fmt.Fprint(c, "0\r\n\r\n"); err != nil {
			return i + 1, err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return i + 1, err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || len(body) != 4*len(piece) {
			return i + 1, fmt.Errorf("a body is answered with %d and %d bytes, %v", resp.StatusCode, len(body), err)
		}
		if resp.Close {
			return i + 1, nil
		}
	}
	return 5, nil
}

// stream is a response that goes on.
type stream struct {
	c    net.Conn
	body *bufio.Reader
	next int
}

// openEvents begins a stream of events.
func (r *rig) openEvents(api, key string, n int) (*stream, error) {
	c, err := r.open("http")
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "GET %s/events?n=%d HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n\r\n", api, n, hostname, key); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("a stream is answered with %s", resp.Status)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &stream{c: c, body: bufio.NewReader(resp.Body)}, nil
}

// event reads the next event, which must be the right one.
func (s *stream) event() error {
	if err := s.c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	line, err := s.body.ReadString('\n')
	if err == nil {
		_, err = s.body.ReadString('\n') // the empty line
	}
	if err != nil {
		return fmt.Errorf("after %d events: %w", s.next, err)
	}
	if want := fmt.Sprintf("data: %d\n", s.next); line != want {
		return fmt.Errorf("event %q, want %q", line, want)
	}
	s.next++
	return nil
}

func (r *rig) sse(api string, n int) (int, error) {
	s, err := r.openEvents(api, "", n)
	if err != nil {
		return 1, err
	}
	defer s.c.Close()
	for range n {
		if err := s.event(); err != nil {
			return 1, err
		}
	}
	if _, err := s.body.ReadByte(); err != io.EOF {
		return 1, fmt.Errorf("at the end of a stream: %v", err)
	}
	return 1, nil
}

// sseUntil reads a stream until it is to stop.
func (r *rig) sseUntil(api string, stop <-chan struct{}) (int, error) {
	s, err := r.openEvents(api, "", 1<<30)
	if err != nil {
		return 1, err
	}
	defer s.c.Close()
	for {
		if err := s.event(); err != nil {
			return 1, err
		}
		select {
		case <-stop:
			return 1, nil
		default:
		}
	}
}

// openTalk switches a connection to another protocol.
func (r *rig) openTalk(api, key string) (*stream, error) {
	c, err := r.open("http")
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "GET %s/talk HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", api, hostname, key)
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("an upgrade is answered with %s", resp.Status)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &stream{c: c, body: in}, nil
}

// say says something and hears it again.
func (s *stream) say() error {
	if err := s.c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	text := fmt.Sprintf("message %d\n", s.next)
	if _, err := io.WriteString(s.c, text); err != nil {
		return fmt.Errorf("after %d messages: %w", s.next, err)
	}
	heard, err := s.body.ReadString('\n')
	if err != nil {
		return fmt.Errorf("after %d messages: %w", s.next, err)
	}
	if heard != text {
		return fmt.Errorf("heard %q, said %q", heard, text)
	}
	s.next++
	return nil
}

func (r *rig) websocket(api string, messages int, stop <-chan struct{}) (int, error) {
	s, err := r.openTalk(api, "")
	if err != nil {
		return 1, err
	}
	defer s.c.Close()
	for range messages {
		if err := s.say(); err != nil {
			return 1, err
		}
		select {
		case <-stop:
			return 1, nil
		case <-time.After(eventPause):
		}
	}
	return 1, nil
}

// traffic is all protocols at work.
type traffic struct {
	stop    chan struct{}
	once    sync.Once
	workers sync.WaitGroup
	done    []atomic.Int64
	failed  []atomic.Int64
	mu      sync.Mutex
	faults  []string // guarded by mu; the first few
}

const maxFaults = 20

func startTraffic(r *rig, all []protocol) *traffic {
	tr := &traffic{stop: make(chan struct{}), done: make([]atomic.Int64, len(all)), failed: make([]atomic.Int64, len(all))}
	for i, p := range all {
		for range p.workers {
			tr.workers.Go(func() {
				for {
					n, err := p.work(r, tr.stop)
					tr.done[i].Add(int64(n))
					if err != nil {
						tr.failed[i].Add(1)
						tr.fault(p.name, err)
					}
					select {
					case <-tr.stop:
						return
					case <-time.After(pace):
					}
				}
			})
		}
	}
	return tr
}

func (tr *traffic) fault(name string, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.faults) < maxFaults {
		tr.faults = append(tr.faults, fmt.Sprintf("%s %s: %v", time.Now().UTC().Format("15:04:05.000"), name, err))
	}
}

// end ends the traffic and fails the test unless everything went well.
func (tr *traffic) end(t testing.TB, all []protocol) {
	t.Helper()
	tr.once.Do(func() { close(tr.stop) })
	tr.workers.Wait()
	var out []string
	for i, p := range all {
		out = append(out, fmt.Sprintf("%s %d", p.name, tr.done[i].Load()))
		if n := tr.failed[i].Load(); n > 0 {
			t.Errorf("%s: %d of %d failed", p.name, n, tr.done[i].Load())
		}
		if tr.done[i].Load() == 0 {
			t.Errorf("%s: nothing was done", p.name)
		}
	}
	t.Logf("requests and streams: %s", strings.Join(out, ", "))
	for _, f := range tr.faults {
		t.Log(f)
	}
}
