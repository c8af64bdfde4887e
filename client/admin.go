package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	v1 "hansa.dev/hansa/api/v1"
)

// Status returns what the control node says of itself and of the caller.
func (c *Client) Status(ctx context.Context) (v1.ControlStatus, error) {
	var out v1.ControlStatus
	err := c.into(ctx, call{method: http.MethodGet, path: []string{"api", "v1", "status"}}, &out)
	return out, err
}

// Schema returns the JSON Schema of a kind, as the server's version has it.
func (c *Client) Schema(ctx context.Context, kind v1.Kind) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.into(ctx, call{method: http.MethodGet, path: []string{"api", "v1", "schema", string(kind)}}, &out)
	return out, err
}

// AuditOptions select audit records.
type AuditOptions struct {
	// Organization keeps only the changes of one organization; "" asks for all, which only an administrator of all
	// organizations may.
	Organization string
	Limit        int
	Continue     string
}

// Audit returns a page of audit records, newest first.
func (c *Client) Audit(ctx context.Context, o AuditOptions) (v1.AuditList, error) {
	q := url.Values{}
	if o.Organization != "" {
		q.Set("organization", o.Organization)
	}
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	if o.Continue != "" {
		q.Set("continue", o.Continue)
	}
	var out v1.AuditList
	err := c.into(ctx, call{method: http.MethodGet, path: []string{"api", "v1", "audit"}, query: q}, &out)
	return out, err
}

// Backup writes the whole record to w and returns its length. On an error what was written is of no use.
func (c *Client) Backup(ctx context.Context, w io.Writer) (int64, error) {
	return c.download(ctx, w, "api", "v1", "backup")
}

// ExportBundle writes what a gateway group runs as a bundle, not sealed and without join tokens, and returns its length.
// On an error what was written is of no use.
func (c *Client) ExportBundle(ctx context.Context, organization, group string, w io.Writer) (int64, error) {
	return c.download(ctx, w, "api", "v1", "organizations", organization, "gatewaygroups", group, "bundle")
}

// download writes an answer that is a file.
func (c *Client) download(ctx context.Context, w io.Writer, path ...string) (int64, error) {
	res, err := c.do(ctx, call{
		method: http.MethodGet, path: path, header: http.Header{"Accept": {"application/octet-stream"}},
	})
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	n, err := io.Copy(w, res.Body)
	if err != nil {
		return n, fmt.Errorf("%s broke off after %d bytes: %w", path[len(path)-1], n, err)
	}
	return n, nil
}

// Gateways returns the gateways of an organization with their live status.
func (c *Client) Gateways(ctx context.Context, organization string) (v1.GatewayList, error) {
	var out v1.GatewayList
	err := c.into(ctx, call{method: http.MethodGet, path: []string{"api", "v1", "organizations", organization, "gateways"}}, &out)
	return out, err
}

// Gateway returns one gateway with its live status.
func (c *Client) Gateway(ctx context.Context, organization, name string) (v1.GatewayStatus, error) {
	var out v1.GatewayStatus
	err := c.into(ctx, call{method: http.MethodGet, path: []string{"api", "v1", "organizations", organization, "gateways", name}}, &out)
	return out, err
}

// RevokeGateway refuses a gateway on the link from now on.
func (c *Client) RevokeGateway(ctx context.Context, organization, name string) (v1.ApplyResult, error) {
	var out v1.ApplyResult
	err := c.into(ctx, call{method: http.MethodPost, path: []string{"api", "v1", "organizations", organization, "gateways", name, "revoke"}}, &out)
	return out, err
}

// GroupKeys returns the keys of a gateway group, sealed to an X25519 public key (both in base64), for a bundle.
func (c *Client) GroupKeys(ctx context.Context, organization, group, recipient string) (v1.GroupKeysAnswer, error) {
	var out v1.GroupKeysAnswer
	body, err := jsonBody(v1.GroupKeysRequest{Recipient: recipient})
	if err != nil {
		return out, err
	}
	err = c.into(ctx, call{method: http.MethodPost, path: []string{"api", "v1", "organizations", organization, "gatewaygroups", group, "keys"}, body: body, ctype: "application/json"}, &out)
	return out, err
}

// RotateGroupKey makes a new key for a gateway group and seals the secrets of the group to it.
func (c *Client) RotateGroupKey(ctx context.Context, organization, group string) (v1.ApplyResult, error) {
	var out v1.ApplyResult
	err := c.into(ctx, call{method: http.MethodPost, path: []string{"api", "v1", "organizations", organization, "gatewaygroups", group, "rotate"}}, &out)
	return out, err
}

// CreateJoinToken makes a token that one gateway can enrol with.
func (c *Client) CreateJoinToken(ctx context.Context, organization string, r v1.JoinTokenRequest) (v1.JoinToken, error) {
	var out v1.JoinToken
	body, err := jsonBody(r)
	if err != nil {
		return out, err
	}
	err = c.into(ctx, call{method: http.MethodPost, path: []string{"api", "v1", "organizations", organization, "jointokens"}, body: body, ctype: "application/json"}, &out)
	return out, err
}

// JoinTokens returns the join tokens of an organization, without their values.
func (c *Client) JoinTokens(ctx context.Context, organization string) (v1.JoinTokenList, error) {
	var out v1.JoinTokenList
	err := c.into(ctx, call{method: http.MethodGet, path: []string{"api", "v1", "organizations", organization, "jointokens"}}, &out)
	return out, err
}

// DeleteJoinToken takes a join token back.
func (c *Client) DeleteJoinToken(ctx context.Context, organization, name string) error {
	return c.into(ctx, call{method: http.MethodDelete, path: []string{"api", "v1", "organizations", organization, "jointokens", name}}, nil)
}

// CreateToken makes a bearer token of a principal. Its value is in the answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, principal string, r v1.TokenRequest) (v1.Token, error) {
	var out v1.Token
	body, err := jsonBody(r)
	if err != nil {
		return out, err
	}
	err = c.into(ctx, call{method: http.MethodPost, path: []string{"api", "v1", "principals", principal, "tokens"}, body: body, ctype: "application/json"}, &out)
	return out, err
}

// Tokens returns the bearer tokens of a principal, without their values.
func (c *Client) Tokens(ctx context.Context, principal string) (v1.TokenList, error) {
	var out v1.TokenList
	err := c.into(ctx, call{method: http.MethodGet, path: []string{"api", "v1", "principals", principal, "tokens"}}, &out)
	return out, err
}

// RevokeToken ends a bearer token.
func (c *Client) RevokeToken(ctx context.Context, principal, id string) error {
	return c.into(ctx, call{method: http.MethodDelete, path: []string{"api", "v1", "principals", principal, "tokens", id}}, nil)
}
