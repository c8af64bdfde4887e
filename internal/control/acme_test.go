package control_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
)

// TestExternalKeysAreNeverSeenAgain applies a certificate with the key of an external account.
func TestExternalKeysAreNeverSeenAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.Vault = newVault(t) })
	c.apply(shop)
	const secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	spec := func(key string) string {
		return certificateDocument(t, "shop", v1.CertificateSpec{
			Hostnames: []string{"api.example.com"},
			ACME:      &v1.ACME{Directory: "https://ca.example/dir", ExternalAccount: &v1.ExternalAccount{KeyID: "kid-1", Key: key}},
		})
	}
	_, err := c.admin.Apply(t.Context(), strings.NewReader(spec("")), client.ApplyOptions{})
	if err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("without a key: %v, want a refusal", err)
	}
	planned, err := c.admin.Plan(t.Context(), strings.NewReader(spec(secret)), client.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.apply(spec(secret))
	before := c.store.State().Version()
	c.apply(spec(secret))
	c.apply(spec(""))
	if now := c.store.State().Version(); now != before {
		t.Errorf("applying the same again, and without the key, moved the record from %v to %v", before, now)
	}
	accounts := 0
	for o := range c.store.State().List(v1.KindACMEAccount, "default", "") {
		accounts++
		if a := o.Spec.(*v1.ACMEAccountSpec); a.ExternalSealed == "" || a.ExternalKeyID != "kid-1" || a.Directory != "https://ca.example/dir" {
			t.Errorf("the account is %+v", a)
		}
		b, err := json.Marshal(o)
		if err != nil || bytes.Contains(b, []byte(secret)) {
			t.Errorf("the account shows the key (%v)", err)
		}
	}
	if accounts != 1 {
		t.Errorf("there are %d accounts, want 1", accounts)
	}
	got, err := c.admin.Get(t.Context(), v1.Key{Organization: "default", Kind: v1.KindCertificate, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"plan": planned, "get": got} {
		b, err := json.Marshal(v)
		if err != nil || bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s shows the key (%v)", name, err)
		}
	}
	if got.Status == nil || len(got.Status.Conditions) != 3 || got.Status.Conditions[0].Type != "Issued" || got.Status.Conditions[0].Status != "False" {
		t.Errorf("status = %+v, want the condition Issued to be False", got.Status)
	}
}

// TestCertificatesGoOnUntilTheCAIssues turns a certificate of a resource into one of a CA, and back.
func TestCertificatesGoOnUntilTheCAIssues(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.Vault = newVault(t) })
	c.apply(shop)
	k := v1.Key{Organization: "default", Kind: v1.KindCertificateKey, Name: "shop"}
	held := func() v1.CertificateKeySpec {
		o, ok := c.store.State().Get(k)
		if !ok {
			t.Fatal("there is no key any more")
		}
		return *o.Spec.(*v1.CertificateKeySpec)
	}
	p := newPair(t, farAway(), "api.example.com")
	static := certificateDocument(t, "shop", v1.CertificateSpec{Certificate: p.chain, PrivateKey: p.key})
	issued := certificateDocument(t, "shop", v1.CertificateSpec{Hostnames: []string{"api.example.com"}, ACME: &v1.ACME{}})
	c.apply(static)
	before := held()
	c.apply(issued)
	c.apply(issued)
	if now := held(); now.Certificate != p.chain || now.Sealed != before.Sealed || len(now.Groups) != len(before.Groups) || now.Asked != "" {
		t.Errorf("the certificate that gateways show is not kept: %+v", now)
	}
	got, err := c.admin.Get(t.Context(), v1.Key{Organization: "default", Kind: v1.KindCertificate, Name: "shop"})
	if err != nil || got.Status.Conditions[0].Reason != "Outdated" {
		t.Errorf("status = %+v, %v, want that the one before is shown", got.Status, err)
	}
	c.apply(certificateDocument(t, "shop", v1.CertificateSpec{Certificate: p.chain})) // the key is still there
	if now := held(); now.Certificate != "" || now.Fingerprint != before.Fingerprint || now.Sealed != before.Sealed {
		t.Errorf("back from the CA: %+v", now)
	}
}
