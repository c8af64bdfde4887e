package gateway

import (
	"cmp"
	"context"
	"net"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/handshake"
	"hansa.dev/hansa/internal/gateway/http3"
	"hansa.dev/hansa/internal/gateway/ingress"
)

// announcer is a handler that tells the clients of other protocols that the door speaks HTTP/3 too (RFC 7838).
type announcer struct {
	exchange.Handler
	http3  *http3.Server // set with altSvc, before anything is served
	altSvc string
}

// Serve implements exchange.Handler.
func (a *announcer) Serve(x *exchange.Exchange, d exchange.Down) {
	if a.http3.Bound() {
		x.Own.AddString(exchange.IDAltSvc.Name(), a.altSvc)
	}
	a.Handler.Serve(x, d)
}

// addHTTP3 has a door speak HTTP/3 as well, on the UDP port of the same number. If was did so at the same address, its
// server is taken over when the door comes into force: two could not share the port.
func (g *Gateway) addHTTP3(ctx context.Context, d, was *door, rules ingress.Rules, inherited bool) (err error) {
	o := &g.opts
	d.http3Options = http3.Options{
		Address: d.listener.Addr().String(), Patient: inherited,
		TLS: d.secure.handshake.Config(handshake.HTTP3), Describe: d.secure.handshake.Describe, Rules: rules,
		Handler: g.core, MaxConns: cmp.Or(d.spec.MaxConns, o.MaxConns), Limits: o.Limits, Log: o.Log.With("component", "gateway.http3"), Registerer: o.Metrics,
	}
	d.http3Options.Timeouts.Idle, d.http3Options.Timeouts.Head = o.Timeouts.Idle, o.Timeouts.Head
	d.http3Options.Timeouts.Body, d.http3Options.Timeouts.Write = o.Timeouts.Body, o.Timeouts.Write
	d.http3Options.Timeouts.MinRate = o.Timeouts.MinRate
	if was != nil && was.spec.Address == d.spec.Address && was.http3 != nil && was.http3.Bound() {
		d.http3, d.adopts = was.http3, true
	} else if d.http3, err = http3.New(ctx, d.http3Options); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(d.http3Options.Address)
	d.announcer.http3, d.announcer.altSvc = d.http3, `h3=":`+port+`"; ma=86400`
	return err
}
