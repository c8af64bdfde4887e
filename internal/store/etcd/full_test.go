package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

// mountSmall mounts a tmpfs of that many MiB for the test.
func mountSmall(t *testing.T, mib int) string {
	t.Helper()
	requireReal(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatalf("mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// ballast fills the file system of dir until only so many MiB are free.
func ballast(t *testing.T, dir string, leave int) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-int64(leave)<<20); err != nil {
		t.Fatalf("fill the disk: %v", err)
	}
	return name
}

// TestFullDisk fills the disk beyond the reserve, and expects that change sets are refused, everything else goes on,
// and so do change sets once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := mountSmall(t, 400)
	s := openWith(t, etcd.Options{Dir: filepath.Join(dir, "record")})
	fill(t, s, 20)
	want := s.State().Version()
	full := ballast(t, dir, 100)
	for range 3 {
		_, err := storetest.TryCommit(t.Context(), s, want, storetest.Put(storetest.Backend("acme", "b", "1")))
		if !errors.Is(err, store.ErrStorageFull) {
			t.Fatalf("commit to a full disk: %v, want ErrStorageFull", err)
		}
	}
	if n := audited(t, s); n != 20 || s.State().Version() != want {
		t.Errorf("%d change sets can be read at %v, want 20 at %v", n, s.State().Version(), want)
	}
	if got := backupOf(t, s); len(got) == 0 {
		t.Error("the backup is empty")
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1)
}

// childFull commits change sets until the record fails, and tells what it is like then.
func childFull(dir string) error {
	ctx := context.Background()
	s, err := etcd.Open(ctx, etcd.Options{Dir: dir, Reserve: -1})
	if err != nil {
		return err
	}
	for err == nil {
		var v store.Version
		base := s.State().Version()
		if v, err = storetest.TryCommit(ctx, s, base, planOf(base.Seq+1).fill); err == nil {
			fmt.Println("acknowledged", v.Seq)
		}
	}
	select {
	case <-s.Failed():
	case <-time.After(30 * time.Second):
		return fmt.Errorf("the record has not failed after %w", err)
	}
	if !errors.Is(s.Err(), store.ErrStorageFull) || s.State().Version().Seq == 0 || len(contents(s.State())) < 2 {
		return fmt.Errorf("the record at %v failed with %w", s.State().Version(), s.Err())
	}
	if err := s.Close(); !errors.Is(err, store.ErrStorageFull) {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// TestFullDiskKillsEtcd takes the reserve away, so that etcd meets the end of the disk, and expects a failure that
// says so, a state that can be read until the process ends, and every acknowledged change set after a new start.
func TestFullDiskKillsEtcd(t *testing.T) {
	t.Parallel()
	dir := mountSmall(t, 400)
	record := filepath.Join(dir, "record")
	s := open(t, record)
	storetest.Commit(t, s, planOf(1).fill)
	closeStore(t, s)
	full := ballast(t, dir, 8)
	w := startPart(t, "full", record)
	for w.next(t) {
	}
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("writing to a full disk: %v", err)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	s = open(t, record)
	checkCrashed(t, s, w.last)
	fill(t, s, 1)
}
