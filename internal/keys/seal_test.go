package keys_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/secret"
)

func newSealer(t testing.TB, ks ...secret.Bytes) *keys.Sealer {
	t.Helper()
	if len(ks) == 0 {
		ks = []secret.Bytes{keys.GenerateSealingKey()}
	}
	s, err := keys.NewSealer(ks...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealBox(t *testing.T) {
	t.Parallel()
	oldKey, newKey := keys.GenerateSealingKey(), keys.GenerateSealingKey()
	before, after := newSealer(t, oldKey), newSealer(t, newKey, oldKey)
	plain := []byte("attack at dawn")
	box := before.Seal("ctx", plain)
	if len(box) != len(plain)+keys.SealOverhead {
		t.Errorf("box has %d bytes, want %d", len(box), len(plain)+keys.SealOverhead)
	}
	if got, err := after.Open("ctx", box); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("open after rotation = %q, %v", got, err)
	}
	if _, err := before.Open("ctx", after.Seal("ctx", plain)); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("open with a key that is not at hand = %v, want ErrUnseal", err)
	}
	if _, err := before.Open("other", box); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("open in another context = %v, want ErrUnseal", err)
	}
	for i := range box {
		changed := bytes.Clone(box)
		changed[i] ^= 0x40
		if _, err := before.Open("ctx", changed); !errors.Is(err, keys.ErrUnseal) {
			t.Fatalf("byte %d changed: error = %v, want ErrUnseal", i, err)
		}
		if _, err := before.Open("ctx", box[:i]); !errors.Is(err, keys.ErrUnseal) {
			t.Fatalf("cut at %d: error = %v, want ErrUnseal", i, err)
		}
	}
	if bytes.Equal(box, before.Seal("ctx", plain)) {
		t.Error("two boxes of one plaintext are equal")
	}
}

// stream is one way to seal a stream, for the tests that all of them pass.
type stream struct {
	seal func(w io.Writer) (io.WriteCloser, error)
	open func(r io.Reader) (io.Reader, error)
}

func (s stream) sealAll(t testing.TB, plain []byte, step int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := s.seal(&out)
	if err != nil {
		t.Fatal(err)
	}
	for p := plain; len(p) > 0; {
		n := min(step, len(p))
		if _, err := w.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (s stream) openAll(r io.Reader) ([]byte, error) {
	pr, err := s.open(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(pr)
}

func sealerStream(s *keys.Sealer, context string) stream {
	return stream{
		seal: func(w io.Writer) (io.WriteCloser, error) { return s.NewWriter(w, context) },
		open: func(r io.Reader) (io.Reader, error) { return s.NewReader(r, context) },
	}
}

func TestSealStreamSizes(t *testing.T) {
	t.Parallel()
	const chunk = 64 << 10
	s := sealerStream(newSealer(t), "ctx")
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 17} {
		plain := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for _, step := range []int{1000, chunk, 1 << 20} {
			sealed := s.sealAll(t, plain, step)
			for name, r := range map[string]io.Reader{"whole": bytes.NewReader(sealed), "halves": iotest.HalfReader(bytes.NewReader(sealed))} {
				if got, err := s.openAll(r); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("size %d, step %d, %s: %d bytes, %v", size, step, name, len(got), err)
				}
			}
		}
	}
}

func TestSealStreamNoticesEveryChange(t *testing.T) {
	t.Parallel()
	const chunk = 64<<10 + 16
	sealer := newSealer(t)
	s := sealerStream(sealer, "ctx")
	plain := bytes.Repeat([]byte{7}, 3*(64<<10))
	sealed := s.sealAll(t, plain, 1<<20)
	head := len(sealed) - 3*chunk

	swapped := bytes.Clone(sealed)
	copy(swapped[head:], sealed[head+chunk:head+2*chunk])
	copy(swapped[head+chunk:], sealed[head:head+chunk])
	twice := append(bytes.Clone(sealed[:head+chunk]), sealed[head:]...)
	changes := map[string][]byte{
		"chunks swapped":   swapped,
		"chunk repeated":   twice,
		"last chunk gone":  sealed[:head+2*chunk],
		"only the header":  sealed[:head],
		"cut in a chunk":   sealed[:head+2*chunk+5],
		"bytes after":      append(bytes.Clone(sealed), 0),
		"a stream after":   append(bytes.Clone(sealed), sealed...),
		"empty":            {},
		"cut in header":    sealed[:10],
		"other key's name": append([]byte("HSEAL1xxxxxxxx"), sealed[14:]...),
	}
	for _, at := range []int{0, 7, 20, head, head + chunk - 1, len(sealed) - 1} {
		c := bytes.Clone(sealed)
		c[at] ^= 1
		changes["byte "+string(rune('a'+len(changes)))] = c
	}
	for name, c := range changes {
		got, err := s.openAll(bytes.NewReader(c))
		if !errors.Is(err, keys.ErrUnseal) {
			t.Errorf("%s: error = %v, want ErrUnseal", name, err)
		}
		if !bytes.HasPrefix(plain, got) {
			t.Errorf("%s: unchecked bytes came out", name)
		}
	}
	if _, err := sealerStream(sealer, "other").openAll(bytes.NewReader(sealed)); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("other context: error = %v, want ErrUnseal", err)
	}
}

func TestSealStreamReportsWriteErrors(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	w, err := newSealer(t).NewWriter(&limitedWriter{left: 100 << 10, err: full}, "ctx")
	if err != nil {
		t.Fatal(err)
	}
	_, werr := w.Write(make([]byte, 300<<10))
	if !errors.Is(werr, full) {
		t.Errorf("Write = %v, want %v", werr, full)
	}
	if err := w.Close(); !errors.Is(err, full) {
		t.Errorf("Close after a failed write = %v, want %v", err, full)
	}
}

type limitedWriter struct {
	left int
	err  error
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.left -= n
	if n < len(p) {
		return n, l.err
	}
	return n, nil
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	pass := secret.New([]byte("correct horse battery"))
	with := func(p secret.Bytes, context string) stream {
		return stream{
			seal: func(w io.Writer) (io.WriteCloser, error) { return keys.NewPassphraseWriter(w, p, context) },
			open: func(r io.Reader) (io.Reader, error) { return keys.NewPassphraseReader(r, p, context) },
		}
	}
	plain := bytes.Repeat([]byte("bundle "), 20000)
	sealed := with(pass, "bundle").sealAll(t, plain, 1<<16)
	if got, err := with(pass, "bundle").openAll(bytes.NewReader(sealed)); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("open = %d bytes, %v", len(got), err)
	}
	if _, err := with(secret.New([]byte("correct horse batterx")), "bundle").openAll(bytes.NewReader(sealed)); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("wrong passphrase: %v, want ErrUnseal", err)
	}
	if _, err := with(pass, "other").openAll(bytes.NewReader(sealed)); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("other context: %v, want ErrUnseal", err)
	}
	greedy := bytes.Clone(sealed)
	greedy[8] = 0xff // 4 TiB of memory
	if _, err := with(pass, "bundle").openAll(bytes.NewReader(greedy)); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("header that asks for too much: %v, want ErrUnseal", err)
	}
	if _, err := keys.NewPassphraseWriter(io.Discard, secret.New([]byte("short")), "bundle"); err == nil {
		t.Error("a short passphrase was accepted")
	}
}

func TestGroupKey(t *testing.T) {
	t.Parallel()
	key, err := keys.GenerateGroupKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := keys.GenerateGroupKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keys.SealToGroup(key.Public(), "backend password", []byte("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := keys.ParseGroupKey(key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open("backend password", sealed); err != nil || string(got) != "s3cret" {
		t.Errorf("Open = %q, %v", got, err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, tt := range map[string]struct {
		key     *keys.GroupKey
		context string
		sealed  []byte
	}{
		"other group":   {other, "backend password", sealed},
		"other context": {key, "x", sealed},
		"changed":       {key, "backend password", changed},
		"empty":         {key, "backend password", nil},
		"short":         {key, "backend password", sealed[:8]},
	} {
		if _, err := tt.key.Open(tt.context, tt.sealed); !errors.Is(err, keys.ErrUnseal) {
			t.Errorf("%s: error = %v, want ErrUnseal", name, err)
		}
	}
	if _, err := keys.SealToGroup([]byte("short"), "x", nil); err == nil {
		t.Error("sealed to a public key of 5 bytes")
	}
}

func TestProviders(t *testing.T) {
	t.Parallel()
	data, safe := t.TempDir(), t.TempDir()
	file := filepath.Join(safe, "keys", "at-rest.key")

	if _, err := keys.OpenSealer(t.Context(), keys.FileProvider{Path: file}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v, want fs.ErrNotExist", err)
	}
	first, err := keys.OpenSealer(t.Context(), keys.FileProvider{Path: file, Outside: data, Generate: true})
	if err != nil {
		t.Fatal(err)
	}
	box := first.Seal("c", []byte("x"))
	second, err := keys.OpenSealer(t.Context(), keys.FileProvider{Path: file, Outside: data, Generate: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Open("c", box); err != nil {
		t.Errorf("the generated key did not last: %v", err)
	}
	_, err = keys.OpenSealer(t.Context(), keys.FileProvider{Path: filepath.Join(data, "k"), Outside: data, Generate: true})
	if err == nil || !strings.Contains(err.Error(), "inside the data folder") {
		t.Errorf("key inside the data folder: %v, want a refusal", err)
	}
	link := filepath.Join(safe, "link")
	if err := os.Symlink(data, link); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.OpenSealer(t.Context(), keys.FileProvider{Path: filepath.Join(link, "k"), Outside: data, Generate: true}); err == nil {
		t.Error("key inside the data folder through a link was accepted")
	}

	// The same text as a systemd credential, with a new key in front.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rotated := "# current\n" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32)) + "\n\n" + string(text)
	if err := os.WriteFile(filepath.Join(safe, "cred"), []byte(rotated), 0o400); err != nil {
		t.Fatal(err)
	}
	third, err := keys.OpenSealer(t.Context(), keys.CredentialProvider{Name: "cred", Dir: safe})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := third.Open("c", box); err != nil {
		t.Errorf("open with the replaced key: %v", err)
	}
	for name, p := range map[string]keys.Provider{
		"no credentials directory": keys.CredentialProvider{Name: "cred"},
		"path as name":             keys.CredentialProvider{Name: "../cred", Dir: safe},
		"no keys":                  keys.StaticProvider{},
		"short key":                keys.StaticProvider{secret.New([]byte("short"))},
	} {
		if _, err := keys.OpenSealer(t.Context(), p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := os.WriteFile(filepath.Join(safe, "bad"), []byte("bm90IDMyIGJ5dGVz\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.OpenSealer(t.Context(), keys.FileProvider{Path: filepath.Join(safe, "bad")}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("bad key: %v, want the line named", err)
	}
}

func FuzzOpenStream(f *testing.F) {
	s := sealerStream(newSealer(f), "ctx")
	good := s.sealAll(f, []byte("hello"), 10)
	f.Add(good)
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := s.openAll(bytes.NewReader(b))
		if err == nil && !bytes.Equal(b, good) {
			t.Errorf("%x opened to %q", b, got)
		}
	})
}

func BenchmarkStream(b *testing.B) {
	plain := make([]byte, 15<<20)
	s := sealerStream(newSealer(b), "ctx")
	sealed := s.sealAll(b, plain, 1<<20)
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			w, err := s.seal(io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := w.Write(plain); err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(plain)))
		out := make([]byte, len(plain))
		for b.Loop() {
			r, err := s.open(bytes.NewReader(sealed))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(r, out); err != nil {
				b.Fatal(err)
			}
		}
	})
}
