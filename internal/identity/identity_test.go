package identity_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/secret"
)

const day = 24 * time.Hour

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: start} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func openControl(t testing.TB, dir string, clk *clock) *identity.Control {
	t.Helper()
	c, err := identity.OpenControl(identity.ControlOptions{
		Dir: dir, Cluster: "c1", Name: "ctl", Hosts: []string{"api.example.com", "10.1.2.3"},
		Sealer: controlSealer(t), Now: clk.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// controlSealer is the same for every control node of the tests.
func controlSealer(t testing.TB) *keys.Sealer {
	t.Helper()
	s, err := keys.NewSealer(secret.New(bytes.Repeat([]byte{7}, keys.SealKeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sealer(t testing.TB) *keys.Sealer {
	t.Helper()
	s, err := keys.NewSealer(keys.GenerateSealingKey())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openFolder(t testing.TB, dir string) *identity.Folder {
	t.Helper()
	f, err := identity.OpenFolder(identity.FolderOptions{Dir: dir, HostID: func() (string, error) { return "host-1", nil }})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func openMember(t testing.TB, dir string, s *keys.Sealer) *identity.Member {
	t.Helper()
	f := openFolder(t, dir)
	t.Cleanup(func() { _ = f.Close() })
	m, err := identity.OpenMember(f, s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// join does what enrolment does, without a network.
func join(t testing.TB, c *identity.Control, m *identity.Member, n identity.Node) {
	t.Helper()
	request, err := m.Request()
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := identity.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.Issue(n, public)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Join(c.Root(), c.Trust().Encoded(), chain); err != nil {
		t.Fatal(err)
	}
}

func leaf(t testing.TB, get func() (*tls.Certificate, error)) *x509.Certificate {
	t.Helper()
	cert, err := get()
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf
}

func TestNodeURI(t *testing.T) {
	t.Parallel()
	for _, n := range []identity.Node{
		identity.Gateway("c1", "acme", "eu", "gw-1.example.com"),
		identity.ControlNode("c1", "ctl"),
	} {
		got, err := identity.ParseNode(n.String())
		if err != nil || got != n {
			t.Errorf("ParseNode(%q) = %+v, %v", n, got, err)
		}
	}
	if got := identity.Gateway("c1", "acme", "eu", "g").View(); got != "acme/eu" {
		t.Errorf("View = %q", got)
	}
	for _, bad := range []string{
		"", "hansa://", "hansa://c1", "http://c1/control/a", "hansa://c1/control/", "hansa://c1/control/a/b", "hansa://c1/control/A",
		"hansa://c1/acme/eu/gateway/", "hansa://c1/acme//gateway/x", "hansa://c1/acme/eu/control/x", "hansa://c1/acme/eu/gateway/x/",
		"hansa://c1/acme/eu/gateway/a%2fb", "hansa://c1/acme/eu/gateway/-a", "hansa://c1/../eu/gateway/a", "hansa://c1/acme/eu/gateway/" + strings.Repeat("a", 64),
	} {
		if n, err := identity.ParseNode(bad); err == nil {
			t.Errorf("ParseNode(%q) = %+v, want an error", bad, n)
		}
	}
}

func FuzzParseNode(f *testing.F) {
	f.Add("hansa://c1/acme/eu/gateway/gw-1")
	f.Add("hansa://c1/control/ctl")
	f.Add("hansa://c1/acme/eu/gateway/")
	f.Fuzz(func(t *testing.T, uri string) {
		n, err := identity.ParseNode(uri)
		if err == nil && n.String() != uri {
			t.Errorf("%q and %q are the same node", uri, n)
		}
	})
}

func TestJoinToken(t *testing.T) {
	t.Parallel()
	root := keys.FingerprintOf(make([]byte, 32))
	token, err := identity.MintJoinToken("c1", "jt-1", root, "10.0.0.1:8091", "control.example.com:8091")
	if err != nil {
		t.Fatal(err)
	}
	text := token.Text()
	got, err := identity.ParseJoinToken("  " + text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.Cluster != "c1" || got.ID != "jt-1" || got.Root != root || !got.Secret.Equal(token.Secret) ||
		strings.Join(got.Addresses, " ") != "10.0.0.1:8091 control.example.com:8091" || got.SecretHash() != token.SecretHash() {
		t.Errorf("ParseJoinToken = %+v", got)
	}
	if strings.Contains(token.String(), text[10:20]) || !strings.HasPrefix(text, "hj1_") {
		t.Errorf("String() = %q shows the token", token)
	}
	for i := range text {
		b := []byte(text)
		if b[i]++; b[i] > 'z' {
			b[i] = 'a'
		}
		if _, err := identity.ParseJoinToken(string(b)); !errors.Is(err, identity.ErrBadToken) {
			t.Fatalf("character %d changed: %v, want ErrBadToken", i, err)
		}
		_, err := identity.ParseJoinToken(text[:i])
		if !errors.Is(err, identity.ErrBadToken) {
			t.Fatalf("cut at %d: %v, want ErrBadToken", i, err)
		}
		if i > 20 && strings.Contains(err.Error(), text[4:i]) {
			t.Fatalf("the error shows the token: %v", err)
		}
	}
	for name, mint := range map[string]func() (identity.JoinToken, error){
		"cluster": func() (identity.JoinToken, error) { return identity.MintJoinToken("C 1", "jt", root) },
		"id":      func() (identity.JoinToken, error) { return identity.MintJoinToken("c1", "", root) },
		"address": func() (identity.JoinToken, error) { return identity.MintJoinToken("c1", "jt", root, "nowhere") },
	} {
		if _, err := mint(); err == nil {
			t.Errorf("a token with a bad %s was minted", name)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	token, err := identity.MintJoinToken("c1", "jt-1", keys.Fingerprint{1}, "127.0.0.1:1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.Text())
	f.Add("hj1_")
	f.Add("hj1_AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := identity.ParseJoinToken(text)
		if err == nil && token.Text() != strings.TrimSpace(text) {
			t.Errorf("%q and %q are the same token", text, token.Text())
		}
	})
}

func TestControlFirstStartAndRestart(t *testing.T) {
	t.Parallel()
	dir, clk := t.TempDir(), newClock()
	c := openControl(t, dir, clk)
	first := c.Trust()
	if first.Serial != 1 || first.Epoch != 1 || first.Cluster != "c1" || len(first.Keys) != 1 || len(first.CAs) != 1 {
		t.Errorf("trust document = %+v, want one key and one authority", first)
	}
	signer, err := c.Signer(keys.PurposeCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign(keys.PurposeCheckpoint, []byte("cp"))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Verify(keys.PurposeCheckpoint, signer.KeyID(), []byte("cp"), sig, clk.Now()); err != nil {
		t.Errorf("Verify: %v", err)
	}
	again := openControl(t, dir, clk)
	if string(again.Trust().Encoded()) != string(first.Encoded()) || again.Root() != c.Root() {
		t.Error("a restart changed the trust document")
	}
	for _, name := range []string{"root.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v, want 0600", name, info.Mode(), err)
		}
	}
	if _, err := identity.OpenControl(identity.ControlOptions{Dir: dir, Cluster: "c2", Name: "ctl", Sealer: controlSealer(t), Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, keys.ErrForeignRoot) {
		t.Errorf("opened for another cluster: %v, want ErrForeignRoot", err)
	}
}

func TestControlAPICertificate(t *testing.T) {
	t.Parallel()
	clk := newClock()
	c := openControl(t, t.TempDir(), clk)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.APIAuthorities()) {
		t.Fatal("no authorities")
	}
	cert := leaf(t, func() (*tls.Certificate, error) { return c.APICertificate(nil) })
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "api.example.com", "10.1.2.3"} {
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: clk.Now()}); err != nil {
			t.Errorf("certificate for %s: %v", name, err)
		}
	}
	if _, err := c.Verify([]*x509.Certificate{cert}, clk.Now()); !errors.Is(err, identity.ErrNotNode) {
		t.Errorf("the API's certificate as a node: %v, want ErrNotNode", err)
	}
}

// TestControlRotates lets a year and a half pass in steps of a day and checks that there is always a key to sign
// with, that everything signed can be verified by the document in force, and that lifetimes hold.
func TestControlRotates(t *testing.T) {
	t.Parallel()
	clk := newClock()
	c := openControl(t, t.TempDir(), clk)
	used := map[string]bool{}
	lastSerial := c.Trust().Serial
	for range 500 {
		clk.Advance(day)
		if err := c.Maintain(); err != nil {
			t.Fatal(err)
		}
		signer, err := c.Signer(keys.PurposeCheckpoint)
		if err != nil {
			t.Fatalf("at %s: %v", clk.Now(), err)
		}
		used[signer.KeyID()] = true
		sig, err := signer.Sign(keys.PurposeCheckpoint, []byte("cp"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Trust().Verify(keys.PurposeCheckpoint, signer.KeyID(), []byte("cp"), sig, clk.Now()); err != nil {
			t.Fatalf("at %s: %v", clk.Now(), err)
		}
		for what, get := range map[string]func() (*tls.Certificate, error){
			"node": c.Certificate,
			"api":  func() (*tls.Certificate, error) { return c.APICertificate(nil) },
		} {
			if l := leaf(t, get); !clk.Now().Before(l.NotAfter) {
				t.Fatalf("at %s: the %s certificate ended at %s", clk.Now(), what, l.NotAfter)
			}
		}
		if s := c.Trust().Serial; s < lastSerial || s > lastSerial+1 {
			t.Fatalf("serial went from %d to %d", lastSerial, s)
		} else {
			lastSerial = s
		}
	}
	if len(used) < 20 || len(used) > 30 {
		t.Errorf("%d signing keys in 500 days, want about one in 20 days", len(used))
	}
	if n := len(c.Trust().Keys); n > 14 {
		t.Errorf("the trust document lists %d keys, want old ones dropped", n)
	}
}

func TestOfflineRoot(t *testing.T) {
	t.Parallel()
	dir, vault, clk := t.TempDir(), filepath.Join(t.TempDir(), "root.key"), newClock()
	openControl(t, dir, clk)
	if err := os.Rename(filepath.Join(dir, "root.key"), vault); err != nil {
		t.Fatal(err)
	}
	c := openControl(t, dir, clk)
	if err := c.AllowEpoch(2); !errors.Is(err, identity.ErrNoRoot) {
		t.Errorf("AllowEpoch without the root = %v, want ErrNoRoot", err)
	}
	first, err := c.Signer(keys.PurposeCheckpoint)
	if err != nil {
		t.Fatal(err)
	}

	clk.Advance(25 * day)
	for range 3 { // asking again must not pile up keys
		if err := c.Maintain(); err != nil {
			t.Fatal(err)
		}
	}
	request, err := os.ReadFile(filepath.Join(dir, "trust-request.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Signer(keys.PurposeCheckpoint); err != nil || got.KeyID() != first.KeyID() {
		t.Errorf("signer while waiting = %v, %v, want the first key", got, err)
	}
	root, err := keys.LoadRoot(vault, controlSealer(t))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := identity.SignRequest(root, request)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := keys.GenerateRoot()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := identity.SignRequest(stranger, request)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Install(foreign); !errors.Is(err, keys.ErrForeignRoot) {
		t.Errorf("Install of another root's answer = %v, want ErrForeignRoot", err)
	}
	answerFile := filepath.Join(dir, "trust-answer.json")
	for name, encoded := range map[string][]byte{"foreign": foreign, "garbage": []byte("{")} {
		if err := os.WriteFile(answerFile, encoded, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Maintain(); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Signer(keys.PurposeCheckpoint); err != nil || got.KeyID() != first.KeyID() {
			t.Errorf("signer after a %s answer = %v, %v, want the first key", name, got, err)
		}
	}
	if err := os.WriteFile(answerFile, answer, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Maintain(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(answerFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the answer that was taken is still there: %v", err)
	}
	second, err := c.Signer(keys.PurposeCheckpoint)
	if err != nil || second.KeyID() == first.KeyID() {
		t.Errorf("signer after the answer = %v, %v, want a new key", second, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "trust-request.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the answered request is still there: %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "signing-*.key")); len(files) != 2 {
		t.Errorf("%d signing keys, want 2", len(files))
	}

	clk.Advance(100 * day)
	c = openControl(t, dir, clk) // it opens, but has nothing to sign with
	if _, err := c.Signer(keys.PurposeCheckpoint); !errors.Is(err, keys.ErrNoSigningKey) {
		t.Errorf("signer long after = %v, want ErrNoSigningKey", err)
	}
	if err := os.Rename(vault, filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	if err := c.AllowEpoch(2); err != nil {
		t.Fatal(err)
	}
	if got := c.Trust(); got.Epoch != 2 {
		t.Errorf("epoch = %d, want 2", got.Epoch)
	}
	if _, err := c.Signer(keys.PurposeCheckpoint); err != nil {
		t.Errorf("signer with the root back = %v", err)
	}
}

func TestRevokeSigningKey(t *testing.T) {
	t.Parallel()
	c := openControl(t, t.TempDir(), newClock())
	old, err := c.Signer(keys.PurposeCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := old.Sign(keys.PurposeCheckpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RevokeSigningKey(old.KeyID()); err != nil {
		t.Fatal(err)
	}
	if err := c.Trust().VerifyHeld(keys.PurposeCheckpoint, old.KeyID(), nil, sig); !errors.Is(err, keys.ErrRevokedKey) {
		t.Errorf("VerifyHeld = %v, want ErrRevokedKey", err)
	}
	if now, err := c.Signer(keys.PurposeCheckpoint); err != nil || now.KeyID() == old.KeyID() {
		t.Errorf("signer after revocation = %v, %v, want another key", now, err)
	}
}

func TestControlRefusesForeignRootFile(t *testing.T) {
	t.Parallel()
	dir, clk := t.TempDir(), newClock()
	openControl(t, dir, clk)
	other, err := keys.GenerateRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	if err := other.Save(filepath.Join(dir, "root.key"), nil); err != nil {
		t.Fatal(err)
	}
	c := openControl(t, dir, clk)
	if err := c.AllowEpoch(5); !errors.Is(err, keys.ErrForeignRoot) {
		t.Errorf("AllowEpoch with another root = %v, want ErrForeignRoot", err)
	}
}

func TestReplaceAuthority(t *testing.T) {
	t.Parallel()
	dir, clk := t.TempDir(), newClock()
	c := openControl(t, dir, clk)
	m := openMember(t, t.TempDir(), sealer(t))
	join(t, c, m, gw)
	stolen, serial := c.Trust().CAs[0], c.Trust().Serial
	clk.Advance(day)
	if err := c.ReplaceAuthority(); err != nil {
		t.Fatal(err)
	}
	trust := c.Trust()
	if len(trust.CAs) != 1 || string(trust.CAs[0]) == string(stolen) || trust.Serial != serial+1 {
		t.Errorf("trust document %d lists %d authorities, want the new one alone in %d", trust.Serial, len(trust.CAs), serial+1)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "ca-*")); len(files) != 2 {
		t.Errorf("authority files = %q, want those of one", files)
	}
	if _, err := c.Verify([]*x509.Certificate{leaf(t, m.Certificate)}, clk.Now()); !errors.Is(err, identity.ErrUnknownAuthority) {
		t.Errorf("certificate of the replaced authority = %v, want ErrUnknownAuthority", err)
	}
	if _, err := c.Verify([]*x509.Certificate{leaf(t, c.Certificate)}, clk.Now()); err != nil {
		t.Errorf("own certificate = %v", err)
	}
	// The gateway takes the document, and knows then that it has to join again.
	if err := m.UpdateTrust(trust.Encoded()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Node(); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("Node = %v, want ErrNotEnrolled", err)
	}
	join(t, c, m, gw)
}

// A control node of an earlier version kept its keys as PEM. Its keys are sealed at the first start, and stay the same.
func TestControlSealsKeysOfEarlierVersions(t *testing.T) {
	t.Parallel()
	dir, clk := t.TempDir(), newClock()
	first := openControl(t, dir, clk)
	before, err := first.Signer(keys.PurposeCheckpoint)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(files) != 3 {
		t.Fatalf("key files: %q, %v; want root, signing key and authority", files, err)
	}
	for _, file := range files {
		key, err := keys.LoadPrivateKey(file, controlSealer(t))
		if err != nil {
			t.Fatalf("a key is not sealed with the node's key: %v", err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := keys.SavePrivateKey(file, nil, key); err != nil {
			t.Fatal(err)
		}
	}
	again := openControl(t, dir, clk)
	if after, err := again.Signer(keys.PurposeCheckpoint); err != nil || after.KeyID() != before.KeyID() {
		t.Errorf("signer = %v, %v, want the one from before", after, err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err != nil || bytes.Contains(text, []byte("PRIVATE KEY")) {
			t.Errorf("%s is still not sealed: %v", filepath.Base(file), err)
		}
	}
	other, err := keys.NewSealer(keys.GenerateSealingKey())
	if err != nil {
		t.Fatal(err)
	}
	_, err = identity.OpenControl(identity.ControlOptions{Dir: dir, Cluster: "c1", Name: "ctl", Sealer: other, Now: clk.Now, Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, keys.ErrUnseal) {
		t.Errorf("opened with another at-rest key: %v, want ErrUnseal", err)
	}
}
