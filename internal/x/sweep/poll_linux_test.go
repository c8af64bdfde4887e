package sweep

import (
	"net"
	"testing"
	"time"
)

func TestHungAndQuiet(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var c Conn
	New().Add(&c, here)
	defer c.Close()
	until := func(what string, f func() bool, want bool) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for deadline := time.After(time.Minute); f() != want; {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s is not %t", what, want)
			}
		}
	}
	until("Hung", c.Hung, false)
	until("Quiet", c.Quiet, true)
	if _, err := there.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	until("Quiet with a byte", c.Quiet, false)
	until("Hung with a byte", c.Hung, false)
	if err := there.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until("Hung behind a byte", c.Hung, true)
	if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("Read = %d, %v: a look has taken something", n, err)
	}
	until("Quiet at the end", c.Quiet, false)
}
