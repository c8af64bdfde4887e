package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrLocked is returned by LockDir if another process, or another part of this one, holds the lock.
var ErrLocked = errors.New("the folder is in use")

// errHeld is returned by lock if somebody else has the lock.
var errHeld = errors.New("the lock is held")

// LockName is the name of the file that LockDir locks.
const LockName = "lock"

// Lock is a held lock on a folder. The kernel gives it back when the process ends, however it ends.
type Lock struct {
	f       *os.File
	adopted bool
}

// LockDir takes the lock of a folder without waiting.
func LockDir(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, LockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock folder: %w", err)
	}
	if err := lock(f); err != nil {
		defer f.Close()
		if errors.Is(err, errHeld) {
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

// AdoptLock takes over the lock of a folder from a process that holds it and has passed on the file of File. Both hold it
// then: the folder is never unlocked in between, and stays locked until the last of them is gone or has called Leave. The
// error is ErrLocked if somebody else holds it after all. f is closed if there is an error.
func AdoptLock(dir string, f *os.File) (_ *Lock, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	has, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("adopt lock of %q: %w", dir, err)
	}
	is, err := os.Stat(filepath.Join(dir, LockName))
	if err != nil {
		return nil, fmt.Errorf("adopt lock: %w", err)
	}
	if !os.SameFile(has, is) {
		return nil, fmt.Errorf("adopt lock of %q: it is the lock of another folder: %w", dir, ErrLocked)
	}
	// Of whoever holds the lock already this asks nothing.
	if err := lock(f); err != nil {
		if errors.Is(err, errHeld) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("adopt lock of %q: %w", dir, err)
	}
	return &Lock{f: f, adopted: true}, nil
}

// withHandle calls use with what the system knows f by. It does not touch the file's mode of blocking, as Fd would.
func withHandle(f *os.File, use func(uintptr) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if controlErr := c.Control(func(handle uintptr) { err = use(handle) }); controlErr != nil {
		return controlErr
	}
	return err
}

// Sign writes this process into the lock's file, as a hint for people, once a lock that was adopted is its own.
func (l *Lock) Sign() {
	if err := l.f.Truncate(0); err == nil {
		_, _ = l.f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
}

// File is the open file that holds the lock, for AdoptLock in another process. It belongs to the lock.
func (l *Lock) File() *os.File { return l.f }

// Leave gives up this process's part in a lock that another one has adopted, and leaves the folder locked.
func (l *Lock) Leave() error { return l.f.Close() }

// Unlock gives the lock back. One that was adopted stays locked for the process that it was adopted from, if that still
// has it. The file stays: removing it would let two processes lock two files of one name.
func (l *Lock) Unlock() error {
	if l.adopted {
		return l.f.Close()
	}
	// Closing alone is not enough: a process that is being forked at this moment has the open file too until it runs
	// its program.
	err := unlock(l.f)
	return errors.Join(err, l.f.Close())
}
