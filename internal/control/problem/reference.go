package problem

import (
	"fmt"
	"strings"
)

// Reference returns the reference page docs/reference/errors.md.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(`# Errors of the control API

<!-- Generated from internal/control/problem/codes.json by "go test ./internal/control/problem -update". -->

Every refusal of the control API is ` + "`application/problem+json`" + ` (RFC 9457) with the members
` + "`type`, `title`, `status`, `code`, `detail`, `requestId`" + ` and, where input has faults, ` + "`faults`" + `. The codes below are
stable: scripts may depend on them. ` + "`requestId`" + ` is also sent as the header ` + "`X-Request-Id`" + `; the log of the control
node has the cause under it.

| code | status | title |
|---|---|---|
`)
	for _, row := range Registry() {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %d | %s |\n", row.Code, row.Code, row.Status, row.Title)
	}
	for _, row := range Registry() {
		fmt.Fprintf(&b, "\n## %s\n\n%d. %s\n\nWhat to do: %s\n", row.Code, row.Status, row.Meaning, row.Remedy)
	}
	return []byte(b.String())
}
