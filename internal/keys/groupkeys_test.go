package keys_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hansa.dev/hansa/internal/keys"
)

func newGroupKey(t testing.TB) *keys.GroupKey {
	t.Helper()
	k, err := keys.GenerateGroupKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestGroupKeysOpenWhatOlderKeysSealed(t *testing.T) {
	t.Parallel()
	first, second, other := newGroupKey(t), newGroupKey(t), newGroupKey(t)
	held := keys.NewGroupKeys(first)
	now := held.After(keys.NewGroupKeys(second, first))
	if now.Len() != 2 || now.Current().ID() != second.ID() || !now.Has(first.ID()) {
		t.Fatalf("After = %d keys, the first %s; want the new one before the old one", now.Len(), now.Current().ID())
	}
	for _, k := range []*keys.GroupKey{first, second} {
		box, err := keys.SealToGroup(k.Public(), "a", []byte("value"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := now.Open("a", box); err != nil || string(got) != "value" {
			t.Errorf("Open = %q, %v", got, err)
		}
		if _, err := now.Open("b", box); !errors.Is(err, keys.ErrUnseal) {
			t.Errorf("Open for another context: %v, want ErrUnseal", err)
		}
	}
	box, err := keys.SealToGroup(other.Public(), "a", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := now.Open("a", box); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("Open of another group's: %v, want ErrUnseal", err)
	}
	again, err := keys.ParseGroupKeys(now.Marshal())
	if err != nil || !again.Equal(now) {
		t.Errorf("ParseGroupKeys(Marshal) = %v, differs", err)
	}
	for _, bad := range [][]byte{nil, []byte("HGKS1x"), now.Marshal()[:40], bytes.Repeat(now.Marshal(), 5)} {
		if _, err := keys.ParseGroupKeys(bad); err == nil {
			t.Errorf("ParseGroupKeys(%d bytes) is no error", len(bad))
		}
	}
}

func TestGroupKeysAreBounded(t *testing.T) {
	t.Parallel()
	var g keys.GroupKeys
	for range keys.MaxGroupKeys + 3 {
		g = g.After(keys.NewGroupKeys(newGroupKey(t)))
	}
	if g.Len() != keys.MaxGroupKeys {
		t.Errorf("%d keys are held, want %d", g.Len(), keys.MaxGroupKeys)
	}
}

func TestDerivedSecretsDifferByPurposeAndKey(t *testing.T) {
	t.Parallel()
	g := keys.NewGroupKeys(newGroupKey(t), newGroupKey(t))
	a, b := g.Derive("tickets"), g.Derive("other")
	again, err := keys.ParseGroupKeys(g.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != 2 || a[0].Len() != 32 || a[0].Equal(a[1]) || a[0].Equal(b[0]) {
		t.Error("secrets repeat among keys or purposes")
	}
	if !again.Derive("tickets")[0].Equal(a[0]) {
		t.Error("another gateway with the keys derives another secret")
	}
	if bytes.Contains(g.Marshal(), a[0].Reveal()) {
		t.Error("a derived secret is part of the keys")
	}
}

func TestSealToNode(t *testing.T) {
	t.Parallel()
	mine, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	box, err := keys.SealToNode(&mine.PublicKey, "to a", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.OpenAsNode(mine, "to a", box); err != nil || string(got) != "value" {
		t.Errorf("OpenAsNode = %q, %v", got, err)
	}
	changed := bytes.Clone(box)
	changed[len(changed)-1] ^= 1
	for _, tt := range []struct {
		name, context string
		key           *ecdsa.PrivateKey
		box           []byte
	}{
		{"other node", "to a", other, box},
		{"other context", "to b", mine, box},
		{"changed", "to a", mine, changed},
		{"cut", "to a", mine, box[:20]},
		{"nothing", "to a", mine, nil},
	} {
		if _, err := keys.OpenAsNode(tt.key, tt.context, tt.box); !errors.Is(err, keys.ErrUnseal) {
			t.Errorf("%s: %v, want ErrUnseal", tt.name, err)
		}
	}
}

func TestKeyFilesAreSealedInPlace(t *testing.T) {
	t.Parallel()
	path, sealer := filepath.Join(t.TempDir(), "root.key"), newSealer(t)
	root := newRoot(t)
	if err := root.Save(path, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing left to do
		if err := keys.SealPrivateKey(path, sealer); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Contains(text, []byte("PRIVATE KEY")) {
		t.Errorf("the file still holds a private key in PEM: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
	if got, err := keys.LoadRoot(path, sealer); err != nil || got.Fingerprint() != root.Fingerprint() {
		t.Errorf("LoadRoot = %v, %v", got, err)
	}
	for _, wrong := range []*keys.Sealer{nil, newSealer(t)} {
		if _, err := keys.LoadRoot(path, wrong); !errors.Is(err, keys.ErrUnseal) {
			t.Errorf("LoadRoot with another key = %v, want ErrUnseal", err)
		}
	}
}
