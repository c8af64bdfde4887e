package etcd_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/x/leak"
)

// envChild makes the test binary run a part of a test in a process of its own: one to be killed, or measured.
const envChild = "HANSA_TEST_STORE_CHILD"

func TestMain(m *testing.M) {
	if part := os.Getenv(envChild); part != "" {
		if err := runChild(part, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leak.Run(m, "hansa.dev/hansa/internal/store/etcd.", os.Stderr))
}

func runChild(part string, args []string) error {
	switch part {
	case "write":
		return childWrite(args[0])
	case "full":
		return childFull(args[0])
	case "million":
		return childMillion(args[0])
	}
	return fmt.Errorf("there is no part %q", part)
}

// child returns the command that runs a part in a process of its own.
func child(t *testing.T, part string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), envChild+"="+part)
	cmd.Stderr = os.Stderr
	return cmd
}

// status returns a line of /proc/self/status in its unit.
func status(name string) int {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), name+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// counter returns the value of a counter without labels.
func counter(reg *prometheus.Registry, name string) float64 {
	families, _ := reg.Gather()
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// gauge returns the value of a metric without labels.
func gauge(reg *prometheus.Registry, name string) float64 {
	families, _ := reg.Gather()
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return 0
}
