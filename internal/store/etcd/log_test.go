package etcd_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"

	"hansa.dev/hansa/internal/store/etcd"
)

// TestEtcdLog checks that a first start is quiet, and that what etcd says is wrong is otherwise heard.
func TestEtcdLog(t *testing.T) {
	t.Parallel()
	const message = "failed to update storage version"
	tests := []struct {
		name, message, cause string
		heard                bool
	}{
		{"before the first commit", message, "cannot detect storage schema version: missing term information", false},
		{"another cause", message, "cannot create migration plan: no such version", true},
		{"another message", "failed to apply", "missing term information", true},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		logger := etcd.NewZapLogger(slog.New(slog.NewTextHandler(&out, nil)))
		logger.Error(tt.message, zap.Error(errors.New(tt.cause)))
		if got := strings.Contains(out.String(), "level=WARN"); got != tt.heard || !tt.heard && out.Len() > 0 {
			t.Errorf("%s: %q is logged, want a warning: %v", tt.name, out.String(), tt.heard)
		}
	}
}
