package build_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/bundle/build"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/secret"
)

func TestCertificatesAreSealedInBundles(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"api.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	spec := &v1.CertificateSpec{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		PrivateKey:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
	o := options(t, "")
	o.Objects = append(o.Objects, &v1.Object{
		APIVersion: v1.APIVersion, Kind: v1.KindCertificate, Metadata: v1.Metadata{Name: "public", Organization: v1.DefaultOrganization}, Spec: spec,
	})
	b, err := build.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := bundle.Write(&buf, b, secret.Bytes{}); !errors.Is(err, bundle.ErrUnsealedSecrets) {
		t.Errorf("written without a passphrase: %v, want ErrUnsealedSecrets", err)
	}
	buf.Reset()
	passphrase := secret.New([]byte("a long enough passphrase"))
	if err := bundle.Write(&buf, b, passphrase); err != nil {
		t.Fatal(err)
	}
	pin := o.Root.Fingerprint()
	out, err := bundle.Read(&buf, passphrase, &pin)
	if err != nil {
		t.Fatal(err)
	}
	e, ok := out.Set.Get(snapshot.EntryKey(snapshot.ClassCertificate, v1.DefaultOrganization, "public"))
	if !ok {
		t.Fatal("the bundle has no certificate")
	}
	if bytes.Contains(e.Bytes, private) || bytes.Contains(e.Bytes, []byte("PRIVATE KEY")) {
		t.Error("the entry shows the private key")
	}
	c, err := snapshot.Decode[snapshot.Certificate](e)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := out.GroupKeys.Open(snapshot.CertificateContext(c.Organization, c.Name, c.Fingerprint), c.SealedKey)
	if err != nil || !bytes.Equal(opened, private) {
		t.Errorf("the private key does not open with the keys of the bundle: %v", err)
	}
	again, err := build.Build(o)
	if err != nil || !again.GroupKeys.Equal(b.GroupKeys) {
		t.Errorf("the next bundle of the root has another group key: %v", err)
	}
	bare := *spec
	bare.PrivateKey = ""
	o.Objects[len(o.Objects)-1].Spec = &bare
	if _, err := build.Build(o); len(resource.FaultsOf(err)) != 1 {
		t.Errorf("a certificate without a key: %v, want a fault", err)
	}
}
