package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2" // spreads, guards nothing
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/vault"
	"hansa.dev/hansa/internal/x/certpem"
)

// errSuperseded: the certificate is not asked for any more, or another worker has taken over.
var errSuperseded = errors.New("superseded")

// job is one attempt at one certificate.
type job struct {
	w         *Worker
	log       *slog.Logger
	key       v1.Key
	spec      *v1.CertificateSpec
	asked     string
	account   string // name of the ACMEAccount
	transport *transport
	ca        *acme.Client

	order v1.CertificateOrderSpec // as it stands in the record
	seq   uint64                  // of its resource; 0: there is none
}

// newJob reads what there is of a certificate.
func (w *Worker) newJob(k v1.Key, log *slog.Logger) (*job, error) {
	state := w.opts.Record.State()
	o, ok := state.Get(k)
	if !ok {
		return nil, errSuperseded
	}
	spec := o.Spec.(*v1.CertificateSpec)
	if spec.ACME == nil {
		return nil, errSuperseded
	}
	j := &job{w: w, log: log, key: k, spec: spec, asked: resource.Asked(spec), account: resource.AccountName(spec.ACME)}
	if held, ok := state.Get(j.own(v1.KindCertificateOrder, k.Name)); ok {
		j.order, j.seq = *held.Spec.(*v1.CertificateOrderSpec), held.Metadata.Seq
	}
	if j.order.Asked != j.asked {
		j.order = v1.CertificateOrderSpec{Asked: j.asked}
	}
	var err error
	j.transport, err = newTransport(spec.ACME, func(code string) { w.metrics.requests.WithLabelValues(code).Inc() })
	if err != nil {
		return nil, err
	}
	j.ca = &acme.Client{
		DirectoryURL: spec.ACME.Directory, HTTPClient: &http.Client{Transport: j.transport, Timeout: requestTime},
		RetryBackoff: backoff, UserAgent: "hansa/" + w.opts.Version,
	}
	return j, nil
}

func (j *job) close() { j.transport.http.CloseIdleConnections() }

func (j *job) own(kind v1.Kind, name string) v1.Key {
	return v1.Key{Organization: j.key.Organization, Kind: kind, Name: name}
}

func object(k v1.Key, seq uint64, spec v1.Spec) *v1.Object {
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: k.Kind, Metadata: v1.Metadata{Name: k.Name, Organization: k.Organization, Seq: seq}, Spec: spec,
	}
}

// save writes the order as it is to be, and more with it.
func (j *job) save(ctx context.Context, what string, next v1.CertificateOrderSpec, more ...*v1.Object) (store.Version, error) {
	k := j.own(v1.KindCertificateOrder, j.key.Name)
	v, err := j.w.opts.Control.Commit(ctx, fmt.Sprintf("acme: certificate %s: %s", j.key.Name, what), func(state store.State) ([]*v1.Object, error) {
		o, ok := state.Get(j.key)
		if !ok || resource.Asked(o.Spec.(*v1.CertificateSpec)) != j.asked {
			return nil, errSuperseded
		}
		held, ok := state.Get(k)
		if ok != (j.seq != 0) || ok && held.Metadata.Seq != j.seq {
			return nil, errSuperseded
		}
		return append([]*v1.Object{object(k, 0, &next)}, more...), nil
	})
	if err != nil {
		return v, err
	}
	j.order = next
	if o, ok := j.w.opts.Record.State().Get(k); ok {
		j.seq = o.Metadata.Seq
	}
	return v, nil
}

// issue has the certificate issued, and writes why not. The error is that of writing.
func (j *job) issue(ctx context.Context) error {
	began := j.w.opts.Now()
	err := j.attempt(ctx)
	if err == nil {
		j.w.metrics.orders.WithLabelValues("issued").Inc()
		j.w.metrics.seconds.Observe(j.w.opts.Now().Sub(began).Seconds())
		return nil
	}
	if _, ok := errors.AsType[writeError](err); ok || errors.Is(err, errSuperseded) || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	f := classify(err)
	j.w.metrics.orders.WithLabelValues("failed").Inc()
	j.w.metrics.failures.WithLabelValues(f.reason).Inc()
	next := j.order
	next.Failures++
	next.Challenges = nil
	next.NextAttempt = j.w.opts.Now().Add(j.w.wait(f, next.Failures)).UTC().Truncate(time.Millisecond)
	next.Problem = &v1.ACMEProblem{Reason: f.reason, Message: f.Error(), At: j.w.opts.Now().UTC().Truncate(time.Second)}
	if !f.soon {
		next.URL, next.Sealed = "", "" // the next attempt orders anew
	}
	j.log.WarnContext(ctx, "a certificate was not issued", "reason", f.reason, "failures", next.Failures, "next_attempt", next.NextAttempt, "err", f)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // the attempt may have used up its time
	defer cancel()
	_, err = j.save(ctx, "not issued: "+f.reason, next)
	return err
}

// writeError is an error of writing to the record, which cannot be told of in the record.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

const (
	longestWait = 12 * time.Hour
	longestSoon = time.Hour
	longestCA   = 7 * 24 * time.Hour
)

// wait returns how long after the given number of failures in a row the next attempt is to begin.
func (w *Worker) wait(f *failure, failures int) time.Duration {
	d, most := w.opts.Retry, longestWait
	if f.soon {
		d, most = d/5, longestSoon
	}
	d = min(d<<min(failures-1, 16), most)
	d += time.Duration(mathrand.Int64N(int64(d)/5 + 1)) // spreads those that failed together
	return max(d, min(f.after, longestCA))
}

// attempt takes the certificate from where it is to where it is in the record.
func (j *job) attempt(ctx context.Context) error {
	if all := j.w.opts.Directories; len(all) > 0 && !slices.Contains(all, j.spec.ACME.Directory) {
		return fail(reasonForbidden, false, "this control node orders from %s alone", strings.Join(all, ", "))
	}
	groups, err := j.groups(ctx)
	if err != nil {
		return err
	}
	if err := j.register(ctx); err != nil {
		return err
	}
	order, err := j.open(ctx)
	if err != nil {
		return err
	}
	if order.Status == acme.StatusPending {
		if err := j.authorize(ctx, order, groups); err != nil {
			return err
		}
		if order, err = j.ca.WaitOrder(ctx, order.URI); err != nil {
			return err
		}
	}
	key, err := j.orderKey()
	if err != nil {
		return err
	}
	chain, err := j.collect(ctx, order, key)
	if err != nil {
		return err
	}
	return j.install(ctx, chain, key)
}

// connectPoll is how often it is asked whether a gateway is connected.
const connectPoll = 250 * time.Millisecond

// groups returns the gateway groups that serve the hostnames. Without one that serves it no CA would find a hostname.
func (j *job) groups(ctx context.Context) ([]string, error) {
	serving, err := j.w.opts.Control.Serving(ctx, j.key)
	if err != nil {
		return nil, writeError{err}
	}
	var groups []string
	served := map[string]bool{}
	for g, hostnames := range serving {
		groups = append(groups, g)
		for _, h := range hostnames {
			served[h] = true
		}
	}
	for _, h := range j.spec.Hostnames {
		if !served[h] {
			return nil, fail(reasonNotServed, true, "no gateway group serves %q: place an environment of its environment group on one", h)
		}
	}
	slices.Sort(groups)
	// Gateways may be on their way, as after a restart of the control node.
	bounded, cancel := context.WithTimeout(ctx, j.w.opts.Await)
	defer cancel()
	for {
		if connected, _ := j.w.opts.Control.Await(ctx, j.key.Organization, groups, store.Version{}); connected > 0 {
			return groups, nil
		}
		if !pause(bounded, connectPoll) {
			return nil, fail(reasonNoGateway, true, "no gateway of %s is connected, so that nobody would answer the CA", strings.Join(groups, ", "))
		}
	}
}

// open returns the open order, or makes one.
func (j *job) open(ctx context.Context) (*acme.Order, error) {
	if j.order.URL != "" && j.order.Account == j.account {
		order, err := j.ca.GetOrder(ctx, j.order.URL)
		if err == nil && order.Status != acme.StatusInvalid {
			return order, nil
		}
		if _, ok := errors.AsType[*acme.Error](err); err != nil && !ok {
			return nil, err
		}
		j.log.InfoContext(ctx, "the CA has given an order up; another one is made", "url", j.order.URL, "err", err)
	}
	private, err := generateKey(j.spec.ACME.KeyType)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	defer clear(der)
	var opts []acme.OrderOption
	if p := j.spec.ACME.Profile; p != "" {
		dir, err := j.ca.Discover(ctx)
		if err != nil {
			return nil, err
		}
		if _, ok := dir.Profiles[acme.ProfileName(p)]; !ok {
			return nil, fail(reasonUnfit, false, "the CA has no profile %q", p)
		}
		opts = append(opts, acme.WithOrderIssuanceProfile(acme.ProfileName(p)))
	}
	order, err := j.ca.AuthorizeOrder(ctx, acme.DomainIDs(j.spec.Hostnames...), opts...)
	if err != nil {
		if f := ofCA(err); f != nil && f.reason == "AccountDoesNotExist" {
			err = errors.Join(err, j.forget(ctx))
		}
		return nil, err
	}
	next := j.order
	next.Account, next.URL, next.Challenges = j.account, order.URI, nil
	next.Sealed = j.w.opts.Vault.Seal(vault.OrderKeyContext(j.key.Organization, j.key.Name), der)
	if _, err := j.save(ctx, "ordered", next); err != nil {
		return nil, writeError{err}
	}
	j.log.InfoContext(ctx, "a certificate is ordered", "hostnames", len(j.spec.Hostnames), "directory", j.spec.ACME.Directory)
	return order, nil
}

func generateKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "ecdsa-p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa-2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// authorize answers the challenges of an order through the gateways.
func (j *job) authorize(ctx context.Context, order *acme.Order, groups []string) error {
	var pending []*acme.Challenge
	var urls []string
	next := j.order
	next.Challenges = nil
	for _, url := range order.AuthzURLs {
		a, err := j.ca.GetAuthorization(ctx, url)
		if err != nil {
			return err
		}
		if a.Status == acme.StatusValid {
			continue
		}
		at := slices.IndexFunc(a.Challenges, func(c *acme.Challenge) bool { return c.Type == j.spec.ACME.Challenge })
		if at < 0 {
			return fail(reasonUnfit, false, "the CA does not offer the challenge %s for %s", j.spec.ACME.Challenge, printable(a.Identifier.Value))
		}
		c := a.Challenges[at]
		answer, err := j.ca.HTTP01ChallengeResponse(c.Token)
		if err != nil {
			return err
		}
		// The CA names the hostname as it was told to; others are not ours to answer for.
		hostname := strings.ToLower(a.Identifier.Value)
		if !slices.Contains(j.spec.Hostnames, hostname) || len(c.Token) > 512 {
			return fail(reasonUnfit, false, "the CA asks for %q, which was not ordered", printable(hostname))
		}
		next.Challenges = append(next.Challenges, v1.ACMEChallenge{Type: c.Type, Hostname: hostname, Token: c.Token, KeyAuthorization: answer})
		if c.Status == acme.StatusPending {
			pending = append(pending, c)
		}
		urls = append(urls, url)
	}
	if len(urls) == 0 {
		return nil
	}
	if err := j.publish(ctx, next, groups); err != nil {
		return err
	}
	for _, c := range pending {
		if _, err := j.ca.Accept(ctx, c); err != nil {
			return err
		}
	}
	for _, url := range urls {
		if _, err := j.ca.WaitAuthorization(ctx, url); err != nil {
			return err
		}
	}
	return nil
}

// publish gives the answers to the gateways, and waits until they have them.
func (j *job) publish(ctx context.Context, next v1.CertificateOrderSpec, groups []string) error {
	v, err := j.save(ctx, "challenges", next)
	if err != nil {
		return writeError{err}
	}
	bounded, cancel := context.WithTimeout(ctx, j.w.opts.Await)
	defer cancel()
	began := j.w.opts.Now()
	connected, missing := j.w.opts.Control.Await(bounded, j.key.Organization, groups, v)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(missing) >= connected:
		return fail(reasonNoGateway, true, "no connected gateway of %s has acknowledged what to answer the CA", strings.Join(groups, ", "))
	case len(missing) > 0:
		j.log.WarnContext(ctx, "the CA is told to look although gateways have not acknowledged what to answer", "missing", missing)
	default:
		j.log.InfoContext(ctx, "gateways have what to answer the CA", "gateways", connected, "took", j.w.opts.Now().Sub(began))
	}
	return nil
}

// orderKey opens the key of the certificate to come.
func (j *job) orderKey() (crypto.Signer, error) {
	der, err := j.w.opts.Vault.Open(vault.OrderKeyContext(j.key.Organization, j.key.Name), j.order.Sealed)
	if err != nil {
		return nil, fail(reasonSealed, false, "the key of the order cannot be opened with the at-rest key of this control node: %w", err)
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fail(reasonSealed, false, "the key of the order cannot be read: %w", err)
	}
	return key.(crypto.Signer), nil
}

// collect has the certificate signed and fetches the chain.
func (j *job) collect(ctx context.Context, order *acme.Order, key crypto.Signer) (chain [][]byte, err error) {
	if order.Status == acme.StatusProcessing {
		if order, err = j.ca.WaitOrder(ctx, order.URI); err != nil {
			return nil, err
		}
	}
	if order.Status == acme.StatusValid {
		return j.ca.FetchCert(ctx, order.CertURL, true)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: j.spec.Hostnames}, key)
	if err != nil {
		return nil, fmt.Errorf("make the request for the certificate: %w", err)
	}
	chain, _, err = j.ca.CreateCertFromOrder(ctx, order, csr, true)
	return chain, err
}

// install checks what the CA has issued and writes it in place of what was before.
func (j *job) install(ctx context.Context, chain [][]byte, key crypto.Signer) error {
	var text strings.Builder
	for _, der := range chain {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Builder takes everything
	}
	held, err := vault.Describe(text.String())
	if err != nil {
		return fail(reasonUnfit, false, "what the CA has issued cannot be used: %w", err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil || !certpem.Belongs(key, leaf) {
		return fail(reasonUnfit, false, "the CA has issued a certificate for another key")
	}
	for _, h := range j.spec.Hostnames {
		if !certpem.Covers(held.Names, h) {
			return fail(reasonUnfit, false, "the CA has issued a certificate that does not cover %q", h)
		}
	}
	now := j.w.opts.Now()
	if !held.NotAfter.After(now) {
		return fail(reasonUnfit, false, "the CA has issued a certificate that expired at %s", held.NotAfter.Format(time.RFC3339))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode private key: %w", err)
	}
	defer clear(der)
	held.Certificate, held.Asked = text.String(), j.asked
	held.Sealed = j.w.opts.Vault.SealPrivateKey(j.key.Organization, j.key.Name, held.Fingerprint, der)
	next := v1.CertificateOrderSpec{Asked: j.asked, Account: j.account, RenewAt: renewAt(held.NotBefore, held.NotAfter, mathrand.Float64())}
	if _, err := j.save(ctx, "issued, valid until "+held.NotAfter.Format(time.RFC3339), next, object(j.own(v1.KindCertificateKey, j.key.Name), 0, held)); err != nil {
		return writeError{err}
	}
	j.log.InfoContext(ctx, "a certificate was issued", "not_after", held.NotAfter, "renew_at", next.RenewAt)
	return nil
}
