package archtest

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// habits checks what is agreed on errors, logs, contexts and names: errors are wrapped with %w and begin with what was
// tried; only commands end the process; logs go through an injected slog.Logger; a context is passed, not kept.
func habits(t *tree) []fault {
	var faults []fault
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			faults = append(faults, t.importHabits(f)...)
			if !f.test {
				faults = append(faults, t.codeHabits(f)...)
			}
		}
	}
	return faults
}

// vagueNames are names of packages that say nothing about what is in them.
func vagueNames() []string {
	return []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "manager", "shared", "base"}
}

func (t *tree) importHabits(f *goFile) []fault {
	var faults []fault
	if slices.Contains(vagueNames(), f.ast.Name.Name) {
		faults = append(faults, t.at(f.ast.Package, "package %s: name a package for what it provides", f.ast.Name.Name))
	}
	for imp, pos := range f.imports() {
		switch {
		case imp == "log":
			faults = append(faults, t.at(pos, "log with an injected *slog.Logger"))
		case strings.HasPrefix(imp, "github.com/stretchr/testify"), strings.HasPrefix(imp, "go.uber.org/mock"):
			faults = append(faults, t.at(pos, "tests use the standard library and go-cmp"))
		}
	}
	return faults
}

func (t *tree) codeHabits(f *goFile) []fault {
	var faults []fault
	logger, system, ctx := f.importName("log/slog"), f.importName("os"), f.importName("context")
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StructType:
			for _, field := range n.Fields.List {
				if isSelector(field.Type, ctx, "Context") && !t.explained(f, field.Pos()) {
					faults = append(faults, t.at(field.Pos(), "a struct keeps a context: pass it instead, or say in a comment why not"))
				}
			}
		case *ast.CallExpr:
			switch {
			case isSelector(n.Fun, system, "Exit") && f.ast.Name.Name != "main":
				faults = append(faults, t.at(n.Pos(), "only commands end the process: return an error"))
			case slices.Contains([]string{"Debug", "Info", "Warn", "Error", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"}, calledName(n)) &&
				isSelector(n.Fun, logger, calledName(n)):
				faults = append(faults, t.at(n.Pos(), "log with an injected *slog.Logger"))
			case isSelector(n.Fun, f.importName("fmt"), "Errorf"), isSelector(n.Fun, f.importName("errors"), "New"):
				faults = append(faults, t.errorHabits(f, n)...)
			}
		}
		return true
	})
	return faults
}

var (
	verb        = regexp.MustCompile(`%[-+# 0-9.\[\]]*[a-zA-Z]`)
	vagueError  = regexp.MustCompile(`^(failed to|error |unable to|could not|couldn't)`)
	errorEnding = regexp.MustCompile(`[.!\n]$`)
)

// errorHabits checks the text of an error, and that an error within it is wrapped unless a comment beside it says why not.
func (t *tree) errorHabits(f *goFile, call *ast.CallExpr) []fault {
	if len(call.Args) == 0 {
		return nil
	}
	format := stringValue(call.Args[0])
	var faults []fault
	if vagueError.MatchString(format) {
		faults = append(faults, t.at(call.Pos(), "an error begins with what was tried: %q", format))
	}
	if errorEnding.MatchString(format) {
		faults = append(faults, t.at(call.Pos(), "an error is part of a longer line; it has no full stop: %q", format))
	}
	verbs := verb.FindAllString(strings.ReplaceAll(format, "%%", ""), -1)
	for i, arg := range call.Args[1:] {
		if i >= len(verbs) {
			break
		}
		if id, ok := arg.(*ast.Ident); ok && id.Name == "err" && !strings.HasSuffix(verbs[i], "w") && !t.explained(f, call.Pos()) {
			faults = append(faults, t.at(call.Pos(), "wrap err with %%w, or say in a comment why not"))
		}
	}
	return faults
}

// explained tells whether a comment stands on the line of pos or on the one above.
func (t *tree) explained(f *goFile, pos token.Pos) bool {
	line := t.fset.Position(pos).Line
	return slices.ContainsFunc(f.ast.Comments, func(c *ast.CommentGroup) bool {
		return t.fset.Position(c.Pos()).Line == line || t.fset.Position(c.End()).Line == line-1
	})
}
