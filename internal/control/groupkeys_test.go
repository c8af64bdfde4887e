package control_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/vault"
)

// newVault makes a vault with a key of its own.
func newVault(t *testing.T) *vault.Vault {
	t.Helper()
	s, err := keys.NewSealer(keys.GenerateSealingKey())
	if err != nil {
		t.Fatal(err)
	}
	return vault.New(s)
}

func TestGatewayGroupsHaveKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.Vault = newVault(t) })
	if out := c.apply(shop); len(out.Changes) == 0 {
		t.Fatal("nothing was applied")
	}
	group := func() keys.GroupKeys {
		t.Helper()
		g, err := c.control.Enrolment().GroupKeys(t.Context(), "default", "eu")
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	first := group()
	if out := c.apply(shop); len(out.Changes) != 0 {
		t.Errorf("applying the same again changes %v", out.Changes)
	}
	if _, err := c.admin.RotateGroupKey(t.Context(), "default", "eu"); err != nil {
		t.Fatal(err)
	}
	second := group()
	if second.Len() != 2 || second.Current().ID() == first.Current().ID() || !second.Has(first.Current().ID()) {
		t.Errorf("after a rotation there are %d keys, want a new one before the old one", second.Len())
	}
	if _, err := c.admin.RotateGroupKey(t.Context(), "default", "eu"); err != nil {
		t.Fatal(err)
	}
	if third := group(); third.Len() != 2 || third.Has(first.Current().ID()) {
		t.Error("the record keeps keys that were replaced twice")
	}
	var backup bytes.Buffer
	if err := c.store.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	private := group().Current().Bytes()
	if bytes.Contains(backup.Bytes(), private) || bytes.Contains(backup.Bytes(), []byte(base64.StdEncoding.EncodeToString(private))) {
		t.Error("the backup holds a private key as it is")
	}
	if _, err := c.admin.RotateGroupKey(t.Context(), "default", "nowhere"); err == nil {
		t.Error("the key of a group that does not exist was replaced")
	}
}

func TestKeysOfEarlierGroupsAreMadeAtTheStart(t *testing.T) {
	t.Parallel()
	record := openStore(t)
	before := newCluster(t, func(o *control.Options) { o.Store = record })
	before.apply(shop)
	after := newCluster(t, func(o *control.Options) { o.Store, o.Vault = record, newVault(t) })
	for range 2 {
		if err := after.control.EnsureGroupKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if g, err := after.control.Enrolment().GroupKeys(t.Context(), "default", "eu"); err != nil || g.Len() != 1 {
		t.Errorf("GroupKeys = %d keys, %v, want one", g.Len(), err)
	}
}

func TestGroupKeysAreGivenToAdministratorsAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.Vault = newVault(t) })
	c.apply(shop)
	recipient, err := keys.GenerateGroupKey()
	if err != nil {
		t.Fatal(err)
	}
	public := base64.StdEncoding.EncodeToString(recipient.Public())
	answer, err := c.admin.GroupKeys(t.Context(), "default", "eu", public)
	if err != nil {
		t.Fatal(err)
	}
	box, err := base64.StdEncoding.DecodeString(answer.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	text, err := recipient.Open(vault.ExportContext("default", "eu"), box)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.ParseGroupKeys(text); err != nil {
		t.Error(err)
	}
	editor := c.principal("ed", "default", "editor")
	for name, call := range map[string]func(*client.Client) error{
		"export": func(c *client.Client) error {
			_, err := c.GroupKeys(t.Context(), "default", "eu", public)
			return err
		},
		"rotate": func(c *client.Client) error {
			_, err := c.RotateGroupKey(t.Context(), "default", "eu")
			return err
		},
	} {
		if err := call(editor); err == nil {
			t.Errorf("%s: an editor may", name)
		}
	}
	for _, bad := range []string{"", "x", base64.StdEncoding.EncodeToString(make([]byte, 32))} {
		if _, err := c.admin.GroupKeys(t.Context(), "default", "eu", bad); err == nil {
			t.Errorf("the recipient %q was taken", bad)
		}
	}
}
