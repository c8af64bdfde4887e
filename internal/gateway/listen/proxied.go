package listen

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"hansa.dev/hansa/internal/x/proxyproto"
)

// headerTime is how long a load balancer may take for the PROXY header, which it sends at once.
const headerTime = 5 * time.Second

// Proxied is a connection that a load balancer has passed on, and that has told about it by a PROXY header.
type Proxied struct {
	*net.TCPConn
	header proxyproto.Header
}

// RemoteAddr returns the address of the client. If the load balancer speaks for itself, as in a health check, it is its own.
func (p *Proxied) RemoteAddr() net.Addr {
	if p.header.Source.IsValid() {
		return net.TCPAddrFromAddrPort(p.header.Source)
	}
	return p.TCPConn.RemoteAddr()
}

// Header returns what the load balancer has told.
func (p *Proxied) Header() *proxyproto.Header { return &p.header }

// introduced reads the PROXY header of a connection that has one. It returns nil if the connection is of no use, and has
// closed it then.
func (l *Listener) introduced(ctx context.Context, c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok || !contains(l.opts.Proxies, t.RemoteAddr()) {
		return c
	}
	p := &Proxied{TCPConn: t}
	err := t.SetReadDeadline(time.Now().Add(headerTime))
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = t.Close() })
		p.header, err = proxyproto.Read(t)
		if !stop() && err == nil {
			err = ctx.Err()
		}
	}
	if err == nil {
		err = t.SetReadDeadline(time.Time{})
	}
	if err == nil {
		return p
	}
	l.metrics.unproxied.Inc()
	l.opts.Log.Debug("a connection without a PROXY header", slog.String("peer", t.RemoteAddr().String()), slog.Any("err", err))
	_ = t.Close()
	return nil
}

func contains(networks []netip.Prefix, a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok || len(networks) == 0 {
		return false
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
