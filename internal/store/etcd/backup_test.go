package etcd_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/store/storetest"
)

// backup returns a backup of a record with an image and change sets after it, and the record.
func backup(t *testing.T) (*etcd.Store, []byte) {
	t.Helper()
	s := open(t, t.TempDir())
	fill(t, s, 30)
	maintain(t, s)
	fill(t, s, 5)
	return s, backupOf(t, s)
}

func backupOf(t *testing.T, s *etcd.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRestore(t *testing.T) {
	t.Parallel()
	s, file := backup(t)
	v := s.State().Version()
	info, err := etcd.VerifyBackup(bytes.NewReader(file))
	if err != nil || info.Cluster != s.Cluster() || info.Version != v || info.Records != 35 || info.Pieces == 0 {
		t.Errorf("verify = %+v, %v, want cluster %s at %v with 35 records", info, err, s.Cluster(), v)
	}
	want := contents(s.State())
	fill(t, s, 3) // lost by the restoration
	dir := filepath.Join(t.TempDir(), "new")
	restored, err := etcd.Restore(t.Context(), etcd.RestoreOptions{Dir: dir, Source: bytes.NewReader(file), Principal: "root"})
	if want := (store.Version{Epoch: 2, Seq: 36}); err != nil || restored != want {
		t.Fatalf("restore = %v, %v, want %v", restored, err, want)
	}
	r := open(t, dir)
	if r.Cluster() != s.Cluster() || r.State().Version() != restored || !v.Before(restored) || !s.State().Version().Before(restored) {
		t.Errorf("restored is cluster %s at %v, want %s at %v", r.Cluster(), r.State().Version(), s.Cluster(), restored)
	}
	if diff := cmp.Diff(want[1:], contents(r.State())[1:]); diff != "" {
		t.Errorf("content is not that of the backup (-want +got):\n%s", diff)
	}
	for a, err := range r.Audit(t.Context(), 0) {
		if err != nil || a.Version != restored || a.Info.Principal != "root" || a.Info.Reason != "restored from a backup of 1.35" {
			t.Errorf("audit of the restoration = %+v, %v", a, err)
		}
		break
	}
	n := 0
	for cs, err := range r.Log(t.Context(), store.Version{Epoch: 1}, restored) {
		if n++; err != nil || cs.Version.Seq != uint64(n) {
			t.Fatalf("log at %d = %v, %v", n, cs.Version, err)
		}
	}
	if n != 36 {
		t.Errorf("the log has %d change sets, want 36", n)
	}
	fill(t, r, 2)
	maintain(t, r)
	again := filepath.Join(t.TempDir(), "again")
	restored, err = etcd.Restore(t.Context(), etcd.RestoreOptions{Dir: again, Source: bytes.NewReader(backupOf(t, r)), Epoch: 9})
	if want := (store.Version{Epoch: 9, Seq: 39}); err != nil || restored != want {
		t.Fatalf("second restore = %v, %v, want %v", restored, err, want)
	}
	if diff := cmp.Diff(contents(r.State())[1:], contents(open(t, again).State())[1:]); diff != "" {
		t.Errorf("content after the second restore (-want +got):\n%s", diff)
	}
}

func TestRestoreOfAnEmptyRecord(t *testing.T) {
	t.Parallel()
	file := backupOf(t, open(t, t.TempDir()))
	dir := t.TempDir() // empty, but there
	v, err := etcd.Restore(t.Context(), etcd.RestoreOptions{Dir: dir, Source: bytes.NewReader(file)})
	if want := (store.Version{Epoch: 2, Seq: 1}); err != nil || v != want {
		t.Fatalf("restore = %v, %v, want %v", v, err, want)
	}
	fill(t, open(t, dir), 2)
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	_, file := backup(t)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		opts etcd.RestoreOptions
		want string
	}{
		{"a directory that is not empty", etcd.RestoreOptions{Dir: full}, `"file"`},
		{"a file for a directory", etcd.RestoreOptions{Dir: filepath.Join(full, "file")}, "not a directory"},
		{"no directory", etcd.RestoreOptions{}, "needs a directory"},
		{"an epoch that is not higher", etcd.RestoreOptions{Dir: filepath.Join(t.TempDir(), "new"), Epoch: 1}, "epoch 1 is not higher"},
	}
	for _, tt := range tests {
		tt.opts.Source = bytes.NewReader(file)
		if _, err := etcd.Restore(t.Context(), tt.opts); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestRestoreWritesNothingOfADamagedBackup cuts and alters backups and expects that each is refused and that nothing
// is left behind.
func TestRestoreWritesNothingOfADamagedBackup(t *testing.T) {
	t.Parallel()
	_, file := backup(t)
	rng := rand.New(rand.NewPCG(1, 2))
	try := func(what string, damaged []byte) {
		t.Helper()
		parent := t.TempDir()
		_, err := etcd.Restore(t.Context(), etcd.RestoreOptions{Dir: filepath.Join(parent, "new"), Source: bytes.NewReader(damaged)})
		if !errors.Is(err, etcd.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
		if left, err := os.ReadDir(parent); len(left) != 0 || err != nil {
			t.Errorf("%s: %v is left behind (err %v)", what, left, err)
		}
	}
	for _, n := range []int{0, 5, len("hansa backup 1\n"), 40, len(file) / 2, len(file) - 33, len(file) - 32, len(file) - 1} {
		try(fmt.Sprintf("cut after %d bytes", n), file[:n])
	}
	for range 200 {
		damaged := bytes.Clone(file)
		i := rng.IntN(len(file))
		damaged[i] ^= 1 << rng.IntN(8)
		try(fmt.Sprintf("bit in byte %d of %d", i, len(file)), damaged)
	}
	try("something after the end", append(bytes.Clone(file), 0))
	// Whoever can compute the digest can still not take entries away or put others in their place.
	for i, damaged := range rebuilt(t, file) {
		if _, err := etcd.VerifyBackup(bytes.NewReader(damaged)); !errors.Is(err, etcd.ErrCorrupt) {
			t.Errorf("backup without or with twice entry %d: %v, want ErrCorrupt", i, err)
		}
	}
}

// TestRestoreNoticesChangeWhileReading gives another file at the second reading.
func TestRestoreNoticesChangeWhileReading(t *testing.T) {
	t.Parallel()
	s, file := backup(t)
	fill(t, s, 1)
	parent := t.TempDir()
	_, err := etcd.Restore(t.Context(), etcd.RestoreOptions{
		Dir:    filepath.Join(parent, "new"),
		Source: &swapped{ReadSeeker: bytes.NewReader(file), next: bytes.NewReader(backupOf(t, s))},
	})
	if !errors.Is(err, etcd.ErrCorrupt) {
		t.Errorf("restore: %v, want ErrCorrupt", err)
	}
	if left, err := os.ReadDir(parent); len(left) != 0 || err != nil {
		t.Errorf("%v is left behind (err %v)", left, err)
	}
}

type swapped struct {
	io.ReadSeeker
	next io.ReadSeeker
}

// Seek implements io.Seeker: it continues with the other file.
func (s *swapped) Seek(int64, int) (int64, error) {
	s.ReadSeeker = s.next
	return 0, nil
}

func TestBackupFails(t *testing.T) {
	t.Parallel()
	s, _ := backup(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("backup with a cancelled context: %v", err)
	}
	if err := s.Backup(t.Context(), failingWriter{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("backup to a writer that fails: %v", err)
	}
}

type failingWriter struct{}

// Write implements io.Writer.
func (failingWriter) Write([]byte) (int, error) { return 0, fs.ErrPermission }

// TestBackupWhileWriting expects that a backup is of one moment, whatever is written and collected meanwhile.
func TestBackupWhileWriting(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	fill(t, s, 100)
	maintain(t, s)
	fill(t, s, 10)
	v := s.State().Version()
	want := contents(s.State())
	r, w := io.Pipe()
	result := make(chan error, 1)
	go func() {
		err := s.Backup(t.Context(), w)
		w.CloseWithError(err) // it never fails
		result <- err
	}()
	first := make([]byte, 1) // the backup has begun
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		fill(t, s, 20)
		maintain(t, s)
	}
	rest, err := io.ReadAll(iotest.DataErrReader(r))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := etcd.Restore(t.Context(), etcd.RestoreOptions{Dir: dir, Source: bytes.NewReader(append(first, rest...))}); err != nil {
		t.Fatal(err)
	}
	restored := open(t, dir)
	if diff := cmp.Diff(want[1:], contents(restored.State())[1:]); diff != "" {
		t.Errorf("content is not that of %v (-want +got):\n%s", v, diff)
	}
}

// rebuilt returns the backup once without each of its entries and once with it twice, with a digest that is right.
// Entries whose absence does no harm are left in: the image, as the log is whole, the first record, as there is an
// image, and pieces, which the image may make unnecessary.
func rebuilt(t *testing.T, file []byte) [][]byte {
	t.Helper()
	entries, err := etcd.SplitBackup(file)
	if err != nil {
		t.Fatal(err)
	}
	head := []byte("hansa backup 1\n")
	build := func(entries [][]byte) []byte {
		b := bytes.Clone(head)
		for _, e := range entries {
			b = append(b, e...)
		}
		b = append(b, 0)
		sum := sha256.Sum256(b)
		return append(b, sum[:]...)
	}
	if _, err := etcd.VerifyBackup(bytes.NewReader(build(entries))); err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for i, e := range entries {
		if bytes.HasPrefix(e[1:], []byte("piece/")) {
			continue
		}
		var without, twice [][]byte
		without = append(append(without, entries[:i]...), entries[i+1:]...)
		twice = append(append(append(twice, entries[:i+1]...), e), entries[i+1:]...)
		if !bytes.HasPrefix(e[1:], []byte("image")) && !bytes.HasPrefix(e[1:], []byte("change/00000000000000000001")) {
			out = append(out, build(without))
		}
		out = append(out, build(twice))
	}
	if len(out) < 60 {
		t.Fatalf("only %d altered backups", len(out))
	}
	return out
}

func FuzzVerifyBackup(f *testing.F) {
	s, err := etcd.Open(f.Context(), etcd.Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	for _, image := range []bool{false, true} {
		if _, err := storetest.TryCommit(f.Context(), s, s.State().Version(), storetest.Put(storetest.Backend("acme", "b", "1"))); err != nil {
			f.Fatal(err)
		}
		if image {
			if err := s.Maintain(f.Context()); err != nil {
				f.Fatal(err)
			}
		}
		var b bytes.Buffer
		if err := s.Backup(f.Context(), &b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		// The digest is put right, so that what is behind it is reached.
		if n := len(in) - sha256.Size; n > 0 {
			sum := sha256.Sum256(in[:n])
			in = append(bytes.Clone(in[:n]), sum[:]...)
		}
		info, err := etcd.VerifyBackup(bytes.NewReader(in))
		if err != nil && !errors.Is(err, etcd.ErrCorrupt) && !strings.Contains(err.Error(), "format") {
			t.Errorf("verify: %v, want ErrCorrupt", err)
		}
		if err == nil && info.Cluster == "" && info.Records < 0 {
			t.Errorf("info = %+v", info)
		}
	})
}
