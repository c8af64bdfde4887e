package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
)

// pebble is Let's Encrypt's CA for tests, behind a proxy that can get in its way. It finds every hostname at the load
// balancers of the test.
type pebble struct {
	// directory is where the control node finds it, ca what it is to be verified against.
	directory, ca string

	proxy  *httptest.Server
	orders atomic.Int64
	hinder atomic.Pointer[func(http.ResponseWriter, *http.Request) bool] // true: it has answered
}

// requirePebble skips a test unless the CA is there; make test-real sees to that.
func requirePebble(t *testing.T) {
	t.Helper()
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("needs Pebble: make test-real installs and uses it")
	}
	if _, err := exec.LookPath("pebble"); err != nil {
		t.Fatal(err)
	}
}

// validity are the profiles of the CA: how long certificates live, in seconds.
var validity = map[string]int{"long": 90 * 86400, "short": 45}

// startPebble starts a CA that validates over the ports of the load balancers. With an external key, accounts must be tied.
func startPebble(t *testing.T, httpAddr, tlsAddr net.Addr, resolver, externalKey string) *pebble {
	t.Helper()
	own := certstest.NewAuthority(t, "CA of the CA")
	dir := t.TempDir()
	leaf := own.Issue(t, "127.0.0.1", "localhost")
	profiles := map[string]any{}
	for name, seconds := range validity {
		profiles[name] = map[string]any{"description": name, "validityPeriod": seconds}
	}
	external := map[string]string{}
	if externalKey != "" {
		external["kid-1"] = externalKey
	}
	for name, data := range map[string][]byte{"tls.crt": leaf.CertPEM, "tls.key": leaf.KeyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	transport := &http.Transport{TLSClientConfig: clientConfig(own)}
	t.Cleanup(transport.CloseIdleConnections)
	address := ""
	for try := 1; address == ""; try++ { // somebody may take an address before the CA does
		free := freeAddress(t)
		config, err := json.Marshal(map[string]any{"pebble": map[string]any{
			"listenAddress": free, "managementListenAddress": freeAddress(t), "keyAlgorithm": "ecdsa",
			"certificate": filepath.Join(dir, "tls.crt"), "privateKey": filepath.Join(dir, "tls.key"),
			"httpPort": httpAddr.(*net.TCPAddr).Port, "tlsPort": tlsAddr.(*net.TCPAddr).Port, "domainBlocklist": []string{"blocked.example.com"},
			"profiles": profiles, "retryAfter": map[string]int{"authz": 1, "order": 1},
			"externalAccountBindingRequired": externalKey != "", "externalAccountMACKeys": external,
		}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "config.json")
		if err := os.WriteFile(file, config, 0o600); err != nil {
			t.Fatal(err)
		}
		switch said, ok := runPebble(t, transport, free, "-config", file, "-dnsserver", resolver); {
		case ok:
			address = free
		case try == 5:
			t.Fatalf("the CA does not run:\n%s", said)
		}
	}
	p := &pebble{ca: string(own.PEM)}
	reverse := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: address})
	reverse.Transport = transport // the Host stays: the CA makes URLs of it
	p.proxy = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := p.hinder.Load(); f != nil && (*f)(w, r) {
			return
		}
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			p.orders.Add(1)
		}
		reverse.ServeHTTP(w, r)
	}))
	p.proxy.TLS = serverConfig(leaf)
	p.proxy.StartTLS()
	t.Cleanup(p.proxy.Close)
	p.directory = p.proxy.URL + "/dir"
	return p
}

// runPebble starts the CA and waits until it answers at the address. It ends with the test, and if it ends before it answers, ok
// is false.
func runPebble(t *testing.T, transport http.RoundTripper, address string, args ...string) (said string, ok bool) {
	t.Helper()
	var log bytes.Buffer // to be read when the process has ended
	cmd := exec.CommandContext(t.Context(), "pebble", args...)
	// Three of ten nonces are refused, and nothing that was validated is taken for granted.
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=30", "PEBBLE_AUTHZREUSE=0")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the CA says:\n%s", log.String())
		}
	})
	eventually(t, patience, func() error {
		select {
		case <-ended:
			return nil
		default:
		}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + address + "/dir")
		if err != nil {
			return err
		}
		ok = true
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return err
	})
	if !ok {
		said = log.String()
	}
	return said, ok
}

// while puts something in the way of requests to the CA until it is called with nil.
func (p *pebble) while(f func(http.ResponseWriter, *http.Request) bool) {
	if f == nil {
		p.hinder.Store(nil)
		return
	}
	p.hinder.Store(&f)
}

// problem answers as the CA would.
func problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type": "urn:ietf:params:acme:error:%s", "detail": %q, "status": %d}`, kind, detail, status)
}

// freeAddress returns an address that nobody listens on, for a program that cannot choose one.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startResolver answers that every name is here, but for those below "nowhere".
func startResolver(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the CA asks over TCP
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	s := &dns.Server{Listener: l, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		name := q.Question[0].Name
		switch {
		case strings.HasPrefix(name, "nowhere."):
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1)})
		}
		_ = w.WriteMsg(m)
	})}
	var done sync.WaitGroup
	done.Go(func() { _ = s.ActivateAndServe() })
	<-started
	t.Cleanup(func() {
		_ = s.Shutdown()
		done.Wait()
	})
	return l.Addr().String()
}

// balancer takes connections to one after another of several addresses.
type balancer struct {
	net.Listener
	mu   sync.Mutex
	to   []string
	turn int
}

func startBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{Listener: l}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { b.forward(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return b
}

func (b *balancer) set(addresses ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = slices.Clone(addresses)
}

func (b *balancer) forward(c net.Conn) {
	defer c.Close()
	b.mu.Lock()
	if len(b.to) == 0 {
		b.mu.Unlock()
		return
	}
	to := b.to[b.turn%len(b.to)]
	b.turn++
	b.mu.Unlock()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, up)
		_ = c.Close()
	})
	_, _ = io.Copy(up, c)
	_ = up.Close()
	back.Wait()
}
