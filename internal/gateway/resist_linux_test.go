package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// colours are what terminals make colours of.
var colours = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)

// TestSlowHTTPTest runs slowhttptest in all its modes: many clients that send their heads, their bodies or their ranges
// slowly, or read slowly. The service must stay available to others all the time.
func TestSlowHTTPTest(t *testing.T) {
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("HANSA_REAL is not set")
	}
	t.Parallel()
	program, err := exec.LookPath("slowhttptest")
	if err != nil {
		t.Fatalf("%v: apt-get install slowhttptest", err)
	}
	for name, mode := range map[string][]string{
		"headers": {"-H", "-i", "3", "-t", "GET"},
		"body":    {"-B", "-i", "3", "-s", "8192", "-t", "POST"},
		"reading": {"-X", "-w", "1", "-y", "8", "-n", "3", "-z", "2", "-k", "3"},
		"ranges":  {"-R", "-a", "10", "-b", "3000", "-t", "HEAD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, nil, nil)
			n.apply(n.world())
			n.key("k1", nil)
			args := append(mode, "-c", "500", "-r", "200", "-l", "14", "-x", "24", "-p", "10", "-u", n.base+"/catalog/v1/items/1")
			cmd := exec.CommandContext(t.Context(), program, args...)
			var out strings.Builder
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for done := false; !done; {
				began := time.Now()
				resp, _ := n.get("/catalog/v1/items/1", "X-API-Key", "k1")
				if resp.StatusCode != 200 && resp.StatusCode != 429 { // its quota is small
					t.Errorf("a client of good manners got %d", resp.StatusCode)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("a client of good manners waited for %v", took)
				}
				select {
				case <-ended:
					done = true
				case <-tick.C:
				}
			}
			if text := colours.ReplaceAllString(out.String(), ""); strings.Contains(text, "service available:   NO") || !strings.Contains(text, "service available:   YES") {
				t.Errorf("slowhttptest says\n%s", text[max(0, len(text)-2000):])
			}
		})
	}
}

// filesVariable has TestAGatewayOfItsOwn be a gateway that may open so many files.
const filesVariable = "HANSA_TEST_FILES"

// TestAGatewayOfItsOwn is the process of startProcess. By itself it has nothing to do.
func TestAGatewayOfItsOwn(t *testing.T) {
	limit, err := strconv.ParseUint(os.Getenv(filesVariable), 10, 64)
	if err != nil {
		return
	}
	n := startNode(t, nil, nil)
	n.apply(n.world())
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening at", n.Addresses()["http"])
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startProcess starts a gateway in a process that may open so many files, and returns its address.
func startProcess(t *testing.T, files uint64) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAGatewayOfItsOwn$") // this very test
	cmd.Env = append(os.Environ(), filesVariable+"="+strconv.FormatUint(files, 10))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Cancel = in.Close // it ends by itself then
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var address, said string
	for address == "" && lines.Scan() {
		said += lines.Text() + "\n"
		_, address, _ = strings.Cut(lines.Text(), "listening at ")
	}
	if address == "" {
		t.Fatalf("the gateway does not start:\n%s", said)
	}
	t.Cleanup(func() {
		in.Close()
		for lines.Scan() {
			said += lines.Text() + "\n"
		}
		if err := cmd.Wait(); err != nil && !strings.Contains(said, "PASS") {
			t.Errorf("the gateway ended with %v\n%s", err, said)
		}
	})
	return address
}

// TestOutOfFileDescriptors takes all file descriptors of a gateway, and gives them back. What is connected is served all the
// time, and afterwards everybody is.
func TestOutOfFileDescriptors(t *testing.T) {
	t.Parallel()
	const limit = 100
	address := startProcess(t, limit)
	kept := connect(t, address)
	defer kept.Close()
	ask := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(c, "GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err == nil && resp.StatusCode != 200 {
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
		return err
	}
	if err := ask(kept); err != nil {
		t.Fatal(err)
	}
	var many []net.Conn
	for range 2 * limit { // the system takes them, the gateway cannot
		many = append(many, connect(t, address))
	}
	for range 3 {
		if err := ask(kept); err != nil {
			t.Errorf("a connection that was there before: %v", err)
		}
	}
	for _, c := range many {
		c.Close()
	}
	c := connect(t, address)
	defer c.Close()
	if err := ask(c); err != nil {
		t.Errorf("a connection that came afterwards: %v", err)
	}
}

func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestManyConnections has 15,000 clients at several addresses connect, ask once and stay, while others are served.
func TestManyConnections(t *testing.T) {
	if os.Getenv("HANSA_SLOW") == "" || raceDetector {
		t.Skip("HANSA_SLOW is not set, or the race detector does not bear so many goroutines")
	}
	const conns, addresses = 15_000, 5
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < conns+1000 {
		t.Skipf("only %d files may be opened", limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit.Max, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	address := startProcess(t, limit.Max)
	held := make([]net.Conn, 0, conns)
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	buf := make([]byte, 4096)
	for i := range conns {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%addresses))}, Timeout: time.Minute}
		c, err := d.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		held = append(held, c)
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(c, "GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:m]), "HTTP/1.1 200 ") {
			t.Fatalf("connection %d: %q, %v", i, buf[:m], err)
		}
	}
	began := time.Now()
	one := connect(t, address)
	defer one.Close()
	_, _ = io.WriteString(one, "GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n")
	if m, err := one.Read(buf); err != nil || m == 0 {
		t.Errorf("one more client: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("one more client waited for %v", took)
	}
	for i := 0; i < conns; i += 100 { // those that stayed are served as well
		_ = held[i].SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(held[i], "GET /healthcheck HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if m, err := held[i].Read(buf); err != nil || m == 0 {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}
