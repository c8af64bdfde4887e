package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/cli"
	"hansa.dev/hansa/test/process"
)

func TestMain(m *testing.M) {
	if process.IsChild() {
		os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
	}
	os.Exit(m.Run())
}

// TestRecordDies takes the free blocks of the disk away while the control node writes, until what the record writes of
// its own accord meets the end of the disk. The process must end with the exit code of the storage, and hold every
// acknowledged change when it is started again with room.
func TestRecordDies(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "400m")
	data, readyFile := filepath.Join(disk, "control"), filepath.Join(t.TempDir(), "ready.json")
	var log bytes.Buffer
	node := process.Command(t.Context(), "control", "--data", data, "--api-addr", "127.0.0.1:0", "--link-addr", "127.0.0.1:0", "--ready-file", readyFile)
	node.Stderr = &log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- node.Wait() }()
	var ready app.Ready
	eventually(t, patience, func() error {
		b, err := os.ReadFile(readyFile)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &ready)
	})
	c := connect(t, ready)
	if _, err := c.Apply(t.Context(), strings.NewReader(startSample(t)), client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}

	acknowledged := 0
	var exit error
	for deadline := time.Now().Add(8 * time.Minute); exit == nil; {
		applied := make(chan error, 1)
		before := used(t, disk)
		go func() {
			_, err := c.Apply(t.Context(), strings.NewReader(large(acknowledged)), client.ApplyOptions{})
			applied <- err
		}()
		tick := time.NewTicker(time.Millisecond)
		for len(applied) == 0 && used(t, disk) == before { // the record writes the pieces of the change before the change
			<-tick.C
		}
		tick.Stop()
		shrink(t, disk)
		if err := <-applied; err == nil {
			acknowledged++
		}
		select {
		case exit = <-ended:
		case <-time.After(300 * time.Millisecond): // etcd writes its pages every 100 ms
		}
		resize(t, disk, "size=400m")
		if exit == nil && time.Now().After(deadline) {
			_ = node.Process.Kill() // the deadline of the test is the fault that counts
			<-ended
			t.Fatalf("the process goes on without a disk:\n%s", log.Bytes())
		}
	}
	if code, ok := errors.AsType[*exec.ExitError](exit); !ok || code.ExitCode() != cli.ExitStorage {
		t.Errorf("the process ended with %v, want exit code %d:\n%s", exit, cli.ExitStorage, log.Bytes())
	}
	resize(t, disk, "size=2g") // with the changes that were acknowledged the disk may be near the reserve
	again := startControl(t, data)
	for i := range acknowledged {
		if _, err := again.Get(t.Context(), v1.Key{Organization: v1.DefaultOrganization, Kind: v1.KindAPI, Name: fmt.Sprintf("large-%d", i)}); err != nil {
			t.Errorf("an acknowledged change is lost: %v", err)
		}
	}
	again.apply(t, large(acknowledged+1)) // the record takes changes again
	t.Logf("%d changes were acknowledged", acknowledged)
}

// resize mounts a small disk again with other options.
func resize(t *testing.T, dir, options string) {
	t.Helper()
	if err := unix.Mount("hansa-test", dir, "tmpfs", unix.MS_REMOUNT, options); err != nil {
		t.Fatalf("mount %s again with %s: %v", dir, options, err)
	}
}

// shrink makes a small disk as large as what is on it.
func shrink(t *testing.T, dir string) {
	t.Helper()
	for {
		size := used(t, dir)
		err := unix.Mount("hansa-test", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size))
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINVAL) { // it has grown meanwhile
			t.Fatalf("shrink the disk to %d bytes: %v", size, err)
		}
	}
}

// used returns how many bytes of a file system are taken.
func used(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return (st.Blocks - st.Bfree) * uint64(st.Bsize)
}

// large is an API that takes half a megabyte of the record, however that compresses, so that the record needs new pages.
func large(n int) string {
	noise := make([]byte, 256<<10)
	_, _ = rand.Read(noise) // never fails, says its documentation
	return fmt.Sprintf(`
apiVersion: hansa.dev/v1
kind: API
metadata: {name: large-%d}
spec: {basePath: /large-%d, policies: {request: [respond: {status: 200}]}, definition: {format: openapi, document: "%x"}}
`, n, n, noise)
}
