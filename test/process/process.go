// Package process runs hansa in processes of its own for tests: the test program itself, started again. What it runs is thereby
// built as the test is, with the race detector if that has it. TestMain must run the command line if IsChild says so.
//
// It is used by the tests of cluster, soak and suites.
package process

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// variable has the test program be hansa.
const variable = "HANSA_TEST_PROCESS"

// IsChild tells TestMain that the program has been started by Command, and so is to be hansa.
func IsChild() bool { return os.Getenv(variable) != "" }

// Command returns hansa with the arguments, to be started. It is killed when ctx ends, but not what it has handed over to.
func Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), variable+"=1")
	return cmd
}

// Start starts cmd with its output appended to a file: a pipe would keep Wait waiting for those that the process hands over
// to. ended is closed when the process has ended.
func Start(t testing.TB, cmd *exec.Cmd, output string) (ended <-chan struct{}) {
	t.Helper()
	log, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the process
		defer close(done)
		_ = cmd.Wait()
	}()
	return done
}

// On returns the processes that have a data folder among their arguments: those that were started on it, and those that they
// have handed over to.
func On(folder string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte("\x00"+folder+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// End kills what is left on a data folder, and waits for those that the test started itself. If the test has failed it logs
// what they put out.
func End(t testing.TB, folder, output string, started []<-chan struct{}) {
	if t.Failed() {
		b, _ := os.ReadFile(output)
		t.Logf("what hansa in %s put out:\n%s", folder, b)
	}
	for _, pid := range On(folder) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it fails if the process has just ended
	}
	for _, ended := range started {
		<-ended
	}
}
