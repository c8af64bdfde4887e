package openapi

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/importer/openapi/realdocs"
	"hansa.dev/hansa/internal/x/pathpattern"
)

// TestReal imports the documents of real APIs: of GitHub, of Stripe and of every eighth of the 2,640 in the directory, or
// of all of them with HANSA_REAL=all. It needs npm and its registry; the packages stay in .cache.
func TestReal(t *testing.T) {
	share := 8
	switch os.Getenv("HANSA_REAL") {
	case "":
		t.Skip("set HANSA_REAL=1 to import real documents, or HANSA_REAL=all")
	case "all":
		share = 1
	}
	t.Parallel()
	var total tally
	total.add(t, realdocs.GitHub, func(name string) bool { return strings.HasSuffix(name, "/api.github.com.json") })
	if total.imported != 1 || total.operations < 900 {
		t.Errorf("GitHub: %+v", total)
	}
	t.Logf("GitHub: %+v", total)
	n := 0
	total.add(t, realdocs.Directory, func(name string) bool {
		if !strings.HasPrefix(name, "package/api/") || !strings.HasSuffix(name, ".json") {
			return false
		}
		n++
		return n%share == 0 || strings.HasSuffix(name, "/stripe.com.json")
	})
	t.Logf("all: %+v", total)
	if !total.stripe {
		t.Error("Stripe's document is missing")
	}
	if total.imported < 2500/share || total.operations < 60_000/share {
		t.Errorf("only %d documents and %d operations imported", total.imported, total.operations)
	}
	if total.compared < 200/share {
		t.Errorf("only %d documents compared", total.compared)
	}
	if total.refused > total.imported/100 {
		t.Errorf("%d of %d documents refused", total.refused, total.imported+total.refused)
	}
}

// tally counts what became of documents.
type tally struct {
	imported, refused, compared, operations, described, merged, dropped int

	stripe      bool
	slowest     time.Duration
	slowestName string
}

// add imports the documents of a package that want selects.
func (c *tally) add(t *testing.T, spec string, want func(string) bool) {
	t.Helper()
	realdocs.Walk(t, spec, want, func(name string, doc []byte) { c.document(t, name, doc) })
}

func (c *tally) document(t *testing.T, name string, doc []byte) {
	t.Helper()
	start := time.Now()
	objects, report, err := Import(doc, Options{MaxBytes: 64 << 20})
	if d := time.Since(start); d > c.slowest {
		c.slowest, c.slowestName = d, name
	}
	if err != nil {
		c.refused++
		t.Logf("%s: %v", name, err)
		return
	}
	c.imported++
	if len(doc) < oracleBytes && c.imported%oracleShare == 0 {
		c.compare(t, name, doc, report.Described)
	}
	c.operations += report.Operations
	c.described += report.Described
	if strings.HasSuffix(name, "/stripe.com.json") {
		c.stripe = true
	}
	left := report.Described - report.Operations
	for _, n := range report.Notes {
		switch n.Code {
		case NoteOperationMerged:
			c.merged++
			left--
		case NoteOperationDropped:
			c.dropped++
			left--
		}
		if n.Message == "" {
			t.Errorf("%s: empty note %+v", name, n)
		}
	}
	if left != 0 {
		t.Errorf("%s: %d operations described, %d made, and no note about %d", name, report.Described, report.Operations, left)
	}
	api := objects[len(objects)-1].Spec.(*v1.APISpec)
	if at, by := misrouted(t, api.Operations); at != "" {
		t.Errorf("%s: the sample request of %s is served by %s", name, at, by)
	}
}

// A complete OpenAPI library is the oracle for which operations a document has: for one of so many documents, since it
// takes twenty times as long.
const (
	oracleBytes = 500_000
	oracleShare = 10
)

// compare checks the number of operations against the oracle's, unless that refuses the document.
func (c *tally) compare(t *testing.T, name string, doc []byte, described int) {
	t.Helper()
	d, err := openapi3.NewLoader().LoadFromData(doc)
	if err != nil {
		return // it resolves every schema, which not every published document bears
	}
	c.compared++
	want := 0
	for _, item := range d.Paths.Map() {
		want += len(item.Operations())
	}
	if described != want {
		t.Errorf("%s: %d operations described, want %d", name, described, want)
	}
}

// misrouted finds an operation whose sample request another one serves, by the plain rules of matching.
func misrouted(t *testing.T, ops []v1.Operation) (want, got string) {
	t.Helper()
	type candidate struct {
		name     string
		template pathpattern.Template
	}
	// Templates in order of precedence, by method and by their first literal segment, which leaves few to try.
	group := map[string][]candidate{}
	key := func(method, path string) string {
		first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		return method + " " + first
	}
	for _, op := range ops {
		p, err := pathpattern.ParseTemplate(op.Path)
		if err != nil {
			t.Fatal(err)
		}
		k := op.Method + " *"
		if s := p.Segments(); len(s) > 0 && s[0].Kind == pathpattern.Literal {
			k = key(op.Method, "/"+s[0].Text)
		}
		group[k] = append(group[k], candidate{op.Name, p})
	}
	for _, list := range group {
		slices.SortStableFunc(list, func(a, b candidate) int { return a.template.Compare(b.template) })
	}
	for _, op := range ops {
		method, path, err := SampleRequest(op)
		if err != nil {
			t.Fatal(err)
		}
		served := ""
		for _, k := range []string{key(method, path), method + " *"} {
			for _, c := range group[k] {
				if served == "" && c.template.Match(path) {
					served = c.name
				}
			}
		}
		if served != op.Name {
			return op.Method + " " + op.Path, served
		}
	}
	return "", ""
}
