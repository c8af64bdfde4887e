package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

// peerSpec is a server that hansa is measured against. Peers only forward: they check no keys and write no log, each with
// as many threads as there are cores and with kept connections on both sides.
type peerSpec struct {
	name    string
	pkg     string // the Debian package that has it
	config  string // template of its configuration
	argv    []string
	version []string       // prints the version
	pattern *regexp.Regexp // finds it there
}

// serverParams fill in the configuration of a peer or of the backend.
type serverParams struct {
	Dir, Listen, Backend string
	Cores                int
}

func peerSpecs() []peerSpec {
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
	}
}

const nginxConfig = `
daemon off;
pid {{.Dir}}/nginx.pid;
worker_processes {{.Cores}};
worker_rlimit_nofile 18000;
events { worker_connections 8000; }
http {
	access_log off;
	tcp_nodelay on;
	keepalive_timeout 300s;
	keepalive_requests 1000000000;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	upstream backend {
		server {{.Backend}};
		keepalive 256;
		keepalive_requests 1000000000;
		keepalive_timeout 300s;
	}
	server {
		listen {{.Listen}};
		location / {
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_pass http://backend;
		}
	}
}
`

const haproxyConfig = `
global
	nbthread {{.Cores}}
	maxconn 8000
defaults
	mode http
	timeout connect 5s
	timeout client 300s
	timeout server 300s
	timeout http-keep-alive 300s
	http-reuse always
frontend front
	bind {{.Listen}}
	default_backend back
backend back
	server one {{.Backend}} pool-max-conn -1 pool-purge-delay 300s
`

// backendConfig is nginx as the service behind all subjects: it answers everything with 200 and 100 bytes, and what
// follows /bytes/ with so many.
const backendConfig = `
daemon off;
pid {{.Dir}}/backend.pid;
worker_processes {{.Cores}};
worker_rlimit_nofile 18000;
events { worker_connections 8000; }
http {
	access_log off;
	tcp_nodelay on;
	keepalive_timeout 300s;
	keepalive_requests 1000000000;
	default_type application/json;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	server {
		listen {{.Listen}};
		location / { return 200 '{"id":"8c5e1f0a","name":"A thing of some kind","price":{"amount":"12.50","currency":"EUR"},"stock":117}'; }
	}
}
`

// server is a running server of which bench knows the address.
type server struct {
	*process
	addr string
}

// startServer writes the configuration into a folder of its own below dir, starts the program with the path of it as last
// argument and waits until it listens.
func startServer(ctx context.Context, dir, name, config string, backend string, cores int, argv ...string) (*server, error) {
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	t, err := template.New(name).Parse(config)
	if err != nil {
		return nil, err
	}
	if err := t.Execute(&text, serverParams{Dir: dir, Listen: addr, Backend: backend, Cores: cores}); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	p, err := startProcess(dir, name, append(argv, file)...)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: addr}
	if err := p.waitFor(ctx, "listening", s.listens); err != nil {
		p.stop()
		return nil, err
	}
	return s, nil
}

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
