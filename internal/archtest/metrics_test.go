package archtest

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

var (
	metricName = regexp.MustCompile(`^hansa(_[a-z][a-z0-9]*){2,}$`)
	// derivedUnit is a unit that has a base unit to be used in its place.
	derivedUnit = regexp.MustCompile(`_(ms|millis|milliseconds|us|micros|microseconds|nanoseconds|minutes|hours|kb|mb|kilobytes|megabytes|percent)(_|$)`)
)

// metricNames checks that metrics are called hansa_<subsystem>_<noun>_<unit>, that their names stand in full where
// they are made, that counters and only they end in _total, and that the help is a sentence.
func metricNames(t *tree) []fault {
	var faults []fault
	for f := range t.goFiles {
		if f.test {
			continue
		}
		prom := f.importName("github.com/prometheus/client_golang/prometheus")
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if sel, ok := n.Type.(*ast.SelectorExpr); ok && isSelector(sel, prom, sel.Sel.Name) && strings.HasSuffix(sel.Sel.Name, "Opts") {
					faults = append(faults, t.checkOpts(n, sel.Sel.Name)...)
				}
			case *ast.CallExpr:
				if isSelector(n.Fun, prom, "NewDesc") && len(n.Args) > 1 {
					faults = append(faults, t.checkName(n, stringValue(n.Args[0]))...)
					faults = append(faults, t.checkHelp(n, stringValue(n.Args[1]))...)
				}
			}
			return true
		})
	}
	return faults
}

// checkOpts checks the literal of one of prometheus's structures of options.
func (t *tree) checkOpts(lit *ast.CompositeLit, kind string) []fault {
	if !slices.Contains([]string{"CounterOpts", "GaugeOpts", "HistogramOpts", "SummaryOpts", "Opts"}, kind) {
		return nil
	}
	fields := map[string]ast.Expr{}
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			fields[kv.Key.(*ast.Ident).Name] = kv.Value
		}
	}
	if fields["Namespace"] != nil || fields["Subsystem"] != nil {
		return []fault{t.at(lit.Pos(), "write the name of a metric in full, so that it can be searched for")}
	}
	if _, ok := fields["Name"].(*ast.Ident); ok { // of a function that makes several alike
		return nil
	}
	name := stringValue(fields["Name"])
	faults := append(t.checkName(lit, name), t.checkHelp(lit, stringValue(fields["Help"]))...)
	if total := strings.HasSuffix(name, "_total"); kind == "CounterOpts" && !total || kind != "CounterOpts" && kind != "Opts" && total {
		faults = append(faults, t.at(lit.Pos(), "metric %s: counters end in _total, and nothing else does", name))
	}
	return faults
}

func (t *tree) checkName(n ast.Node, name string) []fault {
	switch {
	case !metricName.MatchString(name):
		return []fault{t.at(n.Pos(), "metric %q is not hansa_<subsystem>_<noun>_<unit>", name)}
	case derivedUnit.MatchString(name):
		return []fault{t.at(n.Pos(), "metric %s: use base units: seconds, bytes, ratio", name)}
	}
	return nil
}

func (t *tree) checkHelp(n ast.Node, help string) []fault {
	if help == "" || help[0] < 'A' || help[0] > 'Z' || !strings.HasSuffix(help, ".") {
		return []fault{t.at(n.Pos(), "help %q is not a full sentence", help)}
	}
	return nil
}
