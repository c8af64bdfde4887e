package openapi

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/x/pathpattern"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expected results in testdata and remove those without an input")

// TestGolden imports testdata/*.in.* and compares resources and notes with *.out.yaml.
func TestGolden(t *testing.T) {
	t.Parallel()
	inputs, err := filepath.Glob("testdata/*.in.*")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	wanted := map[string]bool{}
	for _, in := range inputs {
		doc, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		base, _, _ := strings.Cut(in, ".in.")
		out := base + ".out.yaml"
		wanted[out] = true
		got := importText(t, doc)
		if *update {
			if err := os.WriteFile(out, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", out, diff)
		}
	}
	outputs, err := filepath.Glob("testdata/*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range outputs {
		if wanted[out] {
			continue
		}
		if !*update {
			t.Errorf("%s belongs to no input", out)
		} else if err := os.Remove(out); err != nil {
			t.Fatal(err)
		}
	}
}

func importText(t *testing.T, doc []byte) string {
	t.Helper()
	objects, report, err := Import(doc, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := resource.WriteYAML(&b, objects...); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "# %d of %d operations\n", report.Operations, report.Described)
	for _, n := range report.Notes {
		fmt.Fprintf(&b, "# %s: %s: %s\n", n.Where, n.Code, n.Message)
	}
	return b.String()
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in, want string
		changes  int
	}{
		{"/", "/", 0},
		{"", "/", 1},
		{"items", "/items", 1},
		{"/items/", "/items/", 0},
		{"//items///x", "/items/x", 3},
		{"/{a}.{b}", "/{a}.{b}", 0},
		{"/{a}{b}/c", "/{a}/c", 1},
		{"/x:{verb}", "/x:{verb}", 0},
		{"/x?a={b}", "/x", 1},
		{"/x#y", "/x", 1},
		{"/{id}/{id}", "/{id}/{id2}", 1},
		{"/{user id}", "/{user_id}", 1},
		{"/{}", "/{p}", 1},
		{"/{+path}", "/{path*}", 1},
		{"/{path*}", "/{path*}", 1},
		{"/{path*}/x", "/{path}/x", 1},
		{"/{name=projects/*}:run", "/{name}:run", 2},
		{"/v1/{name=projects/*}", "/v1/{name*}", 2},
		{"/{id:[0-9]+}", "/{id}", 1},
		{"/files/*", "/files/*", 1},
		{"/a/*/b", "/a/{any}/b", 1},
		{"/a*b", "/a%2Ab", 1},
		{"/a{b", "/a%7Bb", 1},
		{"/a}b", "/a%7Db", 1},
		{"/100%", "/100%25", 1},
		{"/caf\u00e9 au lait", "/caf%C3%A9%20au%20lait", 0},
		{"/{deep}/x", "/{deep}/x", 1},
		{"/x/{deep}", "/x/{deep*}", 1},
	} {
		got, changes, err := template(tt.in, map[string]bool{"deep": true})
		if err != nil || got.String() != tt.want || len(changes) != tt.changes {
			t.Errorf("template(%q) = %q, %q, %v, want %q with %d changes", tt.in, got, changes, err, tt.want, tt.changes)
		}
	}
	for _, in := range []string{"/a/../b", "/.", "/a\x00", "/" + strings.Repeat("a", 3000)} {
		if got, _, err := template(in, nil); err == nil {
			t.Errorf("template(%q) = %q, want an error", in, got)
		}
	}
}

func TestImportOptions(t *testing.T) {
	t.Parallel()
	doc := `{"openapi": "3.0.0", "info": {"title": "T"}, "servers": [{"url": "https://example.com/v1"}], "paths": {"/x": {"get": {}}}}`
	for _, tt := range []struct {
		name                              string
		o                                 Options
		base, backend, address, host, tls string
	}{
		{"document", Options{}, "/v1", "t", "example.com:443", "example.com", "https"},
		{"named", Options{Name: "shop", BasePath: "/shop"}, "/shop", "shop", "example.com:443", "example.com", "https"},
		{"address", Options{Backend: "b", BackendAddress: "127.0.0.1:9000"}, "/v1", "b", "127.0.0.1:9000", "127.0.0.1:9000", "http"},
		{"url", Options{BackendAddress: "https://[::1]"}, "/v1", "t", "[::1]:443", "[::1]", "https"},
	} {
		objects, _, err := Import([]byte(doc), tt.o)
		if err != nil || len(objects) != 2 {
			t.Errorf("%s: %v, %v", tt.name, objects, err)
			continue
		}
		b, api := objects[0].Spec.(*v1.BackendSpec), objects[1].Spec.(*v1.APISpec)
		got := []string{api.BasePath, api.Backend, b.Endpoints[0].Address, b.Host, b.Protocol}
		if diff := cmp.Diff([]string{tt.base, tt.backend, tt.address, tt.host, tt.tls}, got); diff != "" || objects[0].Metadata.Name != tt.backend {
			t.Errorf("%s: backend %s (-want +got):\n%s", tt.name, objects[0].Metadata.Name, diff)
		}
	}
	objects, _, err := Import([]byte(doc), Options{KeepDefinition: true})
	if err != nil || objects[1].Spec.(*v1.APISpec).Definition.Document != doc {
		t.Errorf("the definition is not kept: %v", err)
	}
	objects, report, err := Import([]byte(doc+strings.Repeat(" ", maxDefinition)), Options{KeepDefinition: true})
	if err != nil || objects[1].Spec.(*v1.APISpec).Definition != nil || !slices.ContainsFunc(report.Notes, func(n Note) bool { return n.Code == NoteTextCut }) {
		t.Errorf("a definition that is too long: %v, %+v", err, report)
	}
}

func TestImportErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		doc, want string
		o         Options
	}{
		{doc: "", want: "no field openapi"},
		{doc: "{", want: "JSON"},
		{doc: "{\n\n\"openapi\": 3}", want: "line 3"},
		{doc: "a: [", want: "YAML"},
		{doc: "\xff", want: "UTF-8"},
		{doc: "swagger: '2.0'", want: "Swagger"},
		{doc: "openapi: 4.0.0", want: "3.0 and 3.1"},
		{doc: "openapi: 3.0.0", want: "nothing to serve"},
		{doc: "openapi: 3.0.0\npaths: {/../x: {get: {}}}", want: "none of the 1 operations"},
		{doc: "openapi: 3.0.0\npaths: {/x: {get: {}}}", o: Options{MaxBytes: 10}, want: "may have 10"},
		{doc: "openapi: 3.0.0\npaths: {/x: {get: {}}}", o: Options{Name: "Bad Name"}, want: "is not a name"},
		{doc: "openapi: 3.0.0\npaths: {/x: {get: {}}}", o: Options{BasePath: "x"}, want: "basePath"},
		{doc: "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nopenapi: 3.0.0\npaths: {/x: {get: {tags: &c [*b,*b,*b,*b,*b,*b,*b,*b], operationId: x, parameters: *c}}}", want: ""},
	} {
		_, _, err := Import([]byte(tt.doc), tt.o)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("Import(%q) = %v, want %q", tt.doc, err, tt.want)
		}
	}
}

func TestSampleRequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ method, path, wantMethod string }{
		{"GET", "/", "GET"}, {"*", "/a/{b}", "GET"}, {"POST", "/{a}.{b}/x:{c}", "POST"}, {"GET", "/f/{p*}", "GET"}, {"GET", "/f/*", "GET"},
	} {
		method, path, err := SampleRequest(v1.Operation{Method: tt.method, Path: tt.path})
		if err != nil {
			t.Fatal(err)
		}
		p, err := pathpattern.ParseTemplate(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		if method != tt.wantMethod || !p.Match(path) {
			t.Errorf("SampleRequest(%s %s) = %s %s", tt.method, tt.path, method, path)
		}
	}
	if _, _, err := SampleRequest(v1.Operation{Method: "GET", Path: "x"}); err == nil {
		t.Error("no error for a path without a slash")
	}
}

// FuzzImport checks that no document makes Import panic, that what it makes is valid and accounts for every operation of
// the document, and that it makes the same again.
func FuzzImport(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range inputs {
		doc, err := os.ReadFile(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	f.Add([]byte(`{"openapi":"3.2.0","paths":{"/{a":{"query":{},"additionalOperations":{"COPY":{},"copy":{}}}},"servers":[{"url":"ftp://x"}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if len(doc) > 1<<16 {
			return
		}
		objects, report, err := Import(doc, Options{KeepDefinition: true})
		if err != nil {
			return
		}
		left := report.Described - report.Operations
		for _, n := range report.Notes {
			if n.Code == NoteOperationMerged || n.Code == NoteOperationDropped && strings.Count(n.Where, ".") > 1 {
				left--
			}
			if n.Message == "" || n.Code == "" {
				t.Errorf("empty note %+v", n)
			}
		}
		if left > 0 {
			t.Errorf("%d operations are lost without a note", left)
		}
		for _, o := range objects {
			o.Metadata.Organization = "default"
			resource.Default(o)
			if err := resource.AsError(resource.Validate(o)); err != nil {
				t.Errorf("not valid: %v", err)
			}
		}
		again, _, err := Import(doc, Options{KeepDefinition: true})
		if err != nil || !slices.EqualFunc(objects, again, func(a, b *v1.Object) bool {
			b.Metadata.Organization = "default"
			return resource.Equal(a, b)
		}) {
			t.Errorf("imported otherwise the second time: %v", err)
		}
	})
}
