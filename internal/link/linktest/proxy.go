package linktest

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Proxy stands before a TCP address on the loopback interface and carries connections to it, with faults. A refused
// connection is taken and reset at once, since the port stays the proxy's.
type Proxy struct {
	*Faults

	mu       sync.Mutex // guards target
	target   string
	listener net.Listener
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

// NewProxy starts a proxy before an address. It ends with the test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("start proxy: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{Faults: newFaults(), target: target, listener: l, stop: cancel}
	p.wg.Go(func() { p.accept(ctx) })
	tb.Cleanup(p.Close)
	return p
}

// Addr returns the address to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget changes where new connections go, for instance after a restart of the server.
func (p *Proxy) SetTarget(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = address
}

// Close ends the proxy and its connections and waits for that.
func (p *Proxy) Close() {
	p.stop()
	_ = p.listener.Close() // a second Close has nothing to do
	p.shut()
	p.wg.Wait()
}

func (p *Proxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.carry(ctx, client.(*net.TCPConn)) })
	}
}

func (p *Proxy) carry(ctx context.Context, client *net.TCPConn) {
	if err := p.enter(ctx); err != nil {
		reset(client)
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		reset(client)
		return
	}
	server := c.(*net.TCPConn)
	pair := p.newPair(func() {
		reset(client)
		reset(server)
	})
	if ctx.Err() != nil {
		p.Cut() // the proxy was closed meanwhile
	}
	var wg sync.WaitGroup
	wg.Go(func() { pump(client, pair.there, server) })
	wg.Go(func() { pump(server, pair.back, client) })
	wg.Wait()
	p.leave(pair)
	_ = errors.Join(client.Close(), server.Close()) // they are gone one way or the other
}

// pump carries one direction.
func pump(from *net.TCPConn, w *wire, to *net.TCPConn) {
	var wg sync.WaitGroup
	never := newDeadline()
	wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				if _, werr := w.write(buf[:n], never); werr != nil {
					return
				}
			}
			if err == io.EOF {
				w.end()
				return
			}
			if err != nil {
				w.reset(err)
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := w.read(buf, never)
		if err == io.EOF {
			_ = to.CloseWrite() // the other end is gone otherwise
			break
		}
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			w.reset(err)
			// The other direction ends too: a connection of which one direction is broken is broken.
			reset(to)
			reset(from)
			break
		}
	}
	wg.Wait()
}

// reset closes a connection without the usual farewell, so that the other end sees an error at once.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close() // it is gone one way or the other
}

// ConnectProxy is an HTTP proxy that knows only the CONNECT method.
type ConnectProxy struct {
	listener net.Listener
	auth     string
	wg       sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	tunnels []string
	open    map[net.Conn]struct{}
	hang    bool
}

// NewConnectProxy starts a proxy that asks for the user and password if the user is not empty. It ends with the test.
func NewConnectProxy(tb testing.TB, user, password string) *ConnectProxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("start proxy: %v", err)
	}
	p := &ConnectProxy{listener: l, open: make(map[net.Conn]struct{})}
	if user != "" {
		p.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close() // nothing to lose
		p.mu.Lock()
		for c := range p.open {
			_ = c.Close() // nothing to lose
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// Addr returns the host:port of the proxy.
func (p *ConnectProxy) Addr() string { return p.listener.Addr().String() }

// Hang makes the proxy take requests and answer nothing.
func (p *ConnectProxy) Hang(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hang = on
}

// Tunnels returns the targets of the tunnels that were opened.
func (p *ConnectProxy) Tunnels() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.tunnels...)
}

func (p *ConnectProxy) hold(c net.Conn) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, c)
		_ = c.Close() // nothing to lose
	}
}

func (p *ConnectProxy) serve(c net.Conn) {
	defer p.hold(c)()
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	p.mu.Lock()
	hang := p.hang
	p.mu.Unlock()
	switch {
	case hang:
		_, _ = r.ReadByte() // until the client goes
		return
	case req.Method != http.MethodConnect:
		_, _ = io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
		return
	case p.auth != "" && req.Header.Get("Proxy-Authorization") != p.auth:
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	target, err := net.DialTimeout("tcp", req.Host, 10*time.Second)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer p.hold(target)()
	p.mu.Lock()
	p.tunnels = append(p.tunnels, req.Host)
	p.mu.Unlock()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(target, r) // a broken tunnel ends both ways
		_ = target.Close()
	})
	wg.Go(func() {
		_, _ = io.Copy(c, target)
		_ = c.Close()
	})
	wg.Wait()
}
