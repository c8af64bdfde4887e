package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/internal/store"
)

// lockDir makes the directory if need be and takes it for this store alone, until the file is closed or the process
// ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w by another process: stop it or choose another directory", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// room returns ErrStorageFull if the disk has less free than the reserve.
func (s *Store) room() error { return s.roomFor(0) }

// roomFor returns ErrStorageFull if the disk has less free than the reserve and so many bytes.
func (s *Store) roomFor(size int64) error {
	if s.opts.Reserve < 0 {
		return nil
	}
	free, err := freeBytes(s.opts.Dir)
	if err != nil {
		return err
	}
	if free-size < s.opts.Reserve {
		return fmt.Errorf("%w: %s has %d MiB free, %d MiB are needed, and the record leaves %d MiB alone",
			store.ErrStorageFull, s.opts.Dir, free>>20, size>>20, s.opts.Reserve>>20)
	}
	return nil
}

// freeBytes returns how much a process without privileges may still write to the file system of dir.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
