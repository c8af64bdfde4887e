package gateway

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/snapshot"
)

// BenchmarkRoutes is what a request costs that depends on the number of routes: to find its route, to take its steps and to
// count it. Routes are asked for at random, so that little of them is in the processor's caches.
func BenchmarkRoutes(b *testing.B) {
	const each = 100 // operations of an API
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r, w := newRig(b), sample()
			var paths []exchange.View
			for first := 0; first < n; first += each {
				a := snapshot.API{
					Organization: "acme", Environment: "prod", Name: fmt.Sprintf("shop-%04d", first/each), Backend: "catalog",
					BasePath: fmt.Sprintf("/shop-%04d/v1", first/each), BackendPath: "/",
				}
				for i := range min(each, n-first) {
					a.Operations = append(a.Operations, snapshot.Operation{
						Name: fmt.Sprintf("getThing%02d", i), Method: "GET", Path: fmt.Sprintf("/things-%02d/{id}", i),
					})
					paths = append(paths, fmt.Appendf(nil, "%s/things-%02d/17", a.BasePath, i))
				}
				w.put(a)
			}
			r.apply(w)
			rng := rand.New(rand.NewPCG(1, 2))
			asked := make([]exchange.View, 1<<14)
			for i := range asked {
				asked[i] = append(exchange.View(nil), paths[rng.IntN(len(paths))]...)
			}
			x := newExchange(r, "GET", "api.example.com", "/")
			x.Status, x.Duration = 200, time.Millisecond
			p, i := r.plan.Load(), 0
			runtime.GC() // what making all that has left behind is not collected at the requests' cost
			measure(b, func() {
				x.Path = asked[i%len(asked)]
				i++
				if !r.route(x, p) || x.Route.Backend == nil || exchange.RunSteps(x.Route.Request, x) != exchange.Continue ||
					exchange.RunSteps(x.Route.Response, x) != exchange.Continue || x.Route.MaxRequestBytes > 0 {
					b.Fatal("no route")
				}
				r.metrics.count(x)
			})
		})
	}
}
