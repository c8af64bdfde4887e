package resource

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"

	"github.com/google/go-cmp/cmp"
)

// example is the smallest useful set of resources.
const example = `apiVersion: hansa.dev/v1
kind: Site
metadata: {name: eu-west}
spec: {cloud: aws, region: eu-west-1, jurisdiction: EU}
---
kind: GatewayGroup
metadata: {name: eu}
spec: {site: eu-west}
---
kind: Environment
metadata: {name: prod}
spec: {placements: [{gatewayGroup: eu}]}
---
kind: EnvironmentGroup
metadata: {name: public}
spec: {hostnames: [api.example.com, "*.api.example.com"], environments: [prod]}
---
kind: Backend
metadata: {name: catalog}
spec: {endpoints: [{address: "127.0.0.1:9000"}]}
---
kind: API
metadata: {name: catalog}
spec:
  basePath: /catalog/v1
  backend: catalog
  operations: [{name: getItem, method: GET, path: "/items/{id}"}]
  policies:
    request:
      - apiKey: {}
      - quota: {}                  # limit comes from the product
---
kind: Deployment
metadata: {name: catalog-prod}
spec: {api: catalog, environment: prod}      # revision: latest unless named
---
kind: Product
metadata: {name: gold}
spec: {apis: [catalog], quota: {limit: 100000, window: 1h}, rateLimit: {limit: 50, window: 1s}}
---
kind: Application
metadata: {name: shop}
spec: {owner: shop@example.com}
---
kind: Subscription
metadata: {name: shop-gold}
spec: {application: shop, product: gold}     # keys: hansa keys create|import|rotate|revoke
`

func TestDecodeExample(t *testing.T) {
	t.Parallel()
	objects, faults := Decode("example.yaml", []byte(example), Options{})
	if len(faults) > 0 {
		t.Fatal(AsError(faults))
	}
	if len(objects) != 10 {
		t.Fatalf("%d resources, want 10", len(objects))
	}
	want := &v1.Object{
		APIVersion: v1.APIVersion,
		Kind:       v1.KindAPI,
		Metadata:   v1.Metadata{Name: "catalog", Organization: "default"},
		Spec: &v1.APISpec{
			BasePath:   "/catalog/v1",
			Backend:    "catalog",
			Operations: []v1.Operation{{Name: "getItem", Method: "GET", Path: "/items/{id}"}},
			Policies:   v1.Policies{Request: []v1.Policy{{APIKey: &v1.APIKeyPolicy{}}, {Quota: &v1.QuotaPolicy{}}}},
		},
	}
	if diff := cmp.Diff(want, objects[5]); diff != "" {
		t.Errorf("API (-want +got):\n%s", diff)
	}
	product := objects[7].Spec.(*v1.ProductSpec)
	if got := product.Quota.Window.Std(); got != time.Hour {
		t.Errorf("window = %v, want 1h", got)
	}
}

// TestDecodeFaults reads testdata/*.in.yaml and compares the faults with *.out.txt.
func TestDecodeFaults(t *testing.T) {
	t.Parallel()
	golden(t, "testdata/faults", ".out.txt", func(name string, in []byte) string {
		_, faults := Decode(name, in, Options{})
		var sb strings.Builder
		for _, f := range faults {
			fmt.Fprintf(&sb, "%s\n    %s\n", FormatFault(f), f.Code)
			if f.Line == 0 || f.Column == 0 || f.Remedy == "" || f.Message == "" {
				t.Errorf("%s: fault without place, message or remedy: %+v", name, f)
			}
		}
		return sb.String()
	})
}

// golden runs do over every dir/*.in.* and compares with the file that has the suffix out instead. With -update it
// rewrites those files and removes the ones that belong to no input.
func golden(t *testing.T, dir, out string, do func(name string, in []byte) string) {
	t.Helper()
	inputs, err := filepath.Glob(filepath.Join(dir, "*.in.*"))
	if err != nil || len(inputs) == 0 {
		t.Fatalf("inputs in %s: %v, %v", dir, inputs, err)
	}
	wanted := map[string]bool{}
	for _, in := range inputs {
		data, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		base, _, _ := strings.Cut(filepath.Base(in), ".in.")
		path := filepath.Join(dir, base+out)
		wanted[path] = true
		got := do(filepath.Base(in), data)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", base, diff)
		}
	}
	outputs, err := filepath.Glob(filepath.Join(dir, "*"+out))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range outputs {
		switch {
		case wanted[path]:
		case *update:
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s belongs to no input", path)
		}
	}
}

// faultsOf decodes a single faulty document and returns its faults.
func faultsOf(t *testing.T, in string, o Options) []v1.Fault {
	t.Helper()
	objects, faults := Decode("in.yaml", []byte(in), o)
	if len(objects) > 0 && len(faults) > 0 && !strings.Contains(in, "---") {
		t.Errorf("a document with faults gives resources: %v", objects)
	}
	return faults
}

func TestDecodeHostile(t *testing.T) {
	t.Parallel()
	site := "kind: Site\nmetadata: {name: a}\nspec: {}\n"
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 12 {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	small := Limits{DocumentBytes: 1 << 20, Nodes: 10_000}
	for _, tt := range []struct {
		name, in   string
		limits     Limits
		code       string
		line, many int // the expected line, and number of faults
	}{
		{name: "large", in: site + "# " + strings.Repeat("x", 32<<20), code: CodeTooLarge, line: 1},
		{name: "large in the middle", in: site + "---\n# " + strings.Repeat("x", 1<<20) + "\n---\n" + strings.ReplaceAll(site, ": a", ": b"), limits: small, code: CodeTooLarge, line: 4},
		{name: "deep yaml", in: strings.Repeat("[", 5000), code: CodeSyntax},
		{name: "deep closed yaml", in: "a: " + strings.Repeat("[", 500) + strings.Repeat("]", 500), code: CodeTooDeep, line: 1},
		{name: "deep json", in: strings.Repeat(`{"a":`, 100_000), code: CodeTooDeep, line: 1},
		{name: "alias bomb", in: bomb.String(), limits: small, code: CodeTooManyNodes},
		{name: "alias bytes", in: "kind: API\nx: &x " + strings.Repeat("x", 1000) + "\ny: [" + strings.TrimSuffix(strings.Repeat("*x,", 2000), ",") + "]\n", limits: small, code: CodeTooManyNodes},
		{name: "alias cycle", in: "kind: &k [*k]", code: CodeTooDeep},
		{name: "nodes yaml", in: "a: [" + strings.Repeat("x,", 20_000) + "]", limits: small, code: CodeTooManyNodes, line: 1},
		{name: "nodes json", in: `{"a": [` + strings.Repeat("1,", 20_000) + "1]}", limits: small, code: CodeTooManyNodes, line: 1},
		{name: "nodes behind a text", in: "{a: \"x\n k: |\n   \", " + strings.Repeat("x,", 20_000) + "}", limits: small, code: CodeSyntax},
		{name: "utf-8", in: site + "---\nkind: Site\nmetadata: {name: \"b\xff\"}\n", code: CodeEncoding, line: 6},
		{name: "utf-16", in: "\xff\xfek\x00i\x00n\x00d\x00", code: CodeEncoding, line: 1},
		{name: "nul", in: "kind: \x00", code: CodeSyntax, line: 1},
		{name: "control character", in: site + "---\nkind: Site\nmetadata: {name: \"\u0085 \u0007\"}\n", code: CodeSyntax, line: 6},
		{name: "unknown anchor", in: "kind: *nothing", code: CodeSyntax, line: 1},
		{name: "json cut off", in: "{\"kind\":\n \"Site\",", code: CodeSyntax, line: 2},
		{name: "json colon", in: "{\"kind\":\n \"Site\" \"metadata\"}", code: CodeSyntax, line: 2},
		{name: "many faults", in: "kind: Site\nmetadata: {name: a}\nspec:\n" + strings.Repeat("  x: 1\n", 2000), code: CodeUnknownField, line: 4, many: 1001},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			faults := faultsOf(t, tt.in, Options{Limits: tt.limits})
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			if want := max(tt.many, 1); len(faults) != want {
				t.Fatalf("%d faults, want %d: %v", len(faults), want, AsError(faults))
			}
			if f := faults[0]; f.Code != tt.code || tt.line != 0 && f.Line != tt.line || f.Line == 0 || f.Remedy == "" {
				t.Errorf("fault %+v, want %s in line %d", f, tt.code, tt.line)
			}
		})
	}
}

func TestDecodeForms(t *testing.T) {
	t.Parallel()
	want, faults := Decode("a", []byte("kind: Site\nmetadata: {name: a, labels: {x: \"1\"}}\nspec: {region: \"\U0001F30D\"}\n"), Options{})
	if len(faults) > 0 {
		t.Fatal(AsError(faults))
	}
	for name, in := range map[string]string{
		"json":           "{\"kind\": \"Site\",\r\n\t\"metadata\": {\"name\": \"a\", \"labels\": {\"x\": \"1\"}}, \"spec\": {\"region\": \"\\ud83c\\udf0d\"}}",
		"flow yaml":      `{kind: Site, metadata: {name: a, labels: {x: "1"}}, spec: {region: 🌍}}`,
		"aliases":        "kind: Site\nmetadata: {name: &n a, labels: &l {x: '1'}}\nspec: {region: \"\\U0001F30D\"}\n",
		"bom":            "\xef\xbb\xbfkind: Site\nmetadata: {name: a, labels: {x: '1'}}\nspec: {region: 🌍}\n",
		"directive":      "%YAML 1.2\n# comment\n---\nkind: Site\nmetadata: {name: a, labels: {x: '1'}}\nspec: {region: 🌍}\n...\n",
		"crlf":           "---\r\nkind: Site\r\nmetadata:\r\n  name: a\r\n  labels:\r\n    x: '1'\r\nspec: {region: 🌍}\r\n---\r\n",
		"list":           "kind: List\nitems:\n- kind: Site\n  metadata: {name: a, labels: {x: '1'}}\n  spec: {region: 🌍}\n",
		"status and seq": "kind: Site\nmetadata: {name: a, labels: {x: '1'}}\nspec: {region: 🌍}\nstatus: {anything: [1]}\n",
		"null fields":    `{"kind": "Site", "metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"region": "🌍", "zone": null}, "status": null}`,
		"marker json":    "---\n{\"kind\": \"Site\", \"metadata\": {\"name\": \"a\", \"labels\": {\"x\": \"1\"}}, \"spec\": {\"region\": \"🌍\"}}\n---\n",
	} {
		got, faults := Decode(name, []byte(in), Options{})
		if diff := cmp.Diff(want, got); diff != "" || len(faults) > 0 {
			t.Errorf("%s: faults %v (-want +got):\n%s", name, AsError(faults), diff)
		}
	}
	two, faults := Decode("two", []byte(`{"kind":"Site","metadata":{"name":"a"}} {"kind":"Site","metadata":{"name":"b"}}`), Options{Organization: "acme"})
	if len(faults) > 0 || len(two) != 2 || two[1].Key() != (v1.Key{Organization: "acme", Kind: v1.KindSite, Name: "b"}) {
		t.Errorf("two values in a row: %v, %v", two, AsError(faults))
	}
	two, faults = Decode("mac", []byte("kind: Site\rmetadata: {name: a}\r---\rkind: Site\rmetadata: {name: b}\r"), Options{})
	if len(faults) > 0 || len(two) != 2 {
		t.Errorf("two documents with lone CRs: %v, %v", two, AsError(faults))
	}
	gone, faults := Decode("identity", []byte("kind: API\nmetadata: {name: a}\n---\nkind: API\nmetadata: {name: b}\nspec: {old: field}\n"), Options{Identity: true})
	if len(faults) > 0 || len(gone) != 2 {
		t.Errorf("identities: %v, %v", gone, AsError(faults))
	}
}

// TestLongTexts checks that texts which are set aside, since they would exceed the bound on nodes, come back as they are.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	lines := strings.Repeat("{\"a\": [1, 2], \"b\": \"- x: y\"}\n\n  indented: é\n", 200)
	block := "        " + strings.ReplaceAll(lines, "\n", "\n        ")
	for name, document := range map[string]string{
		"literal": "|\n" + block + "\n",
		"strip":   "|-\n" + block,
		"keep":    "|+\n" + block + "\n\n\n",
		"folded":  ">-\n" + block,
		"quoted":  fmt.Sprintf("%q", lines),
		"crlf":    "|\r\n" + strings.ReplaceAll(block, "\n", "\r\n") + "\r\n",
	} {
		in := []byte("kind: API\nmetadata: {name: a}\nspec:\n  definition:\n    document: " + document + "\n    format: openapi\n  basePath: /a\n  backend: b\n  wrong: 1\n")
		_, wantFaults := Decode(name, in, Options{})
		_, gotFaults := Decode(name, in, Options{Limits: Limits{Nodes: 100}})
		if diff := cmp.Diff(wantFaults, gotFaults); diff != "" || len(gotFaults) != 1 || gotFaults[0].Code != CodeUnknownField {
			t.Errorf("%s: faults (-whole +aside):\n%s", name, diff)
		}
		in = bytes.Replace(in, []byte("  wrong: 1\n"), nil, 1)
		want, wantFaults := Decode(name, in, Options{})
		got, gotFaults := Decode(name, in, Options{Limits: Limits{Nodes: 100}})
		if len(wantFaults)+len(gotFaults) > 0 || len(want) != 1 {
			t.Fatalf("%s: %v, %v", name, AsError(wantFaults), AsError(gotFaults))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-whole +aside):\n%s", name, diff)
		}
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	faults := []v1.Fault{
		{Kind: "API", Name: "catalog", Organization: "default", Path: "spec.operations[0].path"},
		{Kind: "API", Name: "catalog", Organization: "default", Path: "spec.policies.request[1].quota.limit"},
		{Kind: "API", Name: "catalog", Organization: "other", Path: "spec"},
		{Kind: "Product", Name: "gold", Organization: "default", Path: `spec.apis[0]`},
	}
	Locate("shop.yaml", []byte(example), faults, Options{})
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column))
	}
	if diff := cmp.Diff([]string{"shop.yaml:27:51", "shop.yaml:31:16", ":0:0", "shop.yaml:39:15"}, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	objects, faults := Decode("example.yaml", []byte(example), Options{})
	if len(faults) > 0 {
		t.Fatal(AsError(faults))
	}
	for _, o := range objects {
		Default(o)
	}
	roundTrip(t, objects)
}

// roundTrip checks that what is written in either format is read back as the same.
func roundTrip(t *testing.T, objects []*v1.Object) {
	t.Helper()
	var asYAML, asJSON bytes.Buffer
	if err := WriteYAML(&asYAML, objects...); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(&asJSON, objects...); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{asYAML.Bytes(), asJSON.Bytes()} {
		again, faults := Decode("again", b, Options{System: true})
		if len(faults) > 0 {
			t.Fatalf("%v in\n%.2000s", AsError(faults), b)
		}
		if len(again) != len(objects) {
			t.Fatalf("%d resources, want %d", len(again), len(objects))
		}
		for i := range again {
			if !Equal(objects[i], again[i]) {
				t.Errorf("read back as another (-want +got):\n%s", cmp.Diff(objects[i], again[i]))
			}
		}
	}
}
