//go:build unix

package durable

import (
	"errors"
	"os"
	"syscall"
)

// foldersSync tells whether the system flushes the names in a folder to the disk when it is told to.
const foldersSync = true

// lock takes the lock of an open file without waiting.
func lock(f *os.File) error {
	err := withHandle(f, func(fd uintptr) error { return syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errHeld
	}
	return err
}

func unlock(f *os.File) error {
	return withHandle(f, func(fd uintptr) error { return syscall.Flock(int(fd), syscall.LOCK_UN) })
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
