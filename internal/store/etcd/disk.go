package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hansa.dev/hansa/internal/store"
)

const (
	// lockTimeout is how long to wait for a lock. A process that is being started has a copy of every file that its
	// parent holds, and with it the locks, for a moment.
	lockTimeout = 2 * time.Second
	// lockPause is how long to wait between two tries.
	lockPause = 10 * time.Millisecond
)

// errHeld is returned by lockFile and lockLog if somebody else has the lock.
var errHeld = errors.New("the lock is held")

// lockDir makes the directory if need be and takes it for this store alone, until the file is closed or the process
// ends.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = waitForLock(ctx, func() error { return lockFile(f) })
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, errHeld) {
		return nil, fmt.Errorf("%s: %w by another process: stop it or choose another directory", dir, ErrLocked)
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

// waitForLog waits until etcd's log below dir is not locked any more, because etcd does not wait for that.
func waitForLog(ctx context.Context, dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = waitForLock(ctx, func() error { return lockLog(f) })
		f.Close()
		if err != nil {
			return fmt.Errorf("lock %s: %w", name, err)
		}
	}
	return nil
}

// waitForLock calls try until it takes the lock, for lockTimeout at most.
func waitForLock(ctx context.Context, try func() error) error {
	deadline := time.Now().Add(lockTimeout)
	for {
		err := try()
		if !errors.Is(err, errHeld) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
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
