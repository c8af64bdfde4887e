//go:build !race

package sweep

import (
	"syscall"
	"unsafe"
)

func rawRead(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

func rawWrite(fd int, p []byte) (int, syscall.Errno) { return rawSend(fd, p, syscall.MSG_NOSIGNAL) }

func rawWritev(fd int, pieces ...[]byte) (int, syscall.Errno) {
	var v [3]syscall.Iovec
	used := 0
	for _, p := range pieces {
		if len(p) > 0 {
			v[used].Base = unsafe.SliceData(p)
			v[used].SetLen(len(p))
			used++
		}
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v)), uintptr(used))
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

func rawSend(fd int, p []byte, flags int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags), 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// splice moves up to most bytes from one file descriptor to another; one of them is a pipe.
func splice(from, to, most, flags int) (int, syscall.Errno) {
	const move, nonblock = 1, 2 // SPLICE_F_MOVE, SPLICE_F_NONBLOCK
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), uintptr(flags|move|nonblock))
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}
