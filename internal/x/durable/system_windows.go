package durable

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

// foldersSync: a folder cannot be flushed here; renaming writes the names through.
const foldersSync = false

// The flags of LockFileEx, and the errors that matter here (winerror.h).
const (
	lockFailImmediately = 1
	lockExclusive       = 2

	errorHandleDiskFull = syscall.Errno(39)
	errorLockViolation  = syscall.Errno(33)
	errorDiskFull       = syscall.Errno(112)
	errorQuotaExceeded  = syscall.Errno(1295)
)

// region is the byte that a lock covers: far behind the content, which others could not read otherwise.
func region() *syscall.Overlapped { return &syscall.Overlapped{OffsetHigh: 1 << 30} }

// lock takes the lock of an open file without waiting.
func lock(f *os.File) error {
	err := withHandle(f, func(handle uintptr) error {
		return kernel("LockFileEx", handle, lockExclusive|lockFailImmediately, 0, 1, 0, uintptr(unsafe.Pointer(region())))
	})
	if errors.Is(err, errorLockViolation) {
		return errHeld
	}
	return err
}

func unlock(f *os.File) error {
	return withHandle(f, func(handle uintptr) error {
		return kernel("UnlockFileEx", handle, 0, 1, 0, uintptr(unsafe.Pointer(region())))
	})
}

// kernel calls a function that returns 0 if it fails.
func kernel(name string, args ...uintptr) error {
	proc := syscall.NewLazyDLL("kernel32.dll").NewProc(name)
	if err := proc.Find(); err != nil {
		return err
	}
	if ok, _, err := proc.Call(args...); ok == 0 {
		return os.NewSyscallError(name, err)
	}
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, errorDiskFull) || errors.Is(err, errorHandleDiskFull) || errors.Is(err, errorQuotaExceeded)
}
