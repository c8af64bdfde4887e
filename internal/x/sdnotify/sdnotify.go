// Package sdnotify tells the service manager how a process does (sd_notify(3)). Package cli uses it.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"time"
)

// Ready says that this process serves, and that it is the main one of its service: after a handover it is not the one that
// the service manager started. It does nothing if nobody wants to know, which NOTIFY_SOCKET tells.
func Ready(getenv func(string) string) error {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	if _, err := fmt.Fprintf(c, "READY=1\nMAINPID=%d\n", os.Getpid()); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
