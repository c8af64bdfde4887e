package control_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

// heap returns what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// step runs one step and tells its time and what it left in memory.
func step(t *testing.T, what string, f func()) {
	t.Helper()
	before, began := heap(), time.Now()
	f()
	t.Logf("%s: %v, heap %+d MB", what, time.Since(began).Round(time.Millisecond), (int64(heap())-int64(before))>>20)
}

// TestLargeApplies applies what the record must take at once: 10,000 resources, and an API with a definition of 13 MB.
// It prints what it measured.
func TestLargeApplies(t *testing.T) {
	if os.Getenv("HANSA_SLOW") == "" {
		t.Skip("slow: set HANSA_SLOW=1")
	}
	c := newCluster(t)
	c.apply(shop)
	var docs strings.Builder
	const n = 5000
	for i := range n {
		fmt.Fprintf(&docs, "---\nkind: API\nmetadata: {name: api-%05d}\nspec:\n  basePath: /bulk/%05d\n  backend: catalog\n  operations:\n", i, i)
		for op := range 5 {
			fmt.Fprintf(&docs, "  - {name: op%d, method: GET, path: \"/items%d/{id}\"}\n", op, op)
		}
		fmt.Fprintf(&docs, "  policies: {request: [{apiKey: {}}, {quota: {}}]}\n---\nkind: Deployment\nmetadata: {name: d-%05d}\nspec: {api: api-%05d, environment: prod}\n", i, i)
	}
	step(t, "apply of 10,000 resources", func() {
		if out := c.apply(docs.String()); len(out.Changes) != 2*n {
			t.Fatalf("%d changes, want %d", len(out.Changes), 2*n)
		}
	})
	step(t, "the same again", func() {
		if out := c.apply(docs.String()); len(out.Changes) != 0 {
			t.Fatalf("%d changes, want none", len(out.Changes))
		}
	})
	step(t, "one change among them", func() {
		c.apply("{kind: API, metadata: {name: api-00007}, spec: {basePath: /bulk/00007, backend: catalog}}")
	})
	line := `{"paths": {"/x": {"get": {"description": "` + strings.Repeat("words ", 20) + `"}}}}` + "\n"
	document := strings.Repeat("      "+line, 13<<20/(len(line)+6))
	step(t, fmt.Sprintf("apply of a definition of %d MB", len(document)>>20), func() {
		c.apply("kind: API\nmetadata: {name: big}\nspec:\n  basePath: /big\n  backend: catalog\n  definition:\n    format: openapi\n    document: |\n" + document)
	})
	step(t, "read of it", func() {
		o, err := c.admin.Get(t.Context(), key(v1.KindAPI, "big"))
		if err != nil || len(o.Spec.(*v1.APISpec).Definition.Document) < 12<<20 {
			t.Fatalf("the definition is not whole: %v", err)
		}
	})
}

// TestMillionKeys imports a million keys and prints what it took, also of memory.
func TestMillionKeys(t *testing.T) {
	if os.Getenv("HANSA_SLOW") == "" {
		t.Skip("slow: set HANSA_SLOW=1")
	}
	c := newCluster(t)
	c.apply(shop)
	const keys = 1_000_000
	step(t, "import of a million keys", func() {
		out, err := c.admin.ImportKeys(t.Context(), "default", "shop-gold", client.ContentTypeKeyLines, numbered(keys))
		if err != nil || out.Imported != keys {
			t.Fatalf("%+v, %v", out, err)
		}
	})
	step(t, "suspension of their subscription", func() {
		c.apply("{kind: Subscription, metadata: {name: shop-gold}, spec: {application: shop, product: gold, suspended: true}}")
	})
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for l := range strings.Lines(string(status)) {
			if strings.HasPrefix(l, "VmHWM") {
				t.Log(strings.TrimSpace(l))
			}
		}
	}
}
