// Package soak runs a gateway process under mixed traffic while everything about it changes: configuration, endpoints,
// certificates, listeners, the log level, and the process itself. No request may fail and no stream may break that the
// change does not concern.
//
// A protocol is a row in the table of traffic; make soak-traffic runs it for ten minutes, the ordinary tests for a short
// while. HANSA_SOAK sets the time.
package soak

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/cli"
	"hansa.dev/hansa/test/process"
)

func TestMain(m *testing.M) {
	if stage, ok := strings.CutPrefix(filepath.Base(os.Args[0]), successorName); ok {
		os.Exit(successor(stage))
	}
	if process.IsChild() {
		os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
	}
	os.Exit(m.Run())
}
