package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"strings"
)

// The hard limits of lengths, in lines. A function is counted with its signature and its closing brace; that of a test
// may be longer, since tables stand in it.
const (
	maxFileLines     = 800
	maxTestFileLines = 1500
	maxFuncLines     = 100
	maxTestFuncLines = 200
)

// packageDocs checks that every package has one comment, and that it begins "Package x" or "Command x".
func packageDocs(t *tree) []fault {
	var faults []fault
	for _, p := range t.pkgs {
		var docs, others int
		for _, f := range p.files {
			if f.test {
				continue
			}
			others++
			if f.ast.Doc == nil || strings.TrimSpace(f.ast.Doc.Text()) == "" {
				continue
			}
			docs++
			want := "Package " + f.ast.Name.Name + " "
			if f.ast.Name.Name == "main" {
				want = "Command " + path.Base(p.dir) + " "
			}
			if text := f.ast.Doc.Text(); !strings.HasPrefix(text, want) && !f.generated {
				faults = append(faults, t.at(f.ast.Package, "the package comment must begin %q", want))
			}
		}
		switch {
		case others > 0 && docs == 0:
			faults = append(faults, fault{path: p.dir, text: "no package comment: say what the package is for and what it guarantees"})
		case docs > 1:
			faults = append(faults, fault{path: p.dir, text: fmt.Sprintf("%d files have a package comment; one is enough", docs)})
		}
	}
	return faults
}

// exportedDocs checks that every exported name outside commands and tests has a comment.
func exportedDocs(t *tree) []fault {
	var faults []fault
	for f := range t.goFiles {
		if f.test || f.ast.Name.Name == "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil && !t.lineComment(f, d) {
					faults = append(faults, t.at(d.Pos(), "%s has no comment", d.Name.Name))
				}
			case *ast.GenDecl:
				faults = append(faults, t.undocumentedSpecs(d)...)
			}
		}
	}
	return faults
}

// exportedReceiver tells whether d is a function, or a method that callers outside can see.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// lineComment tells whether a function of one line has its comment at the end of that line, as a row of a list of
// methods has.
func (t *tree) lineComment(f *goFile, d *ast.FuncDecl) bool {
	line := t.fset.Position(d.Pos()).Line
	if t.fset.Position(d.End()).Line != line {
		return false
	}
	for _, c := range f.ast.Comments {
		if t.fset.Position(c.Pos()).Line == line {
			return true
		}
	}
	return false
}

func (t *tree) undocumentedSpecs(d *ast.GenDecl) []fault {
	var faults []fault
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
				faults = append(faults, t.at(s.Pos(), "%s has no comment", s.Name.Name))
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					faults = append(faults, t.at(name.Pos(), "%s has no comment", name.Name))
				}
			}
		}
	}
	return faults
}

// noInit checks that there is no init function: what a package needs at the start, somebody calls.
func noInit(t *tree) []fault {
	var faults []fault
	for f := range t.goFiles {
		for _, d := range f.ast.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
				faults = append(faults, t.at(d.Pos(), "no init: let the caller say when this happens"))
			}
		}
	}
	return faults
}

// sizes checks the lengths of files and functions.
func sizes(t *tree) []fault {
	var faults []fault
	for f := range t.goFiles {
		fileLimit, funcLimit := maxFileLines, maxFuncLines
		if f.test {
			fileLimit, funcLimit = maxTestFileLines, maxTestFuncLines
		}
		if f.lines > fileLimit {
			faults = append(faults, fault{path: f.path, text: fmt.Sprintf("%d lines; at most %d", f.lines, fileLimit)})
		}
		for _, d := range f.ast.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := t.fset.Position(d.End()).Line - t.fset.Position(d.Pos()).Line + 1; n > funcLimit {
				faults = append(faults, t.at(d.Pos(), "%s has %d lines; at most %d", d.Name.Name, n, funcLimit))
			}
		}
	}
	return faults
}

// noSleep checks that nothing calls time.Sleep: code waits for an event or a timer that it can stop, tests poll with a
// deadline or use testing/synctest. Inside a bubble of testing/synctest sleeping costs no time and is allowed.
func noSleep(t *tree) []fault {
	var faults []fault
	for f := range t.goFiles {
		name := f.importName("time")
		if name == "" || strings.HasSuffix(f.path, "_bench_test.go") || f.test && f.importName("testing/synctest") != "" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && isSelector(call.Fun, name, "Sleep") {
				faults = append(faults, t.at(call.Pos(), "no time.Sleep: wait for an event, or poll with a deadline"))
			}
			return true
		})
	}
	return faults
}

var (
	// fixedAddr is an address to listen on with a port other than 0.
	fixedAddr = regexp.MustCompile(`^[^/]*:[1-9][0-9]*$`)
	// fixedAddrFlag is a flag of hansa that sets such an address, in the arguments of a test or in a script.
	fixedAddrFlag = regexp.MustCompile(`--[a-z0-9-]*addr[= ]\S*:[1-9][0-9]*\b`)
)

// noFixedPorts checks that tests listen on port 0 only, so that they can run beside each other and beside anything.
func noFixedPorts(t *tree) []fault {
	const text = "listens on a fixed port: use port 0 and ask for the address"
	var faults []fault
	for f := range t.goFiles {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if strings.HasPrefix(calledName(n), "Listen") {
					for _, arg := range n.Args {
						if fixedAddr.MatchString(stringValue(arg)) {
							faults = append(faults, t.at(arg.Pos(), text))
						}
					}
				}
			case *ast.BasicLit:
				if n.Kind == token.STRING && fixedAddrFlag.MatchString(stringValue(n)) {
					faults = append(faults, t.at(n.Pos(), text))
				}
			}
			return true
		})
	}
	for name, content := range t.files {
		if !strings.HasPrefix(name, "test/") || path.Ext(name) == ".go" {
			continue
		}
		for i, line := range strings.Split(string(content), "\n") {
			if fixedAddrFlag.MatchString(line) {
				faults = append(faults, fault{path: name, line: i + 1, text: text})
			}
		}
	}
	return faults
}

// calledName returns the last name of the function that is called.
func calledName(call *ast.CallExpr) string {
	switch fn := call.Fun.(type) {
	case *ast.Ident:
		return fn.Name
	case *ast.SelectorExpr:
		return fn.Sel.Name
	}
	return ""
}

// localPath is the beginning of a path that exists on one machine only.
var localPath = regexp.MustCompile(`(^|[^A-Za-z0-9_./@~-])/(home|root|work|Users)/`)

// noLocalPaths checks that no file names a folder of the machine that it was written on.
func noLocalPaths(t *tree) []fault {
	var faults []fault
	for name, content := range t.files {
		for i, line := range strings.Split(string(content), "\n") {
			if localPath.MatchString(line) {
				faults = append(faults, fault{path: name, line: i + 1, text: "names a folder that exists on one machine only"})
			}
		}
	}
	return faults
}
