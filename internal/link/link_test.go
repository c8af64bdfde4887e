package link_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/link/linktest"
)

// fixture is a server on a network in memory.
type fixture struct {
	*linktest.Cluster
	network *linktest.Network
	service *linktest.Service
	server  *link.Server
}

const address = "control:8091"

func newFixture(t *testing.T, change func(*link.ServerOptions)) *fixture {
	t.Helper()
	f := &fixture{Cluster: linktest.NewCluster(t), network: linktest.NewNetwork(t), service: &linktest.Service{}}
	o := link.ServerOptions{Permissions: f.service.Permissions()}
	if change != nil {
		change(&o)
	}
	f.server, _ = f.Serve(t, f.network.Listen(address), o, f.service.Register)
	return f
}

func (f *fixture) dial(t *testing.T, id link.Identity) *link.Link {
	t.Helper()
	return f.Dial(t, link.Options{Addresses: []string{address}, Identity: id, Dial: f.network.Dial})
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func echo(t *testing.T, l *link.Link) error {
	t.Helper()
	return linktest.Echo(soon(t), l.Conn(link.Control), []byte("x"))
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %v (%v), want %v", what, got, err, want)
	}
}

// stranger is a node without a certificate that believes everybody.
type stranger struct{ link.Identity }

func (stranger) Certificate() (*tls.Certificate, error) { return nil, identity.ErrNotEnrolled }

func TestPermissions(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *link.ServerOptions) { o.Permissions[linktest.EchoMethod] = link.ControlNodes })
	gateway := f.dial(t, f.Gateway(t, "gw-1"))
	wantCode(t, "gateway calls what control nodes may", echo(t, gateway), codes.PermissionDenied)
	wantCode(t, "gateway calls what it may", linktest.Download(soon(t), gateway.Conn(link.Bulk), 1, func(int) {}), codes.OK)
	wantCode(t, "unknown method", gateway.Conn(link.Control).Invoke(soon(t), "/hansa.test.Service/Other", &linkv1.PingRequest{}, &linkv1.PingResponse{}), codes.Unimplemented)

	control := f.dial(t, f.Control)
	wantCode(t, "control node calls what it may", echo(t, control), codes.OK)
	wantCode(t, "control node calls what gateways may", linktest.Download(soon(t), control.Conn(link.Bulk), 1, func(int) {}), codes.PermissionDenied)

	anonymous := f.dial(t, stranger{f.Control})
	wantCode(t, "unary call without certificate", echo(t, anonymous), codes.Unauthenticated)
	wantCode(t, "stream without certificate", linktest.Download(soon(t), anonymous.Conn(link.Bulk), 1, func(int) {}), codes.Unauthenticated)
	_, err := linkv1.NewEnrolmentClient(anonymous.Conn(link.Control)).Trust(soon(t), &linkv1.TrustRequest{})
	wantCode(t, "trust without certificate", err, codes.OK)
	_, err = linkv1.NewEnrolmentClient(anonymous.Conn(link.Control)).Renew(soon(t), &linkv1.RenewRequest{})
	wantCode(t, "renewal without certificate", err, codes.Unauthenticated)
}

func TestServeNeedsAWholeTable(t *testing.T) {
	t.Parallel()
	c, service := linktest.NewCluster(t), &linktest.Service{}
	for name, permissions := range map[string]map[string]link.Access{
		"method without a line": {linktest.EchoMethod: link.Gateways, linktest.SubscribeMethod: link.Gateways},
		"line without a method": {
			linktest.EchoMethod: link.Gateways, linktest.SubscribeMethod: link.Gateways,
			linktest.DownloadMethod: link.Gateways, "/hansa.test.Service/Misspelt": link.Gateways,
		},
	} {
		s, err := link.NewServer(link.ServerOptions{
			Identity: c.Control, Permissions: permissions,
			Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Register(service.Register)
		if err := s.Serve(t.Context(), linktest.NewNetwork(t).Listen(address)); err == nil || !strings.Contains(err.Error(), "permissions") {
			t.Errorf("%s: Serve = %v, want an error on permissions", name, err)
		}
	}
}

func TestPeerFrom(t *testing.T) {
	t.Parallel()
	f := &fixture{Cluster: linktest.NewCluster(t), network: linktest.NewNetwork(t)}
	seen := make(chan identity.Node, 1)
	register := func(r grpc.ServiceRegistrar) {
		r.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Who", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
			StreamName: "Am", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
				node, ok := link.PeerFrom(stream.Context())
				if !ok {
					return errors.New("no peer")
				}
				seen <- node
				return nil
			},
		}}}, f)
	}
	f.server, _ = f.Serve(t, f.network.Listen(address), link.ServerOptions{Permissions: map[string]link.Access{"/test.Who/Am": link.Gateways}}, register)
	l := f.dial(t, f.Gateway(t, "gw-1"))
	stream, err := l.Conn(link.Control).NewStream(soon(t), &grpc.StreamDesc{ServerStreams: true}, "/test.Who/Am")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&linkv1.PingResponse{}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if got, want := <-seen, identity.Gateway("test", "acme", "eu", "gw-1"); got != want {
		t.Errorf("PeerFrom = %v, want %v", got, want)
	}
	if _, ok := link.PeerFrom(t.Context()); ok {
		t.Error("PeerFrom of a context without a call is true")
	}
	if got := f.server.Connected(); len(got) != 1 || got[0].Node.Name != "gw-1" {
		t.Errorf("Connected = %v, want the gateway once", got)
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	t.Parallel()
	f := &fixture{Cluster: linktest.NewCluster(t), network: linktest.NewNetwork(t)}
	register := func(r grpc.ServiceRegistrar) {
		r.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Bad", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
			StreamName: "Panic", ServerStreams: true, Handler: func(any, grpc.ServerStream) error { panic("planted") },
		}}}, f)
	}
	f.server, _ = f.Serve(t, f.network.Listen(address), link.ServerOptions{Permissions: map[string]link.Access{"/test.Bad/Panic": link.Gateways}}, register)
	l := f.dial(t, f.Gateway(t, "gw-1"))
	stream, err := l.Conn(link.Control).NewStream(soon(t), &grpc.StreamDesc{ServerStreams: true}, "/test.Bad/Panic")
	if err != nil {
		t.Fatal(err)
	}
	err = stream.RecvMsg(&linkv1.PingResponse{})
	wantCode(t, "panic", err, codes.Internal)
	if strings.Contains(err.Error(), "planted") {
		t.Errorf("the answer tells the caller about the panic: %v", err)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	bad, good := f.dial(t, f.Gateway(t, "gw-1")), f.dial(t, f.Gateway(t, "gw-2"))
	ended := make(chan error, 1)
	go func() { ended <- linktest.Subscribe(t.Context(), bad.Conn(link.Events), func([]byte) {}) }()
	f.service.WaitSubscribers(soon(t), 1)
	if err := errors.Join(echo(t, bad), echo(t, good)); err != nil {
		t.Fatal(err)
	}
	f.Store.Revoke("acme", "gw-1")
	wantCode(t, "call after revocation", echo(t, bad), codes.PermissionDenied)
	if n := f.server.DropRevoked(); n == 0 {
		t.Error("DropRevoked ended no connection")
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the stream of the revoked gateway ended well")
		}
	case <-soon(t).Done():
		t.Error("the stream of the revoked gateway goes on")
	}
	_, err := linkv1.NewEnrolmentClient(bad.Conn(link.Control)).Renew(soon(t), &linkv1.RenewRequest{})
	for status.Code(err) == codes.Unavailable && !soonOver(t) { // the connection is just ending
		_, err = linkv1.NewEnrolmentClient(bad.Conn(link.Control)).Renew(soon(t), &linkv1.RenewRequest{})
	}
	wantCode(t, "renewal after revocation", err, codes.PermissionDenied)
	wantCode(t, "the other gateway", echo(t, good), codes.OK)
}

func TestForeignNodesAreRefused(t *testing.T) {
	t.Parallel()
	f, other := newFixture(t, nil), linktest.NewCluster(t)

	// A gateway of another cluster does not even believe this control node.
	l := f.dial(t, other.Gateway(t, "gw-1"))
	err := l.Wait(soon(t), func(s link.State) bool { return strings.Contains(s.Classes[link.Control].LastErr, "unknown authority") })
	if err != nil {
		t.Errorf("foreign control node: %+v, want a refusal of its certificate", l.State())
	}
	// One that believes anybody gets no further.
	l = f.dial(t, gullible{other.Gateway(t, "gw-2")})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := linktest.Echo(ctx, l.Conn(link.Control), nil); err == nil {
		t.Error("a gateway of another cluster was let in")
	}
	// A gateway does not take another gateway for a control node.
	gw := f.Gateway(t, "gw-3")
	const fakeAddr = "fake:1"
	fake, _ := f.Serve(t, f.network.Listen(fakeAddr), link.ServerOptions{Identity: gw, Permissions: f.service.Permissions()}, f.service.Register)
	l = f.Dial(t, link.Options{Addresses: []string{fakeAddr}, Identity: f.Gateway(t, "gw-4"), Dial: f.network.Dial})
	err = l.Wait(soon(t), func(s link.State) bool {
		return strings.Contains(s.Classes[link.Control].LastErr, "not a control node")
	})
	if err != nil {
		t.Errorf("gateway in place of the control node: %+v, want a refusal", l.State())
	}
	if n := len(fake.Connected()); n != 0 {
		t.Errorf("%d gateways are connected to another gateway", n)
	}
}

// gullible is a member that believes everybody.
type gullible struct{ *identity.Member }

func (gullible) Verify(_ []*x509.Certificate, _ time.Time) (identity.Peer, error) {
	return identity.Peer{Node: identity.ControlNode("x", "x")}, nil
}

// TestExpiredCertificate: a gateway comes back after three months, may do nothing, is renewed, and serves again.
func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	member := f.Gateway(t, "gw-1")
	f.Advance(90 * 24 * time.Hour)
	if err := f.Control.Maintain(); err != nil {
		t.Fatal(err)
	}
	l := f.dial(t, member)
	wantCode(t, "call with an expired certificate", echo(t, l), codes.Unauthenticated)
	keep(t, l, member)
	for err := echo(t, l); err != nil; err = echo(t, l) {
		if soonOver(t) {
			t.Fatalf("calls do not work after renewal: %v", err)
		}
	}
	cert, err := member.Certificate()
	if err != nil || !cert.Leaf.NotAfter.After(f.Now()) {
		t.Errorf("certificate ends %s, it is %s", cert.Leaf.NotAfter, f.Now())
	}
}

// TestRenewalInTime: long before the end the keeper renews, and no connection is cut for it.
func TestRenewalInTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	member := f.Gateway(t, "gw-1")
	l := f.dial(t, member)
	if err := echo(t, l); err != nil {
		t.Fatal(err)
	}
	before, err := member.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	f.Advance(21 * 24 * time.Hour)
	keep(t, l, member)
	for {
		now, err := member.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		if now.Leaf.NotAfter.After(before.Leaf.NotAfter) {
			if pub, ok := now.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(before.Leaf.PublicKey) {
				t.Error("renewal changed the key")
			}
			break
		}
		if soonOver(t) {
			t.Fatal("the certificate was not renewed")
		}
	}
	if st := l.State().Classes[link.Control]; st.Connects != 1 {
		t.Errorf("state = %+v, want the first connection to stand", st)
	}
}

// TestNewAuthority: after years the control node has another authority; a gateway that was away meets a certificate
// it cannot explain, gets the trust document, which the root vouches for, and goes on.
func TestNewAuthority(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	member := f.Gateway(t, "gw-1")
	serial := member.Trust().Serial
	f.Advance(4 * 365 * 24 * time.Hour) // a third of the authority's five years is left at most
	if err := f.Control.Maintain(); err != nil {
		t.Fatal(err)
	}
	if n := len(f.Control.Trust().CAs); n != 2 {
		t.Fatalf("%d authorities, want 2", n)
	}
	l := f.dial(t, member)
	keep(t, l, member)
	for err := echo(t, l); err != nil; err = echo(t, l) {
		if soonOver(t) {
			t.Fatalf("calls do not work: %v; %+v", err, l.State())
		}
	}
	if member.Trust().Serial <= serial {
		t.Error("the trust document was not renewed")
	}
}

func keep(t *testing.T, l *link.Link, m *identity.Member) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := link.NewKeeper(l, m, slog.New(slog.DiscardHandler)).Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("keeper ended with %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// soonOver pauses a polling loop and tells whether the test has run too long.
func soonOver(t *testing.T) bool {
	t.Helper()
	select {
	case <-t.Context().Done():
		return true
	case <-time.After(20 * time.Millisecond):
	}
	end, ok := t.Deadline()
	return ok && time.Until(end) < 10*time.Second
}

func TestServerCertificateIsReplacedWithoutRestart(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	first, err := f.Control.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	f.Advance(25 * 24 * time.Hour)
	if err := f.Control.Maintain(); err != nil {
		t.Fatal(err)
	}
	var shown []byte
	conn, err := f.network.Dial(soon(t), address)
	if err != nil {
		t.Fatal(err)
	}
	raw := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, VerifyConnection: func(s tls.ConnectionState) error {
		shown = s.PeerCertificates[0].Raw
		return nil
	}})
	if err := raw.HandshakeContext(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(shown, first.Leaf.Raw) {
		t.Error("the server shows its old certificate")
	}
}

func TestOnlyTLS13(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for name, config := range map[string]*tls.Config{
		"TLS 1.2": {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}},
		"no ALPN": {InsecureSkipVerify: true},
	} {
		conn, err := f.network.Dial(soon(t), address)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(conn, config)
		err = c.HandshakeContext(soon(t))
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // in TLS 1.3 the client learns of the refusal here
		}
		if err == nil {
			t.Errorf("%s: let in", name)
		}
		_ = conn.Close()
	}
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *link.ServerOptions) { o.MaxAnonymous, o.MaxConnections = 1, 8 })
	f.dial(t, stranger{f.Control})
	good := f.dial(t, f.Gateway(t, "gw-1")) // three connections
	if err := good.Wait(soon(t), link.State.Up); err != nil {
		t.Fatalf("strangers keep a gateway out: %+v", good.State())
	}
	wantCode(t, "gateway", echo(t, good), codes.OK)
	for _, name := range []string{"gw-2", "gw-3"} { // nine connections of gateways where eight may be
		l := f.dial(t, f.Gateway(t, name))
		err := l.Wait(soon(t), func(s link.State) bool {
			return s.Up() || s.Classes[link.Control].Failures+s.Classes[link.Events].Failures+s.Classes[link.Bulk].Failures > 0
		})
		if err != nil || name == "gw-3" && l.State().Up() {
			t.Errorf("%s: %v, %+v", name, err, l.State())
		}
	}
	wantCode(t, "gateway that was there first", echo(t, good), codes.OK)
}

func TestMessageLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *link.ServerOptions) { o.MaxMessage = 1 << 20 })
	l := f.dial(t, f.Gateway(t, "gw-1"))
	wantCode(t, "small message", linktest.Echo(soon(t), l.Conn(link.Control), make([]byte, 1<<19)), codes.OK)
	wantCode(t, "large message", linktest.Echo(soon(t), l.Conn(link.Control), make([]byte, 2<<20)), codes.ResourceExhausted)
	wantCode(t, "small message after it", echo(t, l), codes.OK)
}

func TestThroughConnectProxy(t *testing.T) {
	t.Parallel()
	c, service := linktest.NewCluster(t), &linktest.Service{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Serve(t, l, link.ServerOptions{Permissions: service.Permissions()}, service.Register)
	proxy := linktest.NewConnectProxy(t, "user", "pa ss")
	through := func(u string) *link.Dialer {
		choose, err := link.FixedProxy(u)
		if err != nil {
			t.Fatal(err)
		}
		return &link.Dialer{Proxy: choose, Timeout: 30 * time.Second}
	}
	d := through("http://user:pa%20ss@" + proxy.Addr())
	lk := c.Dial(t, link.Options{Addresses: []string{l.Addr().String()}, Identity: c.Gateway(t, "gw-1"), Dial: d.Dial})
	if err := echo(t, lk); err != nil {
		t.Fatal(err)
	}
	if err := lk.Wait(soon(t), link.State.Up); err != nil {
		t.Fatal(err)
	}
	if got, want := proxy.Tunnels(), slices.Repeat([]string{l.Addr().String()}, 3); !slices.Equal(got, want) {
		t.Errorf("tunnels = %q, want %q", got, want)
	}

	for name, tt := range map[string]struct{ proxy, address, want string }{
		"wrong password": {"http://user:x@" + proxy.Addr(), l.Addr().String(), "407"},
		"dead target":    {"http://user:pa%20ss@" + proxy.Addr(), "127.0.0.1:1", "502"},
	} {
		if _, err := through(tt.proxy).Dial(soon(t), tt.address); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		} else if strings.Contains(err.Error(), "pa ss") || strings.Contains(err.Error(), "pa%20ss") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
	proxy.Hang(true)
	d.Timeout = 100 * time.Millisecond
	if _, err := d.Dial(soon(t), l.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging proxy: %v, want the time-out", err)
	}
	for _, bad := range []string{"", "socks5://x:1", "http://", "%"} {
		if _, err := link.FixedProxy(bad); err == nil {
			t.Errorf("FixedProxy(%q) succeeded", bad)
		}
	}
}

func TestProxyFromEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	t.Setenv("NO_PROXY", "inside.example")
	choose := link.ProxyFromEnvironment()
	for address, want := range map[string]string{"control.example:8091": "http://proxy.example:3128", "a.inside.example:8091": "<nil>", "127.0.0.1:8091": "<nil>"} {
		got, err := choose(address)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("proxy for %s = %v, %v, want %s", address, got, err, want)
		}
	}
}

func TestProxyAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"not HTTP":          "SSH-2.0-x\r\n",
		"endless head":      "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 32<<10),
		"bytes ahead":       "HTTP/1.1 200 OK\r\n\r\nhello",
		"closed in between": "HTTP/1.1 200",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1024)) // the request
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}()
		d := &link.Dialer{Timeout: 5 * time.Second, Proxy: func(string) (*url.URL, error) {
			return &url.URL{Scheme: "http", Host: l.Addr().String()}, nil
		}}
		if c, err := d.Dial(soon(t), "control:8091"); err == nil {
			t.Errorf("%s: got a tunnel", name)
			_ = c.Close()
		}
		_ = l.Close()
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	reg := prometheus.NewRegistry()
	l := f.Dial(t, link.Options{Addresses: []string{address}, Identity: f.Gateway(t, "gw-1"), Dial: f.network.Dial, Registerer: reg})
	if err := errors.Join(l.Wait(soon(t), link.State.Up), linktest.Download(soon(t), l.Conn(link.Bulk), 1<<20, func(int) {})); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			got[fmt.Sprintf("%s %s", family.GetName(), m.GetLabel()[0].GetValue())] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	if got["hansa_link_up_ratio bulk"] != 1 || got["hansa_link_connects_total control"] != 1 || got["hansa_link_connect_failures_total control"] != 0 {
		t.Errorf("metrics = %v, want up, one connect, no failure", got)
	}
	if n := got["hansa_link_received_bytes_total bulk"]; n < 1<<20 || n > 1<<20+50_000 {
		t.Errorf("%v bytes received in bulk, want a little more than a megabyte", n)
	}
}
