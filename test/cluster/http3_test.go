package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// TestHTTP3Upgrade hands a gateway over that has clients of HTTP/3: the old process tells them that their connections
// end, also where a response is under way, and goes; the new one serves whoever comes, at the same port.
func TestHTTP3Upgrade(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t))
	c.apply(t, certificateDocument(t, 1)+"\n---"+fmt.Sprintf(`
kind: Backend
metadata: {name: site}
spec: {endpoints: [{address: %q}]}
---
kind: API
metadata: {name: site}
spec: {basePath: /site, backend: site}
---
kind: Deployment
metadata: {name: site-prod}
spec: {api: site, environment: prod}
`, browserBackend(t)))
	p := startGatewayProcess(t, c, "gw", "local", "--http3")
	eventually(t, patience, func() error {
		_, err := shown(ctx, p.address("https"))
		return err
	})
	idle, busy := newHTTP3Client(t), newHTTP3Client(t)
	get := func(client *http.Client, path string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.address("https")+path, nil)
		if err != nil {
			return nil, err
		}
		req.Host = secureHost
		return client.Do(req)
	}
	page := func(client *http.Client) error {
		resp, err := get(client, "/site/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 3 {
			return fmt.Errorf("answered with %s over %s, %w", resp.Status, resp.Proto, err)
		}
		return nil
	}
	if err := page(idle); err != nil {
		t.Fatal(err)
	}
	events, err := get(busy, "/site/events")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	if _, err := events.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	old := p.upgrade()
	began := time.Now()
	ended := make(chan error, 1)
	go func() { // the events never end by themselves
		_, err := io.Copy(io.Discard, events.Body)
		ended <- err
	}()
	took := eventually(t, patience, func() error { return page(newHTTP3Client(t)) })
	t.Logf("the new process serves HTTP/3 after %v", took.Round(time.Millisecond))
	if ready, err := p.ready(); err != nil || ready.PID == old {
		t.Errorf("process %d serves, %v", ready.PID, err)
	}
	select {
	case err := <-ended:
		t.Logf("the response that was under way ended after %v: %v", time.Since(began).Round(time.Millisecond), err)
		if closed, ok := errors.AsType[*http3.Error](err); !ok || !closed.Remote || closed.ErrorCode != http3.ErrCodeNoError {
			t.Errorf("the response that was under way ended with %v, want the connection to be closed by the gateway, without fault", err)
		}
	case <-time.After(patience):
		t.Error("the response that was under way goes on, with a process that has no port")
	}
	// The client that was idle finds its connection closed, and makes another.
	eventually(t, patience, func() error { return page(idle) })
	eventually(t, patience, func() error {
		if slices.Contains(p.processes(), old) {
			return fmt.Errorf("process %d, which has handed over, is still there", old)
		}
		return nil
	})
}

// newHTTP3Client returns a client that speaks nothing else, with connections of its own.
func newHTTP3Client(t testing.TB) *http.Client {
	t.Helper()
	transport := &http3.Transport{TLSClientConfig: &tls.Config{
		ServerName: secureHost, InsecureSkipVerify: true, // the certificate signs itself
	}}
	t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Transport: transport, Timeout: 0}
}
