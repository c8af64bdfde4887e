package etcd_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
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
	os.Exit(m.Run())
}

func runChild(part string, args []string) error {
	switch part {
	case "write":
		return childWrite(args[0])
	case "million":
		return childMillion(args[0], args[1])
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

func childMillion(dir, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ctx := context.Background()
	reg := prometheus.NewRegistry()
	report := func(what string, begin time.Time) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Printf("%s: %v, RSS %d MB (%d of files), peak %d MB, heap %d MB\n", what, time.Since(begin).Round(time.Millisecond),
			status("VmRSS")>>10, status("RssFile")>>10, status("VmHWM")>>10, m.HeapInuse>>20)
	}
	begin := time.Now()
	s, err := etcd.Open(ctx, etcd.Options{Dir: dir, Registerer: reg})
	if err != nil {
		return err
	}
	report("open", begin)
	defer s.Close()
	if s.State().Version().Seq == 0 {
		begin = time.Now()
		if _, err := storetest.TryCommit(ctx, s, s.State().Version(), func(ctx context.Context, tx store.Tx) error {
			for i := range n {
				if err := tx.PutCredential(ctx, storetest.Credential("acme", fmt.Sprintf("subscription-%d", i/100), i)); err != nil {
					return err
				}
			}
			report("staged", begin)
			return nil
		}); err != nil {
			return err
		}
		report("committed", begin)
		begin = time.Now()
		for gauge(reg, "hansa_store_image_age_seconds") == 0 {
			<-time.After(50 * time.Millisecond)
		}
		report("image", begin)
	}
	begin = time.Now()
	if _, err := storetest.TryCommit(ctx, s, s.State().Version(), storetest.PutCredentials(storetest.Credential("acme", "one", n))); err != nil {
		return err
	}
	report("one more", begin)
	begin = time.Now()
	c := 0
	for range s.State().CredentialsOf("acme", "subscription-7") {
		c++
	}
	report(fmt.Sprintf("credentials of a subscription: %d", c), begin)
	if got := s.State().CredentialTable("acme").Len(); got < n {
		return fmt.Errorf("%d credentials, want %d", got, n)
	}
	fmt.Printf("table %d MB, database %.0f MB\n", s.State().CredentialTable("acme").Bytes()>>20, gauge(reg, "hansa_store_database_bytes")/(1<<20))
	return nil
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
