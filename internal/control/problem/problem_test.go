package problem

import (
	"encoding/json"
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "hansa.dev/hansa/api/v1"
)

var update = flag.Bool("update", false, "rewrite the reference page")

// constants returns the values of the constants of type Code in this package's source.
func constants(t *testing.T) map[Code]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[Code]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "Code" {
			return true
		}
		for _, v := range spec.Values {
			s, err := strconv.Unquote(v.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found[Code(s)] = true
		}
		return true
	})
	return found
}

func TestRegistryHoldsEveryCode(t *testing.T) {
	t.Parallel()
	used := constants(t)
	if len(used) < 20 {
		t.Fatalf("found %d constants of type Code, want all of them", len(used))
	}
	last := 0
	for _, row := range Registry() {
		if !used[row.Code] {
			t.Errorf("codes.json has %q, which no constant names", row.Code)
		}
		delete(used, row.Code)
		if row.Status < 400 || row.Status > 599 || row.Status < last {
			t.Errorf("%q: status %d, want 400 to 599 and in ascending order", row.Code, row.Status)
		}
		last = row.Status
		if row.Title == "" || row.Meaning == "" || row.Remedy == "" {
			t.Errorf("%q: title, meaning and remedy must all be there", row.Code)
		}
	}
	for code := range used {
		t.Errorf("the code %q is not documented in codes.json", code)
	}
}

func TestReferencePageIsCurrent(t *testing.T) {
	t.Parallel()
	page := filepath.Join("..", "..", "..", "docs", "reference", "errors.md")
	want := string(Reference())
	if *update {
		if err := os.MkdirAll(filepath.Dir(page), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/reference/errors.md is not current, run go test ./internal/control/problem -update (-want +got):\n%s", diff)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	cause := errors.New("secret cause")
	for _, tt := range []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"refusal", New(NotFound, "no api %q", "x").Because(cause), 404, "not-found"},
		{"wrapped refusal", errors.Join(New(Conflict, "moved")), 409, "conflict"},
		{"any other error", cause, 500, "internal"},
		{"unknown code", New("nonsense", "x"), 500, "internal"},
		{"retry", &Error{Code: Busy, RetryAfter: 1500 * time.Millisecond}, 503, "busy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			if got := Write(w, "req-1", tt.err); got != tt.status || w.Code != tt.status {
				t.Errorf("Write(%v) = %d, sent %d, want %d", tt.err, got, w.Code, tt.status)
			}
			var p v1.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if p.Code != tt.code || p.Status != tt.status || p.RequestID != "req-1" || p.Title == "" || p.Detail == "" ||
				p.Type != TypeBase+tt.code {
				t.Errorf("Write(%v) sent %+v", tt.err, p)
			}
			if strings.Contains(w.Body.String(), "secret cause") {
				t.Errorf("Write(%v) shows the cause to the caller: %s", tt.err, w.Body)
			}
			if got := w.Header().Get("Content-Type"); got != v1.ContentTypeProblem {
				t.Errorf("Content-Type = %q, want %q", got, v1.ContentTypeProblem)
			}
			if tt.name == "retry" && w.Header().Get("Retry-After") != "2" {
				t.Errorf("Retry-After = %q, want 2: rounded up", w.Header().Get("Retry-After"))
			}
		})
	}
}
