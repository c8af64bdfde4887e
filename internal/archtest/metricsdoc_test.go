package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
)

// metricsPage is the reference page of the metrics.
const metricsPage = "docs/reference/metrics.md"

// metric is a metric as the source declares it.
type metric struct {
	name, help string
	labels     []string
}

// metricsDocumented checks that the reference page of the metrics is current, which also shows every removal.
func metricsDocumented(t *tree) []fault {
	if bytes.Equal(t.files[metricsPage], t.metricsPageText()) {
		return nil
	}
	return []fault{{path: metricsPage, text: "is not current: run make docs"}}
}

// metricsPageText makes the reference page out of the calls that declare metrics.
func (t *tree) metricsPageText() []byte {
	all := map[string]metric{}
	for f := range t.goFiles {
		if f.test {
			continue
		}
		lists := map[string][]string{} // lists of labels that have a name
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if id, ok := n.Lhs[0].(*ast.Ident); ok && len(n.Lhs) == 1 && len(n.Rhs) == 1 {
					lists[id.Name] = labelsOf(n.Rhs[0], lists)
				}
			case *ast.ValueSpec:
				if len(n.Names) == 1 && len(n.Values) == 1 {
					lists[n.Names[0].Name] = labelsOf(n.Values[0], lists)
				}
			}
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if m := metricOf(call, lists); m.name != "" && m.help != "" {
				if old, known := all[m.name]; !known || len(old.labels) == 0 {
					all[m.name] = m
				}
			}
			return true
		})
	}
	var b bytes.Buffer
	b.WriteString("# Metrics\n\n<!-- Generated from the source: make docs. -->\n\n" +
		"What `/metrics` shows, in Prometheus's format, beside the usual metrics of Go and of the process (`go_…`, `process_…`). Names and\n" +
		"labels are part of the interface. Labels have their values from the configuration, never from requests.\n\n" +
		"| metric | labels | what |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := all[name]
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "` `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.name, labels, strings.ReplaceAll(m.help, "|", `\|`))
	}
	return b.Bytes()
}

// metricOf returns the metric that a call declares: prometheus.NewCounter(prometheus.CounterOpts{Name: …, Help: …}, labels), or
// any function that is given a name, a help text and, perhaps, labels. lists are lists of labels by the names of their
// variables.
func metricOf(call *ast.CallExpr, lists map[string][]string) metric {
	var m metric
	for i, arg := range call.Args {
		m.labels = append(m.labels, labelsOf(arg, lists)...)
		if lit, ok := arg.(*ast.CompositeLit); ok {
			for _, e := range lit.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && fieldName(kv) == "Name" {
					m.name = joinedString(kv.Value)
				} else if ok && fieldName(kv) == "Help" {
					m.help = joinedString(kv.Value)
				}
			}
		}
		if s := joinedString(arg); m.name == "" && metricName.MatchString(s) && i+1 < len(call.Args) {
			m.name, m.help = s, joinedString(call.Args[i+1])
		}
	}
	if !metricName.MatchString(m.name) {
		return metric{}
	}
	return m
}

// labelsOf returns the strings of a list that is written out, has a name or is appended to one of those.
func labelsOf(e ast.Expr, lists map[string][]string) []string {
	var elts []ast.Expr
	var labels []string
	switch e := e.(type) {
	case *ast.Ident:
		return lists[e.Name]
	case *ast.SliceExpr:
		return labelsOf(e.X, lists)
	case *ast.CompositeLit:
		elts = e.Elts
	case *ast.CallExpr:
		if calledName(e) == "append" {
			labels, elts = slices.Clone(labelsOf(e.Args[0], lists)), e.Args[1:]
		}
	}
	for _, e := range elts {
		if s := stringValue(e); s != "" {
			labels = append(labels, s)
		}
	}
	return labels
}

func fieldName(kv *ast.KeyValueExpr) string {
	if id, ok := kv.Key.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// joinedString returns the value of a string literal, or of several that are added.
func joinedString(e ast.Expr) string {
	if b, ok := e.(*ast.BinaryExpr); ok && b.Op == token.ADD {
		return joinedString(b.X) + joinedString(b.Y)
	}
	return stringValue(e)
}
