package gateway

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/snapshot"
)

// BenchmarkKeys is what an API key, a quota and a line of the access log cost: the difference between its two cases. 10,000 keys of 1,000
// applications are used at random. As between the requests of a gateway, the processor works on something else that leaves little
// of all this in its caches.
func BenchmarkKeys(b *testing.B) {
	const keys, applications = 10_000, 1_000
	for name, path := range map[string]string{"plain": "/open/items/17", "key+quota": "/keyed/items/17"} {
		b.Run(name, func(b *testing.B) {
			r, w := newRig(b), sample()
			w.put(snapshot.Product{
				Organization: "acme", Name: "gold", APIs: []string{"keyed"}, Quota: &snapshot.Limit{Limit: 1e12 - 1, WindowMillis: 86_400_000},
			})
			r.apply(w)
			rng := rand.New(rand.NewPCG(1, 2))
			values := make([][]byte, keys)
			changes := make([]snapshot.CredentialChange, keys)
			for i := range values {
				values[i] = fmt.Appendf(nil, "%020x%020x", rng.Uint64(), rng.Uint64())
				app := fmt.Sprintf("app-%06d", i%applications)
				changes[i].Credential = snapshot.Credential{
					Hash: snapshot.HashCredential(values[i]), ID: fmt.Sprint("key-", i), Organization: "acme",
					Subscription: app, Application: app, Product: "gold", CreatedAt: 1,
				}
			}
			r.creds = r.creds.With(changes)
			if err := r.ApplyCredentials(b.Context(), snapshot.Checkpoint{}, r.creds); err != nil {
				b.Fatal(err)
			}
			if name == "plain" {
				var err error
				if r.access, err = accesslog.New(accesslog.Options{}); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { _ = r.access.Close() })
			}
			request := r.request(path)
			others, sum := make([]byte, 8<<20), byte(0)
			for _, v := range values {
				request(v)
			}
			runtime.GC()
			measure(b, func() {
				for range 256 {
					sum += others[rng.IntN(len(others))]
				}
				request(values[rng.IntN(keys)])
			})
			runtime.KeepAlive(sum)
		})
	}
}

// request returns a function that sends one request with a key, with memory reused as an engine reuses it.
func (r *rig) request(path string) func(key []byte) {
	x, d := new(exchange.Exchange), new(fakeDown)
	prepare(x, r.clock, "GET", host, path)
	method, hostname, p, client := x.Method, x.Host, x.Path, x.ClientIP
	name := exchange.IDXAPIKey.Name()
	src, body := new(exchange.Bytes), []byte("hello")
	r.backendCall("catalog", func(x *exchange.Exchange, _ exchange.Down) (exchange.Source, exchange.Verdict) {
		x.Status, x.Backend, x.Endpoint, x.Upstream = 200, "catalog", "192.0.2.9:80", 345*time.Microsecond
		src.Reset(body)
		return src, exchange.Continue
	})
	out := make([]byte, 0, 1024)
	return func(key []byte) {
		x.Reset()
		x.Method, x.Host, x.Path, x.ClientIP = method, hostname, p, client
		x.Req.Add(name, key)
		r.Serve(x, d)
		if x.Status != 200 {
			r.t.Fatal(x.Status, x.Code)
		}
		x.Resp.AddAll(&x.Own)
		out = x.Resp.AppendLines(out[:0], 0)
		x.Duration = time.Millisecond
		r.Done(x)
	}
}
