package control

import (
	"fmt"
	"strings"
)

// Reference returns the reference page docs/reference/api.md.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(`# Control API

<!-- Generated from internal/control/routes.go by "go test ./internal/control -run TestReference -update". -->

HTTPS, by default on port 8090. A call carries ` + "`Authorization: Bearer TOKEN`" + `; the role that it asks for is decided in the
organization of the path unless the table says otherwise. Refusals are [problems](errors.md) with a stable code. What is
sent and answered are [resources](resources.md) and the types of ` + "`api/v1/rest.go`" + `; the Go package ` + "`client`" + ` has a method for
each call.

Every change also takes ` + "`dryRun=true`" + `, which checks everything and changes nothing, and ` + "`reason=TEXT`" + ` for the audit record.
Changes of resources and of keys take ` + "`wait=30s`" + `: the answer then comes when the connected gateways run the change, and names those that
do not in time. A list ends with a token ` + "`continue`" + ` if there is more. A watch (` + "`watch=true&since=EPOCH.SEQ`" + `) sends one JSON
object a line; after a break it goes on from the last bookmark.

| call | role | what |
|---|---|---|
`)
	for _, rt := range routes() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", rt.label(), rt.access, rt.what)
	}
	return []byte(b.String())
}

// String says for people who may.
func (a access) String() string {
	switch a.scope {
	case scopePublic:
		return "none"
	case scopeAll:
		return a.role.String() + " in all organizations"
	case scopeQuery:
		return a.role.String() + ", in the organization of the query or in all"
	case scopeSome:
		return a.role.String() + ", decided for each resource"
	case scopeOrganization, scopeNamed:
		return a.role.String()
	}
	return "nobody"
}
