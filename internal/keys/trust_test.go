package keys_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/internal/keys"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRoot(t testing.TB) *keys.Root {
	t.Helper()
	root, err := keys.GenerateRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newSigning(t testing.TB) *keys.SigningKey {
	t.Helper()
	key, err := keys.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func trusted(k *keys.SigningKey, from, to time.Time) keys.TrustedKey {
	return keys.TrustedKey{PublicKey: k.Public(), NotBefore: from, NotAfter: to, Purposes: []string{keys.PurposeCheckpoint}}
}

func sign(t testing.TB, root *keys.Root, doc keys.Trust) *keys.Trust {
	t.Helper()
	b, err := root.SignTrust(doc)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := keys.ParseTrust(b, root.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func TestVerify(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	root, old, fresh, revoked, stranger := newRoot(t), newSigning(t), newSigning(t), newSigning(t), newSigning(t)
	trust := sign(t, root, keys.Trust{
		Cluster: "c1", Serial: 1, Epoch: 1,
		Keys: []keys.TrustedKey{
			trusted(old, start, start.Add(30*day)),
			trusted(fresh, start.Add(20*day), start.Add(50*day)),
			trusted(revoked, start, start.Add(30*day)),
		},
		Revoked: []string{revoked.KeyID()},
	})
	tests := []struct {
		name    string
		key     *keys.SigningKey
		signAs  string
		checkAs string
		tamper  bool
		at      time.Duration
		want    error
		held    error // of VerifyHeld
	}{
		{name: "valid", key: old, at: day},
		{name: "first moment", key: old, at: 0},
		{name: "end is excluded", key: old, at: 30 * day, want: keys.ErrExpiredKey},
		{name: "expired keeps what is held", key: old, at: 400 * day, want: keys.ErrExpiredKey},
		{name: "overlap: old", key: old, at: 25 * day},
		{name: "overlap: new", key: fresh, at: 25 * day},
		{name: "before its time", key: fresh, at: 19 * day, want: keys.ErrEarlyKey},
		{name: "revoked", key: revoked, at: day, want: keys.ErrRevokedKey, held: keys.ErrRevokedKey},
		{name: "unknown", key: stranger, at: day, want: keys.ErrUnknownKey, held: keys.ErrUnknownKey},
		{name: "tampered", key: old, at: day, tamper: true, want: keys.ErrBadSignature, held: keys.ErrBadSignature},
		{name: "made for another purpose", key: old, at: day, signAs: keys.PurposeBundle, want: keys.ErrBadSignature, held: keys.ErrBadSignature},
		{name: "checked for a purpose that the key lacks", key: old, at: day, signAs: keys.PurposeBundle, checkAs: keys.PurposeBundle, want: keys.ErrWrongPurpose, held: keys.ErrWrongPurpose},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.signAs == "" {
				tt.signAs = keys.PurposeCheckpoint
			}
			if tt.checkAs == "" {
				tt.checkAs = keys.PurposeCheckpoint
			}
			msg := []byte("message")
			sig, err := tt.key.Sign(tt.signAs, msg)
			if err != nil {
				t.Fatal(err)
			}
			if tt.tamper {
				msg[0] ^= 1
			}
			if err := trust.Verify(tt.checkAs, tt.key.KeyID(), msg, sig, start.Add(tt.at)); !errors.Is(err, tt.want) {
				t.Errorf("Verify = %v, want %v", err, tt.want)
			}
			if err := trust.VerifyHeld(tt.checkAs, tt.key.KeyID(), msg, sig); !errors.Is(err, tt.held) {
				t.Errorf("VerifyHeld = %v, want %v", err, tt.held)
			}
		})
	}
}

func TestSigningKeyCannotActAsRoot(t *testing.T) {
	t.Parallel()
	if _, err := newSigning(t).Sign("trust", []byte("{}")); !errors.Is(err, keys.ErrWrongPurpose) {
		t.Errorf("Sign(trust) = %v, want ErrWrongPurpose", err)
	}
}

func TestParseTrustRefuses(t *testing.T) {
	t.Parallel()
	root, other := newRoot(t), newRoot(t)
	doc := keys.Trust{Cluster: "c1", Serial: 1, Epoch: 1}
	good, err := root.SignTrust(doc)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.SignTrust(doc)
	if err != nil {
		t.Fatal(err)
	}
	var outer struct{ Signed, Signature []byte }
	if err := json.Unmarshal(good, &outer); err != nil {
		t.Fatal(err)
	}
	outer.Signed = []byte(strings.Replace(string(outer.Signed), `"epoch":1`, `"epoch":9`, 1))
	changed, err := json.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		doc  []byte
		want error // nil: any
	}{
		"foreign root": {foreign, keys.ErrForeignRoot},
		"changed":      {changed, keys.ErrBadSignature},
		"cut":          {good[:len(good)/2], nil},
		"empty":        {nil, nil},
		"too large":    {make([]byte, keys.MaxTrustBytes+1), nil},
	} {
		_, err := keys.ParseTrust(tt.doc, root.Fingerprint())
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", name, err, tt.want)
		}
	}
}

func TestSignTrustRefusesWhatIsNotAllowed(t *testing.T) {
	t.Parallel()
	root, key := newRoot(t), newSigning(t)
	base := keys.Trust{Cluster: "c1", Serial: 1, Epoch: 1}
	for name, change := range map[string]keys.Trust{
		"no cluster":    {Serial: 1, Epoch: 1},
		"no serial":     {Cluster: "c1", Epoch: 1},
		"no epoch":      {Cluster: "c1", Serial: 1},
		"too long life": withKey(base, trusted(key, start, start.Add(keys.MaxSigningLife+time.Second))),
		"no life":       withKey(base, trusted(key, start, start)),
		"no purpose":    withKey(base, keys.TrustedKey{PublicKey: key.Public(), NotBefore: start, NotAfter: start.Add(time.Hour)}),
		"root purpose":  withKey(base, keys.TrustedKey{PublicKey: key.Public(), NotBefore: start, NotAfter: start.Add(time.Hour), Purposes: []string{"trust"}}),
		"short key":     withKey(base, keys.TrustedKey{PublicKey: []byte{1}, NotBefore: start, NotAfter: start.Add(time.Hour), Purposes: []string{"checkpoint"}}),
	} {
		if _, err := root.SignTrust(change); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func withKey(t keys.Trust, k keys.TrustedKey) keys.Trust {
	t.Keys = []keys.TrustedKey{k}
	return t
}

func TestSucceed(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	doc := func(r *keys.Root, cluster string, serial, epoch uint64) *keys.Trust {
		return sign(t, r, keys.Trust{Cluster: cluster, Serial: serial, Epoch: epoch})
	}
	held := doc(root, "c1", 5, 2)
	for _, tt := range []struct {
		name string
		next *keys.Trust
		want error
	}{
		{"the same", held, nil},
		{"newer", doc(root, "c1", 6, 2), nil},
		{"newer, higher epoch", doc(root, "c1", 9, 3), nil},
		{"older", doc(root, "c1", 4, 2), keys.ErrStale},
		{"newer, lower epoch", doc(root, "c1", 6, 1), keys.ErrStale},
		{"other cluster", doc(root, "c2", 6, 2), keys.ErrForeignRoot},
		{"other root", doc(newRoot(t), "c1", 6, 2), keys.ErrForeignRoot},
	} {
		if err := held.Succeed(tt.next); !errors.Is(err, tt.want) {
			t.Errorf("%s: Succeed = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestRingRotates(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	dir, sealer := filepath.Join(t.TempDir(), "ring"), newSealer(t)
	ring, err := keys.OpenRing(dir, sealer)
	if err != nil {
		t.Fatal(err)
	}
	first, err := ring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if got := ring.Unlisted(nil); len(got) != 1 || got[0].KeyID() != first.KeyID() {
		t.Errorf("Unlisted = %v, want the first key", got)
	}
	second, err := ring.Generate()
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(t)
	trust := sign(t, root, keys.Trust{Cluster: "c1", Serial: 1, Epoch: 1, Keys: []keys.TrustedKey{
		trusted(first, start, start.Add(30*day)),
		trusted(second, start.Add(20*day), start.Add(50*day)),
		trusted(newSigning(t), start, start.Add(30*day)), // of another control node
	}})
	ring, err = keys.OpenRing(dir, sealer) // keys come back from the disk
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		day  time.Duration
		want string
	}{{1, first.KeyID()}, {21, second.KeyID()}, {31, second.KeyID()}, {50, ""}} {
		s, err := ring.Signer(trust, keys.PurposeCheckpoint, start.Add(tt.day*day))
		if tt.want == "" {
			if !errors.Is(err, keys.ErrNoSigningKey) {
				t.Errorf("day %d: error = %v, want ErrNoSigningKey", tt.day, err)
			}
			continue
		}
		if err != nil || s.KeyID() != tt.want {
			t.Errorf("day %d: signer = %v, %v, want %s", tt.day, s, err, tt.want)
		}
	}
	if err := ring.Remove(trust, start.Add(40*day)); err != nil {
		t.Fatal(err)
	}
	if got, _ := filepath.Glob(filepath.Join(dir, "*.key")); len(got) != 1 || !strings.Contains(got[0], second.KeyID()) {
		t.Errorf("after Remove: %q, want only the second key", got)
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	root := newRoot(t)
	if err := root.Save(path, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
	if err := newRoot(t).Save(path, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Save = %v, want fs.ErrExist", err)
	}
	loaded, err := keys.LoadRoot(path, nil)
	if err != nil || loaded.Fingerprint() != root.Fingerprint() {
		t.Errorf("LoadRoot = %v, want the key that was saved first", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.LoadRoot(path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("LoadRoot of a public file = %v, want a refusal with the remedy", err)
	}
	if _, err := keys.LoadRoot(path+"x", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadRoot of no file = %v, want fs.ErrNotExist", err)
	}
}

func TestFingerprintText(t *testing.T) {
	t.Parallel()
	f := newRoot(t).Fingerprint()
	if got, err := keys.ParseFingerprint(f.String()); err != nil || got != f {
		t.Errorf("ParseFingerprint(%q) = %v, %v", f, got, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("g", 64), f.String() + "00"} {
		if _, err := keys.ParseFingerprint(bad); err == nil {
			t.Errorf("ParseFingerprint(%q) succeeded", bad)
		}
	}
}

func FuzzParseTrust(f *testing.F) {
	root := newRoot(f)
	good, err := root.SignTrust(keys.Trust{
		Cluster: "c1", Serial: 1, Epoch: 1, CAs: [][]byte{{1, 2}},
		Keys: []keys.TrustedKey{trusted(newSigning(f), start, start.Add(time.Hour))},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"signed":"e30=","signature":"AA=="}`))
	f.Add(fmt.Appendf(nil, `{"signed":%q}`, strings.Repeat("A", 100)))
	want, err := keys.ParseTrust(good, root.Fingerprint())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := keys.ParseTrust(b, root.Fingerprint())
		if err != nil {
			return
		}
		// Whatever passes must be the one document that the root ever signed.
		if got.Serial != want.Serial || got.Cluster != want.Cluster || len(got.Keys) != 1 || got.Keys[0].ID() != want.Keys[0].ID() {
			t.Errorf("accepted a document that the root did not sign: %q", b)
		}
	})
}
