package suites

import (
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

//lint:file-ignore SA1019 the Transport of net/http does not take the field :protocol, which the deprecated one does

// clientTLS is what clients of a gateway need to speak TLS with it.
func (g *gateway) clientTLS(protocol string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(g.ca.cert)
	return &tls.Config{RootCAs: roots, ServerName: hostname, NextProtos: []string{protocol}}
}

// overTLS returns the address of a listener that carries what it takes through TLS to the gateway, for clients that cannot.
func overTLS(t *testing.T, g *gateway) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				up, err := tls.Dial("tcp", g.https, g.clientTLS("http/1.1"))
				if err != nil {
					c.Close()
					t.Errorf("connect to the gateway: %v", err)
					return
				}
				splice(c.(*net.TCPConn), up)
			})
		}
	})
	return l.Addr().String()
}

// splice carries bytes both ways and closes both connections at the end. One way may end before the other.
func splice(down interface {
	net.Conn
	CloseWrite() error
}, up *tls.Conn,
) {
	defer down.Close()
	defer up.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(up, down); err != nil {
			up.Close()
		}
		_ = up.CloseWrite()
	})
	if _, err := io.Copy(down, up); err != nil {
		down.Close()
	}
	_ = down.CloseWrite()
	wg.Wait()
}

// overHTTP2 returns the address of a server that makes streams of HTTP/2 of the WebSockets that it takes (RFC 8441), all of
// them on as few connections to the gateway as it allows.
func overHTTP2(t *testing.T, g *gateway) (address string) {
	t.Helper()
	transport := &http2.Transport{TLSClientConfig: g.clientTLS("h2")}
	var wg sync.WaitGroup
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		if err := connect(w, r, transport, g.https); err != nil {
			t.Errorf("extended CONNECT: %v", err)
		}
	}))
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
		transport.CloseIdleConnections()
	})
	return srv.Listener.Addr().String()
}

// connect serves one WebSocket by a stream of HTTP/2.
func connect(w http.ResponseWriter, r *http.Request, transport http.RoundTripper, address string) error {
	in, out := io.Pipe()
	defer in.Close()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodConnect, "https://"+address+r.URL.RequestURI(), in)
	if err != nil {
		return err
	}
	req.Host = hostname
	req.Header.Set(":protocol", "websocket")
	for _, name := range []string{"Sec-WebSocket-Version", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"} {
		if v := r.Header.Values(name); len(v) > 0 {
			req.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		return fmt.Errorf("the gateway answers %s %s", res.Proto, res.Status)
	}
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer c.Close()
	// RFC 6455, section 1.3: the key of the client, and this.
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	for _, name := range []string{"Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"} {
		if v := res.Header.Get(name); v != "" {
			fmt.Fprintf(c, "%s: %s\r\n", name, v)
		}
	}
	fmt.Fprint(c, "\r\n")
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.Copy(out, buffered)
		out.CloseWithError(err)
	})
	if _, err := io.Copy(c, res.Body); err != nil {
		c.Close() // the stream was reset: the client must not take it for an end
	}
	_ = c.(*net.TCPConn).CloseWrite()
	wg.Wait()
	return nil
}
