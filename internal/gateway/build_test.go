package gateway

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa.dev/hansa/internal/snapshot"
)

// Whatever path of changes leads to a configuration, the gateway decides as one that starts with it.
func TestChangesAddUp(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 12))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	environments := []string{"prod", "test", "stage"}
	bases := []string{"/", "/a", "/a/b", "/*/b", "/a/*", "/c", "/c/d/e"}
	w := sample()
	delete(w, "hosts/acme/public")
	r := newRig(t)
	r.apply(w)
	for step := range 150 {
		next := world{}
		maps.Copy(next, w)
		for range 1 + rng.IntN(4) {
			switch rng.IntN(5) {
			case 0: // an API comes or changes
				next.put(snapshot.API{
					Organization: "acme", Environment: pick(environments...), Name: pick("one", "two", "three", "four"), Revision: uint64(step),
					BasePath: pick(bases...), Backend: pick("catalog", "second"), BackendPath: "/",
					Operations: []snapshot.Operation{{Name: pick("x", "y"), Method: pick("GET", "*"), Path: pick("/", "/{id}", "/b", "/*")}},
				})
			case 1: // an API goes
				delete(next, snapshot.EntryKey(snapshot.ClassAPI, "acme", pick(environments...), pick("one", "two", "three", "four")))
			case 2: // hostnames change
				name := pick("g1", "g2")
				next.put(snapshot.Hosts{
					Organization: "acme", Name: name, Hostnames: []string{name + ".example.com", pick("*", "*.example.com", name+".other")},
					Environments: environments[:1+rng.IntN(3)],
				})
			case 3:
				delete(next, snapshot.EntryKey(snapshot.ClassHosts, "acme", pick("g1", "g2")))
			case 4:
				if b := (snapshot.Backend{Organization: "acme", Name: "second", Endpoints: snapshot.Endpoints("192.0.2.7:80")}); rng.IntN(2) == 0 {
					next.put(b)
				} else {
					delete(next, keyOf(b))
				}
			}
		}
		fresh := newRig(t)
		fresh.seq = uint64(step)
		errFresh, err := fresh.tryApply(next), r.tryApply(next)
		if (errFresh == nil) != (err == nil) {
			t.Fatalf("step %d: a change is refused with %v, the same configuration at the start with %v", step, err, errFresh)
		}
		if err == nil {
			w = next
		} else if fresh = newRig(t); fresh.tryApply(w) != nil {
			t.Fatal("the configuration that was in force is refused")
		}
		for range 60 {
			method, host := pick("GET", "POST"), pick("g1.example.com", "g2.example.com", "g1.other", "else.where")
			path := strings.Repeat("/", rng.IntN(2)) + pick("", "a", "a/b", "c", "x/b", "a/b/b", "c/d/e/b", "open/1")
			if !strings.HasPrefix(path, "/") {
				path = "/" + path
			}
			got, want := r.do(method, host, path), fresh.do(method, host, path)
			if got.status != want.status || got.api != want.api || got.operation != want.operation || got.forward != want.forward || got.body != want.body && got.status == 200 {
				t.Fatalf("step %d: %s %s%s = %d %s %s %q; from the start %d %s %s %q",
					step, method, host, path, got.status, got.api, got.operation, got.forward, want.status, want.api, want.operation, want.forward)
			}
		}
		if got, want := r.subjects.Len(), len(w); got > want+20 {
			t.Fatalf("step %d: %d subjects for %d entries", step, got, want)
		}
		r.subjects.Sweep(int64(2*step+1), 0)
		r.subjects.Sweep(int64(2*step+2), 0)
		apis := 0
		for key := range w {
			if strings.HasPrefix(key, "api/") {
				apis++
			}
		}
		if got := r.subjects.Len(); got != apis {
			t.Fatalf("step %d: %d subjects are held, want %d: one for each API", step, got, apis)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	api := func(edit func(*snapshot.API)) func(world) {
		return func(w world) {
			a := w["api/acme/prod/catalog"].(snapshot.API)
			a.Operations = append([]snapshot.Operation(nil), a.Operations...)
			edit(&a)
			w["api/acme/prod/catalog"] = a
		}
	}
	for _, tc := range []struct {
		name         string
		edit         func(world)
		entry, field string
	}{
		{"base path", api(func(a *snapshot.API) { a.BasePath = "no" }), "api/acme/prod/catalog", "basePath"},
		{"base path taken", api(func(a *snapshot.API) { a.BasePath = "/open" }), "hosts/acme/public", "environments"},
		{"backend path", api(func(a *snapshot.API) { a.BackendPath = "no" }), "api/acme/prod/catalog", "backendPath"},
		{"backend", api(func(a *snapshot.API) { a.Backend = "nowhere" }), "api/acme/prod/catalog", "backend"},
		{"backend taken away", func(w world) { delete(w, "backend/acme/catalog") }, "", "backend"},
		{"template", api(func(a *snapshot.API) { a.Operations[0].Path = "{" }), "api/acme/prod/catalog", "operations[0].path"},
		{"operation twice", api(func(a *snapshot.API) { a.Operations[1] = a.Operations[0] }), "api/acme/prod/catalog", "operations"},
		{"policy", api(func(a *snapshot.API) { a.Request = []snapshot.Policy{policyOf("later", `{}`)} }), "api/acme/prod/catalog", "request[0].use"},
		{"policy in a place of another", api(func(a *snapshot.API) { a.Response = []snapshot.Policy{policyOf("apiKey", `{}`)} }), "api/acme/prod/catalog", "response[0].use"},
		{"settings", api(func(a *snapshot.API) {
			a.Operations[1].Request = []snapshot.Policy{policyOf("respond", `{"status":204}`), policyOf("quota", `{"limit":1}`)}
		}), "api/acme/prod/catalog", "operations[1].request[1].config"},
		{"name", func(w world) {
			a := w["api/acme/prod/catalog"].(snapshot.API)
			a.Name = "other"
			w["api/acme/prod/catalog"] = a
		}, "api/acme/prod/catalog", "name"},
		{"not JSON of its class", func(w world) { w["api/acme/prod/catalog"] = []int{1} }, "api/acme/prod/catalog", ""},
		{"hosts", func(w world) { w["hosts/acme/public"] = "x" }, "hosts/acme/public", ""},
		{"hostname twice", func(w world) {
			w.put(snapshot.Hosts{Organization: "acme", Name: "second", Hostnames: []string{"api.example.com"}, Environments: []string{"prod"}})
		}, "", "hostnames"},
		{"product", func(w world) {
			w.put(snapshot.Product{Organization: "acme", Name: "gold", Quota: &snapshot.Limit{Limit: 1}})
		}, "product/acme/gold", ""},
		{"backend settings", func(w world) { w.put(snapshot.Backend{Organization: "acme", Name: "catalog"}) }, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.apply(sample())
			subjects := r.subjects.Len()
			w := sample()
			tc.edit(w)
			w.put(snapshot.API{Organization: "acme", Environment: "prod", Name: "fresh", BasePath: "/fresh", BackendPath: "/"})
			refused := refusal(t, r.tryApply(w))
			if tc.entry != "" && refused.Entry != tc.entry || refused.Field != tc.field || refused.Code != snapshot.RefusedCannotRun || refused.Detail == "" {
				t.Errorf("refusal %+v, want entry %q, field %q", refused, tc.entry, tc.field)
			}
			if a := r.do("GET", host, "/catalog/v1/items/1"); a.status != 200 || a.x.Route.Revision != 3 {
				t.Errorf("afterwards: %d; what was in force must stay", a.status)
			}
			if a := r.do("GET", host, "/fresh"); a.status != 404 {
				t.Errorf("a part of what was refused is in force: %d", a.status)
			}
			if last := r.lastRefusal; last == nil || last.Code != snapshot.RefusedCannotRun {
				t.Errorf("last refusal %+v", last)
			}
			if got := r.sum("hansa_gateway_config_last_reload_successful"); got != 0 {
				t.Errorf("metric of success %v", got)
			}
			if r.backends.commits != 1 {
				t.Errorf("backends were changed by what was refused")
			}
			r.subjects.Sweep(1, 0)
			r.subjects.Sweep(2, 0)
			if got := r.subjects.Len(); got != subjects {
				t.Errorf("%d subjects are held, %d before", got, subjects)
			}
			r.apply(sample())
			if got := r.sum("hansa_gateway_config_last_reload_successful"); got != 1 {
				t.Errorf("metric of success %v after the next configuration", got)
			}
		})
	}
}

// An entry that only newer gateways can read is as if it was not there (contract N-2).
func TestNewerEntriesArePassedOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	e, err := snapshot.NewEntry("api/acme/prod/open", 2, snapshot.ReaderVersion+1, false, map[string]any{"shape": "unknown"})
	if err != nil {
		t.Fatal(err)
	}
	set := sample().set(t).With([]snapshot.Entry{e}, nil)
	if err := r.Apply(t.Context(), snapshot.Checkpoint{Epoch: 1, Seq: 2}, set, nil); err != nil {
		t.Fatal(err)
	}
	if a := r.do("GET", host, "/open"); a.status != 404 {
		t.Errorf("an API in a form that cannot be read was served: %d", a.status)
	}
	if a := r.do("GET", host, "/catalog/v1/items/1"); a.status != 200 {
		t.Errorf("the others: %d", a.status)
	}
}

// Requests never fail while configurations come and go, and each sees one whole configuration.
func TestNoRequestFailsDuringChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(sample())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				x := newExchange(r, "GET", host, "/catalog/v1/items/1")
				d := new(fakeDown)
				r.Serve(x, d)
				r.Done(x)
				if x.Status != 200 {
					t.Errorf("%d %q", x.Status, x.Code)
					return
				}
			}
		})
	}
	for i := range 300 {
		w := sample()
		api := w["api/acme/prod/catalog"].(snapshot.API)
		api.Revision = uint64(10 + i)
		w.put(api)
		if i%3 == 0 {
			delete(w, "api/acme/prod/open")
		}
		if i%5 == 0 {
			w.put(snapshot.Hosts{Organization: "acme", Name: "public", Hostnames: []string{host, fmt.Sprintf("x%d.example.com", i)}, Environments: []string{"prod"}})
		}
		r.apply(w)
	}
	close(stop)
	wg.Wait()
}

// large is the configuration that the goals speak of: 100 hostnames, APIs with 5 operations and 2 policies each.
func large(apis int) world {
	w := world{}
	w.put(snapshot.Site{Organization: "acme", Name: "eu-west"})
	w.put(snapshot.Product{Organization: "acme", Name: "gold", Quota: &snapshot.Limit{Limit: 1000, WindowMillis: 3_600_000}})
	for g := range 100 {
		env := fmt.Sprintf("env-%d", g)
		w.put(snapshot.Hosts{Organization: "acme", Name: env, Hostnames: []string{fmt.Sprintf("api-%d.example.com", g)}, Environments: []string{env}})
	}
	for i := range apis {
		name := fmt.Sprintf("service-%d", i)
		w.put(snapshot.Backend{Organization: "acme", Name: name, Endpoints: snapshot.Endpoints("192.0.2.9:80")})
		w.put(largeAPI(i, 1))
	}
	return w
}

func largeAPI(i int, revision uint64) snapshot.API {
	name := fmt.Sprintf("service-%d", i)
	a := snapshot.API{
		Organization: "acme", Environment: fmt.Sprintf("env-%d", i%100), Name: name, Revision: revision,
		BasePath: "/" + name + "/v1", Backend: name, BackendPath: "/",
		Request: []snapshot.Policy{policyOf("apiKey", `{"header":"X-API-Key"}`), policyOf("quota", `{"by":"subscription"}`)},
	}
	for _, op := range [][2]string{{"GET", "/items"}, {"POST", "/items"}, {"GET", "/items/{id}"}, {"DELETE", "/items/{id}"}, {"GET", "/items/{id}/parts/{part}"}} {
		a.Operations = append(a.Operations, snapshot.Operation{Name: op[0] + ":" + op[1], Method: op[0], Path: op[1]})
	}
	return a
}

func TestLargeConfiguration(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	w := large(10_000)
	set := w.set(t)
	w = nil
	r := newRig(t)
	before := heap()
	began := time.Now()
	if err := r.Apply(t.Context(), snapshot.Checkpoint{Epoch: 1, Seq: 1}, set, nil); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	used := heap() - before
	t.Logf("10,000 APIs: built in %v, %.1f MB of plan beside %.1f MB of entries", took, float64(used)/1e6, float64(set.Bytes())/1e6)
	if used > 150<<20 {
		t.Errorf("the plan takes %d MB, want at most 150", used>>20)
	}
	if took > 2*time.Minute { // far above what it takes; a slow machine must not fail it
		t.Errorf("building took %v", took)
	}
	e, err := snapshot.NewEntry("api/acme/env-77/service-77", 2, 1, true, largeAPI(77, 2))
	if err != nil {
		t.Fatal(err)
	}
	next := set.With([]snapshot.Entry{e}, nil)
	began = time.Now()
	if err := r.Apply(t.Context(), snapshot.Checkpoint{Epoch: 1, Seq: 2}, next, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("one API changed in %v", time.Since(began))
	a := r.do("GET", "api-77.example.com", "/service-77/v1/items/1")
	if a.code != "key-missing" || a.x.Route.Revision != 2 {
		t.Errorf("%d %q", a.status, a.code)
	}
	runtime.KeepAlive(w)
}

func BenchmarkApply(b *testing.B) {
	sets := func(b *testing.B) (*rig, []*snapshot.Set) {
		r := newRig(b)
		set := large(10_000).set(b)
		var next []*snapshot.Set
		for rev := range uint64(2) {
			e, err := snapshot.NewEntry("api/acme/env-77/service-77", 2, 1, true, largeAPI(77, rev+2))
			if err != nil {
				b.Fatal(err)
			}
			next = append(next, set.With([]snapshot.Entry{e}, nil))
		}
		if err := r.Apply(b.Context(), snapshot.Checkpoint{}, set, nil); err != nil {
			b.Fatal(err)
		}
		return r, next
	}
	b.Run("all", func(b *testing.B) {
		r, next := sets(b)
		measure(b, func() {
			r.core.builder.set, r.core.builder.current, r.core.builder.parts = snapshot.NewSet(), nil, newParts()
			if err := r.Apply(b.Context(), snapshot.Checkpoint{}, next[0], nil); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("one", func(b *testing.B) {
		r, next := sets(b)
		i := 0
		measure(b, func() {
			i++
			if err := r.Apply(b.Context(), snapshot.Checkpoint{}, next[i%2], nil); err != nil {
				b.Fatal(err)
			}
		})
	})
}
