package apikey

import (
	"strings"
	"testing"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/policy/policytest"
	"hansa.dev/hansa/internal/snapshot"
)

func world(t testing.TB) *policytest.World {
	t.Helper()
	w := policytest.New(t)
	w.Key("good", "shop", nil)
	w.Key("sp ace&", "space", nil)
	w.Key("revoked", "bad", func(c *snapshot.Credential) { c.State = snapshot.StateRevoked })
	w.Key("suspended", "late", func(c *snapshot.Credential) { c.State = snapshot.StateSuspended })
	w.Key("expired", "old", func(c *snapshot.Credential) { c.ExpiresAt = policytest.Now })
	w.Key("current", "young", func(c *snapshot.Credential) { c.ExpiresAt = policytest.Now + 1 })
	w.Key("other", "other", func(c *snapshot.Credential) { c.Product = "other" })
	w.Key("gone", "gone", func(c *snapshot.Credential) { c.Product = "no-such-product" })
	w.Key("foreign", "foreign", func(c *snapshot.Credential) { c.Organization = "umbrella" })
	return w
}

const (
	inHeader = `{"header":"X-API-Key"}`
	inBoth   = `{"header":"X-Key","query":"api_key"}`
	inQuery  = `{"query":"api_key"}`
)

func TestKeys(t *testing.T) {
	t.Parallel()
	w := world(t)
	for _, tc := range []struct {
		name, settings, header, key, query string
		code                               exchange.Code
		wantQuery                          string
	}{
		{"good", inHeader, "x-api-key", "good", "", exchange.CodeNone, ""},
		{"missing", inHeader, "X-Other", "good", "api_key=good", exchange.KeyMissing, "api_key=good"},
		{"empty", inHeader, "X-API-Key", "", "", exchange.KeyMissing, ""},
		{"unknown", inHeader, "X-API-Key", "nobody", "", exchange.KeyInvalid, ""},
		{"too long", inHeader, "X-API-Key", strings.Repeat("k", 5000), "", exchange.KeyInvalid, ""},
		{"of another organization", inHeader, "X-API-Key", "foreign", "", exchange.KeyInvalid, ""},
		{"revoked", inHeader, "X-API-Key", "revoked", "", exchange.Revoked, ""},
		{"suspended", inHeader, "X-API-Key", "suspended", "", exchange.NotSubscribed, ""},
		{"expired", inHeader, "X-API-Key", "expired", "", exchange.KeyExpired, ""},
		{"about to expire", inHeader, "X-API-Key", "current", "", exchange.CodeNone, ""},
		{"product without the API", inHeader, "X-API-Key", "other", "", exchange.NotSubscribed, ""},
		{"product that is gone", inHeader, "X-API-Key", "gone", "", exchange.NotSubscribed, ""},
		{"query", inQuery, "", "", "a=1&api_key=good&b=2", exchange.CodeNone, "a=1&b=2"},
		{"query alone", inQuery, "", "", "api_key=good", exchange.CodeNone, ""},
		{"query first", inQuery, "", "", "api_key=good&b", exchange.CodeNone, "b"},
		{"query last", inQuery, "", "", "a&api_key=good", exchange.CodeNone, "a"},
		{"query twice", inQuery, "", "", "api_key=good&x&api_key=second", exchange.CodeNone, "x"},
		{"query encoded", inQuery, "", "", "api%5Fkey=sp+ace%26&c=%20", exchange.CodeNone, "c=%20"},
		{"query malformed", inQuery, "", "", "api_key=%zz", exchange.KeyInvalid, ""},
		{"query of another name", inQuery, "", "", "api_keys=good&xapi_key=good", exchange.KeyMissing, "api_keys=good&xapi_key=good"},
		{"header before query", inBoth, "X-Key", "good", "api_key=nobody", exchange.CodeNone, ""},
		{"query when there is no header", inBoth, "", "", "api_key=good", exchange.CodeNone, ""},
		{"forwarded", `{"query":"api_key","forward":true}`, "", "", "api_key=good", exchange.CodeNone, "api_key=good"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			step, err := New([]byte(tc.settings), w.Env)
			if err != nil {
				t.Fatal(err)
			}
			fields := map[string]string{}
			if tc.header != "" {
				fields[tc.header] = tc.key
			}
			x := w.Exchange(tc.query, fields)
			verdict := step.Run(x)
			if x.Code != tc.code || (verdict == exchange.Continue) != (tc.code == exchange.CodeNone) {
				t.Fatalf("Run = %v with code %q, want code %q", verdict, x.Code, tc.code)
			}
			if got := len(x.Own.Known(exchange.IDWWWAuthenticate)) > 0; got != (x.Status == 401) {
				t.Errorf("status %d, WWW-Authenticate %q", x.Status, x.Own.Known(exchange.IDWWWAuthenticate))
			}
			if string(x.Query) != tc.wantQuery || x.HasQuery != (tc.wantQuery != "") {
				t.Errorf("the backend would see the query %q, want %q", x.Query, tc.wantQuery)
			}
			if tc.header != "" && tc.header != "X-Other" && x.Req.Get(exchange.NameOf(tc.header)) != nil {
				t.Error("the backend would see the header field with the key")
			}
			if p := policy.ProductOf(x); tc.code == exchange.CodeNone && (p == nil || p.Name != "gold" || x.Consumer.Record == nil) {
				t.Errorf("product %v, consumer %+v", p, x.Consumer)
			}
		})
	}
}

func TestConsumerIsKnownToTheLog(t *testing.T) {
	t.Parallel()
	w := world(t)
	step, err := New([]byte(inHeader), w.Env)
	if err != nil {
		t.Fatal(err)
	}
	x := w.Exchange("", map[string]string{"X-API-Key": "revoked"})
	step.Run(x)
	if c := x.Consumer; c.LogMembers != "bad-app gold" || c.Record == nil {
		t.Fatalf("consumer of a refused request: %+v", c)
	}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	w := world(t)
	for settings, want := range map[string]string{
		inHeader: `ApiKey header="X-API-Key"`, inQuery: `ApiKey query="api_key"`, inBoth: `ApiKey header="X-Key", query="api_key"`,
	} {
		step, err := New([]byte(settings), w.Env)
		if err != nil {
			t.Fatal(err)
		}
		x := w.Exchange("", nil)
		step.Run(x)
		if got := string(x.Own.Known(exchange.IDWWWAuthenticate)); got != want {
			t.Errorf("%s: WWW-Authenticate: %s, want %s", settings, got, want)
		}
	}
}

func TestForwardKeepsTheHeader(t *testing.T) {
	t.Parallel()
	w := world(t)
	step, err := New([]byte(`{"header":"X-API-Key","forward":true}`), w.Env)
	if err != nil {
		t.Fatal(err)
	}
	x := w.Exchange("", map[string]string{"X-API-Key": "good"})
	if step.Run(x) != exchange.Continue || string(x.Req.Known(exchange.IDXAPIKey)) != "good" {
		t.Fatalf("code %q, header %q", x.Code, x.Req.Known(exchange.IDXAPIKey))
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, settings := range []string{``, `{}`, `{"header":"not a name"}`, `{"header":"Content-Length"}`, `{"header":1}`} {
		if _, err := New([]byte(settings), world(t).Env); err == nil {
			t.Errorf("New(%s) = nil error", settings)
		}
	}
}

// Whatever the query, what is taken out is exactly the parameters of that name.
func FuzzRemoveFromQuery(f *testing.F) {
	f.Add("a=1&api_key=good&b=2")
	f.Add("&&api_key&api_key=&%61pi_key=x&")
	f.Fuzz(func(t *testing.T, query string) {
		s := &step{query: "api_key"}
		x := new(exchange.Exchange)
		x.Query, x.HasQuery = exchange.View(query), true
		s.removeFromQuery(x)
		var want []string
		for pair := range strings.SplitSeq(query, "&") {
			if name, _, _ := strings.Cut(pair, "="); !sameName([]byte(name), "api_key") {
				want = append(want, pair)
			}
		}
		if got := string(x.Query); got != strings.Join(want, "&") {
			t.Fatalf("%q of %q, want %q", got, query, strings.Join(want, "&"))
		}
	})
}

func TestRunAllocatesNothing(t *testing.T) {
	w := world(t)
	step, err := New([]byte(inBoth), w.Env)
	if err != nil {
		t.Fatal(err)
	}
	name := exchange.NameOf("X-Key")
	x := w.Exchange("", nil)
	query := exchange.View("a=1&api_key=good&b=2")
	if n := testing.AllocsPerRun(1000, func() {
		x.Reset()
		x.Slots[policy.SlotProducts].Ptr = w.Products
		x.Req.AddString(name, "good")
		step.Run(x)
		x.Reset()
		x.Slots[policy.SlotProducts].Ptr = w.Products
		x.Query, x.HasQuery = query, true
		step.Run(x)
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

func BenchmarkRun(b *testing.B) {
	w := world(b)
	step, err := New([]byte(inHeader), w.Env)
	if err != nil {
		b.Fatal(err)
	}
	x := w.Exchange("", nil)
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Slots[policy.SlotProducts].Ptr = w.Products
		x.Req.AddString(exchange.IDXAPIKey.Name(), "good")
		if step.Run(x) != exchange.Continue {
			b.Fatal(x.Code)
		}
	}
}
