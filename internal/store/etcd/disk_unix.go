//go:build unix

package etcd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes a file for this process until it is closed, without waiting.
func lockFile(f *os.File) error { return held(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)) }

func held(err error) error {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errHeld
	}
	return err
}

// freeBytes returns how much a process without privileges may still write to the file system of dir.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil // its type is another one on each system
}
