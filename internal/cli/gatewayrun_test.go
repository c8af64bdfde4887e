package cli

import (
	"testing"

	"github.com/spf13/cobra"
)

// Traffic over TLS has a port of its own as soon as there are certificates for it.
func TestDefaultOfHTTPS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, ""},
		{"a certificate", []string{"--tls-cert-file", "a.crt", "--tls-key-file", "a.key"}, ":8443"},
		{"a folder", []string{"--tls-cert-dir", "certs"}, ":8443"},
		{"a folder for another listener", []string{"--tls-cert-dir", "certs", "--listener", "name=partner,address=:9443,tls=true"}, ""},
		{"a folder and a listener without TLS", []string{"--tls-cert-dir", "certs", "--listener", "name=inside,address=:8081"}, ":8443"},
		{"an address", []string{"--tls-cert-dir", "certs", "--https-addr", "127.0.0.1:0"}, "127.0.0.1:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g, c := new(gatewayFlags), new(cobra.Command)
			g.register(c)
			if err := c.ParseFlags(tt.args); err != nil {
				t.Fatal(err)
			}
			if err := g.traffic(); err != nil || g.options.HTTPSAddr != tt.want {
				t.Errorf("gateway %q listens for TLS at %q (%v), want %q", tt.args, g.options.HTTPSAddr, err, tt.want)
			}
		})
	}
}
