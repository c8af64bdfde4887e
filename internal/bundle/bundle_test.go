package bundle_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/secret"
)

// cluster is a root, a signing key and a trust document that names it.
type cluster struct {
	trust  *keys.Trust
	signer *keys.SigningKey
}

func newCluster(t testing.TB, name string) cluster {
	t.Helper()
	root, err := keys.GenerateRoot()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	encoded, err := root.SignTrust(keys.Trust{
		Cluster: name, Serial: 1, IssuedAt: now, Epoch: 1,
		Keys: []keys.TrustedKey{{
			PublicKey: signer.Public(), NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour),
			Purposes: []string{keys.PurposeCheckpoint, keys.PurposeBundle},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	trust, err := keys.ParseTrust(encoded, root.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	return cluster{trust: trust, signer: signer}
}

func (c cluster) checkpoint(t testing.TB, view string, content snapshot.Content) snapshot.Checkpoint {
	t.Helper()
	cp := snapshot.Checkpoint{Cluster: c.trust.Cluster, Epoch: 1, Seq: 7, View: view, IssuedAt: time.Unix(1, 0).UTC()}
	cp.Describe(content)
	sign := func(m []byte) ([]byte, error) { return c.signer.Sign(keys.PurposeCheckpoint, m) }
	if err := cp.Sign(c.signer.KeyID(), sign); err != nil {
		t.Fatal(err)
	}
	return cp
}

func (c cluster) bundle(t testing.TB, tokens ...string) *bundle.Bundle {
	t.Helper()
	entry, err := snapshot.NewEntry(snapshot.EntryKey(snapshot.ClassSite, "acme"), 7, 1, true, snapshot.Site{Organization: "acme", Name: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	set := snapshot.NewSet().With([]snapshot.Entry{entry}, nil)
	creds := snapshot.NewCredentials().With([]snapshot.CredentialChange{{Credential: snapshot.Credential{
		Hash: snapshot.HashCredential([]byte("k")), ID: "k1", Organization: "acme", Subscription: "s", Application: "a", Product: "p",
	}}})
	return &bundle.Bundle{
		Trust: c.trust, Set: set, Credentials: creds, JoinTokens: tokens, Control: []string{"control:8091"}, CreatedAt: time.Unix(2, 0).UTC(),
		Config:           c.checkpoint(t, snapshot.ConfigView("acme", "eu"), set),
		CredentialConfig: c.checkpoint(t, snapshot.CredentialView("acme"), creds),
	}
}

func write(t testing.TB, c cluster, b *bundle.Bundle, passphrase string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := b.Sign(c.signer); err != nil {
		t.Fatal(err)
	}
	if err := bundle.Write(&buf, b, secret.New([]byte(passphrase))); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	check := func(passphrase string, tokens ...string) {
		t.Helper()
		in := c.bundle(t, tokens...)
		pin := c.trust.Fingerprint()
		for _, pinned := range []*keys.Fingerprint{nil, &pin} {
			out, err := bundle.Read(bytes.NewReader(write(t, c, in, passphrase)), secret.New([]byte(passphrase)), pinned)
			if err != nil {
				t.Fatal(err)
			}
			if out.Set.Root() != in.Set.Root() || out.Credentials.Root() != in.Credentials.Root() ||
				out.Config.Seq != 7 || len(out.JoinTokens) != len(tokens) || out.Control[0] != "control:8091" {
				t.Errorf("got %+v", out)
			}
		}
	}
	check("")
	check("correct horse battery", "hj1_one", "hj1_two")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	c, other := newCluster(t, "c1"), newCluster(t, "c2")
	good := write(t, c, c.bundle(t), "")
	sealed := write(t, c, c.bundle(t, "hj1_x"), "correct horse battery")
	foreign := other.trust.Fingerprint()
	refused := func(name string, b []byte, passphrase string, pinned *keys.Fingerprint, want error) {
		t.Helper()
		_, err := bundle.Read(bytes.NewReader(b), secret.New([]byte(passphrase)), pinned)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
	}
	refused("empty", nil, "", nil, bundle.ErrNotBundle)
	refused("something else", []byte("apiVersion: hansa.dev/v1\n"), "", nil, bundle.ErrNotBundle)
	refused("foreign root", good, "", &foreign, keys.ErrForeignRoot)
	refused("no passphrase", sealed, "", nil, bundle.ErrNeedsPassphrase)
	refused("wrong passphrase", sealed, "wrong horse battery", nil, keys.ErrUnseal)
	refused("more bytes", append(bytes.Clone(good), 0), "", nil, snapshot.ErrMalformed)
	for i := 0; i < len(good); i += 13 {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		// The addresses of control nodes are not signed, and a few bits carry nothing, such as the padding of base64:
		// a change is refused or does not touch what is signed.
		if out, err := bundle.Read(bytes.NewReader(bad), secret.Bytes{}, nil); err == nil {
			want := c.bundle(t)
			if out.Set.Root() != want.Set.Root() || out.Credentials.Root() != want.Credentials.Root() ||
				out.Config.Root != want.Config.Root || len(out.JoinTokens) > 0 {
				t.Errorf("byte %d changed: accepted with other content", i)
			}
		}
		refused("cut off", good[:i], "", nil, nil)
	}
	for i := 0; i < len(sealed); i += 1 + len(sealed)/4 {
		refused("sealed and cut off", sealed[:i], "correct horse battery", nil, nil)
	}

	mixed := c.bundle(t)
	mixed.Credentials = snapshot.NewCredentials()
	refused("other content", write(t, c, mixed, ""), "", nil, snapshot.ErrMismatch)
	mixed = c.bundle(t)
	mixed.Config = other.bundle(t).Config
	refused("checkpoint of another cluster", write(t, c, mixed, ""), "", nil, nil)
	refused("signed by a key that the root does not name", write(t, other, c.bundle(t), ""), "", nil, keys.ErrUnknownKey)

	b := c.bundle(t)
	if err := bundle.Write(&bytes.Buffer{}, b, secret.Bytes{}); !errors.Is(err, bundle.ErrUnsigned) {
		t.Errorf("not signed: %v", err)
	}
	b, err := bundle.Read(bytes.NewReader(good), secret.Bytes{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.JoinTokens = []string{"hj1_x"}
	if err := bundle.Write(&bytes.Buffer{}, b, secret.Bytes{}); !errors.Is(err, bundle.ErrUnsealedSecrets) {
		t.Errorf("tokens without passphrase: %v", err)
	}
	if err := bundle.Write(&bytes.Buffer{}, b, secret.New([]byte("correct horse battery"))); err != nil {
		t.Errorf("tokens added to a bundle that was read: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	c := newCluster(f, "c1")
	f.Add(write(f, c, c.bundle(f), ""))
	f.Add([]byte("HANSABUNDLE1P\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := bundle.Read(bytes.NewReader(in), secret.Bytes{}, nil)
		if err == nil && (b.Trust == nil || b.Set == nil || b.Credentials == nil) {
			t.Error("accepted a bundle that is not whole")
		}
	})
}
