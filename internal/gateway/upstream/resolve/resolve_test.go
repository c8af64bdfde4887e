package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// server serves a zone over UDP and TCP and returns its address. Names that begin with "fail" fail; answers with more
// than 20 records are cut over UDP.
func server(t *testing.T, asked *atomic.Int32, zone ...string) string {
	t.Helper()
	var records []dns.RR
	for _, line := range zone {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rr)
	}
	pc, l := listen(t)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg)
		m.SetReply(q)
		known := false
		for name, again := q.Question[0].Name, true; again; {
			again = false
			for _, rr := range records {
				if rr.Header().Name != name {
					continue
				}
				known = true
				switch kind := rr.Header().Rrtype; {
				case kind == q.Question[0].Qtype:
					m.Answer = append(m.Answer, rr)
				case kind == dns.TypeCNAME:
					m.Answer = append(m.Answer, rr)
					name, again = rr.(*dns.CNAME).Target, true
				}
			}
		}
		switch {
		case strings.HasPrefix(q.Question[0].Name, "fail"):
			m.Rcode = dns.RcodeServerFailure
		case !known:
			m.Rcode = dns.RcodeNameError
		case len(m.Answer) > 20 && w.LocalAddr().Network() == "udp":
			m.Answer, m.Truncated = m.Answer[:1], true
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

// listen binds the same port for UDP and TCP.
func listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close() // somebody has the other one
	}
	t.Fatal("no port is free for both")
	return nil, nil
}

func TestLookup(t *testing.T) {
	t.Parallel()
	zone := []string{
		"catalog.test. 30 A 192.0.2.2", "catalog.test. 60 A 192.0.2.1", "catalog.test. 40 AAAA 2001:db8::1",
		"alias.test. 10 CNAME catalog.test.",
		"six.test. 50 AAAA 2001:db8::6",
		"_http._tcp.catalog.test. 20 SRV 10 3 8081 catalog.test.", "_http._tcp.catalog.test. 20 SRV 0 0 8080 six.test.",
		"_none._tcp.catalog.test. 20 SRV 0 0 0 .",
		"_part._tcp.catalog.test. 20 SRV 0 0 80 catalog.test.", "_part._tcp.catalog.test. 20 SRV 0 0 80 fail.test.",
		"_lost._tcp.catalog.test. 20 SRV 0 0 80 catalog.test.", "_lost._tcp.catalog.test. 20 SRV 0 0 80 gone.test.",
		"empty.test. 60 TXT x", "fail.test. 60 A 192.0.2.9",
	}
	var many []Target
	for i := range 30 {
		zone = append(zone, fmt.Sprintf("many.test. 60 A 192.0.2.%d", 100+i))
		many = append(many, Target{fmt.Sprintf("192.0.2.%d:80", 100+i), "many.test:80", 0, 1})
	}
	var asked atomic.Int32
	r := New([]string{server(t, &asked, zone...)})
	at := func(address string) Target { return Target{address, "catalog.test:80", 0, 1} }
	one, two, three := at("192.0.2.1:80"), at("192.0.2.2:80"), at("[2001:db8::1]:80")
	srv := func(address, name string, priority, weight int) Target {
		return Target{address, name, priority, weight}
	}
	for _, tt := range []struct {
		query Query
		want  []Target
		ttl   time.Duration
		err   string
	}{
		{Query{Name: "catalog.test", Port: 80}, []Target{one, two, three}, 30 * time.Second, ""},
		{Query{Name: "catalog.test", Port: 80, Family: "ipv4"}, []Target{one, two}, 30 * time.Second, ""},
		{Query{Name: "catalog.test.", Port: 80, Family: "ipv6"}, []Target{three}, 40 * time.Second, ""},
		{Query{Name: "alias.test", Port: 81, Family: "ipv6"}, []Target{{"[2001:db8::1]:81", "alias.test:81", 0, 1}}, 10 * time.Second, ""},
		{Query{Name: "six.test", Port: 80, Family: "ipv4"}, nil, 0, ErrNone.Error()},
		{Query{Name: "empty.test", Port: 80}, nil, 0, ErrNone.Error()},
		{Query{Name: "gone.test", Port: 80}, nil, 0, ErrNone.Error()},
		{Query{Name: "fail.test", Port: 80}, nil, 0, "it says SERVFAIL"},
		{Query{Name: "many.test", Port: 80, Family: "ipv4"}, many, time.Minute, ""},
		{
			Query{Name: "_http._tcp.catalog.test", SRV: true},
			[]Target{srv("[2001:db8::6]:8080", "six.test:8080", 0, 0), srv("192.0.2.1:8081", "catalog.test:8081", 10, 3), srv("192.0.2.2:8081", "catalog.test:8081", 10, 3), srv("[2001:db8::1]:8081", "catalog.test:8081", 10, 3)},
			20 * time.Second, "",
		},
		{Query{Name: "_none._tcp.catalog.test", SRV: true}, nil, 0, ErrNone.Error()},
		{Query{Name: "_part._tcp.catalog.test", SRV: true}, nil, 0, "it says SERVFAIL"}, // better none than a part
		{Query{Name: "_lost._tcp.catalog.test", SRV: true, Family: "ipv6"}, []Target{srv("[2001:db8::1]:80", "catalog.test:80", 0, 0)}, 20 * time.Second, ""},
	} {
		got, err := r.Lookup(t.Context(), tt.query)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || errors.Is(err, ErrNone) != (tt.err == ErrNone.Error()) {
				t.Errorf("%+v: %v, want %q", tt.query, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tt.query, err)
			continue
		}
		if diff := cmp.Diff(Answer{tt.want, tt.ttl}, got); diff != "" {
			t.Errorf("%+v (-want +got)\n%s", tt.query, diff)
		}
	}
}

// TestServers asks the next one if one is silent, and gives up in time.
func TestServers(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good := server(t, &asked, "good.test. 60 A 192.0.2.9")
	a, err := New([]string{silent.LocalAddr().String(), good}).Lookup(t.Context(), Query{Name: "good.test", Port: 1, Family: "ipv4"})
	if err != nil || len(a.Targets) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := New([]string{silent.LocalAddr().String(), good}).Lookup(ctx, Query{Name: "good.test", Port: 1}); err == nil || time.Since(begin) > 30*time.Second {
		t.Errorf("%v after %v, want an error when the time is over", err, time.Since(begin))
	}
}

// TestSystem reads what the system says: search domains, servers, and the hosts file first.
func TestSystem(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	host, port, err := net.SplitHostPort(server(t, &asked, "web.acme.test. 60 A 192.0.2.7"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &Resolver{hosts: filepath.Join(dir, "hosts"), config: filepath.Join(dir, "resolv.conf")}
	for file, text := range map[string]string{r.hosts: "127.0.0.1 localhost\n# 192.0.2.1 web\n192.0.2.8 Cache other # x\n2001:db8::8 cache\n", r.config: "nameserver " + host + "\nsearch acme.test\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := r.Lookup(t.Context(), Query{Name: "cache", Port: 80})
	want := []Target{{"192.0.2.8:80", "cache:80", 0, 1}, {"[2001:db8::8]:80", "cache:80", 0, 1}}
	if diff := cmp.Diff(want, a.Targets); err != nil || diff != "" || a.TTL != time.Minute || asked.Load() != 0 {
		t.Errorf("the hosts file: %v, %v, %d asked (-want +got)\n%s", err, a.TTL, asked.Load(), diff)
	}
	servers, names, err := system(r.config, "web")
	if err != nil || servers[0] != host+":53" {
		t.Errorf("servers %v, %v", servers, err)
	}
	l := &lookup{resolver: r, ctx: t.Context(), ttl: time.Hour, servers: []string{net.JoinHostPort(host, port)}, names: names}
	got, err := l.addresses("web", names, 80, "ipv4", Target{Name: "web:80", Weight: 1})
	if diff := cmp.Diff([]Target{{"192.0.2.7:80", "web:80", 0, 1}}, got); err != nil || diff != "" {
		t.Errorf("with a search domain: %v (-want +got)\n%s", err, diff)
	}
}
