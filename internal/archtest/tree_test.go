package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// tree is the source of a repository: every text file, and the Go files of its packages parsed.
type tree struct {
	module string // the module path of go.mod
	fset   *token.FileSet
	files  map[string][]byte // content by slash-separated path, without generated and ignored folders
	pkgs   []*pkg            // in order of dir
}

// pkg is the Go files of one folder, those of its external tests included.
type pkg struct {
	dir   string // "." for the root
	files []*goFile
}

// goFile is one parsed Go file.
type goFile struct {
	path      string
	ast       *ast.File
	lines     int
	test      bool // *_test.go
	generated bool
}

// fault is one breach of a rule.
type fault struct {
	path string
	line int // 0: the whole file or folder
	text string
}

func (f fault) String() string {
	if f.line == 0 {
		return f.path + ": " + f.text
	}
	return f.path + ":" + strconv.Itoa(f.line) + ": " + f.text
}

// loadTree reads the repository at the root of fsys. Folders that begin with a dot (but for .ci), bin and nested
// modules are passed over; testdata is text to it, not Go.
func loadTree(fsys fs.FS) (*tree, error) {
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	module, _, _ := strings.Cut(strings.TrimPrefix(string(mod), "module "), "\n")
	t := &tree{module: strings.TrimSpace(module), fset: token.NewFileSet(), files: map[string][]byte{}}
	byDir := map[string]*pkg{}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name != "." && (name == "bin" || strings.HasPrefix(d.Name(), ".") && name != ".ci") {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular() || name == ".git": // a file in a linked work tree
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text[:min(len(text), 1024)], 0) >= 0 {
			return nil // not text
		}
		t.files[name] = text
		if path.Ext(name) != ".go" || slices.Contains(strings.Split(name, "/"), "testdata") {
			return nil
		}
		f, err := t.parse(name, text)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir}
			t.pkgs = append(t.pkgs, byDir[dir])
		}
		byDir[dir].files = append(byDir[dir].files, f)
		return nil
	})
	slices.SortFunc(t.pkgs, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return t, err
}

func (t *tree) parse(name string, text []byte) (*goFile, error) {
	f, err := parser.ParseFile(t.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	return &goFile{
		path:      name,
		ast:       f,
		lines:     bytes.Count(text, []byte("\n")),
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(f),
	}, nil
}

// goFiles yields every Go file that people wrote.
func (t *tree) goFiles(yield func(*goFile) bool) {
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if !f.generated && !yield(f) {
				return
			}
		}
	}
}

// at makes a fault at pos.
func (t *tree) at(pos token.Pos, format string, args ...any) fault {
	p := t.fset.Position(pos)
	return fault{path: p.Filename, line: p.Line, text: fmt.Sprintf(format, args...)}
}

// imports returns the import paths of f with their positions.
func (f *goFile) imports() map[string]token.Pos {
	m := make(map[string]token.Pos, len(f.ast.Imports))
	for _, spec := range f.ast.Imports {
		m[stringValue(spec.Path)] = spec.Pos()
	}
	return m
}

// importName returns the name under which f uses the package of that import path, or "".
func (f *goFile) importName(importPath string) string {
	for _, spec := range f.ast.Imports {
		if stringValue(spec.Path) != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// isSelector tells whether e is the selector pkgName.fn.
func isSelector(e ast.Expr, pkgName, fn string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != fn || pkgName == "" {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkgName
}

// stringValue returns the value of a string literal, or "".
func stringValue(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	return s
}
