package control_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/control"
)

var update = flag.Bool("update", false, "rewrite the reference page")

func TestReference(t *testing.T) {
	t.Parallel()
	page := filepath.Join("..", "..", "docs", "reference", "api.md")
	want := string(control.Reference())
	if strings.Contains(want, "|  |") || strings.Contains(want, "nobody") {
		t.Errorf("a route has no description or no access:\n%s", want)
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/reference/api.md is not current, run go test ./internal/control -run TestReference -update (-want +got):\n%s", diff)
	}
}
