package acme

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/acme"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
)

const urn = "urn:ietf:params:acme:error:"

func TestClassify(t *testing.T) {
	t.Parallel()
	limited := &acme.Error{StatusCode: 429, ProblemType: urn + "rateLimited", Detail: "enough", Header: http.Header{"Retry-After": {"7"}}}
	for _, test := range []struct {
		name   string
		err    error
		reason string
		soon   bool
		after  time.Duration
		says   string
	}{
		{"ours", fmt.Errorf("x: %w", fail(reasonNotServed, true, "nobody")), reasonNotServed, true, 0, "nobody"},
		{"limited", fmt.Errorf("x: %w", limited), "RateLimited", false, 7 * time.Second, "enough"},
		{"limited without end", &acme.Error{StatusCode: 429, ProblemType: urn + "rateLimited"}, "RateLimited", false, unsaidLimit, "the CA says"},
		{"busy", &acme.Error{StatusCode: 503, ProblemType: "about:blank", Header: http.Header{"Retry-After": {"9"}}}, reasonOther, true, 9 * time.Second, "the CA says"},
		{"not found", &acme.AuthorizationError{Identifier: "a.example", Errors: []error{&acme.Error{ProblemType: urn + "dns", Detail: "NXDOMAIN"}}}, "Dns", false, 0, "a.example"},
		{"not found, without a word", &acme.AuthorizationError{Identifier: "a.example"}, "Unauthorized", false, 0, "a.example"},
		{"order", &acme.OrderError{Status: "invalid", Problem: &acme.Error{ProblemType: urn + "caa", Detail: "CAA"}}, "Caa", false, 0, "CAA"},
		{"order, without a word", &acme.OrderError{Status: "invalid"}, "OrderInvalid", false, 0, "invalid"},
		{"several", &acme.Error{ProblemType: urn + "compound", Subproblems: []acme.Subproblem{{Identifier: &acme.AuthzID{Value: "b.example"}, Detail: "no"}}}, "Compound", false, 0, "b.example: no"},
		{"network", errors.New("connection refused"), reasonUnreachable, true, 0, "connection refused"},
		{"unknown type", &acme.Error{ProblemType: "https://ca.example/" + strings.Repeat("x", 100), Detail: "a\x00b"}, reasonOther, false, 0, "a b"},
	} {
		f := classify(test.err)
		if f.reason != test.reason || f.soon != test.soon || f.after != test.after || !strings.Contains(f.Error(), test.says) {
			t.Errorf("%s: %q soon %v after %v: %v; want %q soon %v after %v with %q", test.name, f.reason, f.soon, f.after, f, test.reason, test.soon, test.after, test.says)
		}
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	w := &Worker{opts: Options{Retry: 5 * time.Minute}}
	for _, test := range []struct {
		f        failure
		failures int
		want     time.Duration // at least, and at most a fifth more
	}{
		{failure{}, 1, 5 * time.Minute},
		{failure{}, 2, 10 * time.Minute},
		{failure{}, 4, 40 * time.Minute},
		{failure{}, 1000, longestWait},
		{failure{soon: true}, 1, time.Minute},
		{failure{soon: true}, 50, longestSoon},
		{failure{after: 48 * time.Hour}, 1, 48 * time.Hour},
		{failure{after: 1000 * time.Hour}, 1, longestCA},
		{failure{after: time.Second}, 1, 5 * time.Minute},
		{failure{after: -time.Hour}, 1, 5 * time.Minute},
	} {
		if got := w.wait(&test.f, test.failures); got < test.want || got > test.want+test.want/5 {
			t.Errorf("after %d failures, the last one %+v: %v, want %v", test.failures, test.f, got, test.want)
		}
	}
}

func TestDueAt(t *testing.T) {
	t.Parallel()
	spec := &v1.CertificateSpec{Hostnames: []string{"a.example"}, ACME: &v1.ACME{Directory: "https://ca.example"}}
	asked := resource.Asked(spec)
	day := func(n int) time.Time { return time.Date(2030, 1, n, 0, 0, 0, 0, time.UTC) }
	have := &v1.CertificateKeySpec{Asked: asked, NotBefore: day(1), NotAfter: day(31)}
	for _, test := range []struct {
		name  string
		key   *v1.CertificateKeySpec
		order *v1.CertificateOrderSpec
		want  time.Time
	}{
		{"new", nil, nil, time.Time{}},
		{"from a file before", &v1.CertificateKeySpec{NotAfter: day(31)}, nil, time.Time{}},
		{"failed", nil, &v1.CertificateOrderSpec{Asked: asked, Failures: 1, NextAttempt: day(9)}, day(9)},
		{"failed, and changed since", nil, &v1.CertificateOrderSpec{Asked: "else", Failures: 1, NextAttempt: day(9)}, time.Time{}},
		{"issued", have, &v1.CertificateOrderSpec{Asked: asked, RenewAt: day(20)}, day(20)},
		{"open again after a restart", have, &v1.CertificateOrderSpec{Asked: asked, RenewAt: day(20), URL: "https://ca.example/1"}, time.Time{}},
		{"renewal failed", have, &v1.CertificateOrderSpec{Asked: asked, RenewAt: day(20), Failures: 2, NextAttempt: day(21)}, day(21)},
		{"issued, nothing known", have, nil, day(21)},
		{"issued, and changed since", &v1.CertificateKeySpec{Asked: "else", NotAfter: day(31)}, &v1.CertificateOrderSpec{Asked: "else", RenewAt: day(20)}, time.Time{}},
	} {
		if got := dueAt(spec, test.key, test.order); !got.Equal(test.want) {
			t.Errorf("%s: due at %v, want %v", test.name, got, test.want)
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	begin := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	hour := func(n int) time.Time { return begin.Add(time.Duration(n) * time.Hour) }
	for chance, want := range map[float64]time.Time{0: hour(60), 1: hour(57)} {
		if got := renewAt(hour(0), hour(90), chance); !got.Equal(want) {
			t.Errorf("with chance %v: %v, want %v", chance, got, want)
		}
	}
	for _, test := range []struct {
		name       string
		start, end int
		want       int
	}{
		{"inside", 50, 70, 60},
		{"later", 70, 80, 75},
		{"earlier", 10, 20, 15},
		{"over", -20, -10, -15}, // at once
		{"when it has expired", 85, 95, 60},
		{"backwards", 70, 50, 60},
		{"empty", 70, 70, 60},
	} {
		var w window
		w.Suggested.Start, w.Suggested.End = hour(test.start), hour(test.end)
		if got := w.within(hour(60), hour(90), 0.5); !got.Equal(hour(test.want)) {
			t.Errorf("%s: %v, want %v", test.name, got, hour(test.want))
		}
	}
}

// The example of RFC 9773, section 4.1.
func TestRenewalID(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	key := s.TLS.Certificates[0].PrivateKey
	issue := func(authority []byte, serial int64) string {
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), AuthorityKeyId: authority}
		der, err := x509.CreateCertificate(rand.Reader, template, template, s.Certificate().PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	authority := []byte{0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4}
	if got, err := renewalID(issue(authority, 0x87654321)); got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" || err != nil {
		t.Errorf("%q, %v, want that of the RFC", got, err)
	}
	for name, chain := range map[string]string{"none": "", "no authority": issue(nil, 5), "no certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if got, err := renewalID(chain); err == nil {
			t.Errorf("%s: %q, want an error", name, got)
		}
	}
}

// TestTransport calls a CA that leads elsewhere, says too much, or never ends.
func TestTransport(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked without TLS") }))
	t.Cleanup(plain.Close)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(w, r, plain.URL, http.StatusFound)
		case "/much":
			_, _ = io.CopyN(w, zeros{}, maxAnswer+1)
		}
	}))
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	counts := map[string]int{}
	spec := &v1.ACME{CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))}
	tr, err := newTransport(spec, func(code string) { counts[code]++ })
	if err != nil {
		t.Fatal(err)
	}
	defer tr.http.CloseIdleConnections()
	get := func(url string) error {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	for path, want := range map[string]string{"/": "", "/elsewhere": "not https", "/much": "more than"} {
		if err := get(s.URL + path); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	tr.left = 1
	if err := errors.Join(get(s.URL), get(s.URL)); err == nil || !strings.Contains(err.Error(), "without an end") {
		t.Errorf("one request too many: %v", err)
	}
	if counts["2xx"] != 3 || counts["3xx"] != 1 {
		t.Errorf("counted %v, want three answers and a redirection", counts)
	}
	foreign, err := newTransport(&v1.ACME{}, func(code string) { counts[code]++ })
	if err != nil {
		t.Fatal(err)
	}
	tr = foreign
	if err := get(s.URL); err == nil || counts["error"] != 1 {
		t.Errorf("a CA that nobody trusts: %v, counted %v", err, counts)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// FuzzAnswers reads what a CA may say about renewal and about what went wrong.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"suggestedWindow": {"start": "2030-01-02T04:00:00Z", "end": "2030-01-03T04:00:00Z"}, "explanationURL": "https://ca.example/why"}`), "3600")
	f.Add([]byte(`{"suggestedWindow": {"start": "9999-01-02T04:00:00Z", "end": "0000-01-03T04:00:00Z"}}`), "-1")
	f.Add([]byte(urn+"rateLimited"), "99999999999999999999")
	at := time.Date(2030, 1, 20, 0, 0, 0, 0, time.UTC)
	notAfter := at.Add(10 * 24 * time.Hour)
	f.Fuzz(func(t *testing.T, b []byte, after string) {
		var w window
		if json.Unmarshal(b, &w) == nil {
			got := w.within(at, notAfter, 0.5)
			if inside := !got.Before(w.Suggested.Start.Truncate(time.Millisecond)) && !got.After(w.Suggested.End); !inside && !got.Equal(at) {
				t.Errorf("%s: renewed at %v, which is neither in the window nor what it was", b, got)
			}
		}
		if d := retryAfter(after); d < 0 {
			t.Errorf("Retry-After %q is %v", after, d)
		}
		says := printable(string(b))
		if !utf8.ValidString(says) || len(says) > maxDetail+len("…") || strings.ContainsAny(says, "\r\n\x00\x1b") {
			t.Errorf("%q is told as %q", b, says)
		}
		if r := reasonOf(string(b)); r == "" || len(r) > 40 {
			t.Errorf("%q has the reason %q", b, r)
		}
	})
}
