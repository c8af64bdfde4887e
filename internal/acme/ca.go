package acme

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	v1 "hansa.dev/hansa/api/v1"
)

const (
	requestTime = 30 * time.Second
	// maxAnswer bounds what is read of one answer of a CA.
	maxAnswer = 1 << 20
	// maxRequests bounds the requests of one attempt: a hundred hostnames that are asked after every second for some minutes.
	maxRequests = 5000
	maxDetail   = 1000
	// unsaidLimit is how long a CA is left alone that has had enough and does not say for how long.
	unsaidLimit = time.Hour
)

// transport carries the requests of one attempt to a CA. The CA decides where they go: they go nowhere but to https.
type transport struct {
	http  *http.Transport
	count func(code string)
	left  int
}

func newTransport(a *v1.ACME, count func(code string)) (*transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(a.CA)) {
			return nil, errors.New("there is no certificate in spec.acme.ca")
		}
	}
	return &transport{
		http: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			ResponseHeaderTimeout: requestTime, MaxIdleConns: 4, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		count: count, left: maxRequests,
	}, nil
}

// RoundTrip implements http.RoundTripper. One attempt makes one request after another.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("the CA names %q, which is not https", r.URL.Redacted())
	}
	if t.left--; t.left < 0 {
		return nil, fmt.Errorf("the CA has been asked %d times without an end", maxRequests)
	}
	resp, err := t.http.RoundTrip(r)
	if err != nil {
		t.count("error")
		return nil, err
	}
	t.count(strconv.Itoa(resp.StatusCode/100) + "xx")
	resp.Body = &limited{resp.Body, maxAnswer}
	return resp, nil
}

// limited is a body that fails when it is too long.
type limited struct {
	io.ReadCloser
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	n, err := l.ReadCloser.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// backoff tells how long to wait before a request is repeated within an attempt; 0: it is not.
func backoff(n int, _ *http.Request, resp *http.Response) time.Duration {
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode < 400: // waiting is for later attempts
		return 0
	case resp.StatusCode >= 500 && n > 3, n > 20:
		return 0
	case resp.StatusCode >= 500:
		return time.Duration(n) * time.Second
	}
	return time.Duration(n) * 50 * time.Millisecond // a nonce that the CA does not know any more
}

// The reasons of failures that are not the CA's.
const (
	reasonNotServed   = "NotServed"
	reasonNoGateway   = "NoGateway"
	reasonForbidden   = "Forbidden"
	reasonSealed      = "Sealed"
	reasonUnreachable = "Unreachable"
	reasonUnfit       = "Unfit"
	reasonOther       = "Other"
)

// failure is an attempt that failed, for a reason that is told to the user.
type failure struct {
	reason string
	err    error
	after  time.Duration // the CA asks not to come back before
	soon   bool          // the CA has refused nothing, or nothing for good
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(reason string, soon bool, format string, args ...any) error {
	return &failure{reason: reason, soon: soon, err: fmt.Errorf(format, args...)}
}

// classify tells what an error means.
func classify(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if a, ok := errors.AsType[*acme.AuthorizationError](err); ok {
		for _, e := range a.Errors {
			if f := ofCA(e); f != nil {
				f.err = fmt.Errorf("the CA did not find that %s is served here: %w", a.Identifier, f.err)
				return f
			}
		}
		return &failure{reason: "Unauthorized", err: fmt.Errorf("the CA did not find that %s is served here", a.Identifier)}
	}
	if o, ok := errors.AsType[*acme.OrderError](err); ok {
		if o.Problem != nil {
			if f := ofCA(o.Problem); f != nil {
				return f
			}
		}
		return &failure{reason: "OrderInvalid", err: fmt.Errorf("the CA has given the order up (%s)", o.Status)}
	}
	if f := ofCA(err); f != nil {
		return f
	}
	return &failure{reason: reasonUnreachable, soon: true, err: fmt.Errorf("the CA cannot be asked: %w", err)}
}

// ofCA returns what a CA has said; nil if it was not the CA who said err.
func ofCA(err error) *failure {
	e, ok := errors.AsType[*acme.Error](err)
	if !ok {
		return nil
	}
	f := &failure{reason: reasonOf(e.ProblemType)}
	f.after, _ = acme.RateLimit(e)
	if f.after == 0 && e.Header != nil && e.StatusCode == http.StatusServiceUnavailable {
		f.after = retryAfter(e.Header.Get("Retry-After"))
	}
	if f.after <= 0 && f.reason == "RateLimited" {
		f.after = unsaidLimit
	}
	f.soon = e.StatusCode >= 500 || f.reason == "BadNonce" || f.reason == "AccountDoesNotExist"
	says := []string{e.Detail}
	for _, s := range e.Subproblems {
		if s.Identifier != nil {
			says = append(says, s.Identifier.Value+": "+s.Detail)
		}
	}
	f.err = fmt.Errorf("the CA says: %s", printable(strings.Join(says, "; ")))
	return f
}

// retryAfter reads the number of seconds; 0 if it is something else.
func retryAfter(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// reasons are the types of problems of RFC 8555, section 6.7, and RFC 9773; what stands in metrics comes from here alone.
func reasons() []string {
	return []string{
		"AccountDoesNotExist", "AlreadyReplaced", "AlreadyRevoked", "BadCSR", "BadNonce", "BadPublicKey", "BadRevocationReason", "BadSignatureAlgorithm", "Caa",
		"Compound", "Connection", "Dns", "ExternalAccountRequired", "IncorrectResponse", "InvalidContact", "Malformed", "OrderNotReady", "RateLimited",
		"RejectedIdentifier", "ServerInternal", "Tls", "Unauthorized", "UnsupportedContact", "UnsupportedIdentifier", "UserActionRequired",
	}
}

// reasonOf makes "RateLimited" of "urn:ietf:params:acme:error:rateLimited".
func reasonOf(problemType string) string {
	name := problemType[strings.LastIndexByte(problemType, ':')+1:]
	for _, r := range reasons() {
		if strings.EqualFold(r, name) {
			return r
		}
	}
	return reasonOther
}

// printable bounds what a CA says, and takes control characters out.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}
