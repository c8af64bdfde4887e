package etcd

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockLog tries the lock that etcd takes on a file of its log.
func lockLog(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	return held(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock))
}
