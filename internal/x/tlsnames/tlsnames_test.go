package tlsnames

import (
	"crypto/tls"
	"slices"
	"testing"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint16{"": 0, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		if v, err := Version(text); v != want || err != nil {
			t.Errorf("Version(%q) = %x, %v", text, v, err)
		}
	}
	for _, text := range []string{"1.1", "1.4", "TLS1.2", " 1.2"} {
		if v, err := Version(text); err == nil {
			t.Errorf("Version(%q) = %x", text, v)
		}
	}
}

func TestCiphers(t *testing.T) {
	t.Parallel()
	got, err := Ciphers([]string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"})
	want := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}
	if !slices.Equal(got, want) || err != nil {
		t.Errorf("%x, %v", got, err)
	}
	for _, name := range []string{"TLS_RSA_WITH_RC4_128_SHA", "TLS_AES_128_GCM_SHA256", "nonsense", ""} {
		if c, err := Ciphers([]string{name}); err == nil {
			t.Errorf("Ciphers(%q) = %x", name, c)
		}
	}
}
