//go:build unix

package identity

import (
	"fmt"
	"os"
	"syscall"
)

// inode returns the number that the file system knows a file by.
func inode(path string) (uint64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("inode of %q: not known on this system", path)
	}
	return st.Ino, nil
}
