package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// maxConnectAnswer bounds the head of a proxy's answer.
const maxConnectAnswer = 16 << 10

// Dialer opens TCP connections, directly or through an HTTP proxy with the CONNECT method.
type Dialer struct {
	// Proxy returns the proxy for a host:port; nil for a direct connection. A nil function means direct.
	Proxy func(address string) (*url.URL, error)
	// Timeout bounds the connection and the proxy's answer, each. 0: no bound but the context's.
	Timeout time.Duration
}

// ProxyFromEnvironment returns the proxies that HTTPS_PROXY and NO_PROXY name at this moment.
func ProxyFromEnvironment() func(address string) (*url.URL, error) {
	choose := httpproxy.FromEnvironment().ProxyFunc()
	return func(address string) (*url.URL, error) { return choose(&url.URL{Scheme: "https", Host: address}) }
}

// FixedProxy returns one proxy for every address. It is http or https, with or without a user and password.
func FixedProxy(proxy string) (func(address string) (*url.URL, error), error) {
	u, err := url.Parse(proxy)
	if err != nil {
		return nil, errors.New("proxy: not a URL; want http://[user:password@]host:port") // the cause would show a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("proxy %q: want http://[user:password@]host:port", u.Redacted())
	}
	return func(string) (*url.URL, error) { return u, nil }, nil
}

// Dial opens a connection to a host:port.
func (d *Dialer) Dial(ctx context.Context, address string) (net.Conn, error) {
	var proxy *url.URL
	if d.Proxy != nil {
		var err error
		if proxy, err = d.Proxy(address); err != nil {
			return nil, fmt.Errorf("proxy for %s: %w", address, err)
		}
	}
	nd := &net.Dialer{Timeout: d.Timeout}
	if proxy == nil {
		return nd.DialContext(ctx, "tcp", address)
	}
	host := proxy.Host
	if proxy.Port() == "" {
		host = net.JoinHostPort(proxy.Hostname(), map[string]string{"http": "80", "https": "443"}[proxy.Scheme])
	}
	conn, err := nd.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("dial proxy: %w", err)
	}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout)
		defer cancel()
	}
	if proxy.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("dial proxy %s: %w", host, err), conn.Close())
		}
		conn = secure
	}
	// The context ends the exchange by closing the connection's time.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	tunnel, err := connect(conn, proxy, address)
	if !stop() {
		err = context.Cause(ctx) // whatever it did to the exchange
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s through proxy %s: %w", address, host, err), conn.Close())
	}
	return tunnel, nil
}

// connect asks a proxy for a tunnel (RFC 9110, section 9.3.6).
func connect(conn net.Conn, proxy *url.URL, address string) (net.Conn, error) {
	request := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxConnectAnswer}
	r := bufio.NewReaderSize(limited, 4<<10)
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("read the proxy's answer: %w", err)
	}
	// A body of an answer to CONNECT is the tunnel itself; there is nothing to close.
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the proxy answered %q", answer.Status)
	}
	if r.Buffered() > 0 {
		// The server never speaks first in TLS, so these bytes are not its.
		return nil, errors.New("the proxy sent bytes ahead of the tunnel")
	}
	return conn, nil
}
