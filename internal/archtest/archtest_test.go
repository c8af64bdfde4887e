package archtest

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite what is generated: the faults in testdata, docs/adr/README.md and docs/reference/metrics.md")

// rule is one rule of the repository. Its broken example is testdata/<name>.txtar.
type rule struct {
	name  string
	check func(*tree) []fault
}

func rules() []rule {
	return []rule{
		{"importorder", importOrder},
		{"packagedoc", packageDocs},
		{"exporteddoc", exportedDocs},
		{"noinit", noInit},
		{"globals", noMutableGlobals},
		{"sizes", sizes},
		{"habits", habits},
		{"nosleep", noSleep},
		{"ports", noFixedPorts},
		{"metrics", metricNames},
		{"metricsdoc", metricsDocumented},
		{"paths", noLocalPaths},
		{"links", docLinks},
		{"examples", docExamples},
		{"adr", decisionRecords},
	}
}

// TestRepository runs every rule over this repository.
func TestRepository(t *testing.T) {
	t.Parallel()
	tree, err := loadTree(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		for name, text := range map[string][]byte{decisionIndex: tree.decisionIndexText(), metricsPage: tree.metricsPageText()} {
			tree.files[name] = text
			if err := os.WriteFile(filepath.Join("../..", name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			for _, f := range sorted(r.check(tree)) {
				t.Error(f)
			}
		})
	}
}

// TestRules runs every rule over a tree that breaks it. The comment of the archive is the list of faults.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join("testdata", r.name+".txtar")
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := loadTree(brokenTree(archive))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range sorted(r.check(tree)) {
				got.WriteString(f.String() + "\n")
			}
			if *update {
				archive.Comment = []byte(got.String())
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got.Len() == 0 {
				t.Error("the rule finds no fault in a tree that breaks it")
			}
			if diff := cmp.Diff(string(archive.Comment), got.String()); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// brokenTree is the file system of an archive. "@" in a file stands for nothing: it keeps what a rule looks for out of
// the sight of the same rule running over this repository.
func brokenTree(archive *txtar.Archive) fstest.MapFS {
	m := fstest.MapFS{"go.mod": {Data: []byte("module example.com/m\n")}}
	for _, f := range archive.Files {
		m[f.Name] = &fstest.MapFile{Data: bytes.ReplaceAll(f.Data, []byte("@"), nil)}
	}
	return m
}

func sorted(faults []fault) []fault {
	slices.SortFunc(faults, func(a, b fault) int {
		if c := strings.Compare(a.path, b.path); c != 0 {
			return c
		}
		if a.line != b.line {
			return a.line - b.line
		}
		return strings.Compare(a.text, b.text)
	})
	return faults
}
