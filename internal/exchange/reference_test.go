package exchange

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/reference/refusals.md")

// TestReferencePageIsCurrent generates the page about the refusals of gateways from the table of codes.
func TestReferencePageIsCurrent(t *testing.T) {
	t.Parallel()
	page := filepath.Join("..", "..", "docs", "reference", "refusals.md")
	want := reference()
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
		t.Errorf("docs/reference/refusals.md is not current, run go test ./internal/exchange -update (-want +got):\n%s", diff)
	}
}

func reference() string {
	var b strings.Builder
	b.WriteString(`# Refusals of a gateway

<!-- Generated from internal/exchange/codes.go by "go test ./internal/exchange -update". -->

What a gateway answers by itself is ` + "`application/problem+json`" + ` (RFC 9457), described [here](gateway.md#refusals). The codes are stable:
scripts may depend on them. They stand in the body, in the access log and in the label of ` + "`hansa_gateway_refusals_total`" + `. The ` + "`detail`" + `
says what is wrong with the request at hand, or what is said below. What messages are refused for is told [there](requests.md).

- ` + "`client-gone`" + ` stands in the log alone: nobody is there to be answered.
- ` + "`draining`" + ` and ` + "`quota-no-rights`" + ` are kept for later and not answered yet: while a gateway drains only its health checks say so.

| code | status | title | what to do |
|---|---|---|---|
`)
	for _, c := range Codes() {
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s |\n", c, c.Status(), c.Title(), c.Advice())
	}
	return b.String()
}
