package vault_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/vault"
)

func newVault(t *testing.T) *vault.Vault {
	t.Helper()
	s, err := keys.NewSealer(keys.GenerateSealingKey())
	if err != nil {
		t.Fatal(err)
	}
	return vault.New(s)
}

func TestSecretsAreBoundToTheirPlace(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	version, err := v.NewGroupKey("acme", "eu", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	spec := &v1.GroupKeySpec{Versions: []v1.GroupKeyVersion{version}}
	if g, err := v.GroupKeys("acme", "eu", spec); err != nil || g.Current().ID() != version.ID {
		t.Errorf("GroupKeys = %v", err)
	}
	for name, open := range map[string]func() error{
		"another group":        func() error { _, err := v.GroupKeys("acme", "us", spec); return err },
		"another organization": func() error { _, err := v.GroupKeys("other", "eu", spec); return err },
		"another vault":        func() error { _, err := newVault(t).GroupKeys("acme", "eu", spec); return err },
		"another certificate": func() error {
			sealed := v.SealPrivateKey("acme", "a", "f", []byte("planted"))
			_, err := v.PrivateKey("acme", "b", &v1.CertificateKeySpec{Fingerprint: "f", Sealed: sealed})
			return err
		},
		"not base64": func() error { _, err := v.Open("x", "???"); return err },
	} {
		if err := open(); !errors.Is(err, keys.ErrUnseal) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v, want ErrUnseal", name, err)
		}
	}
}
