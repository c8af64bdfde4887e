// Package leak finds goroutines that tests have left behind.
//
// It is for TestMain of packages whose goroutines somebody else must end. There is no state: one call, one answer.
package leak

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long goroutines may take to end after the last test.
const patience = time.Minute

// Run runs the tests of m and returns what the process is to exit with: 1 if they have left goroutines that run functions,
// or were started by some, whose full names begin with prefix, such as hansa.dev/hansa/internal; their stacks are written to w.
func Run(m *testing.M, prefix string, w io.Writer) int {
	code := m.Run()
	if code != 0 {
		return code
	}
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := running(prefix)
		if len(left) == 0 {
			return 0
		}
		select {
		case <-tick.C:
		case <-deadline:
			fmt.Fprintf(w, "goroutines are left after the tests:\n%s\n", strings.Join(left, "\n\n"))
			return 1
		}
	}
}

// running returns the stacks of all goroutines but this one that have to do with prefix.
func running(prefix string) (stacks []string) {
	buf := make([]byte, 4<<20)
	all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	for _, stack := range all[1:] { // the first is this goroutine
		if strings.Contains(stack, prefix) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}
