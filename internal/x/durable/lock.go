package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrLocked is returned by LockDir if another process, or another part of this one, holds the lock.
var ErrLocked = errors.New("the folder is in use")

// LockName is the name of the file that LockDir locks.
const LockName = "lock"

// Lock is a held lock on a folder. The kernel gives it back when the process ends, however it ends.
type Lock struct{ f *os.File }

// LockDir takes the lock of a folder without waiting.
func LockDir(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, LockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder := make([]byte, 20)
			n, _ := f.Read(holder) // the process number is a hint for people; without it the message is still true
			if pid := strings.TrimSpace(string(holder[:n])); pid != "" {
				return nil, fmt.Errorf("%q is held by process %s: %w", dir, pid, ErrLocked)
			}
			return nil, fmt.Errorf("%q: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock folder %q: %w", dir, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // a hint only; a full disk must not stop a start
	}
	return &Lock{f: f}, nil
}

// Unlock gives the lock back. The file stays: removing it would let two processes lock two files of one name.
func (l *Lock) Unlock() error {
	// Closing alone is not enough: a process that is being forked at this moment has the open file too until it runs
	// its program.
	err := syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN)
	return errors.Join(err, l.f.Close())
}
