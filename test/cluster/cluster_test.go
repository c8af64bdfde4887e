// Package cluster tests whole nodes together, in one process: what a gateway does when the control node is away, and
// over links that are slow, flap or are cut. Traffic and links are real connections on loopback.
package cluster

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/link/linktest"
)

const item = "/catalog/v1/items/4"

// TestControlGone takes the control node away for good: a gateway that restarts and one that starts from a bundle
// serve keys and limits all the same.
func TestControlGone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t)+"---"+manyKeys)
	bronze, open := c.key(t, "shop-bronze"), c.key(t, "shop-open")
	first := startGateway(t, app.GatewayOptions{Data: filepath.Join(t.TempDir(), "gw"), Name: "first", Control: []string{c.link}, JoinToken: c.joinToken(t)})
	eventually(t, patience, func() error { return first.want(ctx, item, open, http.StatusOK) })
	eventually(t, patience, func() error { return first.want(ctx, item, bronze, http.StatusOK) })

	var bundle bytes.Buffer
	if _, err := c.ExportBundle(ctx, v1.DefaultOrganization, "local", &bundle); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "local.bundle")
	if err := os.WriteFile(file, bundle.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	stopNow(t, c.Stop)

	stopNow(t, first.Stop)
	opts := first.opts
	opts.JoinToken = opts.Passphrase // empty
	began := time.Now()
	again := startGateway(t, opts)
	if err := again.want(ctx, item, open, http.StatusOK); err != nil {
		t.Errorf("the first request after a restart without control node: %v", err)
	}
	t.Logf("restart to first 200: %v", time.Since(began).Round(time.Millisecond))
	second := startGateway(t, app.GatewayOptions{Data: filepath.Join(t.TempDir(), "gw"), Name: "second", Bundle: file})
	for _, g := range []*gatewayNode{again, second} {
		for _, tc := range []struct {
			path, key string
			status    int
		}{
			{"/catalog/v1/items", "", http.StatusOK},
			{item, "", http.StatusUnauthorized},
			{item, "nobody", http.StatusUnauthorized},
			{item, open, http.StatusOK},
			{"/orders/v1", open, http.StatusForbidden},
		} {
			if err := g.want(ctx, tc.path, tc.key, tc.status); err != nil {
				t.Errorf("%s, key %v: %v", g.opts.Name, tc.key != "", err)
			}
		}
		// Bronze has two requests a second and five a minute.
		eventually(t, patience, func() error { return g.want(ctx, item, bronze, http.StatusTooManyRequests) })
	}
}

// TestMissedChanges cuts a gateway off for a thousand changes: it catches up by what differs.
func TestMissedChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t)+"---"+manyKeys+"---"+marker(0))
	p := linktest.NewProxy(t, c.link)
	g := startGateway(t, app.GatewayOptions{Data: filepath.Join(t.TempDir(), "gw"), Name: "gw", Control: []string{p.Addr()}, JoinToken: c.joinToken(t)})
	open := c.key(t, "shop-open")
	eventually(t, patience, func() error { return g.want(ctx, item, open, http.StatusOK) })
	eventually(t, patience, func() error { return g.marked(ctx, 0) })
	traffic := startLoad(t, g, item, open)

	p.Refuse(true)
	p.Cut()
	const missed = 1000
	for n := 1; n <= missed; n++ {
		c.apply(t, marker(n))
	}
	if err := g.marked(ctx, 0); err != nil {
		t.Errorf("a gateway that is cut off: %v", err)
	}
	before := g.metric(t, "hansa_link_received_bytes_total")
	p.Refuse(false)
	took := eventually(t, patience, func() error { return g.marked(ctx, missed) })
	received := g.metric(t, "hansa_link_received_bytes_total") - before
	t.Logf("caught up with %d changes in %v, %.0f bytes", missed, took.Round(time.Millisecond), received)
	if took > 10*time.Second { // alone it takes 0.3 s; the pause before a link is tried again is 5 s at most
		t.Errorf("catching up took %v, want less than 10 s", took)
	}
	// TLS and HTTP/2 of three connections take some 10 kB; the change itself one entry.
	if received > 64<<10 {
		t.Errorf("catching up took %.0f bytes: that is more than what differs", received)
	}
	traffic.check(t)
}

// TestFlappingLink cuts the link again and again under traffic: no request fails, and changes still arrive.
func TestFlappingLink(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	length := 5 * time.Second
	if os.Getenv("HANSA_REAL") != "" || os.Getenv("HANSA_SLOW") != "" {
		length = time.Minute
	}
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t)+"---"+manyKeys+"---"+marker(0))
	p := linktest.NewProxy(t, c.link)
	g := startGateway(t, app.GatewayOptions{Data: filepath.Join(t.TempDir(), "gw"), Name: "gw", Control: []string{p.Addr()}, JoinToken: c.joinToken(t)})
	open := c.key(t, "shop-open")
	eventually(t, patience, func() error { return g.want(ctx, item, open, http.StatusOK) })
	traffic := startLoad(t, g, item, open)
	cut := time.NewTicker(time.Second)
	defer cut.Stop()
	n := 0
	for began := time.Now(); time.Since(began) < length; {
		<-cut.C
		p.Cut()
		n++
		c.apply(t, marker(n))
		eventually(t, patience, func() error { return g.marked(ctx, n) })
	}
	traffic.check(t)
	t.Logf("%d cuts, %d requests", n, traffic.count.Load())
}

// TestSlowLink gives the link a round trip of 30 s: a change arrives after one way, and a gateway that reconnects gets
// what it missed.
func TestSlowLink(t *testing.T) {
	t.Parallel()
	slow(t)
	ctx := t.Context()
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t)+"---"+manyKeys+"---"+marker(0))
	p := linktest.NewProxy(t, c.link)
	g := startGateway(t, app.GatewayOptions{Data: filepath.Join(t.TempDir(), "gw"), Name: "gw", Control: []string{p.Addr()}, JoinToken: c.joinToken(t)})
	eventually(t, patience, func() error { return g.marked(ctx, 0) })

	const oneWay = 15 * time.Second
	p.SetDelay(oneWay)
	c.apply(t, marker(1))
	took := eventually(t, 4*oneWay, func() error { return g.marked(ctx, 1) })
	t.Logf("a change arrived after %v", took.Round(time.Millisecond))
	if took < oneWay-time.Second || took >= 2*oneWay { // the machine may be busy
		t.Errorf("a change took %v over a link of %v one way: want one way", took, oneWay)
	}

	p.Cut()
	c.apply(t, marker(2))
	took = eventually(t, 20*oneWay, func() error { return g.marked(ctx, 2) })
	t.Logf("after a cut the next change arrived within %v", took.Round(time.Millisecond))
}

// TestTwoInOneProcess runs two whole instances side by side: neither sees the other.
func TestTwoInOneProcess(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var gateways []*gatewayNode
	for n := range 2 {
		c := startControl(t, t.TempDir())
		c.apply(t, startSample(t)+"---"+marker(n))
		gateways = append(gateways, startGateway(t, app.GatewayOptions{
			Data: filepath.Join(t.TempDir(), "gw"), Name: "gw", Control: []string{c.link}, JoinToken: c.joinToken(t),
		}))
	}
	for n, g := range gateways {
		eventually(t, patience, func() error { return g.marked(ctx, n) })
	}
}
