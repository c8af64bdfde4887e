package upstream

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/proxyproto"
	"hansa.dev/hansa/internal/x/sweep"
)

// running starts a Registry on real sockets.
func running(t *testing.T) *Registry {
	t.Helper()
	sw := sweep.New()
	r, err := New(Options{Sweeper: sw})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = sw.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if n := sw.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return r
}

// commitOne puts one backend in force.
func commitOne(t *testing.T, r *Registry, bk snapshot.Backend) *Backend {
	t.Helper()
	bk.Organization, bk.Name = "acme", "catalog"
	p, err := r.Prepare("", []snapshot.Backend{bk})
	if err != nil {
		t.Fatal(err)
	}
	p.Commit()
	return p.Backend("acme", "catalog")
}

// listening serves connections with serve and returns the address.
func listening(t *testing.T, address string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			t.Fatal("not within a minute: " + what)
		case <-tick.C:
		}
	}
}

// TestDiscovery follows the answers of a real DNS server: two addresses, one, none, a failure.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	r := running(t)
	first := listening(t, "127.0.0.1:0", answering("first"))
	_, port, _ := net.SplitHostPort(first)
	listening(t, "127.0.0.2:"+port, answering("second"))

	var mu sync.Mutex
	var answer []string
	code := dns.RcodeSuccess
	var asked atomic.Int32
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		<-hold
		mu.Lock()
		defer mu.Unlock()
		asked.Add(1)
		m := new(dns.Msg)
		m.SetRcode(q, code)
		for _, a := range answer {
			rr, err := dns.NewRR("catalog.test. 1 A " + a)
			if err == nil && q.Question[0].Qtype == dns.TypeA {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	say := func(rcode int, addresses ...string) {
		mu.Lock()
		code, answer = rcode, addresses
		mu.Unlock()
		// The answer that is on its way may be the one before.
		n := asked.Load()
		eventually(t, "two more questions", func() bool { return asked.Load() >= n+2 })
	}
	answer = []string{"127.0.0.1", "127.0.0.2"}
	p := snapshot.Discovery{Name: "catalog.test", Resolvers: []string{pc.LocalAddr().String()}, Family: "ipv4", MinTTLMillis: 20, MaxTTLMillis: 50}
	if _, err := fmt.Sscan(port, &p.Port); err != nil {
		t.Fatal(err)
	}
	b := commitOne(t, r, snapshot.Backend{Discovery: &p, Host: "endpoint"})
	// A request that comes before the first answer waits for it.
	early := make(chan string)
	go func() { early <- outcome(b, get("/"), new(down)) }()
	close(hold)
	if got := <-early; got != "200 first" && got != "200 second" {
		t.Errorf("the early request got %q", got)
	}
	seen := func() map[string]int { return answersOf(b, 10) }
	both, one := map[string]int{"200 first": 5, "200 second": 5}, map[string]int{"200 second": 10}
	if diff := cmp.Diff(both, seen()); diff != "" {
		t.Errorf("two addresses (-want +got)\n%s", diff)
	}
	say(dns.RcodeSuccess, "127.0.0.2")
	eventually(t, "one address", func() bool { return cmp.Equal(one, seen()) })
	say(dns.RcodeServerFailure)
	if diff := cmp.Diff(one, seen()); diff != "" {
		t.Errorf("after a failure (-want +got)\n%s", diff)
	}
	say(dns.RcodeNameError)
	if diff := cmp.Diff(one, seen()); diff != "" {
		t.Errorf("after the name has gone (-want +got)\n%s", diff)
	}
	kept := b.table.Load().places[0].endpoint
	say(dns.RcodeSuccess, "127.0.0.1", "127.0.0.2")
	eventually(t, "two addresses again", func() bool { return cmp.Equal(both, seen()) })
	if b.table.Load().places[1].endpoint != kept {
		t.Error("the endpoint that stayed is another one")
	}
	// Another way to find them, and none: what is there stays until there is an answer, and then is what is said.
	p2 := p
	p2.MinTTLMillis = 30
	b = commitOne(t, r, snapshot.Backend{Discovery: &p2, Host: "endpoint"})
	if n := len(b.table.Load().places); n != 2 {
		t.Errorf("%d endpoints right after a change", n)
	}
	b = commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(first)})
	if diff := cmp.Diff(map[string]int{"200 first": 10}, seen()); diff != "" {
		t.Errorf("static again (-want +got)\n%s", diff)
	}
	if r.Status()[0].Discovered || b.discovery != nil {
		t.Error("it goes on asking DNS")
	}
}

// TestProxyProtocolOut reads what connections begin with: the client's address, one connection for each client.
func TestProxyProtocolOut(t *testing.T) {
	t.Parallel()
	r := running(t)
	var conns atomic.Int32
	address := listening(t, "127.0.0.1:0", func(c net.Conn) {
		conns.Add(1)
		h, err := proxyproto.Read(c)
		if err != nil {
			t.Error(err)
			return
		}
		answering(h.Source.String())(c)
	})
	for _, version := range []string{"v1", "v2"} {
		conns.Store(0)
		b := commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(address), ProxyProtocol: version})
		for range 3 {
			for _, client := range []string{"192.0.2.1:1000", "192.0.2.2:2000", "[2001:db8::1]:3000"} {
				x := get("/")
				x.Peer = netip.MustParseAddrPort(client)
				x.ClientIP = exchange.View(x.Peer.Addr().String())
				check(t, outcome(b, x, new(down)), "200 "+client)
			}
		}
		if n := conns.Load(); n != 3 {
			t.Errorf("%s: %d connections for 3 clients", version, n)
		}
		// Behind a proxy that is trusted it is the client's address that counts.
		x := get("/")
		x.Peer, x.ClientIP = netip.MustParseAddrPort("192.0.2.1:1000"), exchange.View("198.51.100.7")
		check(t, outcome(b, x, new(down)), "200 198.51.100.7:0")
		commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(address)})
	}
}

// TestHTTP10 speaks HTTP/1.0, with connections that are kept if the backend likes to, and without chunks.
func TestHTTP10(t *testing.T) {
	t.Parallel()
	r := running(t)
	requests := make(chan string, 10)
	var keep atomic.Bool
	var conns atomic.Int32
	address := listening(t, "127.0.0.1:0", func(c net.Conn) {
		conns.Add(1)
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			requests <- fmt.Sprintf("%s %s %s %d %s", req.Method, req.Proto, req.Header.Get("Connection"), req.ContentLength, body)
			if !keep.Load() {
				_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nok")
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	b := commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(address), HTTPVersion: "1.0"})
	ask := func(x *exchange.Exchange, want string) {
		t.Helper()
		check(t, outcome(b, x, new(down)), "200 ok")
		check(t, <-requests, want)
	}
	ask(get("/"), "GET HTTP/1.0 keep-alive 0 ")
	ask(get("/"), "GET HTTP/1.0 keep-alive 0 ")
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections, want one for each", n)
	}
	keep.Store(true)
	post := get("/")
	post.Method = exchange.View("POST")
	body := new(unknown)
	body.Reset([]byte("hello"))
	post.Body = body
	ask(post, "POST HTTP/1.0 keep-alive 5 hello")
	ask(get("/"), "GET HTTP/1.0 keep-alive 0 ")
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections, want the last one kept", n)
	}
	post = get("/")
	post.Method = exchange.View("POST")
	body = new(unknown)
	body.Reset(bytes.Repeat([]byte("x"), bufferBelow+1))
	post.Body = body
	check(t, outcome(b, post, new(down)), "bad-request-body-too-large")
	b = commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(address), HTTPVersion: "1.0", MaxUses: 1})
	ask(get("/"), "GET HTTP/1.0  0 ")
}

// TestEndpointsComeAndGo changes the endpoints again and again under requests, none of which may fail.
func TestEndpointsComeAndGo(t *testing.T) {
	t.Parallel()
	r := running(t)
	var all []string
	for i := range 4 {
		all = append(all, listening(t, "127.0.0.1:0", answering(fmt.Sprint(i))))
	}
	hc := &snapshot.HealthCheck{Type: "tcp", IntervalMillis: 20, TimeoutMillis: 1000, HealthyAfter: 1, UnhealthyAfter: 1}
	b := commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(all...), HealthCheck: hc})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var n atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				x := get("/")
				x.Method = exchange.View("POST") // never sent twice
				if got := outcome(b, x, new(down)); !strings.HasPrefix(got, "200 ") {
					t.Errorf("a request failed: %q", got)
					return
				}
				n.Add(1)
			}
		})
	}
	methods := []string{"roundRobin", "leastRequests", "responseTime", "random", "consistentHash"}
	for i := range 200 {
		bk := snapshot.Backend{
			Endpoints: snapshot.Endpoints(append(all[i%4:4:4], all[:i%3]...)...), ResponseMillis: int64(60_000 + i),
			Balance: &snapshot.Balance{Method: methods[i%5], HashBy: &snapshot.HashBy{Header: "X-A"}, PanicPercent: 50},
		}
		if i%2 == 0 {
			bk.HealthCheck = hc
		}
		commitOne(t, r, bk)
		before := n.Load()
		eventually(t, "requests go on", func() bool { return n.Load() > before+10 || t.Failed() })
	}
	close(stop)
	wg.Wait()
}

// TestOneByteAtATime gets a response in the smallest pieces, from one endpoint, while another answers at once.
func TestOneByteAtATime(t *testing.T) {
	t.Parallel()
	r := running(t)
	slow := listening(t, "127.0.0.1:0", func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		for _, b := range []byte(strings.Replace(ok, "OK\r\n", "OK\r\nConnection: close\r\n", 1)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
		}
	})
	b := commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(slow, listening(t, "127.0.0.1:0", answering("ok")))})
	for range 10 {
		check(t, outcome(b, get("/"), new(down)), "200 ok")
	}
}

// TestPickAllocatesNothing bounds what picking costs, with everything switched on that is asked for each request.
func TestPickAllocatesNothing(t *testing.T) {
	r := running(t)
	for _, m := range methods {
		b := commitOne(t, r, snapshot.Backend{
			Endpoints: []snapshot.Endpoint{{Address: "127.0.0.1:1", Weight: 3}, {Address: "127.0.0.1:2", Weight: 5}, {Address: "127.0.0.1:3", Priority: 1}},
			Balance:   &snapshot.Balance{Method: m, HashBy: &snapshot.HashBy{Cookie: "session"}, PanicPercent: 50},
			Outliers:  &snapshot.Outliers{ConsecutiveErrors: 5, Consecutive5xx: 5, SuccessRateRequests: 100},
			Retries:   retrying("5xx"), Breaker: &snapshot.Breaker{Requests: 10, Retries: 3, Pending: 10}, TotalMillis: 1000, TryMillis: 100,
		})
		x := get("/")
		x.Req.AddString(exchange.NameOf("Cookie"), "a=b; session=4711")
		c := newCall(x)
		d := new(down)
		n := testing.AllocsPerRun(100, func() {
			t := b.current()
			c.begin(b, t.settings, d)
			c.admit()
			e := t.pick(b, c)
			c.enter(e)
			e.outlier.status(e, t.settings, 200)
			c.over()
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", m, n)
		}
	}
}
