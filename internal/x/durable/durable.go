// Package durable writes files that survive a crash whole, and locks folders against a second process.
//
// After a SIGKILL or a loss of power at any point a file written here has either its old content or its new one:
// the bytes go to a temporary file in the same folder, are flushed to the disk, and take their name in one step, which
// is flushed too. A failed write (a full disk) leaves the old file untouched. It is used by keys, identity and
// localstore. The functions are safe for concurrent use as long as two callers do not write the same path.
package durable

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tempPrefix begins the names of files that are being written. RemoveTemp deletes what a crash left of them.
const tempPrefix = ".tmp-"

// WriteFile replaces the file at path by what write writes.
func WriteFile(path string, perm fs.FileMode, write func(io.Writer) error) error {
	temp, err := writeTemp(path, perm, write)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("name %q: %w", path, err), os.Remove(temp))
	}
	return SyncDir(filepath.Dir(path))
}

// CreateFile makes the file at path of what write writes. If there is already such a file, it stays as it is and the
// error is fs.ErrExist.
func CreateFile(path string, perm fs.FileMode, write func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("create %q: %w", path, fs.ErrExist)
	}
	temp, err := writeTemp(path, perm, write)
	if err != nil {
		return err
	}
	// A hard link, unlike a rename, fails if the name is taken.
	err = os.Link(temp, path)
	if rmErr := os.Remove(temp); err == nil {
		err = rmErr
	}
	if err != nil {
		return fmt.Errorf("create %q: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Bytes makes a write function of b.
func Bytes(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}

func writeTemp(path string, perm fs.FileMode, write func(io.Writer) error) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return "", fmt.Errorf("write %q: %w", path, err)
	}
	defer func() {
		if err != nil {
			// What the caller gets is why the write went wrong; a file that stays behind is removed at the next start.
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %q: %w", path, err)
		}
	}()
	if err := f.Chmod(perm); err != nil {
		return "", err
	}
	buffered := bufio.NewWriterSize(f, 64<<10)
	if err := write(buffered); err != nil {
		return "", err
	}
	if err := buffered.Flush(); err != nil {
		return "", err
	}
	// After a failed sync the kernel may have dropped the dirty pages, so the file is given up, never synced again.
	if err := f.Sync(); err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	return f.Name(), nil
}

// SyncDir flushes the names in a folder to the disk.
func SyncDir(dir string) error {
	if !foldersSync {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: the file system does not sync folders
		return fmt.Errorf("sync folder %q: %w", dir, err)
	}
	return nil
}

// RemoveTemp deletes the files that interrupted writes left in dir. No write may be under way in it.
func RemoveTemp(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove temporary files: %w", err)
		}
	}
	return nil
}

// IsFull tells whether err says that the disk, the quota or the allowed size of a file is used up.
func IsFull(err error) bool { return isFull(err) }

// Mkdir makes a folder that only its owner may enter, and the folders above it, and flushes its name to the disk.
func Mkdir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return SyncDir(filepath.Dir(dir))
}
