package fetch

import (
	"errors"
	"testing"
	"time"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
)

func TestTrustVerifier(t *testing.T) {
	t.Parallel()
	root, err := keys.GenerateRoot()
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	encoded, err := root.SignTrust(keys.Trust{
		Cluster: testCluster, Serial: 1, IssuedAt: begin, Epoch: 2,
		Keys: []keys.TrustedKey{{PublicKey: key.Public(), NotBefore: begin, NotAfter: begin.Add(24 * time.Hour), Purposes: []string{keys.PurposeCheckpoint}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := keys.ParseTrust(encoded, root.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	sign := func(epoch uint64) snapshot.Checkpoint {
		c := snapshot.Checkpoint{Cluster: testCluster, Epoch: epoch, Seq: 1, View: "acme/eu"}
		if err := c.Sign(key.KeyID(), func(m []byte) ([]byte, error) { return key.Sign(keys.PurposeCheckpoint, m) }); err != nil {
			t.Fatal(err)
		}
		return c
	}
	now := begin.Add(time.Hour)
	verify := TrustVerifier(func() *keys.Trust { return trust }, func() time.Time { return now })
	if err := verify(sign(2), false); err != nil {
		t.Errorf("a good checkpoint: %v", err)
	}
	if err := verify(sign(3), false); err == nil {
		t.Error("an epoch that the root has not allowed passes")
	}
	foreign := sign(1)
	foreign.Cluster = "cluster-2"
	if err := verify(foreign, false); !errors.Is(err, keys.ErrForeignRoot) {
		t.Errorf("a foreign cluster: error %v, want ErrForeignRoot", err)
	}
	now = begin.Add(48 * time.Hour)
	if err := verify(sign(1), false); !errors.Is(err, keys.ErrExpiredKey) {
		t.Errorf("an expired key: error %v, want ErrExpiredKey", err)
	}
	if err := verify(sign(1), true); err != nil {
		t.Errorf("an expired key on what is held: %v", err)
	}
	if err := TrustVerifier(func() *keys.Trust { return nil }, nil)(sign(1), false); !errors.Is(err, errNoTrust) {
		t.Errorf("without a trust document: error %v", err)
	}
}
