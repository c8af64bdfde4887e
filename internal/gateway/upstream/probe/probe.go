// Package probe asks an endpoint how it does: one health check at a time, over HTTP, gRPC (the protocol grpc.health.v1)
// or by a connection alone. Each check makes a connection of its own, since whether one can be made is part of what it
// finds out.
//
// A [Prober] never changes and may be used by any goroutine. Package upstream runs the checks and draws the conclusions.
package probe

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"hansa.dev/hansa/internal/snapshot"
)

// userAgent is how checks are called in the logs of backends.
const userAgent = "hansa-healthcheck"

// maxHead bounds the head of a response to a check.
const maxHead = 64 << 10

// Prober checks one endpoint.
type Prober struct {
	check *snapshot.HealthCheck
	host  string
	http2 bool
	dial  Dial
}

// Dial makes a connection to the endpoint, TLS included, that offers the protocol in TLS: "h2" or "http/1.1".
type Dial func(ctx context.Context, protocol string) (net.Conn, error)

// New returns a Prober. host is what to send as Host if the check does not say; http2 says that the endpoint understands
// HTTP/2 alone.
func New(check *snapshot.HealthCheck, host string, http2 bool, dial Dial) *Prober {
	return &Prober{check: check, host: cmp.Or(check.Host, host), http2: http2, dial: dial}
}

// Check checks the endpoint once and returns what is wrong with it, or nil. ctx should have a deadline.
func (p *Prober) Check(ctx context.Context) error {
	switch p.check.Type {
	case "tcp":
		nc, err := p.connect(ctx, "http/1.1")
		if err != nil {
			return err
		}
		return nc.Close()
	case "grpc":
		return p.grpc(ctx)
	case "http":
		return p.http(ctx)
	}
	return fmt.Errorf("there is no health check of type %q in this gateway", p.check.Type)
}

// connect makes a connection that ends with ctx.
func (p *Prober) connect(ctx context.Context, protocol string) (net.Conn, error) {
	nc, err := p.dial(ctx, protocol)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = nc.SetDeadline(deadline)
	}
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return nc, nil
}

func (p *Prober) http(ctx context.Context) error {
	protocol := "http/1.1"
	if p.http2 {
		protocol = "h2"
	}
	nc, err := p.connect(ctx, protocol)
	if err != nil {
		return err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var status int
	var head http.Header
	if p.http2 {
		status, head, err = p.ask2(ctx, nc)
	} else {
		status, head, err = p.ask1(nc)
	}
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(p.check.Statuses, func(r [2]int) bool { return r[0] <= status && status <= r[1] }) {
		return fmt.Errorf("the status is %d", status)
	}
	for _, name := range slices.Sorted(maps.Keys(p.check.ExpectHeaders)) {
		if !slices.Contains(head.Values(name), p.check.ExpectHeaders[name]) {
			return fmt.Errorf("the field %s of the response is %q", name, head.Values(name))
		}
	}
	return nil
}

// ask1 asks over HTTP/1.1.
func (p *Prober) ask1(nc net.Conn) (int, http.Header, error) {
	var sb strings.Builder
	fmt.Fprintf(&sb, "%s %s HTTP/1.1\r\nHost: %s\r\n", p.check.Method, p.check.Path, p.host)
	if !p.names("User-Agent") {
		sb.WriteString("User-Agent: " + userAgent + "\r\n")
	}
	for _, name := range slices.Sorted(maps.Keys(p.check.Headers)) {
		fmt.Fprintf(&sb, "%s: %s\r\n", name, p.check.Headers[name])
	}
	if p.check.Body != "" {
		fmt.Fprintf(&sb, "Content-Length: %d\r\n", len(p.check.Body))
	}
	sb.WriteString("Connection: close\r\n\r\n" + p.check.Body)
	if _, err := io.WriteString(nc, sb.String()); err != nil {
		return 0, nil, fmt.Errorf("send: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(nc, maxHead)), &http.Request{Method: p.check.Method})
	if err != nil {
		return 0, nil, fmt.Errorf("receive: %w", err)
	}
	return resp.StatusCode, resp.Header, resp.Body.Close()
}

// names tells whether the check has a field of that name.
func (p *Prober) names(field string) bool {
	for name := range p.check.Headers {
		if strings.EqualFold(name, field) {
			return true
		}
	}
	return false
}

// ask2 asks over HTTP/2. TLS, if there is any, is beneath.
func (p *Prober) ask2(ctx context.Context, nc net.Conn) (int, http.Header, error) {
	t := &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true, MaxResponseHeaderBytes: maxHead,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil },
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, p.check.Method, "http://"+p.host+strings.Replace(p.check.Path, "*", "/", 1), strings.NewReader(p.check.Body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	for name, value := range p.check.Headers {
		req.Header.Set(name, value)
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, resp.Header, resp.Body.Close()
}

// grpc asks as grpc.health.v1 has it. TLS is the business of dial, so gRPC itself speaks in plain text.
func (p *Prober) grpc(ctx context.Context) error {
	cc, err := grpc.NewClient("passthrough:///"+p.host, grpc.WithAuthority(p.host), grpc.WithUserAgent(userAgent),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx, "h2") }))
	if err != nil {
		return err
	}
	defer cc.Close()
	resp, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{Service: p.check.Service})
	if err != nil {
		return err
	}
	if s := resp.GetStatus(); s != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("the service is %s", s)
	}
	return nil
}
