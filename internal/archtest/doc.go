// Package archtest holds the rules of this repository as tests: which package may import which, that every package
// and exported name is documented, that there is no init and no mutable package variable, how long files and
// functions may be, that nothing sleeps or listens on a fixed port, how metrics are named, that links and examples
// in the documentation hold.
//
// A rule is a function from the tree of source files to the faults it finds. Each runs twice: over the repository
// in TestRepository, and in TestRules over a small archive in testdata that breaks it, so that a rule which can no
// longer fail is noticed. The rules read source text only; nothing is compiled, and all of them together take about
// a second. Resources in the documentation are decoded as the control API would.
//
// The import order stands in order_test.go. Relaxing it needs a decision record in docs/adr; tightening does not.
package archtest
