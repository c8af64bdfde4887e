package resource

import (
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
)

func TestACME(t *testing.T) {
	t.Parallel()
	name := []string{"api.example.com"}
	for _, test := range []struct {
		name string
		spec v1.CertificateSpec
		want string // the paths at fault
	}{
		{"least", v1.CertificateSpec{Hostnames: name, ACME: &v1.ACME{}}, ""},
		{"all", v1.CertificateSpec{Hostnames: name, ACME: &v1.ACME{
			Directory: "https://ca.internal:14000/dir", Email: "ops@example.com", Challenge: "tls-alpn-01", KeyType: "rsa-2048", Profile: "shortlived",
			ExternalAccount: &v1.ExternalAccount{KeyID: "kid-1", Key: "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
		}}, ""},
		{"key kept", v1.CertificateSpec{Hostnames: name, ACME: &v1.ACME{ExternalAccount: &v1.ExternalAccount{KeyID: "kid-1"}}}, ""},
		{"no names", v1.CertificateSpec{ACME: &v1.ACME{}}, "spec.hostnames"},
		{"wildcard", v1.CertificateSpec{Hostnames: []string{"*.example.com"}, ACME: &v1.ACME{}}, "spec.hostnames[0]"},
		{"many names", v1.CertificateSpec{Hostnames: manyNames(maxACMEHostnames + 1), ACME: &v1.ACME{}}, "spec.hostnames"},
		{"both", v1.CertificateSpec{Hostnames: name, Certificate: "x", PrivateKey: "y", ACME: &v1.ACME{}}, "spec.certificate spec.privateKey"},
		{"everything wrong", v1.CertificateSpec{Hostnames: []string{"a b"}, ACME: &v1.ACME{
			Directory: "http://ca.internal/dir", CA: "x", Email: "Ops <ops@example.com>", Challenge: "dns-01", KeyType: "dsa", Profile: "a\nb",
			ExternalAccount: &v1.ExternalAccount{Key: "c2hvcnQ="},
		}}, "spec.hostnames[0] spec.acme.directory spec.acme.ca spec.acme.email spec.acme.challenge spec.acme.keyType spec.acme.profile spec.acme.externalAccount.keyId spec.acme.externalAccount.key"},
		{"user in URL", v1.CertificateSpec{Hostnames: name, ACME: &v1.ACME{Directory: "https://me:secret@ca.internal/dir"}}, "spec.acme.directory"},
		{"two addresses", v1.CertificateSpec{Hostnames: name, ACME: &v1.ACME{Email: "a@example.com,b@example.com"}}, "spec.acme.email"},
		{"short key", v1.CertificateSpec{Hostnames: name, ACME: &v1.ACME{ExternalAccount: &v1.ExternalAccount{KeyID: "k", Key: "c2hvcnQ"}}}, "spec.acme.externalAccount.key"},
	} {
		o := &v1.Object{Kind: v1.KindCertificate, Metadata: v1.Metadata{Name: "public", Organization: "default"}, Spec: &test.spec}
		Default(o)
		var got []string
		for _, f := range Validate(o) {
			got = append(got, f.Path)
			if e := test.spec.ACME.ExternalAccount; e != nil && e.Key != "" && strings.Contains(f.Message+f.Value+f.Remedy, e.Key) {
				t.Errorf("%s: the fault %+v shows the key", test.name, f)
			}
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s: faults at %q, want %q", test.name, got, test.want)
		}
	}
}

func manyNames(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strings.Repeat("a", i%50+1) + "." + strings.Repeat("b", i/50+1) + ".example.com"
	}
	return out
}

func TestAsked(t *testing.T) {
	t.Parallel()
	spec := func(change func(*v1.CertificateSpec)) string {
		s := &v1.CertificateSpec{Hostnames: []string{"a.example", "b.example"}, ACME: &v1.ACME{Directory: "https://ca/dir", Email: "a@example.com"}}
		change(s)
		return Asked(s)
	}
	same := spec(func(*v1.CertificateSpec) {})
	for name, change := range map[string]func(*v1.CertificateSpec){
		"order of names": func(s *v1.CertificateSpec) { s.Hostnames = []string{"b.example", "a.example"} },
		"email":          func(s *v1.CertificateSpec) { s.ACME.Email = "" },
		"challenge":      func(s *v1.CertificateSpec) { s.ACME.Challenge = "tls-alpn-01" },
	} {
		if spec(change) != same {
			t.Errorf("another %s asks for another certificate", name)
		}
	}
	for name, change := range map[string]func(*v1.CertificateSpec){
		"name":      func(s *v1.CertificateSpec) { s.Hostnames = s.Hostnames[:1] },
		"directory": func(s *v1.CertificateSpec) { s.ACME.Directory = "https://ca/other" },
		"key":       func(s *v1.CertificateSpec) { s.ACME.KeyType = "rsa-2048" },
		"profile":   func(s *v1.CertificateSpec) { s.ACME.Profile = "shortlived" },
		"source":    func(s *v1.CertificateSpec) { s.ACME = nil },
	} {
		if spec(change) == same {
			t.Errorf("another %s asks for the same certificate", name)
		}
	}
}
