package suites

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// explained are the findings of testssl.sh above LOW that are of the test and not of the gateway, each with its reason.
var explained = map[string]string{
	"cert_revocation": "the certificate of the test names nobody to ask for its revocation",
}

// finding is what testssl.sh says of one check.
type finding struct{ ID, Severity, Finding string }

// TestTestssl has testssl.sh look for weaknesses of TLS: protocols, ciphers, the certificate, forward secrecy and the known
// attacks with the defaults; protocols and the certificate with TLS 1.3 alone, which leaves it no other to try.
func TestTestssl(t *testing.T) {
	t.Parallel()
	real(t)
	for _, c := range []struct {
		name          string
		flags, checks []string
	}{
		{"default", nil, []string{"--std", "--fs", "--vulnerable"}},
		{"tls1.3", []string{"--tls-min-version", "1.3"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, newAuthority(t), `{endpoints: [{address: "127.0.0.1:9"}]}`, c.flags...)
			report := filepath.Join(t.TempDir(), "report.json")
			args := append([]string{
				"--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1", "--add-ca", g.caFile,
				"--jsonfile", report, "--protocols", "--server-defaults",
			}, c.checks...)
			out, err := exec.CommandContext(t.Context(), program(t, "testssl"),
				append(args, net.JoinHostPort(hostname, port(t, g.https)))...).CombinedOutput()
			b, readErr := os.ReadFile(report)
			var all []finding
			if readErr == nil {
				readErr = json.Unmarshal(b, &all)
			}
			if readErr != nil || !slices.ContainsFunc(all, func(f finding) bool { return f.ID == "TLS1_3" && f.Severity == "OK" }) {
				t.Fatalf("testssl.sh: %v, %v\n%s", err, readErr, out)
			}
			for _, f := range all {
				switch f.Severity {
				case "MEDIUM", "HIGH", "CRITICAL", "FATAL":
					if explained[f.ID] == "" {
						t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
					}
				}
			}
		})
	}
}
