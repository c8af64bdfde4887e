package sdnotify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestReady(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "notify") // t.TempDir may be too long for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "socket")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Ready(func(string) string { return path }); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if want := fmt.Sprintf("READY=1\nMAINPID=%d\n", os.Getpid()); err != nil || string(b[:n]) != want {
		t.Errorf("the service manager reads %q, %v, want %q", b[:n], err, want)
	}
	if err := Ready(func(string) string { return "" }); err != nil {
		t.Errorf("nobody wants to know: %v", err)
	}
	if err := Ready(func(string) string { return path + ".gone" }); err == nil {
		t.Error("nobody is there, and no error")
	}
}
