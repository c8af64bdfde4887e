package ingress_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/ingress"
)

func TestAuthority(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a": "a", "API.Example.com:443": "api.example.com:443", "[::1]:80": "[::1]:80", "10.0.0.1": "10.0.0.1",
		"a.": "a.", "a_b": "a_b", "[::1]": "[::1]", "a:": "a:",
	} {
		var x exchange.Exchange
		if !ingress.SetAuthority(&x, []byte(in)) || x.Authority.String() != want {
			t.Errorf("authority %q became %q, want %q", in, x.Authority, want)
		}
	}
	for _, in := range []string{"", "a b", "u@a", "a:99999999", "a:x", "[::1", "[zz]", ".a", "a%41", "a/b", "[::1]x", strings.Repeat("a", 256)} {
		if ingress.ValidAuthority([]byte(in)) {
			t.Errorf("authority %q is taken", in)
		}
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/a?b=c": "/a b=c", "": "/ ", "/a/./b//c?": "/a/b/c ", "/%7e?x/../y": "/~ x/../y",
	} {
		var x exchange.Exchange
		if err := ingress.SetPath(&x, []byte(in)); err != nil || x.Path.String()+" "+x.Query.String() != want {
			t.Errorf("path %q became %q %q, %v; want %q", in, x.Path, x.Query, err, want)
		}
	}
	for _, in := range []string{"/a#b", "/a?b#c", "/%00", "/../../.."} {
		var x exchange.Exchange
		if err := ingress.SetPath(&x, []byte(in)); err == nil {
			t.Errorf("path %q is taken as %q", in, x.Path)
		}
	}
}

// TestAnnounce shows what a backend is told of a client, by whether the client is a trusted proxy.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	rules := ingress.Rules{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Forwarded: true, Via: "hansa"}
	sent := []string{"X-Forwarded-For: 1.2.3.4, 10.0.0.9", "X-Request-Id: forged", "X-Forwarded-Proto: https", "Accept: x"}
	for peer, want := range map[string][]string{
		"10.0.0.1:5": {
			"1.2.3.4", "X-Forwarded-Proto: https", "Accept: x", "X-Forwarded-For: 1.2.3.4, 10.0.0.9, 10.0.0.1", "X-Forwarded-Host: a",
			`Forwarded: for=10.0.0.1;host="a";proto=http`, "Via: 2.0 hansa", "X-Request-Id: ID",
		},
		"[2001:db8::1]:5": {
			"2001:db8::1", "Accept: x", "X-Forwarded-For: 2001:db8::1", "X-Forwarded-Proto: http", "X-Forwarded-Host: a",
			`Forwarded: for="[2001:db8::1]";host="a";proto=http`, "Via: 2.0 hansa", "X-Request-Id: ID",
		},
	} {
		x := exchange.Exchange{Scheme: "http"}
		copy(x.ID[:], "ID")
		ingress.SetAuthority(&x, []byte("a"))
		for _, line := range sent {
			name, value, _ := strings.Cut(line, ": ")
			x.Req.AddString(exchange.NameOf(name), value)
		}
		c := rules.Client(netip.MustParseAddrPort(peer))
		c.Introduce(&x)
		if f := rules.Announce(&x, &c, "2.0"); f != nil {
			t.Errorf("from %s: %v", peer, f)
		}
		got := []string{x.ClientIP.String()}
		for name, value := range x.Req.All() {
			got = append(got, string(name)+": "+strings.TrimRight(string(value), "\x00"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %s:\ngot  %q\nwant %q", peer, got, want)
		}
	}
}

// TestForwarded shows who the client is if a trusted proxy says so in Forwarded, and what becomes of that field.
func TestForwarded(t *testing.T) {
	t.Parallel()
	rules := ingress.Rules{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	const added = `for=10.0.0.1;proto=http`
	for _, tt := range []struct {
		in                []string
		client, forwarded string
	}{
		{[]string{"for=1.2.3.4"}, "1.2.3.4", "for=1.2.3.4|" + added},
		{[]string{`proto=https;For="[2001:db8::1]:80";by=x, for=10.0.0.2`}, "2001:db8::1", `proto=https;For="[2001:db8::1]:80";by=x, for=10.0.0.2|` + added},
		{[]string{`for="[2001:db8::7]"`}, "2001:db8::7", `for="[2001:db8::7]"|` + added},
		{[]string{"for=6.6.6.6", "for=1.2.3.4:99, for=10.1.1.1"}, "1.2.3.4", "for=6.6.6.6|for=1.2.3.4:99, for=10.1.1.1|" + added},
		{[]string{`host="a,for=9.9.9.9";for=1.2.3.4`}, "1.2.3.4", `host="a,for=9.9.9.9";for=1.2.3.4|` + added},
		{[]string{"for=9.9.9.9, for=unknown, for=10.0.0.2"}, "10.0.0.2", "for=9.9.9.9, for=unknown, for=10.0.0.2|" + added},
		{[]string{"for=9.9.9.9, proto=http"}, "10.0.0.1", "for=9.9.9.9, proto=http|" + added},
		{[]string{", for=1.2.3.4 ,, "}, "1.2.3.4", ", for=1.2.3.4 ,, |" + added},
		// Malformed: nothing of it is believed or passed on.
		{[]string{`for="1.2.3.4`}, "10.0.0.1", ""},
		{[]string{`for=1.2.3.4;for=5.6.7.8`}, "10.0.0.1", ""},
		{[]string{`for=1.2.3.4 5`}, "10.0.0.1", ""},
		{[]string{`for`}, "10.0.0.1", ""},
		{[]string{`for=`}, "10.0.0.1", ""},
		{[]string{`=1.2.3.4`}, "10.0.0.1", ""},
		{[]string{strings.Repeat("for=1.2.3.4,", 33)}, "10.0.0.1", ""},
	} {
		x := exchange.Exchange{Scheme: "http"}
		for _, v := range tt.in {
			x.Req.AddString(exchange.IDForwarded.Name(), v)
		}
		c := rules.Client(netip.MustParseAddrPort("10.0.0.1:5"))
		c.Introduce(&x)
		if f := rules.Announce(&x, &c, "1.1"); f != nil {
			t.Fatal(f)
		}
		var got []string
		for v := range x.Req.Values(exchange.IDForwarded.Name()) {
			got = append(got, v.String())
		}
		if x.ClientIP.String() != tt.client || strings.Join(got, "|") != tt.forwarded {
			t.Errorf("%q: client %q and Forwarded %q, want %q and %q", tt.in, x.ClientIP, got, tt.client, tt.forwarded)
		}
		if v := x.Req.Known(exchange.IDXForwardedFor); !strings.HasSuffix(v.String(), "10.0.0.1") || !strings.HasPrefix(v.String(), tt.client) {
			t.Errorf("%q: X-Forwarded-For is %q", tt.in, v)
		}
	}
}

// TestForwardedHow makes X-Forwarded-Proto and X-Forwarded-Host of what the first trusted proxy says of the client in Forwarded.
func TestForwardedHow(t *testing.T) {
	t.Parallel()
	rules := ingress.Rules{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, tt := range []struct{ peer, forwarded, protoField, hostField, proto, host string }{
		{"10.0.0.1", "for=1.2.3.4;proto=https;host=shop.example", "", "", "https", "shop.example"},
		{"10.0.0.1", `for=1.2.3.4;proto=HTTPS;host="shop.example:8443"`, "", "", "https", "shop.example:8443"},
		{"10.0.0.1", "for=1.2.3.4;proto=https;host=shop.example, for=10.0.0.2;proto=http;host=inner", "", "", "https", "shop.example"},
		{"10.0.0.1", "for=6.6.6.6;proto=https;host=evil, for=1.2.3.4;proto=http;host=shop.example", "", "", "http", "shop.example"},
		{"10.0.0.1", "for=1.2.3.4;proto=https;host=shop.example", "http", "b", "http", "b"},
		{"10.0.0.1", `for=1.2.3.4;proto=gopher;host="a,b"`, "", "", "http", "a"},
		{"10.0.0.1", "proto=https;host=shop.example", "", "", "http", "a"},
		{"10.0.0.1", "for=1.2.3.4;proto=https;proto=http", "", "", "http", "a"},
		{"192.0.2.1", "for=1.2.3.4;proto=https;host=shop.example", "", "", "http", "a"},
	} {
		x := exchange.Exchange{Scheme: "http"}
		ingress.SetAuthority(&x, []byte("a"))
		x.Req.AddString(exchange.IDForwarded.Name(), tt.forwarded)
		if tt.protoField != "" {
			x.Req.AddString(exchange.IDXForwardedProto.Name(), tt.protoField)
			x.Req.AddString(exchange.IDXForwardedHost.Name(), tt.hostField)
		}
		c := rules.Client(netip.MustParseAddrPort(tt.peer + ":5"))
		c.Introduce(&x)
		if f := rules.Announce(&x, &c, "1.1"); f != nil {
			t.Fatal(f)
		}
		proto, host := x.Req.Known(exchange.IDXForwardedProto).String(), x.Req.Known(exchange.IDXForwardedHost).String()
		if proto != tt.proto || host != tt.host || x.Req.Count(exchange.IDXForwardedProto) != 1 || x.Req.Count(exchange.IDXForwardedHost) != 1 {
			t.Errorf("%s: %q: %s and %s, want %s and %s", tt.peer, tt.forwarded, proto, host, tt.proto, tt.host)
		}
		if trusted := tt.peer == "10.0.0.1"; x.Proxied != trusted {
			t.Errorf("from %s: Proxied is %v", tt.peer, x.Proxied)
		}
	}
}

// FuzzForwarded looks that nothing a proxy says leads to an address that it did not write.
func FuzzForwarded(f *testing.F) {
	f.Add(`for="[2001:db8::1]:80";by=x, for=10.0.0.2`)
	f.Add(`host="a,for=9.9.9.9";for=1.2.3.4`)
	rules := ingress.Rules{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, v string) {
		x := exchange.Exchange{Scheme: "http"}
		x.Req.AddString(exchange.IDForwarded.Name(), v)
		c := rules.Client(netip.MustParseAddrPort("10.0.0.1:5"))
		c.Introduce(&x)
		rules.Announce(&x, &c, "1.1")
		if _, err := netip.ParseAddr(x.ClientIP.String()); err != nil {
			t.Errorf("%q: the client is %q", v, x.ClientIP)
		}
	})
}

// FuzzForwardedFor compares with a plain reading of the list, from its end on: the client is the first address that is not a
// trusted proxy's, or the last one that can be read.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "9.9.9.9, 1.2.3.4:80, 10.0.0.7", "[2001:db8::1]:80,10.1.1.1", "10.0.0.1\t,, 10.0.0.2", "::ffff:10.0.0.1", "unknown, 1.1.1.1", "fe80::1%eth0", ""} {
		f.Add(s, "10.0.0.9")
		f.Add("9.9.9.9", s)
	}
	trusted := netip.MustParsePrefix("10.0.0.0/8")
	rules := ingress.Rules{Trusted: []netip.Prefix{trusted}}
	f.Fuzz(func(t *testing.T, one, two string) {
		if strings.ContainsAny(one+two, "\r\n\x00") {
			return // no parser lets that pass
		}
		x := exchange.Exchange{Scheme: "http"}
		x.Req.AddString(exchange.IDXForwardedFor.Name(), one)
		x.Req.AddString(exchange.IDXForwardedFor.Name(), two)
		c := rules.Client(netip.MustParseAddrPort("10.0.0.1:5"))
		c.Introduce(&x)
		rules.Announce(&x, &c, "1.1")
		want := netip.MustParseAddr("10.0.0.1")
		list := strings.Split(one+", "+two, ",")
		for _, s := range slices.Backward(list) {
			s = strings.TrimSpace(s)
			host := s
			if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
				host = s[1 : len(s)-1]
			}
			a, err := netip.ParseAddr(host)
			if p, portErr := netip.ParseAddrPort(s); portErr == nil {
				a, err = p.Addr(), nil
			}
			if err != nil || len(s) > 64 {
				break
			}
			if want = a.Unmap(); !trusted.Contains(want) {
				break
			}
		}
		if x.ClientIP.String() != want.String() {
			t.Errorf("%q, %q: the client is %q, want %q", one, two, x.ClientIP, want)
		}
		if v := x.Req.Known(exchange.IDXForwardedFor).String(); v != one+", "+two+", 10.0.0.1" || x.Req.Count(exchange.IDXForwardedFor) != 1 {
			t.Errorf("%q, %q: X-Forwarded-For is %q", one, two, v)
		}
	})
}

// TestLoop shows when a request counts as having been here before.
func TestLoop(t *testing.T) {
	t.Parallel()
	rules := ingress.Rules{Via: "hansa-1"}
	for via, want := range map[string]bool{
		"1.1 hansa-1": true, "1.0 fred, 1.1 HANSA-1 (Hansa)": true, "HTTP/1.1\thansa-1": true, "1.1  hansa-1(x)": true,
		"1.1 hansa-10": false, "1.1 hansa": false, "hansa-1": false, "": false, "1.1 x hansa-1": false,
	} {
		x := exchange.Exchange{Scheme: "http"}
		x.Req.AddString(exchange.IDVia.Name(), via)
		c := rules.Client(netip.MustParseAddrPort("192.0.2.1:5"))
		f := rules.Announce(&x, &c, "1.1")
		if got := f != nil && f.Code == exchange.LoopDetected; got != want {
			t.Errorf("Via %q: %v, want %v", via, f, want)
		}
	}
}
