package operate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// SocketName is the name of the socket in the data folder of a gateway.
const SocketName = "admin.sock"

// maxSocketPath is what the address of a Unix socket takes on every system (sun_path of macOS).
const maxSocketPath = 103

// Listen opens the socket in a data folder. One that is there already, of a process that was killed or hands over, loses
// its name to the new one. Closing the listener leaves the name; Remove takes it away.
func Listen(dir string) (*net.UnixListener, error) {
	fresh := SocketName + ".new"
	if err := os.Remove(filepath.Join(dir, fresh)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open the admin socket: %w", err)
	}
	var l *net.UnixListener
	err := reach(dir, fresh, func(path string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the admin socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(filepath.Join(dir, fresh), 0o600)
	if err == nil {
		err = os.Rename(filepath.Join(dir, fresh), filepath.Join(dir, SocketName))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the admin socket: %w", err), l.Close())
	}
	return l, nil
}

// Remove takes the socket out of a data folder.
func Remove(dir string) error {
	if err := os.Remove(filepath.Join(dir, SocketName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the admin socket: %w", err)
	}
	return nil
}

// dial connects to the socket in a data folder.
func dial(ctx context.Context, dir string) (c net.Conn, err error) {
	err = reach(dir, SocketName, func(path string) (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "unix", path)
		return err
	})
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotRunning, dir)
	}
	return c, err
}

// reach calls use with a path of a file in a folder that is short enough to be the address of a socket.
func reach(dir, name string, use func(path string) error) error {
	path := filepath.Join(dir, name)
	if len(path) <= maxSocketPath {
		return use(path)
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("%q: the path has %d bytes, a socket takes %d: choose a data folder with a shorter path", path, len(path), maxSocketPath)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name))
}
