package http2_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// TestH2spec runs the conformance suite h2spec (146 cases), which test/real/install.sh installs. Without TLS the port is one
// for HTTP/1, too.
func TestH2spec(t *testing.T) {
	t.Parallel()
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("HANSA_REAL=1 runs the suites of others")
	}
	path, err := exec.LookPath("h2spec")
	if err != nil {
		t.Fatal(err)
	}
	summary := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`)
	modes(t, func(t *testing.T, secure bool) {
		g := start(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte("a response that is long enough for windows to be too small for it"))
		}, setup{secure: secure})
		host, port, err := net.SplitHostPort(g.address)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"-h", host, "-p", port, "-o", "20", "-S"}
		if secure {
			args = append(args, "-t", "-k")
		}
		out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
		if m := summary.FindStringSubmatch(string(out)); err != nil || m == nil || m[1] != m[2] {
			t.Errorf("%v\n%s", err, out)
		} else {
			t.Log(m[0])
		}
	})
}
