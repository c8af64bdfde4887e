package resource

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
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
