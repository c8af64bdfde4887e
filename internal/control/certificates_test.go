package control_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/store/etcd"
)

// pair is a certificate that has signed itself, with its key.
type pair struct {
	chain, key string
	secret     []byte // the number that the key is made of
}

func newPair(t *testing.T, until time.Time, names ...string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), secret: secret,
	}
}

// shows tells whether text holds the key, as it is or encoded.
func (p pair) shows(text []byte) bool {
	block, _ := pem.Decode([]byte(p.key))
	body := strings.Split(strings.TrimSpace(p.key), "\n")[1] // the first line of the PEM, header and all
	return bytes.Contains(text, p.secret) || bytes.Contains(text, block.Bytes) || bytes.Contains(text, []byte(body)) ||
		bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString(p.secret)))
}

// lockedBuffer is a buffer that several goroutines write to.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buffer.Bytes())
}

func certificateDocument(t *testing.T, name string, spec v1.CertificateSpec) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"apiVersion": v1.APIVersion, "kind": "Certificate", "metadata": map[string]string{"name": name}, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func farAway() time.Time { return time.Now().Add(90 * 24 * time.Hour) }

func TestPrivateKeysAreNeverSeenAgain(t *testing.T) {
	t.Parallel()
	log := new(lockedBuffer)
	dir := t.TempDir()
	record, err := etcd.Open(t.Context(), etcd.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = record.Close() })
	c := newCluster(t, func(o *control.Options) {
		o.Store, o.Vault, o.Log = record, newVault(t), slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c.apply(shop)
	p := newPair(t, farAway(), "api.example.com")
	document := certificateDocument(t, "shop", v1.CertificateSpec{Certificate: p.chain, PrivateKey: p.key})

	planned, err := c.admin.Plan(t.Context(), strings.NewReader(document), client.ApplyOptions{})
	if err != nil || len(planned.Changes) != 1 {
		t.Fatalf("Plan = %+v, %v, want one change", planned.Changes, err)
	}
	c.apply(document)
	if out := c.apply(document); len(out.Changes) != 0 {
		t.Errorf("applying the same again changes %+v", out.Changes)
	}
	wrong := newPair(t, farAway(), "api.example.com")
	_, refused := c.admin.Apply(t.Context(), strings.NewReader(certificateDocument(t, "shop", v1.CertificateSpec{Certificate: p.chain, PrivateKey: wrong.key})), client.ApplyOptions{})
	if refused == nil {
		t.Error("the key of another certificate was taken")
	}
	k := v1.Key{Organization: "default", Kind: v1.KindCertificate, Name: "shop"}
	got, err := c.admin.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status == nil || got.Status.Certificate == nil || len(got.Status.Certificate.Fingerprint) != 64 {
		t.Errorf("status = %+v, want the fingerprint of the key", got.Status)
	}
	var listed []*v1.Object
	for o, err := range c.admin.All(t.Context(), v1.KindCertificate, "default", client.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, o)
	}
	var watched *v1.WatchEvent
	for ev, err := range c.admin.Watch(t.Context(), v1.KindCertificate, "default", "1.1") {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Type == v1.WatchPut {
			watched = &ev
			break
		}
	}
	answer, audit := c.raw(http.MethodGet, "/api/v1/audit?organization=default", nil, nil)
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("audit: %s", answer.Status)
	}
	var backup bytes.Buffer
	if err := record.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	shown := map[string]any{"plan": planned, "get": got, "list": listed, "watch": watched, "refusal": fmt.Sprintf("%+v", refused)}
	texts := map[string][]byte{"audit": []byte(audit), "backup": backup.Bytes(), "log": log.bytes()}
	for name, v := range shown {
		if texts[name], err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		texts[path], err = os.ReadFile(path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for name, text := range texts {
		if p.shows(text) || wrong.shows(text) {
			t.Errorf("%s shows a private key", name)
		}
	}
	if !p.shows([]byte(document)) && !p.shows([]byte(p.key)) {
		t.Error("the test would not notice a key")
	}
}

func TestCertificatesKeepTheirKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.Vault = newVault(t) })
	c.apply(shop)
	p, other := newPair(t, farAway(), "api.example.com"), newPair(t, farAway(), "api.example.com")
	try := func(spec v1.CertificateSpec) error {
		_, err := c.admin.Apply(t.Context(), strings.NewReader(certificateDocument(t, "shop", spec)), client.ApplyOptions{})
		return err
	}
	if err := try(v1.CertificateSpec{Certificate: p.chain}); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("a certificate without a key: %v, want a refusal", err)
	}
	if err := try(v1.CertificateSpec{Certificate: p.chain, PrivateKey: p.key}); err != nil {
		t.Fatal(err)
	}
	if err := try(v1.CertificateSpec{Certificate: p.chain, Hostnames: []string{"api.example.com"}}); err != nil {
		t.Errorf("without the key that is stored: %v, want it kept", err)
	}
	if err := try(v1.CertificateSpec{Certificate: other.chain}); err == nil {
		t.Error("another certificate was taken with the key of the one before")
	}
	if err := try(v1.CertificateSpec{Certificate: p.chain, Hostnames: []string{"other.example.com"}}); err == nil {
		t.Error("a hostname that the certificate does not cover was taken")
	}
	foreign := newPair(t, farAway(), "nobody.example.org")
	if err := try(v1.CertificateSpec{Certificate: foreign.chain, PrivateKey: foreign.key, Hostnames: []string{"nobody.example.org"}}); err == nil || !strings.Contains(err.Error(), "environment group") {
		t.Errorf("a hostname of nobody: %v, want a refusal", err)
	}
	expired := newPair(t, time.Now().Add(-time.Hour), "api.example.com")
	out, err := c.admin.Apply(t.Context(), strings.NewReader(certificateDocument(t, "shop", v1.CertificateSpec{Certificate: expired.chain, PrivateKey: expired.key})), client.ApplyOptions{})
	if err != nil || len(out.Warnings) != 1 || !strings.Contains(out.Warnings[0], "expired") {
		t.Errorf("an expired certificate: %q, %v, want a warning", out.Warnings, err)
	}
	k := v1.Key{Organization: "default", Kind: v1.KindCertificate, Name: "shop"}
	if _, err := c.admin.Delete(t.Context(), k, 0, client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.store.State().Get(v1.Key{Organization: "default", Kind: v1.KindCertificateKey, Name: "shop"}); ok {
		t.Error("the key of a deleted certificate is still there")
	}
}
