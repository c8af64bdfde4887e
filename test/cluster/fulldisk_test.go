package cluster

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/app"
)

// smallDisk mounts a file system of some MB in memory and returns its folder.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("mounts a small file system: set HANSA_REAL=1 and be root (make test-real does)")
	}
	dir := t.TempDir()
	if err := unix.Mount("hansa-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a file system of %s (needs root): %v", size, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves less than spare bytes of a file system free, and returns the file to remove.
func fill(t *testing.T, dir string, spare uint64) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	free := st.Bavail * uint64(st.Bsize)
	if free <= spare {
		return filepath.Join(dir, "none")
	}
	file := filepath.Join(dir, "ballast")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(free-spare)); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestFullDisks fills the disk of the control node, which then refuses writes with storage-full and takes them again
// when there is space, and that of the gateway, which applies and serves all the same.
func TestFullDisks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	disk := smallDisk(t, "400m")
	c := startControl(t, filepath.Join(disk, "control"))
	c.apply(t, startSample(t)+"---"+manyKeys+"---"+marker(0))
	gatewayDisk := smallDisk(t, "4m")
	g := startGateway(t, app.GatewayOptions{Data: filepath.Join(gatewayDisk, "gw"), Name: "gw", Control: []string{c.link}, JoinToken: c.joinToken(t)})
	open := c.key(t, "shop-open")
	eventually(t, patience, func() error { return g.want(ctx, item, open, http.StatusOK) })
	eventually(t, patience, func() error { return g.marked(ctx, 0) })
	traffic := startLoad(t, g, item, open)

	fill(t, gatewayDisk, 0)
	c.apply(t, marker(1))
	eventually(t, patience, func() error { return g.marked(ctx, 1) })

	ballast := fill(t, disk, 32<<20)
	_, err := c.Apply(ctx, strings.NewReader(marker(2)), client.ApplyOptions{})
	refusal, ok := errors.AsType[*client.Error](err)
	if !ok || refusal.Status != http.StatusInsufficientStorage || refusal.Code != "storage-full" {
		t.Errorf("apply on a full disk: %v, want 507 storage-full", err)
	}
	if err := g.marked(ctx, 1); err != nil {
		t.Errorf("after a refused change: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func() error {
		_, err := c.Apply(ctx, strings.NewReader(marker(3)), client.ApplyOptions{})
		return err
	})
	eventually(t, patience, func() error { return g.marked(ctx, 3) })
	traffic.check(t)
}
