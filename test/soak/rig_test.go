package soak

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/operate"
	"hansa.dev/hansa/test/process"
)

// patience is how long a test waits for what must happen soon.
const patience = 30 * time.Second

// hostname is where the APIs are.
const hostname = "api.example.com"

// eventually calls try until it returns nil, and fails the test with its last error when patience ends.
func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(patience); ; {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s: gave up after %v: %v", what, patience, err)
		}
		<-tick.C
	}
}

// rig is a control node in this process, a gateway in one of its own, and two backends of each kind.
type rig struct {
	t        testing.TB
	dir      string
	control  *client.Client
	backends [2]string // addresses
	grpcs    [2]string // of backends for gRPC
	admin    *operate.Client
	addr     map[string]string // of the gateway
	roots    *x509.CertPool
	ca       *authority
	args     []string
	ended    []<-chan struct{} // of the processes that this test started itself
	history  *history
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), ca: newAuthority(t), history: new(history)}
	r.roots = x509.NewCertPool()
	r.roots.AddCert(r.ca.cert)
	for i := range r.backends {
		r.backends[i], r.grpcs[i] = startBackend(t), startGRPC(t)
	}
	link := r.startControl()
	r.apply(base + r.changing(0))
	token, err := r.control.CreateJoinToken(t.Context(), v1.DefaultOrganization, v1.JoinTokenRequest{GatewayGroup: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	r.write("join.token", token.Token)
	r.newCertificate()
	r.writeConfig(0)
	r.args = []string{
		"gateway", "--data", r.path("gw"), "--control", link, "--join-token-file", r.path("join.token"),
		"--http-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
		"--tls-cert-file", r.path("cert.pem"), "--tls-key-file", r.path("key.pem"),
		"--ready-file", r.path("ready.json"), "--access-log", r.path("access.log"), "--config", r.path("gateway.yaml"),
	}
	r.admin = operate.NewClient(r.path("gw"))
	t.Cleanup(r.end)
	r.start()
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name, content string) {
	r.t.Helper()
	tmp := r.path(name + ".tmp")
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(tmp, r.path(name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) startControl() (link string) {
	r.t.Helper()
	c, err := app.StartControl(r.t.Context(), app.ControlOptions{
		Data: r.path("control"), APIAddr: "127.0.0.1:0", LinkAddr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = c.Stop(ctx) // what is tested is over
	})
	ready := c.Ready()
	ca, err := os.ReadFile(ready.CAFile)
	if err != nil {
		r.t.Fatal(err)
	}
	token, err := os.ReadFile(ready.TokenFile)
	if err != nil {
		r.t.Fatal(err)
	}
	r.control, err = client.New(client.Options{Server: "https://" + ready.Addresses["api"], CA: ca, Token: strings.TrimSpace(string(token))})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.control.Close)
	return ready.Addresses["link"]
}

func (r *rig) apply(documents string) {
	r.t.Helper()
	if _, err := r.control.Apply(r.t.Context(), strings.NewReader(documents), client.ApplyOptions{}); err != nil {
		r.t.Fatalf("apply: %v", err)
	}
}

// start starts the gateway process and waits until it serves.
func (r *rig) start() {
	r.t.Helper()
	_ = os.Remove(r.path("ready.json"))
	r.ended = append(r.ended, process.Start(r.t, process.Command(context.Background(), r.args...), r.path("gateway.log")))
	eventually(r.t, "start", r.ready)
}

// ready reads the ready file, and returns nil once the gateway has a configuration.
func (r *rig) ready() error {
	b, err := os.ReadFile(r.path("ready.json"))
	if err != nil {
		return err
	}
	var ready app.Ready
	if err := json.Unmarshal(b, &ready); err != nil {
		return err
	}
	st, err := r.admin.Status(context.Background())
	if err != nil {
		return err
	}
	if st.Generation == 0 || st.PID != ready.PID {
		return fmt.Errorf("generation %d, process %d, ready file of %d", st.Generation, st.PID, ready.PID)
	}
	r.addr = ready.Addresses
	return nil
}

// pid is the process that serves.
func (r *rig) pid() int {
	r.t.Helper()
	st, err := r.admin.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return st.PID
}

func (r *rig) upgrade() (old int) {
	r.t.Helper()
	out, err := r.admin.Upgrade(r.t.Context(), operate.Upgrade{})
	if err != nil {
		r.t.Fatalf("upgrade: %v", err)
	}
	return out.OldPID
}

// end kills what is left of the gateway: the processes that serve and those that have handed over.
func (r *rig) end() { process.End(r.t, r.path("gw"), r.path("gateway.log"), r.ended) }

// processes finds the processes that run on the data folder of this test.
func (r *rig) processes() []int { return process.On(r.path("gw")) }

// gone returns nil once a process has ended.
func gone(pid int) func() error {
	return func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return nil
		}
		return fmt.Errorf("process %d is still there", pid)
	}
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, last: 1}
}

// newCertificate replaces the certificate of the gateway and returns its serial number.
func (r *rig) newCertificate() int64 {
	r.t.Helper()
	r.ca.last++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(r.ca.last), Subject: pkix.Name{CommonName: hostname}, DNSNames: []string{hostname},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.ca.cert, &key.PublicKey, r.ca.key)
	if err != nil {
		r.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	r.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return r.ca.last
}

// drainDelay is how long clients have to leave with a response when the gateway drains.
const drainDelay = 3 * time.Second

// writeConfig writes the configuration file of the gateway, whose listener "partner" has other settings each time.
func (r *rig) writeConfig(n int) {
	r.t.Helper()
	r.write("gateway.yaml", fmt.Sprintf("drain-delay: %v\nlistener:\n"+
		"  - {name: partner, address: \"127.0.0.1:0\", tls: true, http3: true, max-conns: %d}\n", drainDelay, 1000+n))
}

// base is all that does not change.
const base = `
apiVersion: hansa.dev/v1
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
spec: {hostnames: [api.example.com], environments: [prod]}
---
kind: API
metadata: {name: soak}
spec: {basePath: /soak, backend: soak, backendPath: /soak}
---
kind: Deployment
metadata: {name: soak-prod}
spec: {api: soak, environment: prod}
---
kind: API
metadata: {name: soak2}
spec: {basePath: /soak2, backend: soak2, backendPath: /soak}
---
kind: Deployment
metadata: {name: soak2-prod}
spec: {api: soak2, environment: prod}
---
kind: API
metadata: {name: grpc}
spec: {basePath: /grpc.testing.TestService, backend: grpc, backendPath: /grpc.testing.TestService}
---
kind: Deployment
metadata: {name: grpc-prod}
spec: {api: grpc, environment: prod}
`

// changing is what change n makes different: the endpoints of each backend are one of two, both, or the other; how requests are
// spread over them, and how long connections are kept; and an API that shows which change is in force.
func (r *rig) changing(n int) string {
	method := []string{"roundRobin", "leastRequests", "random"}[n%3]
	var b strings.Builder
	for name, all := range map[string][2]string{"soak": r.backends, "soak2": r.backends, "grpc": r.grpcs} {
		version := map[bool]string{true: "1.1", false: "2"}[name == "soak"]
		var endpoints []string
		for _, i := range [][]int{{0}, {0, 1}, {1}, {1, 0}}[n%4] {
			endpoints = append(endpoints, fmt.Sprintf("{address: %q}", all[i]))
		}
		fmt.Fprintf(&b, `
---
apiVersion: hansa.dev/v1
kind: Backend
metadata: {name: %s}
spec:
  httpVersion: "%s"
  endpoints: [%s]
  loadBalancing: {method: %s}
  connections: {idleTimeout: %ds}
`, name, version, strings.Join(endpoints, ", "), method, 20+n/6%2)
	}
	fmt.Fprintf(&b, `
---
apiVersion: hansa.dev/v1
kind: API
metadata: {name: marker}
spec: {basePath: /marker, policies: {request: [respond: {status: 200, body: "%d"}]}}
---
kind: Deployment
metadata: {name: marker-prod}
spec: {api: marker, environment: prod}
`, n)
	return b.String()
}
