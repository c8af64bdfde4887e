package archtest

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strings"
)

// noMutableGlobals checks that package variables never change: two complete instances of Hansa run in one process.
// Errors, compiled expressions, tables, embedded files, pools of buffers and values computed once are fine as long as
// nothing in the package, its tests included, assigns to them.
func noMutableGlobals(t *tree) []fault {
	var faults []fault
	for _, p := range t.pkgs {
		vars, info := t.packageVars(p)
		for _, f := range p.files {
			if f.generated {
				continue
			}
			faults = append(faults, t.mutations(f, vars, info)...)
			if !f.test {
				faults = append(faults, t.mutableVars(f)...)
			}
		}
	}
	return faults
}

// packageVars resolves the names of p and returns the variables at package level. Nothing outside p is loaded: imports
// stay unknown, which leaves the names of p itself resolved all the same.
func (t *tree) packageVars(p *pkg) (map[types.Object]bool, *types.Info) {
	var files []*ast.File
	for _, f := range p.files {
		if !strings.HasSuffix(f.ast.Name.Name, "_test") {
			files = append(files, f.ast)
		}
	}
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Error: func(error) {}, Importer: noImporter{}, DisableUnusedImportCheck: true}
	checked, _ := conf.Check(p.dir, t.fset, files, info) // it fails for want of imports, and resolves names nevertheless
	vars := map[types.Object]bool{}
	for _, f := range p.files {
		if f.test || f.generated {
			continue
		}
		for _, obj := range info.Defs {
			if v, ok := obj.(*types.Var); ok && v.Parent() == checked.Scope() && t.fset.Position(v.Pos()).Filename == f.path {
				vars[v] = true
			}
		}
	}
	return vars, info
}

type noImporter struct{}

func (noImporter) Import(string) (*types.Package, error) {
	return nil, errors.New("imports are not loaded")
}

// mutableVars returns the package variables of f whose declaration shows that they are there to be changed.
func (t *tree) mutableVars(f *goFile) []fault {
	var faults []fault
	for _, d := range f.ast.Decls {
		d, ok := d.(*ast.GenDecl)
		if !ok || d.Tok != token.VAR {
			continue
		}
		for _, s := range d.Specs {
			s := s.(*ast.ValueSpec)
			if s.Names[0].Name == "_" || embedded(d) || embedded(s) {
				continue
			}
			if len(s.Values) == 0 {
				faults = append(faults, t.at(s.Pos(), "package variable %s has no value, so it is there to be changed", s.Names[0].Name))
			}
			for _, v := range s.Values {
				if why := f.mutableValue(v); why != "" {
					faults = append(faults, t.at(s.Pos(), "package variable %s %s", s.Names[0].Name, why))
				}
			}
		}
	}
	return faults
}

// embedded tells whether a declaration carries the directive of package embed.
func embedded(n ast.Node) bool {
	var doc *ast.CommentGroup
	switch n := n.(type) {
	case *ast.GenDecl:
		doc = n.Doc
	case *ast.ValueSpec:
		doc = n.Doc
	}
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// mutableValue says why a package variable with the value v is state, or returns "".
func (f *goFile) mutableValue(v ast.Expr) string {
	if u, ok := v.(*ast.UnaryExpr); ok {
		v = u.X
	}
	switch v := v.(type) {
	case *ast.CompositeLit:
		return f.mutableType(v.Type)
	case *ast.CallExpr:
		switch calledName(v) {
		case "make", "new":
			return "is made empty, so it is there to be filled"
		}
		if sel, ok := v.Fun.(*ast.SelectorExpr); ok {
			return f.mutableType(sel)
		}
	}
	return ""
}

// mutableType says why a value of type e, or what the function e returns, is state, or returns "".
func (f *goFile) mutableType(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	for imp := range f.imports() {
		if f.importName(imp) != x.Name {
			continue
		}
		switch {
		case imp == "sync" && (sel.Sel.Name == "Pool" || strings.HasPrefix(sel.Sel.Name, "Once")) && sel.Sel.Name != "Once":
			return ""
		case slices.Contains([]string{"sync", "sync/atomic", "flag", "expvar", "log/slog", "math/rand", "math/rand/v2"}, imp),
			strings.HasPrefix(imp, "github.com/prometheus/client_golang/") && sel.Sel.Name != "NewDesc":
			return "is state: " + path.Base(imp) + "." + sel.Sel.Name
		}
	}
	return ""
}

// mutations returns the places of f that change one of vars, or take its address.
func (t *tree) mutations(f *goFile, vars map[types.Object]bool, info *types.Info) []fault {
	var faults []fault
	check := func(e ast.Expr) {
		if id := rootIdent(e); id != nil && vars[info.Uses[id]] {
			faults = append(faults, t.at(e.Pos(), "changes the package variable %s", id.Name))
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				check(e)
			}
		case *ast.IncDecStmt:
			check(n.X)
		case *ast.RangeStmt:
			check(n.Key)
			check(n.Value)
		case *ast.UnaryExpr:
			if id, ok := n.X.(*ast.Ident); ok && n.Op == token.AND {
				check(id)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy"}, id.Name) {
				check(n.Args[0])
			}
		}
		return true
	})
	return faults
}

// rootIdent returns the variable that an assignable expression is part of, or nil.
func rootIdent(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
