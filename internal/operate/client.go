package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"hansa.dev/hansa/internal/gateway"
)

// maxAnswer bounds what the client reads of an answer.
const maxAnswer = 16 << 20

// Client talks to the gateway of a data folder. Make it with NewClient.
type Client struct {
	http   *http.Client
	dryRun bool
}

// NewClient returns a client of the gateway that runs on a data folder. It connects with the first call, and anew for
// every call: the process on the other side may be another one.
func NewClient(dir string) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) },
		DisableKeepAlives: true,
	}}}
}

// DryRun returns a client whose changes are checked and not made.
func (c *Client) DryRun() *Client { return &Client{http: c.http, dryRun: true} }

// Status asks how the gateway does.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, PathStatus, nil)
}

// Drain takes the gateway out of service.
func (c *Client) Drain(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, PathDrain, nil)
}

// Undrain takes Drain back.
func (c *Client) Undrain(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, PathUndrain, nil)
}

// SetMaintenance tells load balancers to send no traffic, or to send some again.
func (c *Client) SetMaintenance(ctx context.Context, on bool) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, PathMaintenance, Maintenance{On: on})
}

// SetLogLevel changes the level of the log until the process ends.
func (c *Client) SetLogLevel(ctx context.Context, level string) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, PathLogLevel, LogLevel{Level: level})
}

// Reload has the gateway read its configuration file again and open the access log anew.
func (c *Client) Reload(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, PathReload, nil)
}

// Listeners returns the listeners.
func (c *Client) Listeners(ctx context.Context) (Listeners, error) {
	return call[Listeners](ctx, c, http.MethodGet, PathListeners, nil)
}

// AddListener opens a listener.
func (c *Client) AddListener(ctx context.Context, l gateway.Listener) (Listeners, error) {
	return call[Listeners](ctx, c, http.MethodPost, PathListeners, l)
}

// RemoveListener closes a listener.
func (c *Client) RemoveListener(ctx context.Context, name string) (Listeners, error) {
	return call[Listeners](ctx, c, http.MethodDelete, PathListeners+"?name="+url.QueryEscape(name), nil)
}

// Upgrade has the gateway hand over to a new process, and returns when that serves or has failed to.
func (c *Client) Upgrade(ctx context.Context, u Upgrade) (Upgraded, error) {
	return call[Upgraded](ctx, c, http.MethodPost, PathUpgrade, u)
}

// Grounds asks which of what streams run on is no longer there.
func (c *Client) Grounds(ctx context.Context, g gateway.Grounds) (gateway.Grounds, error) {
	return call[gateway.Grounds](ctx, c, http.MethodPost, PathGrounds, g)
}

// AddCounts adds counts of quotas to those of the gateway.
func (c *Client) AddCounts(ctx context.Context, counts []byte) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, PathCounts, counts)
	return err
}

// call sends one request. A body of bytes is sent as it is, any other as JSON.
func call[A any](ctx context.Context, c *Client, method, path string, body any) (answer A, err error) {
	raw, ok := body.([]byte)
	if !ok && body != nil {
		if raw, err = json.Marshal(body); err != nil {
			return answer, fmt.Errorf("encode request: %w", err)
		}
	}
	target := &url.URL{Scheme: "http", Host: "gateway"}
	if target, err = target.Parse(path); err != nil {
		return answer, fmt.Errorf("make request: %w", err)
	}
	if c.dryRun {
		q := target.Query()
		q.Set(QueryDryRun, "true")
		target.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(raw))
	if err != nil {
		return answer, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the URL says nothing
		}
		return answer, fmt.Errorf("ask the gateway: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer, fmt.Errorf("ask the gateway: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		e := &Error{Refusal{Code: CodeFailed, Message: fmt.Sprintf("the gateway answers %s", resp.Status)}}
		_ = json.Unmarshal(b, &e.Refusal) // what is no JSON leaves the status to speak
		return answer, e
	}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &answer); err != nil {
			return answer, fmt.Errorf("decode the answer of the gateway: %w", err)
		}
	}
	return answer, nil
}
