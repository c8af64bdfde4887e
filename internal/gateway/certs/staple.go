package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

// StaplesOptions configure Staples.
type StaplesOptions struct {
	// Store is whose certificates get staples.
	Store *Store
	// Workers is how many responders are asked at the same time. Default: 4.
	Workers int
	// Timeout bounds one question. Default: 10 s.
	Timeout time.Duration
	// Interval is how often to look for certificates that need a staple. Default: 1 min.
	Interval time.Duration
	// Client asks. Default: one without redirects to other schemes than http and https.
	Client *http.Client
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Log receives what responders get wrong. Default: nothing is logged.
	Log *slog.Logger
}

// Staples keeps OCSP responses (RFC 6960) for the certificates of a store that name a responder and whose issuer is in
// their chain, and has handshakes staple them (RFC 6066, section 8). A response is asked for anew when half of its time
// has passed, and after a failure ever less often, an hour apart at most; until it ends, the last good one is stapled,
// and never one that says anything but "good". Of a certificate that demands a staple (RFC 7633) a warning is logged as
// long as there is none.
type Staples struct {
	opts  StaplesOptions
	known map[*Certificate]*stapled // belongs to Run
}

// stapled is what is known of the staple of one certificate.
type stapled struct {
	responder string // "": none is to be asked
	must      bool   // the certificate demands a staple
	next      time.Time
	until     time.Time // when the staple ends; zero: there is none
	failures  int
}

const (
	maxResponse      = 64 << 10
	defaultRetry     = time.Minute
	longRetry        = time.Hour
	defaultValidity  = 12 * time.Hour // of a response that does not tell
	defaultClockSkew = 5 * time.Minute
)

// NewStaples returns a Staples that does nothing before Run.
func NewStaples(o StaplesOptions) (*Staples, error) {
	if o.Store == nil {
		return nil, errors.New("certs: StaplesOptions need a Store")
	}
	o.Workers = cmp.Or(o.Workers, 4)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Interval = cmp.Or(o.Interval, time.Minute)
	if o.Client == nil {
		o.Client = &http.Client{Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: o.Timeout}).DialContext, Proxy: http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: o.Timeout, MaxResponseHeaderBytes: 16 << 10,
		}}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Staples{opts: o, known: map[*Certificate]*stapled{}}, nil
}

// Run keeps the staples until ctx ends.
func (s *Staples) Run(ctx context.Context) error {
	defer s.opts.Client.CloseIdleConnections()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		s.round(ctx)
		timer.Reset(s.opts.Interval)
	}
}

// round asks for what is due.
func (s *Staples) round(ctx context.Context) {
	due := s.due()
	var wg sync.WaitGroup
	work := make(chan *Certificate)
	for range min(s.opts.Workers, len(due)) {
		wg.Go(func() {
			for c := range work {
				s.renew(ctx, c, s.known[c])
			}
		})
	}
	for _, c := range due {
		select {
		case work <- c:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
}

// due returns the certificates whose staple is to be asked for, and takes away staples that have ended.
func (s *Staples) due() (due []*Certificate) {
	now := s.opts.Now()
	present := map[*Certificate]bool{}
	s.opts.Store.each(func(c *Certificate) { present[c] = true })
	for c := range s.known {
		if !present[c] {
			delete(s.known, c)
		}
	}
	for c := range present {
		st := s.known[c]
		if st == nil {
			st = inspect(c)
			s.known[c] = st
		}
		if !st.until.IsZero() && now.After(st.until) {
			c.setStaple(nil)
			st.until = time.Time{}
		}
		if st.responder != "" && !now.Before(st.next) && now.Before(c.NotAfter()) {
			due = append(due, c)
		}
	}
	return due
}

// mustStaple is the extension by which a certificate demands a staple, and the value that does (RFC 7633).
var (
	mustStaple     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	statusRequest  = []byte{0x30, 3, 2, 1, 5} // SEQUENCE of the one feature status_request
	errNoSuccess   = errors.New("the responder did not answer with 200")
	errStale       = errors.New("the response is from another time")
	errOtherSerial = errors.New("the response is about another certificate")
)

// inspect finds out what there is to ask.
func inspect(c *Certificate) *stapled {
	st := new(stapled)
	leaf, err := c.Leaf()
	if err != nil {
		return st
	}
	for _, e := range leaf.Extensions {
		st.must = st.must || e.Id.Equal(mustStaple) && bytes.Contains(e.Value, statusRequest[2:])
	}
	if issuer, err := c.Issuer(); err != nil || issuer == nil {
		return st
	}
	i := slices.IndexFunc(leaf.OCSPServer, func(text string) bool {
		u, err := url.Parse(text)
		return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
	})
	if i >= 0 {
		st.responder = leaf.OCSPServer[i]
	}
	return st
}

// renew asks for a staple.
func (s *Staples) renew(ctx context.Context, c *Certificate, st *stapled) {
	metrics := s.opts.Store.metrics.staples
	raw, response, err := s.ask(ctx, c, st.responder)
	now := s.opts.Now()
	if ctx.Err() != nil {
		return
	}
	if err != nil || response.Status != ocsp.Good {
		st.failures++
		st.next = now.Add(jitter(min(defaultRetry<<min(st.failures-1, 10), longRetry)))
	}
	switch {
	case err != nil:
		metrics.WithLabelValues("failed").Inc()
		s.complain(c, st, "the OCSP responder gives no answer of use", slog.Any("err", err))
	case response.Status != ocsp.Good:
		metrics.WithLabelValues("not_good").Inc()
		if response.Status == ocsp.Revoked { // what is known to be wrong is not stapled any longer
			c.setStaple(nil)
			st.until = time.Time{}
		}
		s.complain(c, st, "the certificate is not good, says its OCSP responder", slog.String("status", statusName(response.Status)))
	default:
		metrics.WithLabelValues("good").Inc()
		st.failures, st.until = 0, response.NextUpdate
		if st.until.IsZero() {
			st.until = now.Add(defaultValidity)
		}
		st.next = now.Add(jitter(max(st.until.Sub(now)/2, defaultRetry)))
		c.setStaple(raw)
	}
}

// complain logs the first of failures in a row, and each as long as a staple is demanded and missing.
func (s *Staples) complain(c *Certificate, st *stapled, what string, attr slog.Attr) {
	if st.failures > 1 && !(st.must && st.until.IsZero()) {
		return
	}
	names := c.Names()
	s.opts.Log.Warn(what, slog.String("responder", st.responder), slog.Any("names", names[:min(len(names), 3)]),
		slog.Bool("must_staple", st.must), slog.Bool("stapled", !st.until.IsZero()), attr)
}

// ask asks a responder about a certificate and verifies what it says.
func (s *Staples) ask(ctx context.Context, c *Certificate, responder string) ([]byte, *ocsp.Response, error) {
	leaf, err := c.Leaf()
	if err != nil {
		return nil, nil, err
	}
	issuer, err := c.Issuer()
	if err != nil {
		return nil, nil, err
	}
	question, err := ocsp.CreateRequest(leaf, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1}) // what all responders know
	if err != nil {
		return nil, nil, fmt.Errorf("make an OCSP request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, responder, bytes.NewReader(question))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	res, err := s.opts.Client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%w: %d", errNoSuccess, res.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxResponse))
	if err != nil {
		return nil, nil, err
	}
	response, err := s.verify(raw, leaf, issuer)
	return raw, response, err
}

// verify checks the signature of a response, whom it is about and that it is of now.
func (s *Staples) verify(raw []byte, leaf, issuer *x509.Certificate) (*ocsp.Response, error) {
	response, err := ocsp.ParseResponseForCert(raw, leaf, issuer)
	if err != nil {
		return nil, fmt.Errorf("read the OCSP response: %w", err)
	}
	now := s.opts.Now()
	switch {
	case response.SerialNumber == nil || response.SerialNumber.Cmp(leaf.SerialNumber) != 0:
		return nil, errOtherSerial
	case response.ThisUpdate.After(now.Add(defaultClockSkew)), !response.NextUpdate.IsZero() && response.NextUpdate.Before(now):
		return nil, fmt.Errorf("%w: %v to %v", errStale, response.ThisUpdate, response.NextUpdate)
	}
	if d := response.Certificate; d != nil { // a responder that the issuer has appointed (RFC 6960, section 4.2.2.2)
		if !slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) || now.After(d.NotAfter) || now.Before(d.NotBefore) {
			return nil, errors.New("the OCSP response is signed by a certificate that is not for that")
		}
	}
	return response, nil
}

func statusName(status int) string {
	if status == ocsp.Revoked {
		return "revoked"
	}
	return "unknown"
}

// jitter takes up to a tenth off d, so that not all gateways ask at once.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10+1) }
