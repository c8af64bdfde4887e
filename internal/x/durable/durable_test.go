package durable_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hansa.dev/hansa/internal/x/durable"
)

func TestWriteFileReplacesWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	for _, content := range []string{"one", "two, longer", ""} {
		if err := durable.WriteFile(path, 0o600, durable.Bytes([]byte(content))); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("content = %q, %v, want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
}

func TestFailedWriteLeavesTheOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.WriteFile(path, 0o600, durable.Bytes([]byte("old"))); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := durable.WriteFile(path, 0o600, func(w io.Writer) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("error = %v, want %v", err, boom)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("content = %q, want %q", got, "old")
	}
	if names := list(t, dir); len(names) != 1 {
		t.Errorf("folder holds %q, want only the file", names)
	}
}

func TestCreateFileNeverOverwrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.CreateFile(path, 0o600, durable.Bytes([]byte("first"))); err != nil {
		t.Fatal(err)
	}
	// The second creation of the path finds out at the link, not at the early look.
	err := durable.CreateFile(filepath.Join(dir, "g"), 0o600, func(w io.Writer) error {
		return os.WriteFile(filepath.Join(dir, "g"), []byte("racer"), 0o600)
	})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("racing creation: error = %v, want fs.ErrExist", err)
	}
	if err := durable.CreateFile(path, 0o600, durable.Bytes([]byte("second"))); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second creation: error = %v, want fs.ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "first" {
		t.Errorf("content = %q, want %q", got, "first")
	}
	if names := list(t, dir); len(names) != 2 {
		t.Errorf("folder holds %q, want f and g", names)
	}
}

func TestRemoveTemp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{".tmp-a-1", "keep", ".tmpish"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.RemoveTemp(dir); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(list(t, dir), " "); got != ".tmpish keep" {
		t.Errorf("left = %q, want %q", got, ".tmpish keep")
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := durable.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.LockDir(dir); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second lock: error = %v, want ErrLocked", err)
	} else if !strings.Contains(err.Error(), "held by process") {
		t.Errorf("second lock: error = %q, want the holder named", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = durable.LockDir(dir)
	if err != nil {
		t.Fatalf("lock after unlock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A lock that was adopted keeps the folder locked until the last one lets go of it.
func TestAdoptLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := durable.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	pass := func() *os.File { // as another process gets it
		t.Helper()
		fd, err := syscall.Dup(int(first.File().Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "passed")
	}
	tried, err := durable.AdoptLock(dir, pass())
	if err != nil {
		t.Fatal(err)
	}
	if err := tried.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.LockDir(dir); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("after one who had adopted it is gone: %v", err)
	}
	second, err := durable.AdoptLock(dir, pass())
	if err != nil {
		t.Fatal(err)
	}
	second.Sign()
	if err := first.Leave(); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.LockDir(dir); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("after the first holder has left: %v", err)
	}
	if err := second.Unlock(); err != nil {
		t.Fatal(err)
	}
	third, err := durable.LockDir(dir)
	if err != nil {
		t.Fatalf("after the last holder is gone: %v", err)
	}
	defer third.Unlock()

	stranger, err := os.Open(filepath.Join(dir, durable.LockName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.AdoptLock(dir, stranger); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a file that does not hold the lock: %v", err)
	}
	other, err := os.Create(filepath.Join(t.TempDir(), durable.LockName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.AdoptLock(dir, other); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("the lock of another folder: %v", err)
	}
}
