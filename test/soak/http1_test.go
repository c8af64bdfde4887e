package soak

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// dial connects to a listener of the gateway, by its name or its address.
func (r *rig) dial(listener string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: patience}).Dial("tcp", cmp.Or(r.addr[listener], listener))
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// open connects to a listener, over TLS if it speaks that.
func (r *rig) open(listener string, options ...func(*tls.Config)) (net.Conn, error) {
	c, err := r.dial(listener)
	if err != nil || listener != "https" && listener != "partner" {
		return c, err
	}
	config := r.tls("http/1.1")
	for _, o := range options {
		o(config)
	}
	tc := tls.Client(c, config)
	if err := tc.Handshake(); err != nil {
		c.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return tc, nil
}

func (r *rig) tls(protocol string) *tls.Config {
	return &tls.Config{RootCAs: r.roots, ServerName: hostname, NextProtos: []string{protocol}}
}

// session sends requests on one connection, with pauses of up to pause. A client of net/http would hide failures by sending
// requests again.
func (k *task) session(listener, api string, requests int, pause time.Duration) error {
	c, err := k.open(listener)
	if err != nil {
		k.count++
		return err
	}
	defer c.Close()
	return k.ask(c, api, requests, pause)
}

func (k *task) ask(c net.Conn, api string, requests int, pause time.Duration) error {
	in := bufio.NewReader(c)
	last := time.Now()
	for i := range requests {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		name := k.next()
		closing, err := get(c, in, api+"/items/"+name, "item "+name)
		if i > 0 && errors.Is(err, errSilence) && time.Since(last) > drainDelay {
			return nil // the machine was so busy that the connection was idle for long enough to be closed
		}
		if err != nil {
			return fmt.Errorf("request %d of a connection: %w", i+1, err)
		}
		if closing {
			return nil
		}
		last = time.Now()
		wait(pace + rand.N(pause+1))
	}
	return nil
}

// resumed sends requests on connections that resume one session of TLS, whatever happens to process and certificate.
func (k *task) resumed(version uint16) error {
	cache := tls.NewLRUClientSessionCache(1)
	for i := 0; !k.stopped(); i++ {
		c, err := k.open("https", func(t *tls.Config) { t.ClientSessionCache, t.MinVersion, t.MaxVersion = cache, version, version })
		if err != nil {
			k.count++
			return err
		}
		resumed := c.(*tls.Conn).ConnectionState().DidResume
		err = k.ask(c, "/soak", 1+rand.IntN(5), 0)
		c.Close()
		if err != nil {
			return err
		}
		if i > 0 && !resumed {
			return fmt.Errorf("after %d connections: the session is not resumed", i)
		}
	}
	return nil
}

func wait(d time.Duration) { <-time.After(d) }

// errSilence: the connection has ended without a byte of a response.
var errSilence = errors.New("the connection ends without a response")

// get sends one request and tells whether the connection ends with it.
func get(c io.Writer, in *bufio.Reader, path, want string) (closing bool, err error) {
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, hostname)
	if err == nil {
		_, err = in.Peek(1)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", errSilence, err)
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

// post sends chunked bodies, piece by piece.
func (k *task) post(api string) error {
	c, err := k.open("http")
	if err != nil {
		k.count++
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range 5 {
		b := &body{left: 4 << 12, piece: 1 << 12, pause: pace, chunked: true}
		closing, err := exchangeBodies(c, in, api+"/echo/"+k.next(), b)
		if err != nil || closing {
			return err
		}
	}
	return nil
}

// large sends one large body, in pieces with a pause between.
func (k *task) large(listener, api string, b *body) error {
	name := k.next()
	c, err := k.open(listener)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = exchangeBodies(c, bufio.NewReader(c), api+"/echo/"+name, b)
	return err
}

// exchangeBodies sends a body and takes in the same, both at the same time, and tells whether the connection ends with it.
func exchangeBodies(c net.Conn, in *bufio.Reader, path string, b *body) (closing bool, err error) {
	if err := c.SetDeadline(time.Now().Add(patience + b.time())); err != nil {
		return false, err
	}
	framing := fmt.Sprintf("Content-Length: %d", b.left)
	if b.chunked {
		framing = "Transfer-Encoding: chunked"
	}
	want := &check{left: b.left}
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", path, hostname, framing); err != nil {
		return false, err
	}
	sent := make(chan error, 1)
	go func() { sent <- b.sendTo(c) }()
	resp, err := http.ReadResponse(in, nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		detail, _ := io.ReadAll(resp.Body)
		err = fmt.Errorf("%s is answered with %d %q", path, resp.StatusCode, detail)
	}
	if err == nil {
		err = want.readFrom(resp.Body)
	}
	if err != nil {
		_ = c.SetDeadline(time.Now()) // ends the sending
		return false, errors.Join(err, <-sent)
	}
	return resp.Close, <-sent
}

// stream is a response that goes on.
type stream struct {
	c    net.Conn
	body *bufio.Reader
	next int
}

// openEvents begins a stream of events.
func (r *rig) openEvents(listener, api, key, name string, n int) (*stream, error) {
	c, err := r.open(listener)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "GET %s/events/%s?n=%d HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n\r\n", api, name, n, hostname, key); err != nil {
		c.Close()
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
	if err := readEvent(s.body, s.next); err != nil {
		return err
	}
	s.next++
	return nil
}

// readEvent reads event i of a stream.
func readEvent(in *bufio.Reader, i int) error {
	line, err := in.ReadString('\n')
	if err == nil {
		_, err = in.ReadString('\n') // the empty line
	}
	if err != nil {
		return fmt.Errorf("after %d events: %w", i, err)
	}
	if want := fmt.Sprintf("data: %d\n", i); line != want {
		return fmt.Errorf("event %q, want %q", line, want)
	}
	return nil
}

// endless is how much there is of streams that go on until they are to stop.
const endless = 1 << 30

// sse reads a stream of n events.
func (k *task) sse(listener, api string, n int) error {
	s, err := k.openEvents(listener, api, "", k.next(), n)
	if err != nil {
		return err
	}
	defer s.c.Close()
	return k.readEvents(s.body, n, s.event)
}

// readEvents reads n events, or until it is to stop if there is no end to them.
func (k *task) readEvents(in *bufio.Reader, n int, event func() error) error {
	for range n {
		if err := event(); err != nil {
			return err
		}
		if n == endless && k.stopped() {
			return nil
		}
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return fmt.Errorf("at the end of a stream: %v", err)
	}
	return nil
}

// openTalk switches a connection to another protocol.
func (r *rig) openTalk(listener, api, key, name string) (*stream, error) {
	c, err := r.open(listener)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "GET %s/talk/%s HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n", api, name, hostname, key)
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

// talk talks in a protocol that the gateway does not know.
func (k *task) talk(listener, api string, messages int) error {
	s, err := k.openTalk(listener, api, "", k.next())
	if err != nil {
		return err
	}
	defer s.c.Close()
	return k.converse(messages, func(int) error { return s.say() })
}

// converse says messages one after the other, with pauses, until it is to stop.
func (k *task) converse(messages int, say func(i int) error) error {
	for i := range messages {
		if err := say(i); err != nil {
			return fmt.Errorf("message %d: %w", i+1, err)
		}
		if k.pause(eventPause) {
			return nil
		}
	}
	return nil
}

// webSocket talks in messages of a real client of WebSocket.
func (k *task) webSocket(listener, api string, messages int) error {
	dialer := websocket.Dialer{
		HandshakeTimeout:  patience,
		NetDialContext:    func(context.Context, string, string) (net.Conn, error) { return k.open(listener) },
		NetDialTLSContext: func(context.Context, string, string) (net.Conn, error) { return k.open(listener) },
	}
	c, resp, err := dialer.Dial("ws://"+hostname+api+"/ws/"+k.next(), nil)
	if err != nil {
		if resp != nil {
			err = fmt.Errorf("%w: %s", err, resp.Status)
		}
		return err
	}
	defer c.Close()
	return k.converse(messages, func(i int) error {
		deadline := time.Now().Add(patience)
		if err := errors.Join(c.SetReadDeadline(deadline), c.SetWriteDeadline(deadline)); err != nil {
			return err
		}
		text := "message " + strconv.Itoa(i)
		if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			return err
		}
		_, heard, err := c.ReadMessage()
		if err == nil && string(heard) != text {
			err = fmt.Errorf("heard %q, said %q", heard, text)
		}
		return err
	})
}
