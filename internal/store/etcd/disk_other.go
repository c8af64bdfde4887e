//go:build unix && !linux

package etcd

import "os"

// lockLog tries the lock that etcd takes on a file of its log.
func lockLog(f *os.File) error { return lockFile(f) }
