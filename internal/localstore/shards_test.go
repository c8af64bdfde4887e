package localstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/localstore"
)

func shardsOf(t testing.TB, s *localstore.Store) *localstore.Shards {
	t.Helper()
	shards, err := s.Shards("credentials")
	if err != nil {
		t.Fatal(err)
	}
	return shards
}

func replace(t testing.TB, s *localstore.Shards, clearLog bool, batch map[uint16]string) {
	t.Helper()
	err := s.Replace(clearLog, func(put func(uint16, []byte) error) error {
		for shard, content := range batch {
			if err := put(shard, []byte(content)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, s *localstore.Shards) map[uint16]string {
	t.Helper()
	out := make(map[uint16]string)
	for _, shard := range s.List() {
		b, err := s.Read(shard)
		if err != nil {
			t.Fatal(err)
		}
		out[shard] = string(b)
	}
	return out
}

func logOf(t testing.TB, s *localstore.Shards) []string {
	t.Helper()
	var out []string
	for r, err := range s.Log() {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(r))
	}
	return out
}

// TestShardsAgainstModel does what a gateway does for a long time, with restarts, and compares with a map.
func TestShardsAgainstModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	shards := shardsOf(t, s)
	rng := rand.New(rand.NewPCG(1, 2))
	model, log := make(map[uint16]string), []string(nil)
	for step := range 300 {
		switch {
		case rng.IntN(10) == 0:
			closeStore(t, s)
			s = open(t, dir)
			shards = shardsOf(t, s)
			if f := s.Status().Faults; len(f) > 0 {
				t.Fatalf("step %d: faults after a restart: %+v", step, f)
			}
			want(t, fmt.Sprintf("step %d: log after a restart", step), logOf(t, shards), log)
		case rng.IntN(2) == 0:
			r := fmt.Sprintf("record %d", step)
			if err := shards.Append([]byte(r)); err != nil {
				t.Fatal(err)
			}
			log = append(log, r)
		default:
			batch := make(map[uint16]string)
			for range 1 + rng.IntN(1+rng.IntN(100)) {
				shard := uint16(rng.IntN(200))
				batch[shard] = strings.Repeat(fmt.Sprintf("%d/%d ", step, shard), rng.IntN(50))
			}
			clearLog := rng.IntN(4) == 0
			replace(t, shards, clearLog, batch)
			for shard, c := range batch {
				if model[shard] = c; c == "" {
					delete(model, shard)
				}
			}
			if clearLog {
				log = nil
			}
		}
		if step%10 == 0 {
			want(t, fmt.Sprintf("step %d: shards", step), content(t, shards), model)
			want(t, fmt.Sprintf("step %d: log", step), logOf(t, shards), log)
		}
	}
	names := files(t, dir, "shards", "credentials")
	if n := len(slices.DeleteFunc(names, func(n string) bool { return filepath.Ext(n) != ".seg" })); n > 9 {
		t.Errorf("%d segments after many batches, want at most 9", n)
	}
}

func TestShardsFailedBatchChangesNothing(t *testing.T) {
	t.Parallel()
	shards := shardsOf(t, open(t, t.TempDir()))
	replace(t, shards, false, map[uint16]string{1: "one", 2: "two"})
	boom := errors.New("boom")
	for name, fill := range map[string]func(put func(uint16, []byte) error) error{
		"caller fails": func(put func(uint16, []byte) error) error { return errors.Join(put(1, []byte("x")), boom) },
		"put twice": func(put func(uint16, []byte) error) error {
			return errors.Join(put(1, []byte("x")), put(1, []byte("y")))
		},
	} {
		if err := shards.Replace(true, fill); err == nil {
			t.Errorf("%s: no error", name)
		}
		want(t, name, content(t, shards), map[uint16]string{1: "one", 2: "two"})
	}
}

func TestShardsDamage(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (string, func() *localstore.Store) {
		dir := t.TempDir()
		s := open(t, dir)
		shards := shardsOf(t, s)
		replace(t, shards, false, map[uint16]string{1: strings.Repeat("a", 100), 2: strings.Repeat("b", 100)})
		replace(t, shards, false, map[uint16]string{2: strings.Repeat("B", 100), 3: strings.Repeat("c", 100)})
		for _, r := range []string{"r1", "r2"} {
			if err := shards.Append([]byte(r)); err != nil {
				t.Fatal(err)
			}
		}
		closeStore(t, s)
		return filepath.Join(dir, "shards", "credentials"), func() *localstore.Store { return open(t, dir) }
	}
	edit := func(t *testing.T, path string, change func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("one shard", func(t *testing.T) {
		t.Parallel()
		dir, reopen := begin(t)
		edit(t, filepath.Join(dir, "0000000000000001.seg"), func(b []byte) []byte { b[80] ^= 1; b[80+162] ^= 1; return b })
		s := reopen()
		shards := shardsOf(t, s)
		if _, err := shards.Read(1); !errors.Is(err, localstore.ErrDamaged) {
			t.Errorf("Read(1) = %v, want ErrDamaged", err)
		}
		if b, err := shards.Read(3); err != nil || len(b) != 100 {
			t.Errorf("Read(3) = %q, %v, want the content", b, err)
		}
		if len(s.Status().Faults) != 1 {
			t.Errorf("faults = %+v, want one", s.Status().Faults)
		}
		replace(t, shards, false, map[uint16]string{1: "again"})
		if b, err := shards.Read(1); err != nil || string(b) != "again" {
			t.Errorf("Read(1) after it was replaced = %q, %v", b, err)
		}
	})
	t.Run("newest segment unreadable", func(t *testing.T) {
		t.Parallel()
		dir, reopen := begin(t)
		edit(t, filepath.Join(dir, "0000000000000002.seg"), func(b []byte) []byte { return b[:len(b)-3] })
		s := reopen()
		shards := shardsOf(t, s)
		if f := s.Status().Faults; len(f) != 1 || !strings.HasSuffix(f[0].File, "0000000000000002.seg") {
			t.Errorf("faults = %+v, want one on segment 2", f)
		}
		want(t, "older content", content(t, shards), map[uint16]string{1: strings.Repeat("a", 100), 2: strings.Repeat("b", 100)})
		replace(t, shards, false, map[uint16]string{2: "new"})
		closeStore(t, s)
		s = reopen()
		want(t, "afterwards", content(t, shardsOf(t, s)), map[uint16]string{1: strings.Repeat("a", 100), 2: "new"})
		if f := s.Status().Faults; len(f) != 0 {
			t.Errorf("faults afterwards = %+v, want none", f)
		}
	})
	t.Run("older segment missing", func(t *testing.T) {
		t.Parallel()
		dir, reopen := begin(t)
		if err := os.Remove(filepath.Join(dir, "0000000000000001.seg")); err != nil {
			t.Fatal(err)
		}
		s := reopen()
		shardsOf(t, s)
		if f := s.Status().Faults; len(f) != 1 || !strings.HasSuffix(f[0].File, "0000000000000001.seg") {
			t.Errorf("faults = %+v, want one on segment 1", f)
		}
	})
	t.Run("log", func(t *testing.T) {
		t.Parallel()
		dir, reopen := begin(t)
		edit(t, filepath.Join(dir, "0000000000000001.log"), func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		shards := shardsOf(t, reopen())
		var got []string
		var last error
		for r, err := range shards.Log() {
			got, last = append(got, string(r)), err
		}
		if !errors.Is(last, localstore.ErrDamaged) || got[0] != "r1" {
			t.Errorf("log = %q, %v, want r1 and ErrDamaged", got, last)
		}
		if err := shards.Append([]byte("r3")); err != nil {
			t.Fatal(err)
		}
		want(t, "log after the next append", logOf(t, shards), []string{"r1", "r3"})
	})
}

func TestShardsAreSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shards := shardsOf(t, open(t, dir))
	replace(t, shards, false, map[uint16]string{1: "plain-marker"})
	if err := shards.Append([]byte("plain-marker")); err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, dir, "shards", "credentials") {
		b, err := os.ReadFile(filepath.Join(dir, "shards", "credentials", name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("plain-marker")) {
			t.Errorf("%s holds the content in the clear", name)
		}
	}
}
