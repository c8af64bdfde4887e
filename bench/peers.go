package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// peerSpec is a server that hansa is measured against, or the backend. Peers only forward: they check no keys and write no
// log, each with as many threads as there are cores and with kept connections on both sides.
type peerSpec struct {
	name    string
	pkg     string // the Debian package that has it; empty: bench fetches it
	config  string // template of its configuration
	argv    []string
	version []string       // prints the version
	pattern *regexp.Regexp // finds it there
}

// serverParams fill in the configuration of a peer or of the backend.
type serverParams struct {
	Dir                         string // of its own
	Listen, ListenTLS, ListenH2 string
	Backend, GRPC               string // addresses of the backends
	Cert, Key, CertKey          string // PEM files; CertKey holds both
	Files                       string // the folder of what the backend serves
	Cores                       int
}

// peerSpecs returns the peers. envoy is the path of its binary.
func peerSpecs(envoy string, cores int) []peerSpec {
	return []peerSpec{
		{
			name: "nginx", pkg: "nginx-light", config: nginxConfig,
			argv:    []string{"nginx", "-e", "stderr", "-p", ".", "-c"},
			version: []string{"nginx", "-v"}, pattern: regexp.MustCompile(`nginx/(\S+)`),
		},
		{
			name: "haproxy", pkg: "haproxy", config: haproxyConfig,
			argv:    []string{"haproxy", "-db", "-f"},
			version: []string{"haproxy", "-v"}, pattern: regexp.MustCompile(`version (\S+)`),
		},
		{
			name: peerEnvoy, config: envoyConfig,
			argv: []string{
				envoy, "--concurrency", strconv.Itoa(cores), "--disable-hot-restart", "--log-level", "warning", "-c",
			},
			version: []string{envoy, "--version"}, pattern: regexp.MustCompile(`version: [0-9a-f]+/([^/]+)/`),
		},
	}
}

// peerNames returns the names of the peers.
func peerNames() []string {
	var names []string
	for _, p := range peerSpecs("", 0) {
		names = append(names, p.name)
	}
	return names
}

// backendSpec is the service behind all subjects.
func backendSpec() peerSpec {
	return peerSpec{name: "backend", config: backendConfig, argv: []string{"nginx", "-e", "stderr", "-p", ".", "-c"}}
}

// server is a running server of which bench knows the address.
type server struct {
	*process
	addr string // HTTP/1.1
	tls  string // HTTP/1.1 and HTTP/2 over TLS
	h2   string // HTTP/2 without TLS
}

// startServer writes the configuration of a program into a folder of its own below dir, starts it with the path of that as
// last argument and waits until it listens.
func startServer(ctx context.Context, dir string, spec peerSpec, params serverParams) (*server, error) {
	params.Dir = filepath.Join(dir, spec.name)
	if err := os.MkdirAll(params.Dir, 0o700); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&params.Listen, &params.ListenTLS, &params.ListenH2} {
		var err error
		if *addr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	var text strings.Builder
	t, err := template.New(spec.name).Funcs(template.FuncMap{"host": hostOf, "port": portOf}).Parse(spec.config)
	if err != nil {
		return nil, err
	}
	if err := t.Execute(&text, params); err != nil {
		return nil, err
	}
	file := filepath.Join(params.Dir, spec.name+".yaml") // a name that Envoy insists on, and the others do not mind
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	p, err := startProcess(params.Dir, spec.name, append(spec.argv, file)...)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: params.Listen, tls: params.ListenTLS, h2: params.ListenH2}
	if err := p.waitFor(ctx, "listening", s.listens); err != nil {
		p.stop()
		return nil, err
	}
	return s, nil
}

// listens tells whether all its listeners are there.
func (s *server) listens() bool {
	c, err := net.Dial("tcp", s.addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// freeAddr returns an address on loopback that was free a moment ago, for servers that cannot be asked for theirs.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func hostOf(addr string) string { host, _, _ := net.SplitHostPort(addr); return host }
func portOf(addr string) string { _, port, _ := net.SplitHostPort(addr); return port }

// need returns an error that names the programs that are missing.
func need(programs map[string]string) error {
	var missing []string
	for program, pkg := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, fmt.Sprintf("%s (Debian package %s)", program, pkg))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing: %s; test/real/install.sh installs them as root", strings.Join(missing, ", "))
	}
	return nil
}

func (p peerSpec) findVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, p.version[0], p.version[1:]...).CombinedOutput()
	if m := p.pattern.FindSubmatch(out); err == nil && m != nil {
		return string(m[1])
	}
	return "unknown"
}
