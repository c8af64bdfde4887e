package compile

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected results in testdata and remove those without an input")

// memory is a State.
type memory map[v1.Key]*v1.Object

func (m memory) Get(k v1.Key) (*v1.Object, bool) {
	o, ok := m[k]
	return o, ok
}

func (m memory) List(kind v1.Kind, organization, after string) iter.Seq[*v1.Object] {
	var keys []v1.Key
	for k := range m {
		if k.Kind == kind && (organization == "" || k.Organization == organization) && k.Name > after {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return func(yield func(*v1.Object) bool) {
		for _, k := range keys {
			if !yield(m[k]) {
				return
			}
		}
	}
}

// with returns m with the objects of a stream put, and those with a spec of "delete" in their labels removed.
func (m memory) with(t *testing.T, name, documents string) (memory, []v1.Key) {
	t.Helper()
	objects, faults := resource.Decode(name, []byte(documents), resource.Options{System: true})
	if len(faults) > 0 {
		t.Fatal(resource.AsError(faults))
	}
	next := maps.Clone(m)
	var keys []v1.Key
	for _, o := range objects {
		keys = append(keys, o.Key())
		if o.Metadata.Labels["test"] == "delete" {
			delete(next, o.Key())
			continue
		}
		next[o.Key()] = o
	}
	return next, keys
}

// TestGolden compiles testdata/*.in.yaml. Each begins with a state that compiles; what follows a line "# change" is
// applied to it. The expected result shows the views or the faults.
func TestGolden(t *testing.T) {
	t.Parallel()
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	for _, in := range inputs {
		base := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
		t.Run(base, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", base+".out.yaml"), compileText(t, base, string(data)))
		})
	}
	outputs, err := filepath.Glob("testdata/*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range outputs {
		if slices.Contains(inputs, strings.Replace(out, ".out.", ".in.", 1)) {
			continue
		}
		if !*update {
			t.Errorf("%s belongs to no input", out)
		} else if err := os.Remove(out); err != nil {
			t.Fatal(err)
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// compileText compiles the state, then the change, and shows what comes of it.
func compileText(t *testing.T, name, text string) string {
	t.Helper()
	first, second, changes := strings.Cut(text, "# change\n")
	st, _ := memory{}.with(t, name, first)
	r, err := Compile(st, 1, Options{})
	if !changes {
		return show(t, r, nil, err)
	}
	if err != nil {
		t.Fatalf("the state before the change: %v", err)
	}
	next, keys := st.with(t, name, second)
	before := views(r)
	after, err := r.Next(next, 2, keys)
	if diff := gocmp.Diff(before, views(r)); diff != "" {
		t.Errorf("Next changed what it was called upon:\n%s", diff)
	}
	full, fullErr := Compile(next, 2, Options{})
	if (fullErr == nil) != (err == nil) {
		t.Errorf("the change gives %v, the whole state %v", err, fullErr)
	}
	if err == nil {
		if diff := gocmp.Diff(views(full), views(after)); diff != "" {
			t.Errorf("compiled whole and by the change (-whole +change):\n%s", diff)
		}
	}
	return show(t, after, r, err)
}

// show writes faults, or the entries of all views; of a change only those that differ.
func show(t *testing.T, r, before *Result, err error) string {
	t.Helper()
	var sb strings.Builder
	if err != nil {
		for _, f := range resource.FaultsOf(err) {
			fmt.Fprintf(&sb, "- %s\n  %s\n", f.Code, resource.FormatFault(f))
		}
		return sb.String()
	}
	for _, name := range r.Changed {
		fmt.Fprintf(&sb, "%s:\n", name)
		set, old := r.Views[name], snapshot.NewSet()
		if before != nil && before.Views[name] != nil {
			old = before.Views[name]
		}
		if set == nil {
			sb.WriteString("  gone\n")
			continue
		}
		puts, dels := set.Diff(old)
		slices.SortFunc(puts, func(a, b snapshot.Entry) int { return cmp.Compare(a.Key, b.Key) })
		slices.Sort(dels)
		for _, e := range puts {
			fmt.Fprintf(&sb, "  %s: %s\n", e.Key, e.Bytes)
		}
		for _, k := range dels {
			fmt.Fprintf(&sb, "  %s: null\n", k)
		}
	}
	return sb.String()
}

// views returns the entries of every view in plain maps.
func views(r *Result) map[string]map[string]string {
	out := map[string]map[string]string{}
	for name, set := range r.Views {
		out[name] = map[string]string{}
		for e := range set.All() {
			out[name][e.Key] = string(e.Bytes)
		}
	}
	return out
}

// TestIncremental changes a small world at random. After each change, compiling the change must give what compiling
// everything gives, faults or the same roots, and the views must hold what a plain reading of the rules says.
func TestIncremental(t *testing.T) {
	t.Parallel()
	const worlds, changes = 12, 400
	for seed := range uint64(worlds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			st := memory{}
			r, err := Compile(st, 0, Options{})
			if err != nil {
				t.Fatal(err)
			}
			accepted, refused := 0, 0
			for seq := uint64(1); seq <= changes; seq++ {
				next, keys := mutate(rnd, st)
				got, err := r.Next(next, seq, keys)
				want, fullErr := Compile(next, seq, Options{})
				if (err == nil) != (fullErr == nil) {
					t.Fatalf("change %d of %v: by change %v, whole %v", seq, keys, err, fullErr)
				}
				if (err != nil) != wrong(next) {
					t.Fatalf("change %d of %v: %v, but by a plain reading of the rules wrong = %v", seq, keys, err, wrong(next))
				}
				if err != nil {
					refused++
					continue
				}
				accepted++
				if diff := gocmp.Diff(roots(want), roots(got)); diff != "" {
					t.Fatalf("change %d of %v (-whole +change):\n%s\n%s", seq, keys, diff, gocmp.Diff(views(want), views(got)))
				}
				if diff := gocmp.Diff(expected(next), entryKeys(got)); diff != "" {
					t.Fatalf("change %d of %v: entries (-want +got):\n%s", seq, keys, diff)
				}
				checkChanged(t, r, got)
				r, st = got, next
			}
			if accepted < changes/10 || refused < changes/10 {
				t.Errorf("%d changes accepted, %d refused: the test has lost its point", accepted, refused)
			}
		})
	}
}

func roots(r *Result) map[string]string {
	out := map[string]string{}
	for name, set := range r.Views {
		out[name] = set.Root().String()
	}
	return out
}

func entryKeys(r *Result) map[string][]string {
	out := map[string][]string{}
	for name, set := range r.Views {
		out[name] = []string{}
		for e := range set.All() {
			out[name] = append(out[name], e.Key)
		}
		slices.Sort(out[name])
	}
	return out
}

func checkChanged(t *testing.T, before, after *Result) {
	t.Helper()
	var want []string
	for name, set := range after.Views {
		if old := before.Views[name]; old == nil || old.Root() != set.Root() {
			want = append(want, name)
		}
	}
	for name := range before.Views {
		if after.Views[name] == nil {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if !slices.Equal(want, after.Changed) {
		t.Errorf("Changed = %v, want %v", after.Changed, want)
	}
}

// expected works out by brute force which entries each view must hold.
func expected(st memory) map[string][]string {
	out := map[string][]string{}
	for k := range st {
		if k.Kind != v1.KindGatewayGroup {
			continue
		}
		keys := map[string]bool{"site/" + k.Organization: true}
		placed := func(env string) bool {
			e := st[v1.Key{Organization: k.Organization, Kind: v1.KindEnvironment, Name: env}].Spec.(*v1.EnvironmentSpec)
			return slices.Contains(e.Placements, v1.Placement{GatewayGroup: k.Name})
		}
		apis := map[string]bool{}
		for dk, d := range st {
			if s, ok := d.Spec.(*v1.DeploymentSpec); ok && dk.Organization == k.Organization && placed(s.Environment) {
				apis[s.API] = true
				keys["api/"+k.Organization+"/"+s.Environment+"/"+s.API] = true
				var api v1.APISpec
				if s.Revision == 0 {
					api = *st[v1.Key{Organization: k.Organization, Kind: v1.KindAPI, Name: s.API}].Spec.(*v1.APISpec)
				} else {
					api = st[v1.Key{Organization: k.Organization, Kind: v1.KindAPIRevision, Name: resource.RevisionName(s.API, s.Revision)}].Spec.(*v1.APIRevisionSpec).Spec
				}
				if api.Backend != "" {
					keys["backend/"+k.Organization+"/"+api.Backend] = true
				}
			}
		}
		for ok, o := range st {
			switch s := o.Spec.(type) {
			case *v1.EnvironmentGroupSpec:
				if ok.Organization == k.Organization && slices.ContainsFunc(s.Environments, placed) {
					keys["hosts/"+k.Organization+"/"+ok.Name] = true
				}
			case *v1.ProductSpec:
				if ok.Organization == k.Organization && slices.ContainsFunc(s.APIs, func(a string) bool { return apis[a] }) {
					keys["product/"+k.Organization+"/"+ok.Name] = true
				}
			}
		}
		out[k.Organization+"/"+k.Name] = slices.Sorted(maps.Keys(keys))
	}
	return out
}

// wrong tells by brute force whether a state breaks a rule: a reference to nothing, a hostname of two groups, an API
// twice in an environment, a base path twice in an environment group.
func wrong(st memory) bool {
	hosts := map[string]bool{}
	type place struct{ organization, group, base string }
	bases, deployed := map[place]bool{}, map[place]bool{}
	for k, o := range st {
		for _, r := range resource.References(o) {
			if st[r.Key] == nil {
				return true
			}
		}
		switch s := o.Spec.(type) {
		case *v1.EnvironmentGroupSpec:
			for _, h := range s.Hostnames {
				if hosts[h] {
					return true
				}
				hosts[h] = true
			}
		case *v1.DeploymentSpec:
			var api v1.APISpec
			if s.Revision == 0 {
				if o := st[v1.Key{Organization: k.Organization, Kind: v1.KindAPI, Name: s.API}]; o != nil {
					api = *o.Spec.(*v1.APISpec)
				}
			} else if o := st[v1.Key{Organization: k.Organization, Kind: v1.KindAPIRevision, Name: resource.RevisionName(s.API, s.Revision)}]; o != nil {
				api = o.Spec.(*v1.APIRevisionSpec).Spec
			}
			if st[v1.Key{Organization: k.Organization, Kind: v1.KindBackend, Name: api.Backend}] == nil {
				return true
			}
			at := place{k.Organization, s.Environment, s.API}
			if deployed[at] {
				return true
			}
			deployed[at] = true
			for gk, g := range st {
				if gs, ok := g.Spec.(*v1.EnvironmentGroupSpec); ok && gk.Organization == k.Organization && slices.Contains(gs.Environments, s.Environment) {
					at := place{k.Organization, gk.Name, api.BasePath}
					if bases[at] {
						return true
					}
					bases[at] = true
				}
			}
		}
	}
	return false
}

// mutate returns st with one to four resources put or deleted.
func mutate(rnd *rand.Rand, st memory) (memory, []v1.Key) {
	next := maps.Clone(st)
	var keys []v1.Key
	for range 1 + rnd.IntN(4) {
		if len(st) > 0 && rnd.IntN(4) == 0 {
			all := slices.SortedFunc(maps.Keys(st), compareKeys)
			k := all[rnd.IntN(len(all))]
			delete(next, k)
			keys = append(keys, k)
			continue
		}
		o := random(rnd)
		next[o.Key()] = o
		keys = append(keys, o.Key())
	}
	return next, keys
}

// random returns a resource of a world that is small enough for its resources to meet.
func random(rnd *rand.Rand) *v1.Object {
	pick := func(prefix string, n int) string { return fmt.Sprint(prefix, rnd.IntN(n)) }
	some := func(prefix string, n, most int) []string {
		var names []string
		for range rnd.IntN(most + 1) {
			if name := pick(prefix, n); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return names
	}
	o := &v1.Object{APIVersion: v1.APIVersion, Metadata: v1.Metadata{Organization: "default"}}
	if rnd.IntN(5) == 0 {
		o.Metadata.Organization = "acme"
	}
	api := func() v1.APISpec {
		return v1.APISpec{BasePath: pick("/", 4), Backend: pick("b", 3), Operations: []v1.Operation{{Method: "GET", Path: pick("/x", 3)}}}
	}
	switch rnd.IntN(12) {
	case 0:
		o.Metadata.Name, o.Spec = pick("s", 2), &v1.SiteSpec{Region: pick("r", 3)}
	case 1:
		o.Metadata.Name, o.Spec = pick("g", 3), &v1.GatewayGroupSpec{Site: pick("s", 2)}
	case 2, 3:
		var placements []v1.Placement
		for _, g := range some("g", 3, 3) {
			placements = append(placements, v1.Placement{GatewayGroup: g})
		}
		o.Metadata.Name, o.Spec = pick("e", 3), &v1.EnvironmentSpec{Placements: placements}
	case 4:
		o.Metadata.Name, o.Spec = pick("eg", 3), &v1.EnvironmentGroupSpec{Hostnames: some("h", 6, 2), Environments: some("e", 3, 2)}
	case 5:
		o.Metadata.Name, o.Spec = pick("b", 3), &v1.BackendSpec{Endpoints: []v1.Endpoint{{Address: pick("127.0.0.1:800", 4)}}}
	case 6:
		s := api()
		o.Metadata.Name, o.Spec = pick("a", 4), &s
	case 7:
		s := &v1.APIRevisionSpec{API: pick("a", 4), Revision: uint64(1 + rnd.IntN(2)), Spec: api()}
		o.Metadata.Name, o.Spec = resource.RevisionName(s.API, s.Revision), s
	case 8, 9:
		o.Metadata.Name, o.Spec = pick("d", 6), &v1.DeploymentSpec{API: pick("a", 4), Environment: pick("e", 3), Revision: uint64(rnd.IntN(6) / 4 * (1 + rnd.IntN(2)))}
	case 10:
		o.Metadata.Name, o.Spec = pick("p", 2), &v1.ProductSpec{APIs: some("a", 4, 3), Quota: &v1.Limit{Limit: uint64(1 + rnd.IntN(3)), Window: 3_600_000_000_000}}
	default:
		o.Metadata.Organization = ""
		o.Metadata.Name, o.Spec = "acme", &v1.OrganizationSpec{DisplayName: pick("n", 3)}
	}
	o.Kind = o.Spec.Kind()
	return o
}

// TestEntrySeq checks that an entry carries the change set that last changed it.
func TestEntrySeq(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/example.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	st, _ := memory{}.with(t, "example", string(data))
	for _, o := range st {
		o.Metadata.Seq = 3
	}
	r, err := Compile(st, 7, Options{})
	if err != nil {
		t.Fatal(err)
	}
	next, keys := st.with(t, "change", "kind: Backend\nmetadata: {name: catalog}\nspec: {endpoints: [{address: \"127.0.0.1:9001\"}]}\n")
	r, err = r.Next(next, 8, keys)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]uint64{"backend/default/catalog": 8, "api/default/prod/catalog": 3, "site/default": 3} {
		if e, ok := r.Views["default/eu"].Get(key); !ok || e.Seq != want {
			t.Errorf("%s: seq %d, %v, want %d", key, e.Seq, ok, want)
		}
	}
}

// TestDisabledEndpoint leaves out what is not in service; also if nothing is left.
func TestDisabledEndpoint(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]snapshot.Endpoint{
		`[{address: "a:1", disabled: true}, {address: "b:1", weight: 2, priority: 1}]`: {{Address: "b:1", Weight: 2, Priority: 1}},
		`[{address: "a:1", disabled: true}]`:                                           {},
	} {
		data, err := os.ReadFile("testdata/example.in.yaml")
		if err != nil {
			t.Fatal(err)
		}
		st, _ := memory{}.with(t, "example", string(data))
		st, _ = st.with(t, "change", "kind: Backend\nmetadata: {name: catalog}\nspec: {endpoints: "+text+"}\n")
		r, err := Compile(st, 1, Options{})
		if err != nil {
			t.Fatal(err)
		}
		e, ok := r.Views["default/eu"].Get("backend/default/catalog")
		if !ok {
			t.Fatal("there is no entry of the backend")
		}
		got, err := snapshot.Decode[snapshot.Backend](e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, got.Endpoints); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", text, diff)
		}
	}
}

// TestConcurrentNext tries several states from one result at the same time.
func TestConcurrentNext(t *testing.T) {
	t.Parallel()
	st := large(200)
	r, err := Compile(st, 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := roots(r)
	done := make(chan error)
	for i := range 8 {
		go func() {
			next, key := changeOne(st, i)
			got, err := r.Next(next, 2, []v1.Key{key})
			if err == nil && len(got.Changed) != 1 {
				err = fmt.Errorf("changed %v, want one view", got.Changed)
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if diff := gocmp.Diff(before, roots(r)); diff != "" {
		t.Errorf("the result has changed:\n%s", diff)
	}
}

// large returns n APIs with five operations and two policies each, behind 100 hostnames.
func large(n int) memory {
	st := memory{}
	put := func(name string, spec v1.Spec) {
		o := &v1.Object{APIVersion: v1.APIVersion, Kind: spec.Kind(), Metadata: v1.Metadata{Name: name, Organization: "default", Seq: 1, Revision: 1}, Spec: spec}
		resource.Default(o)
		st[o.Key()] = o
	}
	put("site", &v1.SiteSpec{Region: "eu-west-1"})
	put("group", &v1.GatewayGroupSpec{Site: "site"})
	const hosts = 100
	for i := range hosts {
		env := fmt.Sprintf("env-%d", i)
		put(env, &v1.EnvironmentSpec{Placements: []v1.Placement{{GatewayGroup: "group"}}})
		put(fmt.Sprintf("hosts-%d", i), &v1.EnvironmentGroupSpec{Hostnames: []string{fmt.Sprintf("api%d.example.com", i)}, Environments: []string{env}})
		put(fmt.Sprintf("backend-%d", i), &v1.BackendSpec{Endpoints: []v1.Endpoint{{Address: "127.0.0.1:9000"}}})
	}
	var apis []string
	for i := range n {
		name := fmt.Sprintf("api-%d", i)
		apis = append(apis, name)
		put(name, apiSpec(i, "x"))
		put(name+"-prod", &v1.DeploymentSpec{API: name, Environment: fmt.Sprintf("env-%d", i%hosts)})
	}
	put("all", &v1.ProductSpec{APIs: apis, Quota: &v1.Limit{Limit: 1000, Window: 3_600_000_000_000}})
	return st
}

func apiSpec(i int, part string) *v1.APISpec {
	s := &v1.APISpec{
		BasePath: fmt.Sprintf("/api/%d", i), Backend: fmt.Sprintf("backend-%d", i%100),
		Policies: v1.Policies{Request: []v1.Policy{{APIKey: &v1.APIKeyPolicy{}}, {Quota: &v1.QuotaPolicy{}}}},
	}
	for _, m := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
		s.Operations = append(s.Operations, v1.Operation{Method: m, Path: "/items/{id}/" + part})
	}
	return s
}

// changeOne returns st with another spec for API i.
func changeOne(st State, i int) (State, v1.Key) {
	o := &v1.Object{APIVersion: v1.APIVersion, Kind: v1.KindAPI, Metadata: v1.Metadata{Name: fmt.Sprintf("api-%d", i), Organization: "default"}, Spec: apiSpec(i, fmt.Sprint("y", i))}
	return overlay{State: st, object: o}, o.Key()
}

// overlay is a State with one other object.
type overlay struct {
	State
	object *v1.Object
}

func (o overlay) Get(k v1.Key) (*v1.Object, bool) {
	if k == o.object.Key() {
		return o.object, true
	}
	return o.State.Get(k)
}

// TestContent checks that what is in an entry is what the types of snapshot say.
func TestContent(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/example.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	st, _ := memory{}.with(t, "example", string(data))
	r, err := Compile(st, 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, ok := r.Views["default/eu"].Get("api/default/prod/catalog")
	if !ok {
		t.Fatal("no entry of the API")
	}
	got, err := snapshot.Decode[snapshot.API](e)
	if err != nil {
		t.Fatal(err)
	}
	want := snapshot.API{
		Organization: "default", Environment: "prod", Name: "catalog", BasePath: "/catalog/v1", Backend: "catalog", BackendPath: "/",
		Operations: []snapshot.Operation{{Name: "getItem", Method: "GET", Path: "/items/{id}"}},
		Request:    []snapshot.Policy{{Use: "apiKey", Config: json.RawMessage(`{"header":"X-API-Key"}`)}, {Use: "quota", Config: json.RawMessage(`{"by":"subscription"}`)}},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("API (-want +got):\n%s", diff)
	}
}

// TestAbility checks that a policy that the oldest gateway cannot run is refused.
func TestAbility(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/example.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	st, _ := memory{}.with(t, "example", string(data))
	c := newChange(Options{Reader: 0}, 1, true, newWorld(emptyState{}), newWorld(st))
	c.collect(slices.Collect(maps.Keys(st)))
	for _, f := range c.sorted() {
		if f.Code != resource.CodePolicyAbility || f.Path == "" {
			t.Errorf("fault %+v, want %s", f, resource.CodePolicyAbility)
		}
	}
	if len(c.faults) != 2 {
		t.Errorf("%d faults, want one for each policy", len(c.faults))
	}
}
