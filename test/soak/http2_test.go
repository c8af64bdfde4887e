package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// requester sends requests by a later version of HTTP.
type requester struct {
	http.RoundTripper
	scheme string
}

// newHTTP2 returns a client of HTTP/2 alone, and what ends it. It sends a request again only if the gateway has said that it
// did not look at it (RFC 9113, section 6.8).
func (r *rig) newHTTP2(listener string) (requester, func()) {
	t := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: r.tls("h2")}
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", r.addr[listener])
	}
	if listener == "http" {
		t.Protocols.SetUnencryptedHTTP2(true)
		return requester{t, "http"}, t.CloseIdleConnections
	}
	t.Protocols.SetHTTP2(true)
	return requester{t, "https"}, t.CloseIdleConnections
}

// over sends a request by a client of a later version of HTTP. The caller closes the body of the response.
func (k *task) over(ctx context.Context, c requester, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.scheme+"://"+hostname+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		detail, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		return nil, fmt.Errorf("%s is answered with %s %d %q", path, resp.Proto, resp.StatusCode, detail)
	}
	return resp, nil
}

// getOver sends a request for an item.
func (k *task) getOver(c requester, api, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := k.over(ctx, c, http.MethodGet, api+"/items/"+name, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if want := "item " + name; err != nil || string(got) != want {
		return fmt.Errorf("%s: %q, %w", name, got, err)
	}
	return nil
}

// sessionOver sends requests one after the other.
func (k *task) sessionOver(c requester, api string, requests int) error {
	for i := range requests {
		if err := k.getOver(c, api, k.next()); err != nil {
			return fmt.Errorf("request %d of a client: %w", i+1, err)
		}
		wait(pace)
	}
	return nil
}

// http2 sends requests on one connection.
func (k *task) http2(listener, api string, requests int) error {
	c, end := k.newHTTP2(listener)
	defer end()
	return k.sessionOver(c, api, requests)
}

// http2Parallel sends requests at the same time on one connection.
func (k *task) http2Parallel(api string, requests, width int) error {
	c, end := k.newHTTP2("https")
	defer end()
	for range requests {
		faults := make([]error, width)
		var all sync.WaitGroup
		for i := range width {
			name := k.next()
			all.Go(func() { faults[i] = k.getOver(c, api, name) })
		}
		all.Wait()
		if err := errors.Join(faults...); err != nil {
			return err
		}
		wait(pace)
	}
	return nil
}

// sseOver reads a stream of n events.
func (k *task) sseOver(c requester, api string, n int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	resp, err := k.over(ctx, c, http.MethodGet, fmt.Sprintf("%s/events/%s?n=%d", api, k.next(), n), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	i := 0
	return k.readEvents(in, n, func() error {
		i++
		return readEvent(in, i-1)
	})
}

func (k *task) sseHTTP2(listener, api string, n int) error {
	c, end := k.newHTTP2(listener)
	defer end()
	return k.sseOver(c, api, n)
}

// largeOver sends a large body and takes in the same.
func (k *task) largeOver(c requester, api string, b *body) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience+b.time())
	defer cancel()
	want := &check{left: b.left}
	resp, err := k.over(ctx, c, http.MethodPost, api+"/echo/"+k.next(), io.NopCloser(b))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return want.readFrom(resp.Body)
}

func (k *task) largeHTTP2(api string, b *body) error {
	c, end := k.newHTTP2("https")
	defer end()
	return k.largeOver(c, api, b)
}
