package suites

import (
	"fmt"
	"os/exec"
	"testing"
)

// grpcCases are the interoperability tests of gRPC that need no credentials of a cloud.
var grpcCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
	"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

// TestGRPC runs the client of grpc-go's interoperability tests through a gateway to their server: with and without TLS
// before the gateway, and with and without TLS behind it.
func TestGRPC(t *testing.T) {
	t.Parallel()
	real(t)
	client, server := tool(t, "grpc-interop/client"), tool(t, "grpc-interop/server")
	ca := newAuthority(t)
	plain := start(t, func(port string) []string { return []string{server, "--port=" + port} })
	certFile, keyFile := ca.issue(t, t.TempDir())
	secure := start(t, func(port string) []string {
		return []string{server, "--port=" + port, "--use_tls", "--tls_cert_file=" + certFile, "--tls_key_file=" + keyFile}
	})
	cleartext := startGateway(t, ca, fmt.Sprintf(`{httpVersion: "2", endpoints: [{address: %q}]}`, plain))
	encrypted := startGateway(t, ca, fmt.Sprintf(`{protocol: https, httpVersion: auto, endpoints: [{address: %q}], tls: {serverName: %s, ca: %q}}`,
		secure, hostname, ca.pem))
	for _, path := range []struct {
		name string
		g    *gateway
		tls  bool
	}{{"h2c", cleartext, false}, {"tls", cleartext, true}, {"h2c-tls", encrypted, false}, {"tls-tls", encrypted, true}} {
		address := path.g.http
		flags := []string{"--server_host=127.0.0.1"}
		if path.tls {
			address = path.g.https
			flags = append(flags, "--use_tls", "--use_test_ca", "--ca_file="+path.g.caFile, "--server_host_override="+hostname)
		}
		flags = append(flags, "--server_port="+port(t, address))
		t.Run(path.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range grpcCases {
				// The client ends with an exit code at the first thing that is not as the case has it.
				out, err := exec.CommandContext(t.Context(), client, append(flags, "--test_case="+name)...).CombinedOutput()
				if err != nil {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
			}
		})
	}
}
