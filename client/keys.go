package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	v1 "hansa.dev/hansa/api/v1"
)

// The media types of an import of keys.
const (
	// ContentTypeKeyLines is one key value a line; empty lines are passed over.
	ContentTypeKeyLines = "text/plain"
	// ContentTypeKeyRecords is one JSON object a line (v1.KeyImport).
	ContentTypeKeyRecords = "application/x-ndjson"
)

func keysPath(organization, subscription string, more ...string) []string {
	return append([]string{"api", "v1", "organizations", organization, "subscriptions", subscription, "keys"}, more...)
}

// waitQuery returns the parameters of a change of keys.
func (c *Client) waitQuery() url.Values {
	if c.wait <= 0 {
		return nil
	}
	return url.Values{"wait": {c.wait.String()}}
}

// CreateKey makes a key of a subscription. Its value is in the answer and nowhere else.
func (c *Client) CreateKey(ctx context.Context, organization, subscription string, r v1.KeyRequest) (v1.SubscriptionKey, error) {
	return c.mint(ctx, keysPath(organization, subscription), r)
}

// RotateKey makes a new key in the slot of an old one, which stays valid for the overlap.
func (c *Client) RotateKey(ctx context.Context, organization, subscription string, r v1.KeyRequest) (v1.SubscriptionKey, error) {
	return c.mint(ctx, keysPath(organization, subscription, "rotate"), r)
}

func (c *Client) mint(ctx context.Context, p []string, r v1.KeyRequest) (v1.SubscriptionKey, error) {
	var out v1.SubscriptionKey
	body, err := jsonBody(r)
	if err != nil {
		return out, err
	}
	err = c.into(ctx, call{method: http.MethodPost, path: p, query: c.waitQuery(), body: body, ctype: "application/json"}, &out)
	return out, err
}

// Keys returns a page of the keys of a subscription, without their values.
func (c *Client) Keys(ctx context.Context, organization, subscription string, o ListOptions) (v1.KeyList, error) {
	var out v1.KeyList
	err := c.into(ctx, call{method: http.MethodGet, path: keysPath(organization, subscription), query: o.query()}, &out)
	return out, err
}

// RevokeKey ends one key for good.
func (c *Client) RevokeKey(ctx context.Context, organization, subscription, keyID string) (v1.SubscriptionKey, error) {
	var out v1.SubscriptionKey
	err := c.into(ctx, call{method: http.MethodDelete, path: keysPath(organization, subscription, keyID), query: c.waitQuery()}, &out)
	return out, err
}

// ImportKeys adds existing keys. The stream is one value a line (ContentTypeKeyLines) or one v1.KeyImport a line
// (ContentTypeKeyRecords). An empty subscription means that each record names its own.
func (c *Client) ImportKeys(ctx context.Context, organization, subscription, contentType string, keys io.Reader) (v1.ImportResult, error) {
	p := []string{"api", "v1", "organizations", organization, "keys", "import"}
	if subscription != "" {
		p = keysPath(organization, subscription, "import")
	}
	var out v1.ImportResult
	err := c.into(ctx, call{method: http.MethodPost, path: p, query: c.waitQuery(), body: keys, ctype: contentType, large: true}, &out)
	return out, err
}
