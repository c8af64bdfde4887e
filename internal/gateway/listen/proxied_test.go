package listen

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestProxied shows whose connection it is, with and without a PROXY header, from load balancers and from others.
func TestProxied(t *testing.T) {
	t.Parallel()
	tell := func(c net.Conn) {
		defer c.Close()
		_, isTCP := c.(interface{ SetLinger(int) error })
		rest, _ := io.ReadAll(c)
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if !isTCP {
			host += " not TCP"
		}
		_, _ = io.WriteString(c, host+" "+string(rest))
	}
	reg := prometheus.NewRegistry()
	trusting := run(t, Options{Name: "lb", Serve: tell, Registerer: reg, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	others := run(t, Options{Name: "direct", Serve: tell, Registerer: reg, Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, tt := range []struct {
		name, in, want string
		l              *Listener
	}{
		{"version 1", "PROXY TCP4 192.0.2.1 198.51.100.9 1 2\r\nhello", "192.0.2.1 hello", trusting},
		{"version 2", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x09\xdc\x04\x01\xbbhello", "192.0.2.1 hello", trusting},
		{"the load balancer itself", "PROXY UNKNOWN\r\nhello", "127.0.0.1 hello", trusting},
		{"no header", "GET / HTTP/1.1\r\n\r\n", "", trusting},
		{"half a header", "PROXY TCP4 192", "", trusting},
		{"nothing", "", "", trusting},
		{"from elsewhere", "PROXY UNKNOWN\r\n", "127.0.0.1 PROXY UNKNOWN\r\n", others},
	} {
		c := dial(t, tt.l)
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(c, tt.in); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if got, _ := io.ReadAll(c); string(got) != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if n := testutil.ToFloat64(trusting.metrics.unproxied); n != 3 {
		t.Errorf("%v connections are counted as without a header, want 3", n)
	}
	dial(t, trusting) // says nothing, and does not hold up the end
}
