// Package resource turns what users write into resources of api/v1, and back.
//
// The way in has three steps, each a pure function: [Decode] reads YAML and JSON strictly, [Default] fills in what
// was left out, [Validate] checks every rule that needs no other resource. None of them stops at the first fault;
// together they return all of them, each with its place in the file, the field, the value and a remedy. What needs
// other resources (references, conflicts) is checked by internal/compile with the help of [References]; [Locate] then
// finds the file and line that a fault of there belongs to.
//
// Decode validates what it reads as well, on a copy with the defaults filled in, but returns resources as they were
// written. The control API stores them with their defaults, so that a stored revision never changes its meaning; what
// "apply" shows as changed is decided by [Equal], which looks at both sides with their defaults.
//
// [Schema] and [Explain] describe the kinds. Their texts are the doc comments of api/v1, collected into docs.json by
//
//	go test ./internal/resource -run TestGenerated -update
//
// which also writes docs/reference/resources.md and faults.md. The same test fails while any of them is out of date.
//
// Input is hostile: documents are bounded in bytes, depth and number of nodes, and aliases count as often as they are
// expanded. All functions are safe for concurrent use. Used by store, compile, importers, control and cli.
package resource

//go:generate go test -run TestGeneratedDocs -update .
//go:generate go test -run "TestGenerated(Reference|Faults)" -update .
