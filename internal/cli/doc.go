// Package cli is the command line: "hansa apply", "hansa get", "hansa keys" and the others.
//
// A command parses flags, calls the control API through the package client and prints. What it prints on standard
// output is the result, as a table for people or as JSON or YAML for scripts; everything else goes to standard error.
// How it ends is an exit code that scripts can rely on ([ExitUsage] and its neighbours).
//
// [Main] has no state outside of its arguments, so that any number of commands run in one process. It is used by
// cmd/hansa and by the script tests.
//
//go:generate go test -run TestReference -update .
package cli
