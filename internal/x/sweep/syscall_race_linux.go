//go:build race

package sweep

import (
	"errors"
	"syscall"
)

// The race detector learns from the functions of package syscall that what was written before was read after.

func rawRead(fd int, p []byte) (int, syscall.Errno) {
	return result(syscall.Read(fd, p))
}

func rawWrite(fd int, p []byte) (int, syscall.Errno) {
	return result(syscall.Write(fd, p))
}

func rawWritev(fd int, pieces ...[]byte) (int, syscall.Errno) {
	total := 0
	for _, p := range pieces {
		if len(p) == 0 {
			continue
		}
		n, errno := rawWrite(fd, p)
		if total += max(n, 0); errno != 0 || n < len(p) {
			break
		}
	}
	return total, 0
}

func result(n int, err error) (int, syscall.Errno) {
	if err != nil {
		errno, _ := errors.AsType[syscall.Errno](err)
		return 0, errno
	}
	return n, 0
}

func rawSend(fd int, p []byte, flags int) (int, syscall.Errno) {
	n, err := syscall.SendmsgN(fd, p, nil, nil, flags)
	return result(n, err)
}

func splice(from, to, most, flags int) (int, syscall.Errno) {
	n, err := syscall.Splice(from, nil, to, nil, most, flags|3)
	return result(int(n), err)
}
