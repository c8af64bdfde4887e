package gateway

import (
	"os"
	"testing"

	"hansa.dev/hansa/internal/x/leak"
)

// TestMain fails if goroutines of this module are left when all tests have ended.
func TestMain(m *testing.M) { os.Exit(leak.Run(m, "hansa.dev/hansa/internal", os.Stderr)) }
