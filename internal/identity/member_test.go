package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/durable"
)

var gw = identity.Gateway("c1", "acme", "eu", "gw-1")

func TestMemberLife(t *testing.T) {
	t.Parallel()
	clk, dir, seal := newClock(), t.TempDir(), sealer(t)
	c := openControl(t, t.TempDir(), clk)
	f := openFolder(t, dir)
	m, err := identity.OpenMember(f, seal)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Certificate(); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("Certificate before joining = %v, want ErrNotEnrolled", err)
	}
	join(t, c, m, gw)
	key := leaf(t, m.Certificate).PublicKey
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	m = openMember(t, dir, seal)
	cert := leaf(t, m.Certificate)
	if n, err := m.Node(); err != nil || n != gw {
		t.Errorf("Node after a restart = %v, %v", n, err)
	}
	if !key.(*ecdsa.PublicKey).Equal(cert.PublicKey) {
		t.Error("the key changed with a restart")
	}
	peer, err := c.Verify([]*x509.Certificate{cert}, clk.Now())
	if err != nil || peer.Node != gw || peer.Expired {
		t.Errorf("Verify = %+v, %v", peer, err)
	}
	if _, err := m.Verify([]*x509.Certificate{leaf(t, c.Certificate)}, clk.Now()); err != nil {
		t.Errorf("the gateway does not know its control node: %v", err)
	}
	if got, want := m.RenewAt(), start.Add(20*day); got.Sub(want).Abs() > day {
		t.Errorf("RenewAt = %s, want about %s", got, want)
	}

	// Long after, the certificate is good for renewal only, and the same node gets the new one.
	clk.Advance(90 * day)
	if err := c.Maintain(); err != nil {
		t.Fatal(err)
	}
	if peer, err := c.Verify([]*x509.Certificate{cert}, clk.Now()); err != nil || !peer.Expired {
		t.Errorf("Verify of the expired certificate = %+v, %v, want Expired", peer, err)
	}
	other, err := c.Issue(identity.Gateway("c1", "acme", "eu", "gw-2"), cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Renew(c.Trust().Encoded(), other); !errors.Is(err, identity.ErrNotNode) {
		t.Errorf("Renew with another name = %v, want ErrNotNode", err)
	}
	chain, err := c.Issue(gw, cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Renew(c.Trust().Encoded(), chain); err != nil {
		t.Fatal(err)
	}
	if peer, err := c.Verify([]*x509.Certificate{leaf(t, m.Certificate)}, clk.Now()); err != nil || peer.Expired {
		t.Errorf("Verify after renewal = %+v, %v", peer, err)
	}
}

func TestMemberRefuses(t *testing.T) {
	t.Parallel()
	clk := newClock()
	c, foreign := openControl(t, t.TempDir(), clk), openControl(t, t.TempDir(), clk)
	m := openMember(t, t.TempDir(), sealer(t))
	request, err := m.Request()
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := identity.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, err := c.Issue(gw, public)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := c.Issue(gw, stranger.Public())
	if err != nil {
		t.Fatal(err)
	}
	otherCluster, err := foreign.Issue(gw, public)
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"another root":            func() error { return m.Join(c.Root(), foreign.Trust().Encoded(), otherCluster) },
		"another authority":       func() error { return m.Join(c.Root(), c.Trust().Encoded(), otherCluster) },
		"another key":             func() error { return m.Join(c.Root(), c.Trust().Encoded(), otherKey) },
		"no certificate":          func() error { return m.Join(c.Root(), c.Trust().Encoded(), nil) },
		"garbage":                 func() error { return m.Join(c.Root(), c.Trust().Encoded(), [][]byte{{1, 2, 3}}) },
		"trust before membership": func() error { return m.UpdateTrust(c.Trust().Encoded()) },
	} {
		if err := try(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := m.Node(); !errors.Is(err, identity.ErrNotEnrolled) {
			t.Errorf("%s: the member changed", name)
		}
	}
	if err := m.Join(c.Root(), c.Trust().Encoded(), good); err != nil {
		t.Fatal(err)
	}
	old := c.Trust().Encoded()
	if err := c.AllowEpoch(2); err != nil {
		t.Fatal(err)
	}
	if err := m.UpdateTrust(c.Trust().Encoded()); err != nil || m.Trust().Epoch != 2 {
		t.Errorf("UpdateTrust = %v, epoch %d, want 2", err, m.Trust().Epoch)
	}
	if err := m.UpdateTrust(old); !errors.Is(err, keys.ErrStale) {
		t.Errorf("UpdateTrust with an older document = %v, want ErrStale", err)
	}
	if err := m.UpdateTrust(foreign.Trust().Encoded()); !errors.Is(err, keys.ErrForeignRoot) {
		t.Errorf("UpdateTrust of another cluster = %v, want ErrForeignRoot", err)
	}
	if _, err := m.Verify([]*x509.Certificate{leaf(t, foreign.Certificate)}, clk.Now()); !errors.Is(err, identity.ErrUnknownAuthority) {
		t.Errorf("Verify of another cluster's control node = %v, want ErrUnknownAuthority", err)
	}
}

func TestMemberIsSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := openFolder(t, dir)
	m, err := identity.OpenMember(f, sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	join(t, openControl(t, t.TempDir(), newClock()), m, gw)
	for _, name := range []string{"node.key", "node.state"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(b), "HSEAL1") {
			t.Errorf("%s is not sealed", name)
		}
	}
	if _, err := identity.OpenMember(f, sealer(t)); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("OpenMember with another key = %v, want ErrUnseal", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	t.Parallel()
	m := openMember(t, t.TempDir(), sealer(t))
	good, err := m.Request()
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte(nil), good...)
	changed[len(changed)-1] ^= 1
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherCurve, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{"changed": changed, "empty": nil, "cut": good[:20], "other kind of key": otherCurve} {
		if _, _, err := identity.ParseRequest(der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFolderOpensAgain(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	f := openFolder(t, dir)
	if _, err := identity.OpenFolder(identity.FolderOptions{Dir: dir}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second process = %v, want ErrLocked", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(parent, "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	for name, host := range map[string]string{"same machine": "host-1", "in a container without an ID": ""} {
		f, err := identity.OpenFolder(identity.FolderOptions{Dir: moved, HostID: func() (string, error) { return host, nil }})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFolderClone(t *testing.T) {
	t.Parallel()
	host := func(id string) func() (string, error) { return func() (string, error) { return id, nil } }
	fresh := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "data")
		if err := openFolder(t, dir).Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	copyTree := func(t *testing.T, args ...string) {
		if out, err := exec.CommandContext(t.Context(), "cp", args...).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
	for name, make := range map[string]func(t *testing.T) identity.FolderOptions{
		"cp -r": func(t *testing.T) identity.FolderOptions {
			dir := fresh(t)
			copyTree(t, "-r", dir, dir+"2")
			return identity.FolderOptions{Dir: dir + "2", HostID: host("host-1")}
		},
		"cp -a over the place of the original": func(t *testing.T) identity.FolderOptions {
			dir := fresh(t)
			copyTree(t, "-a", dir, dir+".backup")
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			copyTree(t, "-a", dir+".backup", dir)
			return identity.FolderOptions{Dir: dir, HostID: host("host-1")}
		},
		"another machine": func(t *testing.T) identity.FolderOptions {
			return identity.FolderOptions{Dir: fresh(t), HostID: host("host-2")}
		},
		"anchor lost": func(t *testing.T) identity.FolderOptions {
			dir := fresh(t)
			if err := os.Remove(filepath.Join(dir, "anchor")); err != nil {
				t.Fatal(err)
			}
			return identity.FolderOptions{Dir: dir, HostID: host("host-1")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := make(t)
			_, err := identity.OpenFolder(o)
			if !errors.Is(err, identity.ErrClone) || !strings.Contains(err.Error(), "--adopt-data") || !strings.Contains(err.Error(), "join token") {
				t.Fatalf("OpenFolder = %v, want ErrClone with both remedies", err)
			}
			if _, err := identity.OpenFolder(o); !errors.Is(err, identity.ErrClone) {
				t.Fatalf("second try = %v, want ErrClone again", err)
			}
			o.Adopt = true
			f, err := identity.OpenFolder(o)
			if err != nil {
				t.Fatalf("OpenFolder with Adopt: %v", err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			o.Adopt = false
			if f, err = identity.OpenFolder(o); err != nil {
				t.Fatalf("OpenFolder after it was adopted: %v", err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestMemberKeepsGroupKeys(t *testing.T) {
	t.Parallel()
	clk := newClock()
	c, dir, s := openControl(t, t.TempDir(), clk), t.TempDir(), sealer(t)
	f := openFolder(t, dir)
	m, err := identity.OpenMember(f, s)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.GenerateGroupKey()
	if err != nil {
		t.Fatal(err)
	}
	group := keys.NewGroupKeys(key)
	if err := m.SetGroupKeys(group); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("keys for a node that belongs nowhere: %v, want ErrNotEnrolled", err)
	}
	request, err := m.Request()
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := identity.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.Issue(gw, public)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Join(c.Root(), c.Trust().Encoded(), chain); err != nil {
		t.Fatal(err)
	}
	sealed, err := identity.SealGroupKeys(gw, public, group)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := identity.SealGroupKeys(identity.Gateway("c1", "acme", "us", "gw-1"), public, group)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AcceptGroupKeys(elsewhere); !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("keys of another group: %v, want ErrUnseal", err)
	}
	if err := m.AcceptGroupKeys(sealed); err != nil {
		t.Fatal(err)
	}
	if err := m.Renew(c.Trust().Encoded(), chain); err != nil { // which must not lose them
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := openMember(t, dir, s).GroupKeys(); !got.Equal(group) {
		t.Errorf("after a restart %d keys, want the one that was given", got.Len())
	}
	state, err := os.ReadFile(filepath.Join(dir, "node.state"))
	if err != nil || bytes.Contains(state, key.Bytes()) {
		t.Errorf("the key lies on the disk as it is: %v", err)
	}
}
