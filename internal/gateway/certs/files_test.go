package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
)

func oldPEM(t *testing.T, key any) []byte {
	t.Helper()
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})
	}
	t.Fatalf("a key of the type %T", key)
	return nil
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	if err := os.Mkdir(certs, 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(certs, name) }
	pair := Pair{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	put := func(p Pair, l *certstest.Leaf) {
		write(t, p.CertFile, l.CertPEM)
		write(t, p.KeyFile, l.KeyPEM)
	}
	in := func(name string) Pair { return Pair{file(name + ".crt"), file(name + ".key")} }
	first := ca.Issue(t, "first.example")
	put(pair, first)
	put(in("a"), ca.Issue(t, "a.example"))
	put(in("broken"), first)
	write(t, file("broken.crt"), ca.Issue(t, "broken.example").CertPEM)
	var log bytes.Buffer
	s := newStore(t, Options{})
	f, err := NewFiles(FilesOptions{Store: s, Pairs: []Pair{pair}, Dir: certs, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(name, want string) {
		t.Helper()
		if err := f.Look(); err != nil {
			t.Fatal(err)
		}
		if got, err := shown(t, s, &tls.Config{ServerName: name}); got != want || err != nil {
			t.Errorf("for %q: %q, %v, want %q", name, got, err, want)
		}
	}
	expect("a.example", "a.example")
	expect("broken.example", "first.example")
	expect("", "first.example")
	if n := strings.Count(log.String(), "broken.key"); n != 1 {
		t.Errorf("the broken pair is in the log %d times:\n%s", n, &log)
	}
	// It is mended, and another comes.
	put(in("broken"), ca.Issue(t, "broken.example"))
	put(in("b"), ca.Issue(t, "*.b.example"))
	expect("broken.example", "broken.example")
	expect("x.b.example", "*.b.example")
	// A pair whose key is not there yet stays as it was.
	next := ca.Issue(t, "a.example", "a2.example")
	write(t, file("a.crt"), next.CertPEM)
	expect("a2.example", "first.example")
	expect("a.example", "a.example")
	write(t, file("a.key"), next.KeyPEM)
	expect("a2.example", "a.example")
	// One goes.
	if err := errors.Join(os.Remove(file("b.crt")), os.Remove(file("b.key"))); err != nil {
		t.Fatal(err)
	}
	expect("x.b.example", "first.example")
	// Half of one goes: it may be about to be replaced.
	if err := os.Remove(file("a.key")); err != nil {
		t.Fatal(err)
	}
	expect("a2.example", "a.example")
	// The folder goes.
	if err := os.Rename(certs, certs+"2"); err != nil {
		t.Fatal(err)
	}
	if err := f.Look(); err == nil {
		t.Error("the folder is gone: no error")
	}
	if err := os.Rename(certs+"2", certs); err != nil {
		t.Fatal(err)
	}
	expect("a2.example", "a.example")
	// The pair is replaced.
	put(pair, ca.Issue(t, "second.example"))
	expect("", "second.example")
}

// TestFilesByLink replaces a pair at once, as mounted secrets of Kubernetes are.
func TestFilesByLink(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	dir := t.TempDir()
	for _, n := range []string{"one", "two"} {
		l := ca.Issue(t, n+".example")
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, n, "tls.crt"), l.CertPEM)
		write(t, filepath.Join(dir, n, "tls.key"), l.KeyPEM)
	}
	link := filepath.Join(dir, "now")
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, Options{})
	f, err := NewFiles(FilesOptions{Store: s, Pairs: []Pair{{filepath.Join(link, "tls.crt"), filepath.Join(link, "tls.key")}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("two", link+"2"), os.Rename(link+"2", link), f.Look()); err != nil {
		t.Fatal(err)
	}
	if got, err := shown(t, s, &tls.Config{}); got != "two.example" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFilesRun(t *testing.T) {
	t.Parallel()
	ca := certstest.NewAuthority(t, "root")
	dir := t.TempDir()
	s := newStore(t, Options{})
	synctest.Test(t, func(t *testing.T) {
		f, err := NewFiles(FilesOptions{Store: s, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- f.Run(t.Context()) }()
		l := ca.Issue(t, "a.example")
		write(t, filepath.Join(dir, "default.crt"), l.CertPEM)
		write(t, filepath.Join(dir, "default.key"), l.KeyPEM)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if c, _ := s.Lookup(""); c == nil {
			t.Error("the certificate was not seen within three seconds")
		}
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

func TestFilesFaults(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{})
	dir := t.TempDir()
	for _, o := range []FilesOptions{
		{},
		{Store: s, Dir: filepath.Join(dir, "none")},
		{Store: s, Pairs: []Pair{{filepath.Join(dir, "a"), filepath.Join(dir, "b")}}},
		{Store: s, Pairs: []Pair{{dir, dir}}},
	} {
		if _, err := NewFiles(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
