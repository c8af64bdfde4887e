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
		if !rules.Announce(&x, &c, "2.0") {
			t.Errorf("from %s: no room", peer)
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
