package localstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/localstore"
	"hansa.dev/hansa/internal/x/durable"
	"hansa.dev/hansa/internal/x/secret"
)

// testKey is fixed, so that a child process opens what its parent sealed.
var testKey = secret.New(bytes.Repeat([]byte{7}, keys.SealKeySize))

func newSealer(t testing.TB, key secret.Bytes) *keys.Sealer {
	t.Helper()
	s, err := keys.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t testing.TB, dir string) *localstore.Store {
	t.Helper()
	s, err := localstore.Open(dir, newSealer(t, testKey), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func closeStore(t testing.TB, s *localstore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func save(t testing.TB, s *localstore.Store, seq uint64, payload []byte) uint64 {
	t.Helper()
	n, err := s.SaveGeneration(localstore.Meta{Epoch: 1, Seq: seq, Checkpoint: []byte("cp")}, durable.Bytes(payload))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seqs lists what Generations yields: the last seq of each whole generation, "damaged" for others.
func seqs(t testing.TB, s *localstore.Store) []string {
	t.Helper()
	var out []string
	for g, err := range s.Generations() {
		switch {
		case errors.Is(err, localstore.ErrDamaged):
			out = append(out, "damaged")
		case err != nil:
			t.Fatal(err)
		default:
			last := g.Meta.Seq
			if n := len(g.Deltas); n > 0 {
				last = g.Deltas[n-1].Meta.Seq
			}
			out = append(out, fmt.Sprint(last))
		}
	}
	return out
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestGenerationsKeepTwo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	want(t, "fresh store", seqs(t, s), []string(nil))
	for seq := uint64(1); seq <= 4; seq++ {
		save(t, s, seq, bytes.Repeat([]byte{byte(seq)}, 100_000))
	}
	want(t, "after four", seqs(t, s), []string{"4", "3"})
	closeStore(t, s)

	s = open(t, dir)
	for g, err := range s.Generations() {
		if err != nil {
			t.Fatal(err)
		}
		if g.Meta.Epoch != 1 || string(g.Meta.Checkpoint) != "cp" || !bytes.Equal(g.Payload, bytes.Repeat([]byte{byte(g.Meta.Seq)}, 100_000)) {
			t.Errorf("generation %d is not what was saved", g.Number)
		}
	}
	if n := save(t, s, 5, nil); n != 5 {
		t.Errorf("number after a restart = %d, want 5", n)
	}
	want(t, "files", files(t, dir, "generations"), []string{"0000000000000004.gen", "0000000000000005.gen"})
}

func TestDeltas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	n := save(t, s, 10, []byte("base"))
	for seq := uint64(11); seq <= 13; seq++ {
		if _, err := s.AppendDelta(n, localstore.Meta{Epoch: 1, Seq: seq}, fmt.Appendf(nil, "delta %d", seq)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.AppendDelta(n+1, localstore.Meta{}, nil); err == nil {
		t.Error("a delta was appended to a generation that is not the newest")
	}
	closeStore(t, s)
	s = open(t, dir)
	// Appending must not need reading first.
	if _, err := s.AppendDelta(n, localstore.Meta{Epoch: 1, Seq: 14}, []byte("delta 14")); err != nil {
		t.Fatal(err)
	}
	for g, err := range s.Generations() {
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range g.Deltas {
			got = append(got, fmt.Sprintf("%d %s", d.Meta.Seq, d.Bytes))
		}
		want(t, "deltas", got, []string{"11 delta 11", "12 delta 12", "13 delta 13", "14 delta 14"})
	}
	st := s.Status()
	if g := st.Generations[0]; g.Seq != 14 || g.Deltas != 4 || g.DeltaBytes == 0 || g.Bytes == 0 {
		t.Errorf("status = %+v, want seq 14 and four deltas", g)
	}
	save(t, s, 15, nil)
	save(t, s, 16, nil)
	want(t, "files", files(t, dir, "generations"), []string{"0000000000000002.gen", "0000000000000003.gen"})
}

func TestDamageIsNoticed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		file   string // the newest generation is 2, with deltas 21 and 22
		damage func([]byte) []byte
		want   []string
		faults int
	}{
		{"flipped bit", "0000000000000002.gen", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, []string{"damaged", "1"}, 1},
		{"cut", "0000000000000002.gen", func(b []byte) []byte { return b[:len(b)-1] }, []string{"damaged", "1"}, 1},
		{"emptied", "0000000000000002.gen", func([]byte) []byte { return nil }, []string{"damaged", "1"}, 1},
		{"older in its place", "0000000000000002.gen", nil, []string{"damaged", "1"}, 1},
		{"last delta torn", "0000000000000002.log", func(b []byte) []byte { return b[:len(b)-9] }, []string{"21", "1"}, 0},
		{"last delta torn in its length", "0000000000000002.log", func(b []byte) []byte { return b[:len(b)/2+2] }, []string{"21", "1"}, 0},
		{"zeros after the deltas", "0000000000000002.log", func(b []byte) []byte { return append(b, make([]byte, 500)...) }, []string{"22", "1"}, 0},
		{"last delta changed", "0000000000000002.log", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, []string{"21", "1"}, 1},
		{"first delta changed", "0000000000000002.log", func(b []byte) []byte { b[50] ^= 1; return b }, []string{"2", "1"}, 1},
		{"deltas swapped", "0000000000000002.log", func(b []byte) []byte {
			return append(bytes.Clone(b[len(b)/2:]), b[:len(b)/2]...)
		}, []string{"2", "1"}, 1},
		{"deltas gone", "0000000000000002.log", func([]byte) []byte { return nil }, []string{"2", "1"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir)
			save(t, s, 1, bytes.Repeat([]byte("x"), 200_000))
			n := save(t, s, 2, bytes.Repeat([]byte("y"), 200_000))
			for seq := uint64(21); seq <= 22; seq++ {
				if _, err := s.AppendDelta(n, localstore.Meta{Epoch: 1, Seq: seq}, []byte("some delta")); err != nil {
					t.Fatal(err)
				}
			}
			closeStore(t, s)
			path := filepath.Join(dir, "generations", tt.file)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if tt.damage == nil {
				b, err = os.ReadFile(filepath.Join(dir, "generations", "0000000000000001.gen"))
				if err != nil {
					t.Fatal(err)
				}
			} else {
				b = tt.damage(b)
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
			want(t, "generations", seqs(t, s), tt.want)
			st := s.Status()
			if len(st.Faults) != tt.faults {
				t.Errorf("faults = %+v, want %d", st.Faults, tt.faults)
			}
			for _, f := range st.Faults {
				if !strings.HasSuffix(f.File, tt.file) || f.Reason == "" {
					t.Errorf("fault = %+v, want it to name %s and a reason", f, tt.file)
				}
			}
			if tt.want[0] == "damaged" {
				if st.Generations[0].Damaged == "" {
					t.Error("the damaged generation is not marked")
				}
				// The good older one stays, the damaged one goes.
				save(t, s, 3, nil)
				want(t, "after the next save", seqs(t, s), []string{"3", "1"})
				return
			}
			// What follows the damage is overwritten by the next delta.
			if _, err := s.AppendDelta(n, localstore.Meta{Epoch: 1, Seq: 30}, []byte("new")); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			want(t, "after the next delta", seqs(t, open(t, dir)), []string{"30", "1"})
		})
	}
}

func TestForeignKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	save(t, s, 1, []byte("x"))
	closeStore(t, s)
	s, err := localstore.Open(dir, newSealer(t, keys.GenerateSealingKey()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	want(t, "generations", seqs(t, s), []string{"damaged"})
	if f := s.Status().Faults; len(f) != 1 || !strings.Contains(f[0].Reason, "not among the keys at hand") {
		t.Errorf("faults = %+v, want one that speaks of the key", f)
	}
}

func TestFailedSaveChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	save(t, s, 1, []byte("x"))
	save(t, s, 2, []byte("y"))
	boom := errors.New("boom")
	_, err := s.SaveGeneration(localstore.Meta{Epoch: 1, Seq: 3}, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("error = %v, want %v", err, boom)
	}
	want(t, "generations", seqs(t, s), []string{"2", "1"})
	want(t, "files", files(t, dir, "generations"), []string{"0000000000000001.gen", "0000000000000002.gen"})
}

func TestLockAndClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := localstore.Open(dir, newSealer(t, testKey), slog.New(slog.DiscardHandler)); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second Open = %v, want ErrLocked", err)
	}
	shards, err := s.Shards("credentials")
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if _, err := s.SaveGeneration(localstore.Meta{}, durable.Bytes(nil)); !errors.Is(err, localstore.ErrClosed) {
		t.Errorf("SaveGeneration after Close = %v, want ErrClosed", err)
	}
	if err := shards.Append(nil); !errors.Is(err, localstore.ErrClosed) {
		t.Errorf("Append after Close = %v, want ErrClosed", err)
	}
	open(t, dir)
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Document("trust"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing document = %v, want fs.ErrNotExist", err)
	}
	for _, v := range []string{"one", "two"} {
		if err := s.SaveDocument("trust", []byte(v)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Document("trust"); err != nil || string(got) != v {
			t.Errorf("Document = %q, %v, want %q", got, err, v)
		}
	}
	for _, bad := range []string{"", "../x", "A", ".tmp-x"} {
		if err := s.SaveDocument(bad, nil); err == nil {
			t.Errorf("name %q was accepted", bad)
		}
	}
	path := filepath.Join(dir, "documents", "trust")
	if b, _ := os.ReadFile(path); bytes.Contains(b, []byte("two")) {
		t.Error("the document lies open on the disk")
	}
	if err := os.Rename(path, filepath.Join(dir, "documents", "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Document("other"); !errors.Is(err, localstore.ErrDamaged) {
		t.Errorf("document under another name = %v, want ErrDamaged", err)
	}
}

func files(t testing.TB, elem ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
