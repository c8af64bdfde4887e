package http1_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// dialRaw opens a connection that takes no memory of this process, makes one request and reads the response.
func dialRaw(t *testing.T, address string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		sa := &syscall.SockaddrInet4{Port: a.Port}
		copy(sa.Addr[:], a.IP.To4())
		err = syscall.Connect(fd, sa)
	}
	if err == nil {
		_, err = syscall.Write(fd, []byte(get))
	}
	var p [4096]byte
	n := 0
	for err == nil && !strings.Contains(string(p[:n]), "hello") {
		var m int
		m, err = syscall.Read(fd, p[n:])
		n += m
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestIdleConnectionMemory opens connections that each have had a response and wait for another request, and looks what they cost: in
// stacks, heap, and what the process holds of the system's memory, in spite of what it has held meanwhile.
func TestIdleConnectionMemory(t *testing.T) {
	if os.Getenv("HANSA_SLOW") == "" || raceDetector {
		t.Skip("HANSA_SLOW is not set, or the race detector takes memory of its own")
	}
	const conns, most = 4000, 10_000
	g := start(t, says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), setup{})
	g.quiet = true
	measure := func() (held, resident int64) {
		for range 3 { // once for each time that stacks shrink
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		status, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		var pages int64
		_, _ = fmt.Sscanf(string(status), "%d %d", &resident, &pages)
		return int64(m.StackInuse + m.HeapInuse), pages * int64(os.Getpagesize())
	}
	warm := dialRaw(t, g.address)
	defer syscall.Close(warm)
	held0, resident0 := measure()
	for range conns {
		fd := dialRaw(t, g.address)
		defer syscall.Close(fd)
	}
	held, resident := measure()
	held, resident = (held-held0)/conns, (resident-resident0)/conns
	t.Logf("an idle connection holds %d bytes, and %d of the system's memory", held, resident)
	if held > most || resident > most {
		t.Errorf("an idle connection holds %d bytes, and %d of the system's memory, want at most %d", held, resident, most)
	}
}
