package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"hansa.dev/hansa/internal/gateway/certs/certstest"
)

// responder is an OCSP responder.
type responder struct {
	*httptest.Server
	ca     *certstest.Authority
	change atomic.Pointer[func(*ocsp.Response)]
	status atomic.Int32 // of HTTP
	asked  atomic.Int32
	signer *certstest.Leaf // nil: the CA
	now    func() time.Time
}

func newResponder(t testing.TB, ca *certstest.Authority, now func() time.Time) *responder {
	r := &responder{ca: ca, now: now}
	r.status.Store(200)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.asked.Add(1)
	if s := int(r.status.Load()); s != 200 {
		w.WriteHeader(s)
		return
	}
	body, _ := io.ReadAll(req.Body)
	question, err := ocsp.ParseRequest(body)
	if err != nil {
		w.WriteHeader(400)
		return
	}
	answer := ocsp.Response{
		Status: ocsp.Good, SerialNumber: question.SerialNumber, IssuerHash: crypto.SHA1,
		ThisUpdate: r.now().Add(-time.Minute), NextUpdate: r.now().Add(4 * time.Hour),
	}
	if f := r.change.Load(); f != nil {
		(*f)(&answer)
	}
	cert, key := r.ca.Cert, r.ca.Key
	if r.signer != nil {
		cert, key = r.signer.Cert, r.signer.TLS.PrivateKey.(crypto.Signer)
		answer.Certificate = cert
	}
	raw, err := ocsp.CreateResponse(r.ca.Cert, cert, answer, key)
	if err != nil {
		w.WriteHeader(500)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = w.Write(raw)
}

// stapleRig is a store with a certificate whose staple is kept.
type stapleRig struct {
	*Staples
	store     *Store
	responder *responder
	cert      *Certificate
	offset    time.Duration
	log       *bytes.Buffer
}

func newStapleRig(t testing.TB, change func(*x509.Certificate)) *stapleRig {
	t.Helper()
	root := certstest.NewAuthority(t, "root")
	ca := root.NewAuthority(t, "between")
	r := &stapleRig{store: newStore(t, Options{}), log: new(bytes.Buffer)}
	now := func() time.Time { return time.Now().Add(r.offset) }
	r.responder = newResponder(t, ca, now)
	r.cert = parse(t, ca.IssueAs(t, certstest.Request{Names: []string{"a.example"}, NotAfter: time.Now().Add(100 * time.Hour), Change: func(c *x509.Certificate) {
		c.OCSPServer = []string{"ldap://x", r.responder.URL}
		if change != nil {
			change(c)
		}
	}}))
	var err error
	r.Staples, err = NewStaples(StaplesOptions{Store: r.store, Now: now, Timeout: time.Minute, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	if err == nil {
		err = r.store.Replace("x", []Entry{{ID: "a", Certificate: r.cert}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// stapled returns what a client is shown.
func (r *stapleRig) stapled(t testing.TB) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(there, &tls.Config{GetCertificate: r.store.GetCertificate}).Handshake()
		there.Close()
	}()
	c := tls.Client(here, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	here.Close()
	<-done
	return c.ConnectionState().OCSPResponse
}

func (r *stapleRig) expect(t testing.TB, asked int, stapled bool) {
	t.Helper()
	r.round(t.Context())
	if n := int(r.responder.asked.Load()); n != asked {
		t.Errorf("the responder was asked %d times, want %d", n, asked)
	}
	raw := r.stapled(t)
	if (raw != nil) != stapled {
		t.Errorf("stapled: %t, want %t; log: %s", raw != nil, stapled, r.log)
	}
	if raw == nil {
		return
	}
	leaf, _ := r.cert.Leaf()
	issuer, _ := r.cert.Issuer()
	if res, err := ocsp.ParseResponseForCert(raw, leaf, issuer); err != nil || res.Status != ocsp.Good {
		t.Errorf("what is stapled: %v, %v", res, err)
	}
}

func TestStaple(t *testing.T) {
	t.Parallel()
	r := newStapleRig(t, nil)
	if r.stapled(t) != nil {
		t.Error("there is a staple before anybody was asked")
	}
	r.expect(t, 1, true)
	r.expect(t, 1, true)
	r.offset += time.Hour
	r.expect(t, 1, true)
	r.offset += time.Hour + time.Minute // half of its time
	r.expect(t, 2, true)
	// The responder fails: the last good one stays until it ends.
	r.responder.status.Store(500)
	r.offset += 2*time.Hour + time.Minute
	r.expect(t, 3, true)
	r.expect(t, 3, true)
	r.offset += time.Minute
	r.expect(t, 4, true)
	r.offset += 2 * time.Hour
	r.expect(t, 5, false)
	r.responder.status.Store(200)
	r.offset += time.Hour
	r.expect(t, 6, true)
	if n := strings.Count(r.log.String(), "gives no answer"); n != 1 {
		t.Errorf("%d complaints:\n%s", n, r.log)
	}
	// It survives that the certificate is made ready anew.
	r.cert.ready.Store(nil)
	r.expect(t, 6, true)
	// A certificate that is gone is forgotten.
	if err := r.store.Replace("x", nil); err != nil {
		t.Fatal(err)
	}
	r.round(t.Context())
	if len(r.known) > 0 {
		t.Errorf("%d are known", len(r.known))
	}
}

func TestStapleNotGood(t *testing.T) {
	t.Parallel()
	other := certstest.NewAuthority(t, "other")
	appointed := func(usage ...x509.ExtKeyUsage) func(*testing.T, *stapleRig) {
		return func(t *testing.T, r *stapleRig) {
			r.responder.signer = r.responder.ca.IssueAs(t, certstest.Request{Name: "responder", Change: func(c *x509.Certificate) { c.ExtKeyUsage = usage }})
		}
	}
	answer := func(f func(*ocsp.Response)) func(*testing.T, *stapleRig) {
		return func(_ *testing.T, r *stapleRig) { r.responder.change.Store(&f) }
	}
	for _, test := range []struct {
		name    string
		change  func(*testing.T, *stapleRig)
		stapled bool
	}{
		{"revoked", answer(func(a *ocsp.Response) { a.Status, a.RevokedAt = ocsp.Revoked, time.Now() }), false},
		{"unknown", answer(func(a *ocsp.Response) { a.Status = ocsp.Unknown }), false},
		{"over", answer(func(a *ocsp.Response) { a.NextUpdate = time.Now().Add(-time.Second) }), false},
		{"of the future", answer(func(a *ocsp.Response) { a.ThisUpdate = time.Now().Add(time.Hour) }), false},
		{"of another", answer(func(a *ocsp.Response) { a.SerialNumber = big.NewInt(7) }), false},
		{"without end", answer(func(a *ocsp.Response) { a.NextUpdate = time.Time{} }), true},
		{"another signer", func(t *testing.T, r *stapleRig) { r.responder.ca = other }, false},
		{"appointed", appointed(x509.ExtKeyUsageOCSPSigning), true},
		{"not appointed", appointed(x509.ExtKeyUsageServerAuth), false},
		{"large", func(t *testing.T, r *stapleRig) {
			r.responder.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				r.responder.asked.Add(1)
				_, _ = w.Write(make([]byte, 2*maxResponse))
			})
		}, false},
		{"silent", func(t *testing.T, r *stapleRig) {
			r.opts.Timeout = 500 * time.Millisecond
			r.responder.asked.Add(1) // here, since a slow machine may give it up before it was asked
			r.responder.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
				_, _ = io.Copy(io.Discard, req.Body)
				<-req.Context().Done()
			})
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newStapleRig(t, nil)
			test.change(t, r)
			r.expect(t, 1, test.stapled)
		})
	}
}

// TestRevokedLater takes a good staple away when the certificate is revoked.
func TestRevokedLater(t *testing.T) {
	t.Parallel()
	r := newStapleRig(t, nil)
	r.expect(t, 1, true)
	revoked := func(a *ocsp.Response) { a.Status, a.RevokedAt = ocsp.Revoked, time.Now() }
	r.responder.change.Store(&revoked)
	r.offset += 3 * time.Hour
	r.expect(t, 2, false)
}

func TestMustStaple(t *testing.T) {
	t.Parallel()
	r := newStapleRig(t, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: mustStaple, Value: statusRequest}}
	})
	r.responder.status.Store(500)
	r.expect(t, 1, false)
	r.offset += time.Hour
	r.expect(t, 2, false)
	if n := strings.Count(r.log.String(), "must_staple=true"); n != 2 {
		t.Errorf("%d complaints:\n%s", n, r.log)
	}
}

// TestNothingToAsk leaves certificates alone without responder or issuer.
func TestNothingToAsk(t *testing.T) {
	t.Parallel()
	root := certstest.NewAuthority(t, "root")
	s := newStore(t, Options{})
	rooted := parse(t, root.IssueAs(t, certstest.Request{Names: []string{"a"}, Change: func(c *x509.Certificate) { c.OCSPServer = []string{"http://127.0.0.1:1"} }}))
	silent := parse(t, root.NewAuthority(t, "between").Issue(t, "b"))
	if err := s.Replace("x", []Entry{{ID: "a", Certificate: rooted}, {ID: "b", Certificate: silent}}); err != nil {
		t.Fatal(err)
	}
	st, err := NewStaples(StaplesOptions{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	if due := st.due(); len(due) > 0 || len(st.known) != 2 {
		t.Errorf("due: %v of %d", due, len(st.known))
	}
	if _, err := NewStaples(StaplesOptions{}); err == nil {
		t.Error("without a store: no error")
	}
}

func TestStaplesRun(t *testing.T) {
	t.Parallel()
	r := newStapleRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); r.cert.staple.Load() == nil; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("there is no staple")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, nil) {
		t.Error(err)
	}
	if !slices.Contains(r.cert.Names(), "a.example") {
		t.Error("the certificate has changed")
	}
}
