package policy_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/policy/policytest"
	"hansa.dev/hansa/internal/gateway/policy/quota"
	"hansa.dev/hansa/internal/gateway/policy/ratelimit"
	"hansa.dev/hansa/internal/snapshot"
)

// withKey is the exchange of a consumer after the policy apiKey.
func withKey(t testing.TB, w *policytest.World, value string) *exchange.Exchange {
	t.Helper()
	r, ok := w.Table.Lookup(snapshot.HashCredential([]byte(value)))
	if !ok {
		t.Fatalf("no key %q", value)
	}
	x := w.Exchange("", nil)
	consumer(x, w, r)
	return x
}

func consumer(x *exchange.Exchange, w *policytest.World, r *credential.Record) {
	x.Consumer.Record = r
	x.Slots[policy.SlotProduct].Ptr = w.Products[r.ProductID]
}

func factory(t testing.TB, w *policytest.World, name, settings string) exchange.Step {
	t.Helper()
	f := map[string]policy.Factory{"quota": quota.New, "rateLimit": ratelimit.New}[name]
	step, err := f([]byte(settings), w.Env)
	if err != nil {
		t.Fatal(err)
	}
	return step
}

func TestQuotaOfTheProduct(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	w.Key("a", "shop", nil)
	w.Key("b", "shop", nil) // the other key of the subscription
	w.Key("c", "mall", nil)
	step := factory(t, w, "quota", `{"by":"subscription"}`)
	for i, key := range []string{"a", "b", "a"} {
		x := withKey(t, w, key)
		if v := step.Run(x); v != exchange.Continue {
			t.Fatalf("request %d of 3: %v", i+1, v)
		}
		if got, want := string(x.Own.Known(exchange.IDRateLimit)), fmt.Sprintf(`"quota";r=%d;t=3600`, 2-i); got != want {
			t.Errorf("RateLimit: %s, want %s", got, want)
		}
		if got, want := string(x.Own.Known(exchange.IDRateLimitPolicy)), `"quota";q=3;w=3600`; got != want {
			t.Errorf("RateLimit-Policy: %s, want %s", got, want)
		}
	}
	x := withKey(t, w, "b")
	x.Start = x.Start.Add(1500 * time.Millisecond)
	if v := step.Run(x); v != exchange.Responded || x.Code != exchange.QuotaExceeded || x.Status != 429 {
		t.Fatalf("the fourth of three: %v, code %q", v, x.Code)
	}
	if got := string(x.Own.Known(exchange.IDRetryAfter)); got != "3599" {
		t.Errorf("Retry-After: %s, want 3599", got)
	}
	if got, want := string(x.Own.Known(exchange.IDRateLimit)), `"quota";r=0;t=3599`; got != want {
		t.Errorf("RateLimit: %s, want %s", got, want)
	}
	if x.Detail != "3 requests may pass in 1h" {
		t.Errorf("detail %q", x.Detail)
	}
	if step.Run(withKey(t, w, "c")) != exchange.Continue {
		t.Error("another subscription pays for the first")
	}
	x = withKey(t, w, "a")
	x.Start = x.Start.Add(time.Hour)
	if step.Run(x) != exchange.Continue {
		t.Error("the next window is closed")
	}
}

func TestRateLimitOfTheProduct(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	w.Key("a", "shop", nil)
	step := factory(t, w, "rateLimit", `{"by":"subscription"}`)
	for range 2 {
		if step.Run(withKey(t, w, "a")) != exchange.Continue {
			t.Fatal("refused within the limit")
		}
	}
	x := withKey(t, w, "a")
	if v := step.Run(x); v != exchange.Responded || x.Code != exchange.RateLimited || string(x.Own.Known(exchange.IDRetryAfter)) == "" {
		t.Fatalf("Run = %v with code %q", v, x.Code)
	}
}

func TestProductWithoutLimitBoundsNothing(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	w.Key("a", "shop", func(c *snapshot.Credential) { c.Product = "plain" })
	step := factory(t, w, "quota", `{"by":"subscription"}`)
	for range 100 {
		x := withKey(t, w, "a")
		if step.Run(x) != exchange.Continue || x.Own.Len() != 0 {
			t.Fatal("a limit that nobody set")
		}
	}
}

func TestWhoSharesALimit(t *testing.T) {
	t.Parallel()
	type request struct {
		key, ip string
		pass    bool
	}
	for _, tc := range []struct {
		policy, by string
		requests   []request
	}{
		{"rateLimit", "subscription", []request{{"a", "", true}, {"a2", "", false}, {"b", "", true}}},
		{"rateLimit", "application", []request{{"a", "", true}, {"b", "", false}, {"c", "", true}}},
		{"rateLimit", "clientIP", []request{{"a", "192.0.2.1", true}, {"c", "192.0.2.1", false}, {"a", "192.0.2.2", true}}},
		{"rateLimit", "api", []request{{"a", "192.0.2.1", true}, {"c", "192.0.2.2", false}}},
		{"quota", "application", []request{{"a", "", true}, {"b", "", false}, {"c", "", true}}},
		{"quota", "api", []request{{"a", "", true}, {"c", "", false}}},
	} {
		t.Run(tc.policy+" by "+tc.by, func(t *testing.T) {
			t.Parallel()
			w := policytest.New(t)
			w.Key("a", "shop", nil)
			w.Key("a2", "shop", nil)
			w.Key("b", "shop", func(c *snapshot.Credential) { c.Subscription = "second-sub" })
			w.Key("c", "mall", nil)
			step := factory(t, w, tc.policy, `{"limit":1,"window":"1h","by":"`+tc.by+`"}`)
			for i, r := range tc.requests {
				x := withKey(t, w, r.key)
				if r.ip != "" {
					x.ClientIP = exchange.View(r.ip) // as a trusted proxy reports it
				}
				if got := step.Run(x) == exchange.Continue; got != r.pass {
					t.Errorf("request %d with key %s from %s: passed %v, want %v", i, r.key, r.ip, got, r.pass)
				}
			}
		})
	}
}

// Two policies with limits of their own count apart, and each goes on counting when the configuration is read anew.
func TestCountsBelongToThePolicy(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	const settings = `{"limit":2,"window":"1h","by":"api"}`
	first := factory(t, w, "quota", settings)
	w.Env.Ordinal = 1
	second := factory(t, w, "quota", settings)
	w.Env.Ordinal = 0
	again := factory(t, w, "quota", `{"limit":3,"window":"1h","by":"api"}`)
	run := func(s exchange.Step) bool { return s.Run(w.Exchange("", nil)) == exchange.Continue }
	for i, want := range []bool{true, true, false} {
		if run(first) != want {
			t.Fatalf("request %d of the first policy: passed %v, want %v", i, !want, want)
		}
	}
	if !run(second) {
		t.Error("the second policy pays for the first")
	}
	if !run(again) || run(again) {
		t.Error("a raised limit does not apply to the running window")
	}
}

// A limit that should be shared by what nobody has found out must not be no limit.
func TestUnknownConsumerIsRefused(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	step := factory(t, w, "quota", `{"limit":1,"window":"1h","by":"subscription"}`)
	x := w.Exchange("", nil)
	if v := step.Run(x); v != exchange.Responded || x.Code != exchange.Internal {
		t.Fatalf("Run = %v with code %q", v, x.Code)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	w := policytest.New(t)
	for _, settings := range []string{
		`{"limit":1,"by":"api"}`, `{"window":"1h","by":"api"}`, `{"limit":1,"window":"10ms","by":"api"}`,
		`{"limit":1,"window":"1h","by":"moon"}`, `{"by":"api"}`, `{"limit":-1,"window":"1h","by":"api"}`, `{"limit":1,"window":"soon","by":"api"}`,
	} {
		if _, err := quota.New([]byte(settings), w.Env); err == nil {
			t.Errorf("quota.New(%s) = nil error", settings)
		}
		if _, err := ratelimit.New([]byte(settings), w.Env); err == nil {
			t.Errorf("ratelimit.New(%s) = nil error", settings)
		}
	}
	if _, err := policy.NewProduct(snapshot.Product{Name: "p", Quota: &snapshot.Limit{Limit: 1}}); err == nil {
		t.Error("a product with a window of 0 was accepted")
	}
}

func TestLimiterAllocatesNothing(t *testing.T) {
	w := policytest.New(t)
	w.Key("a", "shop", nil)
	r, _ := w.Table.Lookup(snapshot.HashCredential([]byte("a")))
	steps := []exchange.Step{
		factory(t, w, "rateLimit", `{"limit":1000000,"window":"1s","by":"clientIP"}`),
		factory(t, w, "quota", `{"by":"subscription"}`), // used up after three
		factory(t, w, "quota", `{"limit":1000000,"window":"1h","by":"application"}`),
	}
	x := w.Exchange("", nil)
	peer, ip := netip.MustParseAddrPort("[2001:db8::1]:1"), exchange.View("2001:db8::1")
	if n := testing.AllocsPerRun(1000, func() {
		x.Reset()
		x.Peer, x.ClientIP = peer, ip
		consumer(x, w, r)
		for _, s := range steps {
			s.Run(x)
		}
	}); n != 0 {
		t.Fatalf("%v allocations, want 0", n)
	}
}

func BenchmarkLimiter(b *testing.B) {
	w := policytest.New(b)
	w.Key("a", "shop", nil)
	r, _ := w.Table.Lookup(snapshot.HashCredential([]byte("a")))
	for name, settings := range map[string]string{"rateLimit": `{"limit":1000000000,"window":"1s","by":"subscription"}`, "quota": `{"limit":1000000000,"window":"1h","by":"subscription"}`} {
		b.Run(name, func(b *testing.B) {
			step := factory(b, w, name, settings)
			x := w.Exchange("", nil)
			consumer(x, w, r)
			b.ReportAllocs()
			for b.Loop() {
				x.Own.Reset()
				if step.Run(x) != exchange.Continue {
					b.Fatal(x.Code)
				}
			}
		})
	}
}
