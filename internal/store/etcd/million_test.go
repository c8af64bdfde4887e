package etcd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

const million = 1_000_000

// childMillion commits a million credentials in one change set, unless that has been done, and tells of the memory
// that this process needs.
func childMillion(dir string) error {
	ctx := context.Background()
	begin := time.Now()
	report := func(what string) {
		fmt.Printf("%-10s %6.2f s, resident %d MB (%d of files), peak %d MB\n", what, time.Since(begin).Seconds(),
			status("VmRSS")>>10, status("RssFile")>>10, status("VmHWM")>>10)
		begin = time.Now()
	}
	reg := prometheus.NewRegistry()
	s, err := etcd.Open(ctx, etcd.Options{Dir: dir, Registerer: reg})
	if err != nil {
		return err
	}
	report("open")
	if s.State().Version().Seq == 0 {
		if _, err := storetest.TryCommit(ctx, s, s.State().Version(), func(ctx context.Context, tx store.Tx) error {
			for i := range million {
				if err := tx.PutCredential(ctx, storetest.Credential("acme", fmt.Sprintf("subscription-%d", i/100), i)); err != nil {
					return err
				}
			}
			report("stage")
			return nil
		}); err != nil {
			return err
		}
		report("commit")
		for gauge(reg, "hansa_store_image_age_seconds") == 0 {
			<-time.After(50 * time.Millisecond)
		}
		report("image")
	}
	if _, err := storetest.TryCommit(ctx, s, s.State().Version(), storetest.PutCredentials(storetest.Credential("acme", "one", 0))); err != nil {
		return err
	}
	report("one more")
	n := 0
	for range s.State().CredentialsOf("acme", "subscription-7") {
		n++
	}
	report("scan")
	table := s.State().CredentialTable("acme")
	if n != 100 || table.Len() != million+1 {
		return fmt.Errorf("%d credentials, %d of one subscription, want %d and 100", table.Len(), n, million+1)
	}
	fmt.Printf("table %d MB, peak %d MB\n", table.Bytes()>>20, status("VmHWM")>>10)
	return s.Close()
}

// raced tells whether this binary was built with the race detector.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestMillionCredentials bounds the memory of a process that takes a million credentials at once, and of one that
// starts with them.
func TestMillionCredentials(t *testing.T) {
	if os.Getenv("HANSA_SLOW") == "" {
		t.Skip("takes half a minute: set HANSA_SLOW=1")
	}
	if raced() {
		t.Skip("the race detector needs several times the memory")
	}
	const limit = 700 // MB; the whole control node is to stay below 1 GB
	dir := filepath.Join(t.TempDir(), "record")
	for _, start := range []string{"empty", "full"} {
		out, err := child(t, "million", dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("start with an %s record:\n%s", start, out)
		text := string(out)
		peak := 0
		if _, err := fmt.Sscanf(text[strings.LastIndex(text, "peak "):], "peak %d MB", &peak); err != nil || peak > limit {
			t.Errorf("the process took %d MB (err %v), want at most %d", peak, err, limit)
		}
	}
}

// TestOldTablesAreLetGo changes a credential of every shard again and again. Each change set makes the whole table
// anew, and what watchers may still want must not keep all those tables in memory.
func TestOldTablesAreLetGo(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const credentials, limit = 50_000, 32 << 20
	put := func(product string, numbers []int) {
		t.Helper()
		if _, err := storetest.TryCommit(t.Context(), s, s.State().Version(), func(ctx context.Context, tx store.Tx) error {
			for _, n := range numbers {
				c := storetest.Credential("acme", "shop", n)
				c.Product = product
				if err := tx.PutCredential(ctx, c); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	var all, first []int // all credentials, and one of each shard
	seen := make(map[int]bool)
	for n := range credentials {
		all = append(all, n)
		if at := storetest.Credential("acme", "shop", n).Hash.Shard(); !seen[at] {
			seen[at] = true
			first = append(first, n)
		}
	}
	put("gold", all)
	table := int64(s.State().CredentialTable("acme").Bytes())
	for i := range 2*limit/table + 1 {
		put(fmt.Sprintf("round-%d", i), first)
	}
	if n, size := s.Recent(); n < 2 || size > limit || int64(n-1)*table > limit {
		t.Errorf("%d change sets are kept, of tables of %d bytes, and taken for %d bytes, want at most %d", n, table, size, limit)
	}
}
