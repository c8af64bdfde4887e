package resource

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/gateway/certs/certstest"
)

func TestHostTLS(t *testing.T) {
	t.Parallel()
	root, other := certstest.NewAuthority(t, "root"), certstest.NewAuthority(t, "other")
	cert := func(c v1.ClientCertificate) *v1.HostTLS { return &v1.HostTLS{ClientCertificate: &c} }
	for _, test := range []struct {
		name string
		tls  *v1.HostTLS
		want string // the paths at fault
	}{
		{"nothing", nil, ""},
		{"empty", &v1.HostTLS{}, ""},
		{"version", &v1.HostTLS{MinVersion: "1.3"}, ""},
		{"other version", &v1.HostTLS{MinVersion: "1.1"}, "spec.tls.minVersion"},
		{"none", cert(v1.ClientCertificate{Mode: "none"}), ""},
		{"no mode", cert(v1.ClientCertificate{}), "spec.tls.clientCertificate.mode"},
		{"other mode", cert(v1.ClientCertificate{Mode: "maybe", CA: "x"}), "spec.tls.clientCertificate.mode spec.tls.clientCertificate.ca"},
		{"no CA", cert(v1.ClientCertificate{Mode: "required"}), "spec.tls.clientCertificate.ca"},
		{"bad CA", cert(v1.ClientCertificate{Mode: "optional", CA: "x"}), "spec.tls.clientCertificate.ca"},
		{"large CA", cert(v1.ClientCertificate{Mode: "optional", CA: strings.Repeat("x", maxCA+1)}), "spec.tls.clientCertificate.ca"},
		{"list", cert(v1.ClientCertificate{Mode: "optional", CA: string(root.PEM), CRL: root.List(t)}), ""},
		{"list that has expired", cert(v1.ClientCertificate{Mode: "optional", CA: string(root.PEM), CRL: root.ListAs(t, x509.RevocationList{NextUpdate: time.Now()})}), ""},
		{"lists without CA", cert(v1.ClientCertificate{Mode: "none", CRL: "x"}), ""},
		{"no list", cert(v1.ClientCertificate{Mode: "optional", CA: string(root.PEM), CRL: "x"}), "spec.tls.clientCertificate.crl"},
		{"list of another CA", cert(v1.ClientCertificate{Mode: "optional", CA: string(root.PEM), CRL: other.List(t)}), "spec.tls.clientCertificate.crl"},
		{"two bad lists", cert(v1.ClientCertificate{Mode: "optional", CA: string(root.PEM), CRL: other.List(t) + other.List(t)}), "spec.tls.clientCertificate.crl spec.tls.clientCertificate.crl"},
		{"large list", cert(v1.ClientCertificate{Mode: "optional", CA: string(root.PEM), CRL: strings.Repeat("x", maxCRL+1)}), "spec.tls.clientCertificate.crl"},
		{"depth", cert(v1.ClientCertificate{Mode: "none", MaxDepth: 10}), "spec.tls.clientCertificate.maxDepth"},
		{"forward", cert(v1.ClientCertificate{Mode: "none", Forward: "all"}), "spec.tls.clientCertificate.forward"},
	} {
		o := &v1.Object{
			Metadata: v1.Metadata{Name: "public", Organization: "default"},
			Spec:     &v1.EnvironmentGroupSpec{Hostnames: []string{"a.example"}, Environments: []string{"prod"}, TLS: test.tls},
		}
		o.Kind = v1.KindEnvironmentGroup
		var got []string
		for _, f := range Validate(o) {
			got = append(got, f.Path)
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s: faults at %q, want %q", test.name, got, test.want)
		}
	}
}

func TestBackendTLS(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		tls  v1.BackendTLS
		want string // the paths at fault
	}{
		{"empty", v1.BackendTLS{}, ""},
		{"all", v1.BackendTLS{
			ServerName: "a.internal", SubjectNames: []string{"a.internal", "10.0.0.1", "spiffe://example.com/a"}, MinVersion: "1.3",
			Ciphers: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, ClientCertificate: "mine",
		}, ""},
		{"names", v1.BackendTLS{SubjectNames: []string{"a b", "://x", "spiffe://", "a.internal"}}, "spec.tls.subjectNames[0] spec.tls.subjectNames[1] spec.tls.subjectNames[2]"},
		{"many names", v1.BackendTLS{SubjectNames: slices.Repeat([]string{"a.internal"}, maxSubjectNames+1)}, "spec.tls.subjectNames"},
		{"version", v1.BackendTLS{MinVersion: "1.0"}, "spec.tls.minVersion"},
		{"ciphers", v1.BackendTLS{Ciphers: []string{"RC4", "TLS_AES_128_GCM_SHA256"}}, "spec.tls.ciphers[0] spec.tls.ciphers[1]"},
		{"certificate", v1.BackendTLS{ClientCertificate: "Not A Name"}, "spec.tls.clientCertificate"},
	} {
		o := &v1.Object{
			Metadata: v1.Metadata{Name: "a", Organization: "default"}, Kind: v1.KindBackend,
			Spec: &v1.BackendSpec{Protocol: "https", TLS: &test.tls, Endpoints: []v1.Endpoint{{Address: "a.internal:443"}}},
		}
		Default(o)
		var got []string
		for _, f := range Validate(o) {
			got = append(got, f.Path)
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%s: faults at %q, want %q", test.name, got, test.want)
		}
	}
}
