package suites

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/cli"
	"hansa.dev/hansa/test/process"
)

const (
	// hostname is where the API is, and what the certificates are for.
	hostname = "api.example.com"
	// patience is how long a test waits for what must happen soon.
	patience = 30 * time.Second
)

// tool returns the path of something that test/real/install.sh puts into the repository's folder .tools.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", ".tools", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run test/real/install.sh", err)
	}
	return path
}

// program returns the path of a program that test/real/install.sh installs for the machine.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run test/real/install.sh", err)
	}
	return path
}

// authority signs certificates for hostname.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue writes a certificate and its key to files.
func (a *authority) issue(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key := newKey(t)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // 64 bits of chance at least, say the rules of browsers
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: hostname}, DNSNames: []string{hostname},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile = write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keyFile = write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return certFile, keyFile
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// gateway is a gateway process that has one API, at the root of hostname.
type gateway struct {
	http, https string // addresses
	ca          *authority
	caFile      string
}

// resources are what the gateway serves; the spec of the backend is missing.
const resources = `
kind: Site
metadata: {name: eu-west}
spec: {cloud: aws, region: eu-west-1, jurisdiction: EU}
---
kind: GatewayGroup
metadata: {name: eu}
spec: {site: eu-west}
---
kind: Environment
metadata: {name: prod}
spec: {placements: [{gatewayGroup: eu}]}
---
kind: EnvironmentGroup
metadata: {name: public}
spec: {hostnames: [` + hostname + `, 127.0.0.1], environments: [prod]}
---
kind: API
metadata: {name: all}
spec: {basePath: /, backend: all}
---
kind: Deployment
metadata: {name: all-prod}
spec: {api: all, environment: prod}
---
kind: Backend
metadata: {name: all}
spec: `

// startGateway starts a gateway before a backend, whose spec is JSON, and stops it when the test ends.
func startGateway(t *testing.T, ca *authority, backend string, flags ...string) *gateway {
	t.Helper()
	dir := t.TempDir()
	bundle, ready := filepath.Join(dir, "all.bundle"), filepath.Join(dir, "ready.json")
	config := write(t, dir, "all.yaml", resources+backend+"\n")
	hansa(t, "bundle", "build", "-f", config, "-o", bundle)
	certFile, keyFile := ca.issue(t, dir)
	log, err := os.Create(filepath.Join(dir, "gateway.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := process.Command(context.Background(), append([]string{
		"gateway", "--data", filepath.Join(dir, "data"), "--bundle", bundle, "--ready-file", ready,
		"--access-log", filepath.Join(dir, "access.log"), "--http-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0",
		"--admin-addr", "127.0.0.1:0", "--tls-cert-file", certFile, "--tls-key-file", keyFile,
	}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { stop(t, cmd, ended, log.Name()) })
	addresses := waitReady(t, ready, ended)
	return &gateway{addresses["http"], addresses["https"], ca, write(t, dir, "ca.pem", ca.pem)}
}

// waitReady waits for the ready file, in vain if the process ends.
func waitReady(t *testing.T, path string, ended <-chan error) map[string]string {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(patience); ; {
		var ready app.Ready
		b, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(b, &ready) == nil {
			return ready.Addresses
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatal("the gateway ended at once")
		case <-limit:
			t.Fatalf("the gateway is not ready: %v", err)
		}
	}
}

// stop ends a gateway process, which must end well.
func stop(t *testing.T, cmd *exec.Cmd, ended <-chan error, log string) {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it fails if the process has ended
	var err error
	select {
	case err = <-ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		err = fmt.Errorf("it does not end: %w", <-ended)
	}
	if err != nil {
		t.Errorf("the gateway: %v", err)
	}
	if t.Failed() {
		b, _ := os.ReadFile(log)
		t.Logf("the log of the gateway:\n%s", b)
	}
}

// hansa runs a command in this process.
func hansa(t *testing.T, args ...string) {
	t.Helper()
	var out bytes.Buffer
	if code := cli.Main(t.Context(), args, strings.NewReader(""), &out, &out, func(string) string { return "" }); code != 0 {
		t.Fatalf("hansa %s: exit code %d\n%s", strings.Join(args, " "), code, &out)
	}
}

// port is the port of an address.
func port(t *testing.T, address string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// freePort finds a port for a server that cannot choose one itself. Another process may take it first: the server then says
// so, and start tries again.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return port(t, l.Addr().String())
}

// start starts a server of others, which listens at the port of 127.0.0.1 that args makes arguments of, and waits until it
// can be connected to. It ends with the test.
func start(t *testing.T, args func(port string) []string) (address string) {
	t.Helper()
	for try := 1; ; try++ {
		p := freePort(t)
		address = net.JoinHostPort("127.0.0.1", p)
		ctx, cancel := context.WithCancel(context.Background())
		line := args(p)
		cmd := exec.CommandContext(ctx, line[0], line[1:]...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			cancel()
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		if connectable(address, ended) {
			t.Cleanup(func() {
				cancel()
				<-ended
			})
			return address
		}
		cancel()
		<-ended
		if try == 3 {
			t.Fatalf("%v does not listen at %s:\n%s", line, address, &said)
		}
	}
}

// connectable waits until somebody listens at address, in vain if the process ends.
func connectable(address string, ended <-chan struct{}) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(patience); ; {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return true
		}
		select {
		case <-tick.C:
		case <-ended:
			return false
		case <-limit:
			return false
		}
	}
}
