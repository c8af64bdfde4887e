package handshake

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"
)

const (
	idleAddr  = "HANSA_TEST_IDLE_ADDR" // has TestIdleClient be the client of TestIdleMemory, in a process of its own
	idleConns = 400
	mostIdle  = 20 << 10
)

// TestIdleMemory bounds what an idle connection costs that has had a request.
func TestIdleMemory(t *testing.T) {
	for _, protocol := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r := newRig(t, Options{MinVersion: protocol})
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestIdleClient$", "-test.v")
		cmd.Env = append(os.Environ(), idleAddr+"="+r.addr, "HANSA_TEST_IDLE_VERSION="+strconv.Itoa(int(protocol)))
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		before := inUse()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for lines.Scan() && lines.Text() != "idle" {
		}
		var per int64
		until(t, "an idle connection takes at most 20 kB", func() bool {
			per = (inUse() - before) / idleConns
			return per < mostIdle
		})
		t.Logf("%s: %d bytes an idle connection", tls.VersionName(protocol), per)
		stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// inUse is the memory of heap and stacks. Stacks shrink with collections.
func inUse() int64 {
	for range 5 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestIdleClient is the client of TestIdleMemory, in a process of its own. By itself it has nothing to do.
func TestIdleClient(t *testing.T) {
	addr := os.Getenv(idleAddr)
	if addr == "" {
		return
	}
	version, _ := strconv.Atoi(os.Getenv("HANSA_TEST_IDLE_VERSION"))
	var all []net.Conn
	for range idleConns {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", addr, &tls.Config{
			ServerName: "a.example", InsecureSkipVerify: true, MaxVersion: uint16(version),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	fmt.Println("idle")
	_, _ = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(all)
}
