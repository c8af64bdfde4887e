package upstream

import (
	"net"
	"syscall"
	"testing"
	"time"

	"hansa.dev/hansa/internal/snapshot"
)

// TestHTTP2EndWithData has a backend end the connection within a body, in the same packet as the last of it: that there is
// nothing more to come must not be found out by a deadline.
func TestHTTP2EndWithData(t *testing.T) {
	t.Parallel()
	r := running(t)
	address := listening(t, "127.0.0.1:0", func(c net.Conn) {
		frames(func(f *framed, id uint32) error {
			raw, err := c.(*net.TCPConn).SyscallConn()
			if err != nil {
				return err
			}
			cork := func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CORK, 1) }
			if e := raw.Control(cork); e != nil || err != nil {
				t.Errorf("TCP_CORK: %v, %v", e, err)
			}
			f.headers(id, false, ":status", "200")
			_ = f.WriteData(id, false, []byte("some"))
			return c.(*net.TCPConn).CloseWrite()
		})(c)
	})
	b := commitOne(t, r, snapshot.Backend{Endpoints: snapshot.Endpoints(address), HTTPVersion: "2", ResponseMillis: 60_000, IdleMillis: 60_000})
	began := time.Now()
	check(t, outcome(b, get("/"), new(down)), "200 broken: upstream-reset")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
