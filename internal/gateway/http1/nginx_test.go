package http1_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// nginxReader is an nginx that forwards what it is sent to net/http, which keeps what came of it.
type nginxReader struct {
	socket string
	mu     sync.Mutex
	all    []seen // guarded by mu
}

const nginxConfig = `daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log crit;
events { worker_connections 256; }
http {
	access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	keepalive_requests 1000; proxy_ignore_client_abort on; underscores_in_headers on; ignore_invalid_headers off; large_client_header_buffers 8 64k;
	server { listen unix:%[1]s/in; location / { proxy_pass http://unix:%[1]s/out:; proxy_http_version 1.1; proxy_set_header Host $http_host; } }
}
`

func startNginx(t *testing.T) *nginxReader {
	t.Helper()
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("HANSA_REAL is not set")
	}
	dir, err := os.MkdirTemp("", "hansa-nginx") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &nginxReader{socket: filepath.Join(dir, "in")}
	out, err := net.Listen("unix", filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		n, err := io.Copy(io.Discard, req.Body)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.all = append(r.all, seen{req.Method, req.RequestURI, req.Host, n})
		r.mu.Unlock()
	})}
	go func() { _ = srv.Serve(out) }()
	t.Cleanup(func() { _ = srv.Close() })
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "nginx", "-c", config, "-p", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, func() bool {
		c, err := net.Dial("unix", r.socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return r
}

// read sends raw to nginx and returns the requests that it forwarded.
func (r *nginxReader) read(raw []byte) ([]seen, error) {
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(raw); err != nil {
		return nil, err
	}
	_ = c.(*net.UnixConn).CloseWrite()
	_, _ = io.Copy(io.Discard, c)
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all, nil
}

// TestNginxReadsAlike is TestRequestsReadAlike with nginx for a reader. It refuses some of what is well-formed, such as
// methods in lower case; what it takes must be what the gateway meant.
func TestNginxReadsAlike(t *testing.T) {
	nginx := startNginx(t)
	requests := 0
	forwardAll(t, corpus(), func(n uint64) string {
		if int(n) < len(seedRequests) {
			return seedRequests[n]
		}
		return mutate(seedRequests, n)
	}, func(f forwarded) {
		for _, raw := range f.raw {
			theirs, err := nginx.read(raw)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range theirs {
				requests++
				i := slices.Index(f.ours, s)
				if i < 0 {
					t.Errorf("%q was forwarded as %q:\nnginx understands  %v\nthe gateway meant %v", f.in, raw, theirs, f.ours)
					return
				}
				f.ours = slices.Delete(f.ours, i, i+1)
			}
		}
	})
	t.Logf("nginx took %d requests", requests)
}
