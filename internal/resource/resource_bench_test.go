package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// manyAPIs returns n APIs with five operations and two policies each.
func manyAPIs(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "---\nkind: API\nmetadata: {name: api-%d, labels: {team: t%d}}\nspec:\n  basePath: /api/%d\n  backend: b%d\n  operations:\n", i, i%50, i, i%100)
		for j, m := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
			fmt.Fprintf(&b, "    - {name: op%d, method: %s, path: \"/items/{id}/part%d\"}\n", j, m, j)
		}
		b.WriteString("  policies:\n    request:\n      - apiKey: {}\n      - quota: {}\n")
	}
	return b.Bytes()
}

func BenchmarkDecodeManyYAML(b *testing.B) {
	benchmarkDecode(b, manyAPIs(10_000), 10_000)
}

func BenchmarkDecodeManyJSON(b *testing.B) {
	objects, faults := Decode("many", manyAPIs(10_000), Options{})
	if len(faults) > 0 {
		b.Fatal(AsError(faults))
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	for _, o := range objects {
		if err := enc.Encode(o); err != nil {
			b.Fatal(err)
		}
	}
	benchmarkDecode(b, buf.Bytes(), 10_000)
}

// BenchmarkDecodeDefinition reads one API with a definition of 13 MB.
func BenchmarkDecodeDefinition(b *testing.B) {
	text := strings.Repeat("{\"operationId\": \"repos/get\", \"summary\": \"Get a \\\"repository\\\"\"},\n", 13<<20/66)
	quoted, err := json.Marshal(text)
	if err != nil {
		b.Fatal(err)
	}
	for name, document := range map[string]string{
		"json":    `{"kind": "API", "metadata": {"name": "a"}, "spec": {"basePath": "/", "backend": "b", "definition": {"format": "openapi", "document": ` + string(quoted) + `}}}`,
		"quoted":  "kind: API\nmetadata: {name: a}\nspec:\n  basePath: /\n  backend: b\n  definition:\n    format: openapi\n    document: " + string(quoted) + "\n",
		"literal": "kind: API\nmetadata: {name: a}\nspec:\n  basePath: /\n  backend: b\n  definition:\n    format: openapi\n    document: |\n      " + strings.ReplaceAll(text, "\n", "\n      ") + "\n",
	} {
		b.Run(name, func(b *testing.B) { benchmarkDecode(b, []byte(document), 1) })
	}
}

func benchmarkDecode(b *testing.B, data []byte, want int) {
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		objects, faults := Decode("bench", data, Options{})
		if len(objects) != want || len(faults) > 0 {
			b.Fatal(len(objects), AsError(faults))
		}
	}
}
