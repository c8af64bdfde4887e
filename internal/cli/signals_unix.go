//go:build unix

package cli

import (
	"os"
	"syscall"
)

// upgradeSignals are those that have a gateway hand over.
func upgradeSignals() []os.Signal { return []os.Signal{syscall.SIGUSR2} }
