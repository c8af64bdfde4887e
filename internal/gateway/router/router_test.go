package router

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/x/pathnorm"
	"hansa.dev/hansa/internal/x/pathpattern"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	h := NewHosts(map[string]string{
		"api.example.com": "exact", "*.example.com": "short", "*.eu.example.com": "long", "*": "any",
	})
	for host, want := range map[string]string{
		"api.example.com": "exact", "other.example.com": "short", "a.b.example.com": "short",
		"a.eu.example.com": "long", "eu.example.com": "short", "example.com": "any", ".example.com": "any",
		"": "any", "localhost": "any", "xexample.com": "any", "a.eu.example.com.": "any",
	} {
		if got, ok := h.Match([]byte(host)); !ok || got != want {
			t.Errorf("Match(%q) = %q, %v, want %q", host, got, ok, want)
		}
	}
	without := NewHosts(map[string]string{"api.example.com": "exact"})
	if _, ok := without.Match([]byte("www.example.com")); ok {
		t.Error("a host that nobody named was matched")
	}
}

// naiveBase is what pathpattern says about the base path of a path.
func naiveBase(bases []pathpattern.Base, path string) (best, rest string, ok bool) {
	sorted := slices.SortedFunc(slices.Values(bases), pathpattern.Base.Compare)
	for _, b := range sorted {
		if rest, ok := b.Match(path); ok {
			return b.String(), rest, true
		}
	}
	return "", "", false
}

func checkBases(t *testing.T, table *Bases[string], bases []pathpattern.Base, path string) {
	t.Helper()
	want, wantRest, wantOK := naiveBase(bases, normalPath(path))
	got, ok := table.Match([]byte(path))
	if got.Value != want || normalPath(string(got.Rest)) != wantRest || !strings.HasSuffix(path, string(got.Rest)) || ok != wantOK {
		t.Fatalf("Match(%q) among %v = %q, %q, %v; want %q, %q, %v", path, bases, got.Value, got.Rest, ok, want, wantRest, wantOK)
	}
}

// normalPath is a path with every segment in normal form.
func normalPath(path string) string {
	segments := strings.Split(path, "/")
	for i := range segments {
		segments[i] = pathpattern.Normal(segments[i])
	}
	return strings.Join(segments, "/")
}

// A table that has been changed many times decides as the plain matcher does, and so does every earlier version of it.
func TestBasesAgainstPlainMatcher(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	alphabet := make([]string, 12)
	for i := range alphabet {
		alphabet[i] = fmt.Sprintf("s%d", i)
	}
	randomPath := func(most int, star bool) string {
		var sb strings.Builder
		for range rng.IntN(most + 1) {
			if star && rng.IntN(3) == 0 {
				sb.WriteString("/*")
			} else if !star && rng.IntN(20) == 0 {
				sb.WriteString("/")
			} else {
				sb.WriteString("/" + alphabet[rng.IntN(1+rng.IntN(len(alphabet)))])
			}
		}
		if sb.Len() == 0 {
			return "/"
		}
		return sb.String()
	}
	type version struct {
		table *Bases[string]
		bases map[string]pathpattern.Base
	}
	var history []version
	table, bases := new(Bases[string]), map[string]pathpattern.Base{}
	for range 400 {
		var puts []BaseEntry[string]
		var dels []pathpattern.Base
		for range rng.IntN(4) {
			for name, b := range bases { // any
				dels = append(dels, b)
				delete(bases, name)
				break
			}
		}
		for range rng.IntN(5) {
			b, err := pathpattern.ParseBase(randomPath(4, true))
			if err != nil {
				t.Fatal(err)
			}
			if _, taken := bases[b.String()]; taken {
				dels = append(dels, b)
				puts = slices.DeleteFunc(puts, func(p BaseEntry[string]) bool { return p.Value == b.String() })
			}
			puts = append(puts, BaseEntry[string]{b, b.String()})
			bases[b.String()] = b
		}
		absent, _ := pathpattern.ParseBase("/not/there")
		table = with(t, table, puts, append(dels, absent)...)
		if table.Len() != len(bases) {
			t.Fatalf("Len() = %d, want %d", table.Len(), len(bases))
		}
		kept := map[string]pathpattern.Base{}
		maps.Copy(kept, bases)
		history = append(history, version{table, kept})
	}
	for _, v := range history {
		list := make([]pathpattern.Base, 0, len(v.bases))
		for _, b := range v.bases {
			list = append(list, b)
		}
		for range 60 {
			checkBases(t, v.table, list, randomPath(6, false))
		}
	}
}

func with[V any](tb testing.TB, table *Bases[V], puts []BaseEntry[V], dels ...pathpattern.Base) *Bases[V] {
	tb.Helper()
	next, err := table.With(puts, dels)
	if err != nil {
		tb.Fatal(err)
	}
	return next
}

func TestBasesRefuseDuplicates(t *testing.T) {
	t.Parallel()
	a, _ := pathpattern.ParseBase("/caf%c3%a9/*")
	b, _ := pathpattern.ParseBase("/caf\u00e9/*/")
	table := with(t, new(Bases[int]), []BaseEntry[int]{{a, 1}})
	if _, err := table.With([]BaseEntry[int]{{b, 2}}, nil); err == nil {
		t.Fatal("two values for one base path were accepted")
	}
	if m, ok := table.Match([]byte("/caf%C3%A9/x")); !ok || m.Value != 1 {
		t.Fatalf("after a refused change: %v, %v", m, ok)
	}
}

func TestBasesForgetWhatIsGone(t *testing.T) {
	t.Parallel()
	b, _ := pathpattern.ParseBase("/a/b/*/c")
	table := with(t, with(t, new(Bases[int]), []BaseEntry[int]{{b, 1}}), nil, b)
	if in := len(table.nodes) - len(table.free); in != 1 || table.names.n != 0 || table.Len() != 0 {
		t.Fatalf("%d nodes and %d names are left after the last base path was taken away, want the root alone", in, table.names.n)
	}
	if again := with(t, table, []BaseEntry[int]{{b, 1}}); len(again.nodes) != len(table.nodes) {
		t.Fatalf("%d nodes after the same base path was added again, want %d", len(again.nodes), len(table.nodes))
	}
}

// An encoded character must not lead around what stands for the plain one.
func TestEncodingLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	base, _ := pathpattern.ParseBase("/a:b")
	bases := with(t, new(Bases[int]), []BaseEntry[int]{{base, 1}})
	guarded, _ := pathpattern.ParseTemplate("/admin:x/{id}.json")
	rest, _ := pathpattern.ParseTemplate("/*")
	ops, err := NewOperations([]OperationEntry[string]{{"GET", guarded, "guarded"}, {"*", rest, "rest"}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/a:b/admin:x/1.json": "guarded", "/a%3Ab/admin%3Ax/1.json": "guarded", "/a%3Ab/admin:x/%2F.json": "guarded",
		"/a:b/admin%2Fx/1.json": "rest", "/a:b/other": "rest",
	} {
		m, ok := bases.Match([]byte(path))
		if !ok {
			t.Errorf("%s matches no base path", path)
			continue
		}
		if got := ops.Match([]byte("GET"), m.Rest); got == nil || *got != want {
			t.Errorf("%s leads to %v, want %q", path, got, want)
		}
	}
}

func FuzzBases(f *testing.F) {
	f.Add("/a\n/a/*\n/*/b\n/", "/a/b/c")
	f.Add("/*/*/c\n/a/b", "/a/b/c/")
	f.Add("/caf%c3%a9\n/%2A", "/caf%C3%A9//x")
	f.Add("/%22", "/\"")
	f.Fuzz(func(t *testing.T, patterns, raw string) {
		canonical, err := pathnorm.Append(nil, []byte(raw)) // what an exchange carries
		if err != nil {
			return
		}
		path := string(canonical)
		var bases []pathpattern.Base
		var puts []BaseEntry[string]
		for p := range strings.SplitSeq(patterns, "\n") {
			b, err := pathpattern.ParseBase(p)
			if err != nil {
				continue
			}
			if slices.ContainsFunc(bases, func(a pathpattern.Base) bool { return a.String() == b.String() }) {
				continue
			}
			bases = append(bases, b)
			puts = append(puts, BaseEntry[string]{b, b.String()})
		}
		table := with(t, new(Bases[string]), puts)
		checkBases(t, table, bases, path)
		if len(puts) > 1 { // without the first one
			checkBases(t, with(t, table, nil, bases[0]), bases[1:], path)
		}
	})
}

type operation struct {
	method   string
	template pathpattern.Template
}

func (o operation) String() string { return o.method + " " + o.template.String() }

func naiveOperation(ops []operation, method, path string) (string, bool) {
	sorted := slices.SortedStableFunc(slices.Values(ops), func(a, b operation) int {
		if d := a.template.Compare(b.template); d != 0 {
			return d
		}
		return -strings.Compare(a.method, b.method) // "*" is less than every letter
	})
	if path == "" {
		path = "/"
	}
	for _, o := range sorted {
		if (o.method == method || o.method == "*") && o.template.Match(path) {
			return o.String(), true
		}
	}
	return "", false
}

// newOperations leaves out what is there twice.
func newOperations(t *testing.T, ops []operation) (*Operations[string], []operation) {
	t.Helper()
	var entries []OperationEntry[string]
	var kept []operation
	seen := map[string]bool{}
	for _, o := range ops {
		id := o.method + " " + o.template.Canonical()
		if seen[id] {
			continue
		}
		seen[id] = true
		kept = append(kept, o)
		entries = append(entries, OperationEntry[string]{o.method, o.template, o.String()})
	}
	table, err := NewOperations(entries)
	if err != nil {
		t.Fatal(err)
	}
	return table, kept
}

func TestOperationsAgainstPlainMatcher(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	segments := []string{"a", "b", "ab", "a.json", "{id}", "{x}.json", "{x}-{y}", "a{x}", "pre-{x}-mid-{y}.z"}
	tails := []string{"", "", "", "/", "/*", "/{rest*}"}
	words := []string{"a", "b", "ab", "a.json", "b.json", ".json", "a-b", "a--b", "-", "aa", "pre-1-mid-2.z", "pre--mid-.z", "x", ""}
	methods := []string{"GET", "POST", "*"}
	for range 300 {
		var ops []operation
		for range 1 + rng.IntN(20) {
			path := ""
			for range rng.IntN(4) {
				path += "/" + segments[rng.IntN(len(segments))]
			}
			path += tails[rng.IntN(len(tails))]
			if path == "" {
				path = "/"
			}
			tpl, err := pathpattern.ParseTemplate(path)
			if err != nil {
				continue // one name twice
			}
			ops = append(ops, operation{methods[rng.IntN(len(methods))], tpl})
		}
		table, ops := newOperations(t, ops)
		for range 100 {
			var path strings.Builder
			for range rng.IntN(5) {
				path.WriteString("/" + words[rng.IntN(len(words))])
			}
			checkOperations(t, table, ops, methods[rng.IntN(2)], path.String())
		}
	}
}

func checkOperations(t *testing.T, table *Operations[string], ops []operation, method, path string) {
	t.Helper()
	want, wantOK := naiveOperation(ops, method, normalPath(path))
	got := ""
	v := table.Match([]byte(method), []byte(path))
	if v != nil {
		got = *v
	}
	if got != want || (v != nil) != wantOK {
		t.Fatalf("Match(%s %q) among %v = %q, %v; want %q, %v", method, path, ops, got, v != nil, want, wantOK)
	}
}

func TestOperationsRefuseDuplicates(t *testing.T) {
	t.Parallel()
	a, _ := pathpattern.ParseTemplate("/items/{id}")
	b, _ := pathpattern.ParseTemplate("/items/{name}")
	if _, err := NewOperations([]OperationEntry[int]{{"GET", a, 1}, {"GET", b, 2}}); err == nil {
		t.Fatal("two operations that match the same requests were accepted")
	}
}

func FuzzOperations(f *testing.F) {
	f.Add("/items/{id}\n/items/special\n/items/{a}.{b}\n/*", "GET", "/items/special")
	f.Add("/\n/*\n/a/\n/a", "POST", "")
	f.Add("/{x}a{y}a{z}", "GET", "/aaaaa")
	f.Fuzz(func(t *testing.T, patterns, method, path string) {
		if method == "*" {
			return
		}
		if path != "" { // what is below a base path, as an exchange carries it
			canonical, err := pathnorm.Append(nil, []byte(path))
			if err != nil {
				return
			}
			path = string(canonical)
		}
		var ops []operation
		for i, p := range strings.Split(patterns, "\n") {
			if tpl, err := pathpattern.ParseTemplate(p); err == nil {
				ops = append(ops, operation{[]string{"GET", "*", "POST"}[i%3], tpl})
			}
		}
		table, ops := newOperations(t, ops)
		checkOperations(t, table, ops, method, path)
	})
}

func TestLookupsAllocateNothing(t *testing.T) {
	hosts, bases, ops := bigTables(t, 1000)
	host, method, path := []byte("api-7.example.com"), []byte("GET"), []byte("/service-500/v1/items/42")
	long := []byte("/a-name-that-does-not-fit-in-a-slot/42")
	if n := testing.AllocsPerRun(1000, func() {
		hosts.Match(host)
		m, _ := bases.Match(path)
		if ops.Match(method, m.Rest) == nil || ops.Match(method, long) == nil {
			t.Fatal("no match")
		}
	}); n != 0 {
		t.Fatalf("%v allocations per look-up, want 0", n)
	}
}

func bigTables(tb testing.TB, n int) (*Hosts[int], *Bases[int], *Operations[int]) {
	tb.Helper()
	names := map[string]int{"*.example.org": 1}
	for i := range 100 {
		names[fmt.Sprintf("api-%d.example.com", i)] = i
	}
	puts := make([]BaseEntry[int], n)
	for i := range puts {
		b, err := pathpattern.ParseBase(fmt.Sprintf("/service-%d/v1", i))
		if err != nil {
			tb.Fatal(err)
		}
		puts[i] = BaseEntry[int]{b, i}
	}
	var entries []OperationEntry[int]
	for i, p := range []string{"/items", "/items/{id}", "/items/{id}/parts", "/items/special", "/files/*", "/a-name-that-does-not-fit-in-a-slot/{id}"} {
		tpl, err := pathpattern.ParseTemplate(p)
		if err != nil {
			tb.Fatal(err)
		}
		entries = append(entries, OperationEntry[int]{"GET", tpl, i})
	}
	ops, err := NewOperations(entries)
	if err != nil {
		tb.Fatal(err)
	}
	return NewHosts(names), with(tb, new(Bases[int]), puts), ops
}

// Names that come and go are found as in a map.
func TestNamesAgainstMap(t *testing.T) {
	t.Parallel()
	type key struct {
		parent uint32
		name   string
	}
	rng := rand.New(rand.NewPCG(9, 10))
	var c names[int]
	want := map[key]uint32{}
	var free []uint32
	check := func(step int, c *names[int], k key, want uint32) {
		t.Helper()
		if got := c.child(k.parent, []byte(k.name)); got != want {
			t.Fatalf("step %d: %v leads to %d, want %d", step, k, got, want)
		}
	}
	for step := range 20_000 {
		k := key{uint32(rng.IntN(3)), fmt.Sprint(rng.IntN(1 + step%700))}
		if rng.IntN(3) == 0 {
			k.name += strings.Repeat("-", len(slot[int]{}.text)-4+rng.IntN(5)) // with text of the length of a slot's and around it
		}
		check(step, &c, k, want[k])
		var before *names[int]
		if step%20 == 0 {
			clone := c.clone()
			before = &clone
		}
		was := want[k]
		if was != root {
			c.remove(k.parent, k.name)
			delete(want, k)
			free = append(free, was)
		}
		if len(free) == 0 {
			free = append(free, uint32(1+len(want)))
		}
		if last := len(free) - 1; rng.IntN(3) > 0 {
			want[k], free = free[last], free[:last]
			c.add(k.parent, k.name, want[k])
		}
		check(step, &c, k, want[k])
		if before != nil {
			check(step, before, k, was)
		}
		if c.n != len(want) {
			t.Fatalf("step %d: there are %d, want %d", step, c.n, len(want))
		}
		if step%100 > 0 {
			continue
		}
		for k, n := range want {
			check(step, &c, k, n)
		}
	}
}
