package compile

import (
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
)

// withTLS returns the example with what is asked of TLS for its hostnames, and with TLS to its backend.
func withTLS(t *testing.T, host *v1.HostTLS, backend *v1.BackendTLS) memory {
	t.Helper()
	data, err := os.ReadFile("testdata/example.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	st, _ := memory{}.with(t, "example", string(data))
	for k, o := range st {
		o := resource.Clone(o)
		switch s := o.Spec.(type) {
		case *v1.EnvironmentGroupSpec:
			s.TLS = host
		case *v1.BackendSpec:
			s.Protocol, s.TLS = "https", backend
		}
		st[k] = o
	}
	return st
}

// TestHostTLS: a gateway that does not know what is asked must not serve the hostnames.
func TestHostTLS(t *testing.T) {
	t.Parallel()
	cert := func(c v1.ClientCertificate) *v1.HostTLS { return &v1.HostTLS{ClientCertificate: &c} }
	for _, test := range []struct {
		name string
		tls  *v1.HostTLS
		want *snapshot.HostTLS
	}{
		{"nothing", nil, nil},
		{"empty", &v1.HostTLS{}, nil},
		{"none", cert(v1.ClientCertificate{Mode: "none", CA: "pem", Forward: "chain"}), nil},
		{"version", &v1.HostTLS{MinVersion: "1.3"}, &snapshot.HostTLS{MinVersion: "1.3"}},
		{
			"required", cert(v1.ClientCertificate{Mode: "required", CA: "pem", MaxDepth: 2, Forward: "chain"}),
			&snapshot.HostTLS{ClientCertificate: "required", ClientCA: "pem", ClientDepth: 2, ForwardClient: "chain"},
		},
		{
			"list", cert(v1.ClientCertificate{Mode: "optional", CA: "pem", CRL: "list"}),
			&snapshot.HostTLS{ClientCertificate: "optional", ClientCA: "pem", ClientCRL: "list"},
		},
		{
			"forward none", cert(v1.ClientCertificate{Mode: "optional", CA: "pem", Forward: "none"}),
			&snapshot.HostTLS{ClientCertificate: "optional", ClientCA: "pem"},
		},
	} {
		st := withTLS(t, test.tls, nil)
		r, err := Compile(st, 1, Options{})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		reader := uint16(0)
		for e := range r.Views["default/eu"].All() {
			if !strings.HasPrefix(e.Key, "hosts/") {
				continue
			}
			got, err := snapshot.Decode[snapshot.Hosts](e)
			if err != nil {
				t.Fatal(err)
			}
			reader = e.MinReader
			if diff := gocmp.Diff(test.want, got.TLS); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
		}
		needs := uint16(firstReader)
		switch {
		case test.want == nil:
		case test.want.ClientCRL != "":
			needs = snapshot.ReaderClientCRL
		default:
			needs = snapshot.ReaderHostTLS
		}
		if reader != needs {
			t.Errorf("%s: the entry is for readers of form %d, want %d", test.name, reader, needs)
		}
		// Where older gateways run it is refused.
		for older := uint16(1); older <= snapshot.ReaderVersion; older++ {
			_, err = Compile(st, 1, Options{Reader: older})
			if refused := err != nil; refused != (needs > older) {
				t.Errorf("%s, with gateways that read form %d: %v", test.name, older, err)
			}
		}
	}
}

func TestTLSRules(t *testing.T) {
	t.Parallel()
	st := withTLS(t, nil, &v1.BackendTLS{ServerName: "a.internal", SubjectNames: []string{"b.internal"}, MinVersion: "1.3"})
	r, err := Compile(st, 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for e := range r.Views["default/eu"].All() {
		if !strings.HasPrefix(e.Key, "backend/") {
			continue
		}
		got, err := snapshot.Decode[snapshot.Backend](e)
		if err != nil {
			t.Fatal(err)
		}
		want := &snapshot.TLSRules{SubjectNames: []string{"b.internal"}, MinVersion: "1.3"}
		if diff := gocmp.Diff(want, got.TLSRules); diff != "" || got.ServerName != "a.internal" || e.MinReader != snapshot.BackendReader {
			t.Errorf("form %d, %q (-want +got):\n%s", e.MinReader, got.ServerName, diff)
		}
	}
}
