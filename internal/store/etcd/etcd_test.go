package etcd_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

// open opens a record and closes it when the test ends. Nothing in these tests may make it fail.
func open(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	return openWith(t, etcd.Options{Dir: dir})
}

func openWith(t *testing.T, opts etcd.Options) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t *testing.T, s *etcd.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// fill commits n change sets, each with a resource and a credential.
func fill(t *testing.T, s *etcd.Store, n int) {
	t.Helper()
	for range n {
		i := int(s.State().Version().Seq)
		storetest.Commit(t, s,
			storetest.Put(storetest.Backend("acme", fmt.Sprintf("b%d", i%50), fmt.Sprintf("127.0.0.1:%d", i))),
			storetest.PutCredentials(storetest.Credential("acme", "gold", i)))
	}
}

// contents returns all that a state holds as text.
func contents(s store.State) []string {
	lines := []string{fmt.Sprint(s.Version())}
	for _, k := range v1.Kinds() {
		for o := range s.List(k.Kind, "", "") {
			lines = append(lines, fmt.Sprintf("%s at %d: %+v", o.Key(), o.Metadata.Seq, o.Spec))
		}
	}
	for c := range s.Credentials("") {
		lines = append(lines, fmt.Sprintf("%+v", c))
	}
	return lines
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T, dir string) storetest.Store { return open(t, dir) })
}

func TestDirectoryIsLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := etcd.Open(t.Context(), etcd.Options{Dir: dir}); !errors.Is(err, etcd.ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	closeStore(t, s)
	open(t, dir)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := etcd.Open(t.Context(), etcd.Options{}); err == nil {
		t.Error("Open without a directory succeeded")
	}
	if _, err := etcd.Open(t.Context(), etcd.Options{Dir: "/dev/null/x"}); err == nil {
		t.Error("Open below a file succeeded")
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	dir := t.TempDir()
	now := time.Unix(1_700_000_000, 0)
	s := openWith(t, etcd.Options{Dir: dir, Registerer: reg, Now: func() time.Time { return now }})
	fill(t, s, 3)
	if _, err := storetest.TryCommit(t.Context(), s, store.Version{Epoch: 1}); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	for name, want := range map[string]float64{
		"hansa_store_epoch": 1, "hansa_store_seq": 3, "hansa_store_resources": 3, "hansa_store_credentials": 3,
		"hansa_store_image_age_seconds": 60,
	} {
		if got := gauge(reg, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if got := gauge(reg, "hansa_store_database_bytes"); got <= 0 {
		t.Errorf("hansa_store_database_bytes = %v, want more", got)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics have problems %v (err %v)", problems, err)
	}
	if n, err := testutil.GatherAndCount(reg, "hansa_store_change_sets_total"); n != 5 || err != nil {
		t.Errorf("hansa_store_change_sets_total has %d outcomes (err %v), want 5", n, err)
	}
	closeStore(t, s)
	openWith(t, etcd.Options{Dir: dir, Registerer: reg}) // the names are free again
}
