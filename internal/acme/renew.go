package acme

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// renewAt returns when a certificate is to be renewed: when a third of its life is left, or, so that those which were issued
// together are not renewed together, up to a thirtieth of its life before. chance is from 0 to 1.
func renewAt(notBefore, notAfter time.Time, chance float64) time.Time {
	life := notAfter.Sub(notBefore)
	return notAfter.Add(-life/3 - time.Duration(chance*float64(life/30))).UTC().Truncate(time.Millisecond)
}

const (
	askEvery = 6 * time.Hour // unless the CA says otherwise: RFC 9773, section 4.3
	askLeast = time.Minute
	askMost  = 24 * time.Hour
)

// askRenewal asks the CA when the certificate is to be renewed (RFC 9773), and renews it then.
func (j *job) askRenewal(ctx context.Context) error {
	w := j.w
	again := askEvery
	defer func() {
		w.mu.Lock()
		w.asks[j.key] = w.opts.Now().Add(again)
		w.mu.Unlock()
	}()
	held := keyOf(w.opts.Record.State(), j.key)
	if held == nil || j.seq == 0 {
		return nil
	}
	id, err := renewalID(held.Certificate)
	if err != nil {
		return nil // issued by a CA that does without what it is made of
	}
	window, after, err := j.renewalInfo(ctx, id)
	if err != nil {
		j.log.DebugContext(ctx, "the CA does not say when to renew", "err", err)
		return nil
	}
	again = min(max(after, askLeast), askMost)
	next := j.order
	if next.RenewAt = window.within(next.RenewAt, held.NotAfter, mathrand.Float64()); next.RenewAt.Equal(j.order.RenewAt) {
		return nil
	}
	j.log.InfoContext(ctx, "the CA suggests when to renew", "renew_at", next.RenewAt, "explanation", printable(window.Explanation))
	_, err = j.save(ctx, "to be renewed at "+next.RenewAt.Format(time.RFC3339)+", as the CA suggests", next)
	return err
}

// window is when a CA suggests to renew a certificate.
type window struct {
	Suggested struct {
		Start time.Time `json:"start"`
		End   time.Time `json:"end"`
	} `json:"suggestedWindow"`
	Explanation string `json:"explanationURL"`
}

// within returns at if it is in the window, or else a time that is. A window that ends when the certificate has expired is
// passed over.
func (w *window) within(at, notAfter time.Time, chance float64) time.Time {
	start, end := w.Suggested.Start, w.Suggested.End
	if !start.Before(end) || end.After(notAfter) && start.After(at) || !at.Before(start) && !at.After(end) {
		return at
	}
	return start.Add(time.Duration(chance * float64(end.Sub(start)))).UTC().Truncate(time.Millisecond)
}

// renewalInfo asks for the window of a certificate, and when to ask again. The client knows nothing of it.
func (j *job) renewalInfo(ctx context.Context, id string) (*window, time.Duration, error) {
	var directory struct {
		RenewalInfo string `json:"renewalInfo"`
	}
	if _, err := j.getJSON(ctx, j.spec.ACME.Directory, &directory); err != nil {
		return nil, 0, err
	}
	if directory.RenewalInfo == "" {
		return nil, 0, errors.New("the directory names no renewalInfo")
	}
	w := new(window)
	header, err := j.getJSON(ctx, strings.TrimSuffix(directory.RenewalInfo, "/")+"/"+id, w)
	if err != nil {
		return nil, 0, err
	}
	after := askEvery
	if d := retryAfter(header.Get("Retry-After")); d > 0 {
		after = d
	}
	return w, after, nil
}

func (j *job) getJSON(ctx context.Context, url string, to any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", j.ca.UserAgent)
	resp, err := j.ca.HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body) // it is bounded
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	if err := json.Unmarshal(b, to); err != nil {
		return nil, fmt.Errorf("decode %s: %w", url, err)
	}
	return resp.Header, nil
}

// renewalID is what RFC 9773, section 4.1, calls the first certificate of a chain: the identifier of its CA's key and its
// serial number.
func renewalID(chain string) (string, error) {
	block, _ := pem.Decode([]byte(chain))
	if block == nil {
		return "", errors.New("there is no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	serial := leaf.SerialNumber.Bytes()
	if len(leaf.AuthorityKeyId) == 0 || len(serial) == 0 {
		return "", errors.New("the certificate names no key of its CA")
	}
	if serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...) // as in DER, where it would be negative without
	}
	e := base64.RawURLEncoding
	return e.EncodeToString(leaf.AuthorityKeyId) + "." + e.EncodeToString(serial), nil
}
