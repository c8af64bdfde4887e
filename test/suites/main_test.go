// Package suites runs the suites of others, and clients of others, against a gateway process before backends of others:
// gRPC's interoperability tests, the Autobahn test suite for WebSocket, slowhttptest and testssl.sh. What they need is
// installed by test/real/install.sh, and they run with HANSA_REAL=1.
//
// The gateway is the test program itself, started again as hansa with a bundle: under the race detector it is under the race
// detector as well, and the test fails if the process does not end well.
package suites

import (
	"context"
	"os"
	"testing"

	"hansa.dev/hansa/internal/cli"
	"hansa.dev/hansa/test/process"
)

func TestMain(m *testing.M) {
	if process.IsChild() {
		os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
	}
	os.Exit(m.Run())
}

// real skips a test that needs what test/real/install.sh installs.
func real(t *testing.T) {
	t.Helper()
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("needs the suites of others: set HANSA_REAL=1 (make test-real does)")
	}
}
