package acme_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/acme"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/vault"
)

// authority is a CA that believes everything, and can be told to misbehave. It looks at no signature: Pebble does, in
// test/cluster.
type authority struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	root *x509.Certificate

	status   atomic.Pointer[string] // of the one order
	issued   atomic.Pointer[[]byte]
	hostname string                                        // that is asked for; "": the right one
	template func(*x509.Certificate)                       // what is issued in place of the right thing
	foreign  bool                                          // issues for a key of its own
	hinder   func(http.ResponseWriter, *http.Request) bool // true: it has answered
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.root = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte("root"),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	a.Server = httptest.NewTLSServer(a)
	t.Cleanup(a.Close)
	return a
}

// ServeHTTP implements http.Handler.
func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Replay-Nonce", base64.RawURLEncoding.EncodeToString([]byte(time.Now().String())))
	if a.hinder != nil && a.hinder(w, r) {
		return
	}
	var jws struct{ Payload string }
	_ = json.NewDecoder(r.Body).Decode(&jws) // HEAD and GET have none
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	reply := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	set := func(s string) { a.status.Store(&s) }
	order := func() map[string]any {
		return map[string]any{"status": *a.status.Load(), "authorizations": []string{a.URL + "/authz"}, "finalize": a.URL + "/finalize", "certificate": a.URL + "/certificate"}
	}
	hostname := "api.example.com"
	if a.hostname != "" {
		hostname = a.hostname
	}
	challenge := map[string]any{"type": "http-01", "url": a.URL + "/challenge", "status": "pending", "token": "token"}
	switch r.URL.Path {
	case "/dir":
		reply(200, map[string]any{"newNonce": a.URL + "/nonce", "newAccount": a.URL + "/account", "newOrder": a.URL + "/new", "renewalInfo": a.URL + "/renewal"})
	case "/nonce":
	case "/account":
		w.Header().Set("Location", a.URL+"/account/1")
		reply(201, map[string]string{"status": "valid"})
	case "/new":
		set("pending")
		w.Header().Set("Location", a.URL+"/order")
		reply(201, order())
	case "/order":
		reply(200, order())
	case "/authz":
		status := "pending"
		if *a.status.Load() != "pending" {
			status = "valid"
		}
		reply(200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": hostname}, "challenges": []any{challenge}})
	case "/challenge":
		set("ready")
		reply(200, challenge)
	case "/finalize":
		var body struct{ CSR string }
		_ = json.Unmarshal(payload, &body)
		a.issue(body.CSR)
		set("valid")
		w.Header().Set("Location", a.URL+"/order")
		reply(200, order())
	case "/certificate":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: *a.issued.Load()})
	case "/renewal/":
		reply(404, nil)
	default:
		reply(404, map[string]string{"type": "about:blank"})
	}
}

func (a *authority) issue(request string) {
	der, _ := base64.RawURLEncoding.DecodeString(request)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		panic(err) // the client sends what it has made
	}
	public := csr.PublicKey
	if a.foreign {
		public = a.key.Public()
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(-time.Hour).UTC(), NotAfter: time.Now().Add(89 * time.Hour).UTC(), AuthorityKeyId: []byte("root"),
	}
	if a.template != nil {
		a.template(template)
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, a.root, public, a.key); err != nil {
		panic(err)
	}
	a.issued.Store(&der)
}

// gateways is one gateway that acknowledges everything, or nothing.
type gateways struct {
	connected, deaf bool
	asked           atomic.Int64 // the highest seq that was waited for
}

func (g *gateways) WaitApplied(_ context.Context, _ []string, _, seq uint64) []string {
	g.asked.Store(max(g.asked.Load(), int64(seq)))
	if g.deaf && seq > 0 {
		return []string{"gw"}
	}
	return nil
}

func (g *gateways) Gateways() []serve.Status {
	return []serve.Status{{Name: "gw", Organization: v1.DefaultOrganization, Group: "eu", Link: g.connected}}
}

func (g *gateways) Disconnect(string, string) {}

// rig is a control node without its listeners, with one worker.
type rig struct {
	record store.Store
	desk   control.Issuance
	vault  *vault.Vault
	ca     *authority
	fleet  *gateways
	log    io.Writer // of the worker; nil: nowhere
	only   []string  // directories
}

var certificate = v1.Key{Organization: v1.DefaultOrganization, Kind: v1.KindCertificate, Name: "public"}

const world = `
{apiVersion: hansa.dev/v1, kind: Site, metadata: {name: here}, spec: {}}
---
{apiVersion: hansa.dev/v1, kind: GatewayGroup, metadata: {name: eu}, spec: {site: here}}
---
{apiVersion: hansa.dev/v1, kind: Environment, metadata: {name: prod}, spec: {placements: [{gatewayGroup: eu}]}}
---
{apiVersion: hansa.dev/v1, kind: EnvironmentGroup, metadata: {name: public}, spec: {hostnames: [api.example.com], environments: [prod]}}
`

func newRig(t *testing.T) *rig {
	t.Helper()
	record, err := etcd.Open(t.Context(), etcd.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = record.Close() })
	sealer, err := keys.NewSealer(keys.GenerateSealingKey())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{record: record, vault: vault.New(sealer), ca: newAuthority(t), fleet: &gateways{connected: true}}
	registry := prometheus.NewRegistry()
	s, err := control.New(control.Options{
		Store: record, Gateways: r.fleet, Vault: r.vault, Log: slog.New(slog.DiscardHandler), Registerer: registry, Gatherer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.desk = s.Issuance()
	r.put(t, world)
	return r
}

// put writes resources.
func (r *rig) put(t *testing.T, text string) {
	t.Helper()
	objects, faults := resource.Decode("", []byte(text), resource.Options{Organization: v1.DefaultOrganization})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for _, o := range objects {
		resource.Default(o)
	}
	if _, err := r.desk.Commit(t.Context(), "test", func(store.State) ([]*v1.Object, error) { return objects, nil }); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) order(t *testing.T) {
	t.Helper()
	ca, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.ca.Certificate().Raw})))
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, fmt.Sprintf(`{apiVersion: hansa.dev/v1, kind: Certificate, metadata: {name: public}, spec: {hostnames: [api.example.com], acme: {directory: "%s/dir", ca: %s}}}`, r.ca.URL, ca))
}

// run runs a worker until the returned function is called.
func (r *rig) run(t *testing.T) (stop func()) {
	t.Helper()
	w, err := acme.New(acme.Options{
		Record: r.record, Control: r.desk, Vault: r.vault, Directories: r.only, Retry: time.Hour, Await: 300 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(cmp.Or(r.log, io.Discard), &slog.HandlerOptions{Level: slog.LevelDebug})), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.Run(ctx) // it ends with ctx alone
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// until waits for a state of the record.
func (r *rig) until(t *testing.T, what string, is func(key *v1.CertificateKeySpec, order *v1.CertificateOrderSpec) bool) (*v1.CertificateKeySpec, *v1.CertificateOrderSpec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	look := func(st store.State) (*v1.CertificateKeySpec, *v1.CertificateOrderSpec, bool) {
		var key *v1.CertificateKeySpec
		var order *v1.CertificateOrderSpec
		if o, ok := st.Get(v1.Key{Organization: certificate.Organization, Kind: v1.KindCertificateKey, Name: certificate.Name}); ok {
			key = o.Spec.(*v1.CertificateKeySpec)
		}
		if o, ok := st.Get(v1.Key{Organization: certificate.Organization, Kind: v1.KindCertificateOrder, Name: certificate.Name}); ok {
			order = o.Spec.(*v1.CertificateOrderSpec)
		}
		return key, order, is(key, order)
	}
	st := r.record.State()
	if key, order, ok := look(st); ok {
		return key, order
	}
	for set, err := range r.record.Watch(ctx, st) {
		if err != nil {
			break
		}
		if key, order, ok := look(set.State); ok {
			return key, order
		}
	}
	key, order, _ := look(r.record.State())
	t.Fatalf("waited for: %s; the key is %+v, the order %+v", what, key, order)
	return nil, nil
}

func TestIssue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var challenged atomic.Bool
	r.ca.hinder = func(_ http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/challenge" {
			_, order := r.until(t, "challenges", func(_ *v1.CertificateKeySpec, o *v1.CertificateOrderSpec) bool { return o != nil })
			challenged.Store(len(order.Challenges) == 1 && order.Challenges[0].Hostname == "api.example.com" && strings.HasPrefix(order.Challenges[0].KeyAuthorization, "token.") &&
				r.fleet.asked.Load() == int64(r.record.State().Version().Seq))
		}
		return false
	}
	r.order(t)
	r.run(t)
	key, order := r.until(t, "a certificate", func(key *v1.CertificateKeySpec, _ *v1.CertificateOrderSpec) bool { return key != nil })
	if !challenged.Load() {
		t.Error("the CA was told to look before gateways had what to answer")
	}
	if len(order.Challenges) > 0 || order.URL != "" || order.Sealed != "" || order.Failures > 0 || !order.RenewAt.Before(key.NotAfter) || !order.RenewAt.After(time.Now()) {
		t.Errorf("the order is left as %+v", order)
	}
	if len(key.Groups) != 1 || key.Groups[0].GatewayGroup != "eu" || !strings.HasPrefix(key.Certificate, "-----BEGIN CERTIFICATE-----") {
		t.Errorf("the key is %+v, want it sealed to the gateway group", key)
	}
	if der, err := r.vault.PrivateKey(certificate.Organization, certificate.Name, key); err != nil {
		t.Errorf("the key cannot be opened: %v", err)
	} else if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
		t.Errorf("the key cannot be read: %v", err)
	}
}

// TestMisbehaviour meets CAs that do something else than they are asked to. Nothing of it comes into the record.
func TestMisbehaviour(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, reason string
		change       func(*rig)
	}{
		{"another hostname", "Unfit", func(r *rig) { r.ca.hostname = "bank.example.com" }},
		{"another key", "Unfit", func(r *rig) { r.ca.foreign = true }},
		{"other names", "Unfit", func(r *rig) { r.ca.template = func(c *x509.Certificate) { c.DNSNames = []string{"bank.example.com"} } }},
		{"expired", "Unfit", func(r *rig) { r.ca.template = func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) } }},
		{"too much", "Unreachable", func(r *rig) {
			r.ca.hinder = func(w http.ResponseWriter, q *http.Request) bool {
				if q.URL.Path == "/new" {
					w.WriteHeader(http.StatusCreated)
					_, _ = io.WriteString(w, `{"status": "`+strings.Repeat("x", 2<<20))
				}
				return q.URL.Path == "/new"
			}
		}},
		{"an account without a name", "Unfit", func(r *rig) {
			r.ca.hinder = func(w http.ResponseWriter, q *http.Request) bool {
				if q.URL.Path == "/account" {
					w.WriteHeader(http.StatusCreated)
					_, _ = io.WriteString(w, `{}`)
				}
				return q.URL.Path == "/account"
			}
		}},
		{"one that is not allowed", "Forbidden", func(r *rig) { r.only = []string{"https://ca.example.com/directory"} }},
		{"no gateway", "NoGateway", func(r *rig) { r.fleet.connected = false }},
		{"gateways that do not answer", "NoGateway", func(r *rig) { r.fleet.deaf = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			test.change(r)
			r.order(t)
			r.run(t)
			key, order := r.until(t, "a failure", func(_ *v1.CertificateKeySpec, o *v1.CertificateOrderSpec) bool { return o != nil && o.Failures == 1 })
			if key != nil || order.Problem.Reason != test.reason || len(order.Challenges) > 0 || !order.NextAttempt.After(time.Now().Add(10*time.Minute)) {
				t.Errorf("failed with %+v until %v (key %v), want %s", order.Problem, order.NextAttempt, key, test.reason)
			}
		})
	}
}

// listener waits for a text in a log.
type listener struct {
	text []byte
	seen chan struct{}
	once sync.Once
}

func (l *listener) Write(p []byte) (int, error) {
	if bytes.Contains(p, l.text) {
		l.once.Do(func() { close(l.seen) })
	}
	return len(p), nil
}

// TestAnotherWorker has a second worker, as after a change of leaders that the first one has not noticed, at the same
// certificate.
func TestAnotherWorker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	reached, held := make(chan struct{}, 8), make(chan struct{})
	r.ca.hinder = func(_ http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/finalize" {
			reached <- struct{}{}
			<-held
		}
		return false
	}
	r.order(t)
	superseded := &listener{text: []byte("has changed meanwhile"), seen: make(chan struct{})}
	r.log = superseded
	stop := r.run(t)
	<-reached
	// The successor finishes what the first one waits for.
	k := v1.Key{Organization: certificate.Organization, Kind: v1.KindCertificateOrder, Name: certificate.Name}
	if _, err := r.desk.Commit(t.Context(), "successor", func(st store.State) ([]*v1.Object, error) {
		o, _ := st.Get(k)
		next, spec := *o, *o.Spec.(*v1.CertificateOrderSpec)
		spec.URL, spec.Failures, spec.NextAttempt = "", 1, time.Now().Add(time.Hour)
		next.Spec = &spec
		return []*v1.Object{&next}, nil
	}); err != nil {
		t.Fatal(err)
	}
	after := r.record.State().Version()
	close(held)
	select {
	case <-superseded.seen:
	case <-time.After(time.Minute):
		t.Error("the first worker does not notice that it has a successor")
	}
	stop()
	if now := r.record.State().Version(); now != after {
		t.Errorf("the first worker has written over its successor: the record went from %v to %v", after, now)
	}
}
