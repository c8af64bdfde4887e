package resource

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// FuzzDecode checks that no input makes Decode panic or run long, that every fault has a place and a remedy, and that
// what is accepted is read back as the same from both formats.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(example))
	inputs, err := filepath.Glob("testdata/faults/*.in.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range inputs {
		data, err := os.ReadFile(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		"a: &a [*a]", "? {}\n: x", "--- |\n a\n...\n", "!!binary x", "\ufeffkind: Site", "{\"kind\":\"Site\",\"kind\":1}", "kind: List\nitems: [{kind: Site, metadata: {name: a}}]",
		"kind: Organization\nmetadata: {name: a}\nspec: {description: \"a\\n b\\n\\tc \\n\\u2028\"}\n",
	} {
		f.Add([]byte(s))
	}
	limits := Limits{DocumentBytes: 1 << 20, Nodes: 10_000, Faults: 50}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		objects, faults := Decode("in", data, Options{System: true, Limits: limits})
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%d bytes took %v", len(data), d)
		}
		for _, fault := range faults {
			if fault.File == "" || fault.Line < 1 || fault.Column < 1 || fault.Code == "" || fault.Message == "" || fault.Remedy == "" {
				t.Errorf("incomplete fault %+v", fault)
			}
		}
		// Only a whole input may be relied upon.
		if len(faults) == 0 && len(objects) > 0 {
			for _, o := range objects {
				Default(o)
				if faults := Validate(o); len(faults) > 0 {
					t.Errorf("accepted, and refused with its defaults: %v", AsError(faults))
				}
				before := Clone(o)
				Default(o)
				if !Equal(before, o) {
					t.Errorf("the defaults of the defaults differ")
				}
			}
			roundTrip(t, objects)
		}
		Locate("in", data, []v1.Fault{{Kind: "Site", Name: "a", Organization: "default", Path: "spec.region"}}, Options{Limits: limits})
	})
}

// FuzzAside checks that setting long texts aside never changes what a document means: if the parts are read without a
// fault, they are what the whole is.
func FuzzAside(f *testing.F) {
	for _, s := range []string{
		"a: |\n  b: c\n   d\n\n  e\nf: g\n", "a:\n  - b: >-\n      x\n       y\n    c: d\n", "a: \"x\\ny\"\nb: \"c\" # d\n", "a: |+\n b\n\n\nc: d",
		"a: \"x\n k: |\n  y\n z\"\n", "a: x\n  k: \"b\"\n", "{a: \"x\n k: \", b, \"\n}\n", "a: |\n\t b\n  c\n", "a: |\r\n  b\r\n", "- a: |\n   b\n", "a: |\n  b\n c\n", "a: |\n   b\n  c\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		root := func(data []byte) *yaml.Node {
			all := &yaml.Node{Kind: yaml.SequenceNode}
			if unmarshalYAML(data, func(n *yaml.Node) { all.Content = append(all.Content, n) }) != nil {
				return nil
			}
			return all
		}
		whole := root(data)
		a := newAside(data, 1)
		parts := root(a.reduce(data))
		if whole == nil || parts == nil || a.restore(parts) != nil {
			return
		}
		if diff := cmp.Diff(outline(whole), outline(parts)); diff != "" {
			t.Errorf("%d texts set aside (-whole +parts):\n%s", len(a.texts), diff)
		}
	})
}

// outline is what the strict walk looks at in a tree.
func outline(n *yaml.Node) []string {
	out := []string{fmt.Sprint(n.Kind, n.ShortTag(), n.Line, " ", n.Value)}
	if n.Kind == yaml.AliasNode {
		return out
	}
	for _, c := range n.Content {
		out = append(out, outline(c)...)
	}
	return append(out, "end")
}

// FuzzIndicators checks that a document has at most three nodes for each indicator.
func FuzzIndicators(f *testing.F) {
	for _, s := range []string{"a: b", "[?,?,:,a: b,[],{}]", "- - - a\n- ? b\n  : c\n", "{a,b,?c:d}", "? |\n a\n: >\n b\n", strings.Repeat("&a *a,", 3), "a\nb\n", "[a: [b: {c: }]]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		nodes, documents := 0, 0
		var count func(n *yaml.Node)
		count = func(n *yaml.Node) {
			nodes++
			for _, c := range n.Content {
				count(c)
			}
		}
		if unmarshalYAML(data, func(root *yaml.Node) { documents++; count(root) }) != nil {
			return
		}
		if n := Indicators(data); nodes > 3*n+documents {
			t.Errorf("%d nodes of %d indicators", nodes, n)
		}
	})
}
