package resource

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite what is generated: docs.json, docs/reference/resources.md and the expected results in testdata")

const (
	referencePage = "../../docs/reference/resources.md"
	faultsPage    = "../../docs/reference/faults.md"
)

// TestGeneratedDocs checks that docs.json holds the doc comments of api/v1 as they are now.
func TestGeneratedDocs(t *testing.T) {
	t.Parallel()
	got, err := json.MarshalIndent(docsOf(t, "../../api/v1"), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	generated(t, "docs.json", got)
}

// TestGeneratedReference checks that docs/reference/resources.md is what docs.json and the types give. With -update it
// must run after TestGeneratedDocs has rewritten docs.json: run it twice.
func TestGeneratedReference(t *testing.T) {
	t.Parallel()
	generated(t, referencePage, reference(t))
}

// TestGeneratedFaults checks that docs/reference/faults.md lists the codes of fault.go.
func TestGeneratedFaults(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "fault.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("# Faults\n\n<!-- Generated from the comments of internal/resource/fault.go: go test ./internal/resource -run TestGenerated -update -->\n\n" +
		"What can be wrong with the resources that `apply`, `plan` and `bundle build` are given. The refusal `invalid` lists all faults of the\n" +
		"input in `faults`, each with file, line, column, kind, name, field, value, code, message and remedy; nothing is applied.\n\n| code | |\n|---|---|\n")
	seen := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Code") {
			return true
		}
		code, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		doc, ok := strings.CutPrefix(text(v.Doc), v.Names[0].Name+": ")
		if !ok || seen[code] {
			t.Errorf("%s: its comment must begin with its name, and its code be its own", v.Names[0].Name)
		}
		seen[code] = true
		fmt.Fprintf(&b, "| `%s` | %s%s |\n", code, strings.ToUpper(doc[:1]), escape(doc[1:]))
		return true
	})
	generated(t, faultsPage, b.Bytes())
}

func generated(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date; run: go test ./internal/resource -run TestGenerated -update (-is +should be):\n%s", path, diff)
	}
}

// docsOf collects the doc comments of the struct types of a package that are written in JSON.
func docsOf(t *testing.T, dir string) map[string]typeDoc {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	reachable := map[string]bool{}
	for _, info := range v1.Kinds() {
		reach(reflect.TypeOf(info.NewSpec()), reachable)
	}
	reach(reflect.TypeFor[v1.Object](), reachable)
	docs := map[string]typeDoc{}
	fset := token.NewFileSet()
	for _, name := range files {
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, s := range gen.Specs {
				ts := s.(*ast.TypeSpec)
				st, ok := ts.Type.(*ast.StructType)
				if !ok || !reachable[ts.Name.Name] {
					continue
				}
				td := typeDoc{Doc: text(gen.Doc), Fields: map[string]string{}}
				for _, field := range st.Fields.List {
					tag, err := strconv.Unquote(field.Tag.Value)
					if err != nil {
						t.Fatal(err)
					}
					name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
					doc := text(field.Doc)
					if doc == "" {
						t.Errorf("%s.%s has no doc comment", ts.Name.Name, field.Names[0].Name)
					}
					td.Fields[name] = lead(doc, field.Names[0].Name, name)
				}
				docs[ts.Name.Name] = td
			}
		}
	}
	return docs
}

// reach collects the names of the struct types of api/v1 that t is made of.
func reach(t reflect.Type, names map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		reach(t.Elem(), names)
	case reflect.Struct:
		if names[t.Name()] || t.PkgPath() != reflect.TypeFor[v1.Object]().PkgPath() {
			return
		}
		names[t.Name()] = true
		for field := range t.Fields() {
			reach(field.Type, names)
		}
	}
}

// text joins the lines of a comment.
func text(c *ast.CommentGroup) string {
	return strings.Join(strings.Fields(c.Text()), " ")
}

// lead replaces the Go name that a comment begins with by the name in JSON.
func lead(doc, goName, name string) string {
	if rest, ok := strings.CutPrefix(doc, goName+" "); ok {
		return name + " " + rest
	}
	return doc
}

// reference writes docs/reference/resources.md.
func reference(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("# Resources\n\n<!-- Generated from the types and comments of api/v1: go test ./internal/resource -run TestGenerated -update -->\n\n")
	b.WriteString("What Hansa serves is described by resources, as YAML or JSON documents. `hansa explain KIND.field` shows the same texts,\n`hansa schema KIND` the JSON Schema. " +
		"Names are 1 to 63 characters of `a-z`, `0-9`, `-` and `.`; durations are written as `250ms`, `30s`, `1h` or `90d`.\n\n")
	b.WriteString("The smallest useful set:\n\n```yaml\n" + example + "```\n\n")
	writeFields(&b, t, "Metadata", "Every resource has these fields beside its spec.", "", func() *JSONSchema {
		s := mustSchema(t, v1.KindSite)
		return &JSONSchema{order: []string{"apiVersion", "kind", "metadata", "status"}, Properties: s.Properties, Required: s.Required}
	}())
	for _, info := range v1.Kinds() {
		s := mustSchema(t, info.Kind)
		intro := strings.Replace(s.Description, reflect.TypeOf(info.NewSpec()).Elem().Name()+" describes", "Describes", 1)
		switch {
		case info.System:
			intro += " Written by Hansa alone; `apply` and `delete` refuse it."
		case info.Global:
			intro += " Belongs to no organization."
		}
		writeFields(&b, t, string(info.Kind), intro, "spec", s.Properties["spec"])
	}
	return b.Bytes()
}

func mustSchema(t *testing.T, kind v1.Kind) *JSONSchema {
	t.Helper()
	info, _ := v1.Lookup(kind)
	s, err := Schema(info)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func writeFields(b *bytes.Buffer, t *testing.T, title, intro, path string, s *JSONSchema) {
	t.Helper()
	fmt.Fprintf(b, "## %s\n\n%s\n\n| field | type | |\n|---|---|---|\n", title, intro)
	writeRows(b, path, s, map[reflect.Type]string{})
	b.WriteString("\n")
}

// writeRows writes a row for each field below s. A type that has been written is referred to.
func writeRows(b *bytes.Buffer, path string, s *JSONSchema, written map[reflect.Type]string) {
	inner := s.inner()
	for _, name := range inner.order {
		f := inner.Properties[name]
		at := join(path, name)
		if f.Items != nil {
			at += "[]"
		}
		doc := f.Description
		sub := f.inner()
		first, again := written[sub.typ]
		if len(sub.order) > 0 && again {
			doc += " Fields as in `" + first + "`."
		}
		required := ""
		if inner.mark(name) != "" {
			required = ", required"
		}
		fmt.Fprintf(b, "| `%s` | %s%s | %s |\n", at, escape(f.typeName()), required, escape(doc))
		if len(sub.order) > 0 && !again {
			written[sub.typ] = at
			writeRows(b, at, f, written)
		}
	}
}

func escape(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace(s)
}

// TestDocumentedDefaults checks that a comment that names a plain default names the one that Default fills in.
func TestDocumentedDefaults(t *testing.T) {
	t.Parallel()
	plain := regexp.MustCompile(`Default: ("[^"]*"|[A-Za-z0-9/-]+)[.,;]`)
	checked := 0
	var visit func(path string, s *JSONSchema)
	visit = func(path string, s *JSONSchema) {
		for name, f := range s.inner().Properties {
			at := join(path, name)
			if f.Default != nil {
				checked++
				m := plain.FindStringSubmatch(f.Description)
				if m == nil || plainDefault(strings.Trim(m[1], `"`)) != fmt.Sprint(f.Default) {
					t.Errorf("%s: the default is %v, the comment says %q", at, f.Default, f.Description)
				}
			}
			visit(at, f)
		}
	}
	for _, info := range v1.Kinds() {
		visit(string(info.Kind), mustSchema(t, info.Kind))
	}
	if checked < 8 {
		t.Errorf("only %d defaults checked", checked)
	}
}

// plainDefault returns a default as the type of the field writes it: 60s is 1m.
func plainDefault(s string) string {
	if d, err := v1.ParseDuration(s); err == nil {
		return d.String()
	}
	return s
}

// TestSchemaAgrees checks that the schema of each kind requires and admits what Decode does, on small documents.
func TestSchemaAgrees(t *testing.T) {
	t.Parallel()
	for _, info := range v1.Kinds() {
		s := mustSchema(t, info.Kind)
		_, faults := Decode("in", fmt.Appendf(nil, "kind: %s\nmetadata: {}\nspec: {}\n", info.Kind), Options{System: true})
		got := map[string]bool{}
		for _, f := range faults {
			if f.Code == CodeRequired {
				got[f.Path] = true
			}
		}
		want := map[string]bool{"metadata.name": true}
		for _, name := range s.Properties["spec"].Required {
			want["spec."+name] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: required by the schema and by Decode (-schema +decode):\n%s", info.Kind, diff)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("%s: %v", info.Kind, err)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, path, want, err string }{
		{kind: "api", path: "spec.operations.path", want: "API.spec.operations.path\ntype: text\n\n  path is the path below the base path;"},
		{kind: "APIs", path: "operations[0].policies.request.apiKey", want: "header  <text>"},
		{kind: "API", want: "spec  <fields> required"},
		{kind: "environmentgroups", path: "metadata.labels", want: "type: map of text"},
		{kind: "Product", path: "quota.window", want: "type: duration"},
		{kind: "Backend", path: "spec.protocol", want: "type: http | https"},
		{kind: "API", path: "spec.basepath", err: `did you mean "basePath"?`},
		{kind: "API", path: "metadata.name.x", err: "it has none"},
		{kind: "Apo", err: `did you mean "API"?`},
		{kind: "zzz", err: "the kinds are: API, APIRevision, Application"},
	} {
		var sb strings.Builder
		info, err := KindOf(tt.kind)
		if err == nil {
			err = Explain(&sb, info, tt.path)
		}
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Explain(%s, %s): error %v, want %q", tt.kind, tt.path, err, tt.err)
			}
			continue
		}
		if err != nil || !strings.Contains(sb.String(), tt.want) {
			t.Errorf("Explain(%s, %s) = %v\n%s\nwant %q in it", tt.kind, tt.path, err, sb.String(), tt.want)
		}
	}
}
