package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
)

// maxAnswer bounds an answer that is decoded as a whole.
const maxAnswer = 256 << 20

// Options say where the control API is and who calls it.
type Options struct {
	// Server is the base URL: "https://127.0.0.1:8090".
	Server string
	// CA is one or more PEM certificates to trust instead of the system's. Empty: the system's.
	CA []byte
	// Token is the bearer token.
	Token string
	// UserAgent names the caller in the server's log. Default: "hansa-client".
	UserAgent string
	// Transport replaces the connections that New would make of CA. For tests and special networks.
	Transport http.RoundTripper
}

// Client calls one control API.
type Client struct {
	base      url.URL
	token     string
	userAgent string
	trial     bool
	wait      v1.Duration
	http      *http.Client
}

// New returns a client. It does not connect yet.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.Server)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", o.Server, err)
	}
	if base.Scheme != "https" && base.Scheme != "http" || base.Host == "" {
		return nil, fmt.Errorf("server %q is not a URL: write it as https://HOST:PORT", o.Server)
	}
	if base.Scheme == "http" && o.Token != "" && !loopback(base.Hostname()) {
		return nil, fmt.Errorf("server %q would get the token in the clear: use https", o.Server)
	}
	c := &Client{base: *base, token: o.Token, userAgent: o.UserAgent}
	c.base.Path = strings.TrimSuffix(c.base.Path, "/")
	if c.userAgent == "" {
		c.userAgent = "hansa-client"
	}
	transport := o.Transport
	if transport == nil {
		if transport, err = newTransport(o.CA); err != nil {
			return nil, err
		}
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a redirect would carry the token elsewhere
	}}
	return c, nil
}

// Trial returns a client whose changes are only tried: the server checks everything and changes nothing. The two
// clients share their connections.
func (c *Client) Trial() *Client {
	t := *c
	t.trial = true
	return &t
}

// Waiting returns a client whose changes of keys are answered when the connected gateways have them, or after the wait;
// SubscriptionKey.Wait and ImportResult.Wait tell which. The two clients share their connections.
func (c *Client) Waiting(wait v1.Duration) *Client {
	w := *c
	w.wait = wait
	return &w
}

// Close drops idle connections. The client can still be used afterwards.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func newTransport(ca []byte) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("the CA holds no PEM certificate")
		}
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
		// A server that does not speak of the body within this time gets it all the same.
		ExpectContinueTimeout: 2 * time.Second,
	}, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// call is one request.
type call struct {
	method string
	path   []string // segments; each is escaped
	query  url.Values
	header http.Header
	body   io.Reader
	ctype  string
	large  bool // the body may be long
}

// do sends the request and returns the answer if it is a success.
func (c *Client) do(ctx context.Context, r call) (*http.Response, error) {
	u := c.base
	escaped := make([]string, len(r.path))
	for i, s := range r.path {
		if s == "" || s == "." || s == ".." {
			return nil, fmt.Errorf("%q is not a name", s) // it would stand for another path
		}
		escaped[i] = url.PathEscape(s)
	}
	u = *u.JoinPath(escaped...)
	query := r.query
	if c.trial && r.method != http.MethodGet {
		query = maps.Clone(query)
		if query == nil {
			query = url.Values{}
		}
		query.Set("dryRun", "true")
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), r.body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, u.Redacted(), err)
	}
	maps.Copy(req.Header, r.header)
	req.Header.Set("User-Agent", c.userAgent)
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if r.ctype != "" {
		req.Header.Set("Content-Type", r.ctype)
	}
	if r.large {
		req.Header.Set("Expect", "100-continue") // a refusal then comes before the body goes
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, &unreachableError{server: c.base.Redacted(), err: err}
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, refusal(res)
	}
	return res, nil
}

// into sends the request and decodes the answer into out, which may be nil.
func (c *Client) into(ctx context.Context, r call, out any) error {
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	} else {
		err = json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out)
	}
	if err != nil {
		return &unreachableError{server: c.base.Redacted(), err: fmt.Errorf("read the answer to %s %s: %w", r.method, strings.Join(r.path, "/"), err)}
	}
	return nil
}

// jsonBody returns v as the body of a call.
func jsonBody(v any) (io.Reader, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return bytes.NewReader(b), nil
}

// Error is a refusal by the server.
type Error struct {
	v1.Problem
	// RetryAfter is how long the server asks to wait; 0 if it does not say.
	RetryAfter time.Duration
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Detail
	if s == "" {
		s = e.Title
	}
	if n := len(e.Faults); n == 1 {
		s += ": " + e.Faults[0].Message
	} else if n > 1 {
		s += fmt.Sprintf(": %s (and %d more faults)", e.Faults[0].Message, n-1)
	}
	return fmt.Sprintf("%s (%s)", s, e.Code)
}

// ErrUnreachable is wrapped by every error that means that no whole answer came: the server cannot be reached, is
// not trusted, or the context ended first.
var ErrUnreachable = errors.New("the control API cannot be reached")

type unreachableError struct {
	server string
	err    error
}

func (e *unreachableError) Error() string {
	err := e.err
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the URL is in the message already
	}
	return fmt.Sprintf("%s: %v", e.server, err)
}

func (e *unreachableError) Unwrap() []error { return []error{ErrUnreachable, e.err} }

// refusal returns the error that res tells of.
func refusal(res *http.Response) error {
	e := &Error{}
	if s, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 31); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	body, _ := io.ReadAll(io.LimitReader(res.Body, 16<<20)) // what came of it is enough to tell
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t == v1.ContentTypeProblem {
		if err := json.Unmarshal(body, &e.Problem); err == nil && e.Code != "" {
			return e
		}
	}
	// Something else than a control node answered: a proxy, or another server.
	text := strings.TrimSpace(string(body[:min(len(body), 200)]))
	e.Problem = v1.Problem{
		Title:     http.StatusText(res.StatusCode),
		Status:    res.StatusCode,
		Code:      "http-" + strconv.Itoa(res.StatusCode),
		Detail:    fmt.Sprintf("the server answered %s, not in the way of a control node: %q", res.Status, text),
		RequestID: res.Header.Get("X-Request-Id"),
	}
	return e
}
