// Package secrets opens what the configuration of a gateway holds sealed to its gateway group: the private keys of
// certificates, for clients that connect and for backends that ask who is calling.
//
// A change of the configuration is prepared and then committed together with the rest of it. What is sealed to a key that
// the gateway does not have is asked for before that ([Opener.Await]); what cannot be opened all the same keeps nothing
// else from serving: the certificate that was in force before stays, the fault is logged and shown, and [Opener.Run] tries
// again until it succeeds.
//
// Everything may be called by any goroutine, except that one change is prepared and committed at a time. Package gateway
// uses it.
package secrets

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/gateway/certs"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
)

// Options configure an Opener.
type Options struct {
	// Keys returns the keys of the gateway group. Default: there are none.
	Keys func() keys.GroupKeys
	// Fetch asks the control plane for them; afterwards Keys returns what it was given. Default: nobody can be asked.
	Fetch func(context.Context) error
	// Certificates gets the certificates for hostnames, under certs.SourceResources. Required.
	Certificates *certs.Store
	// Log receives what cannot be opened. Required.
	Log *slog.Logger
	// Registerer receives the metrics. Required.
	Registerer prometheus.Registerer
}

const (
	// fetchTime bounds how long a configuration waits for keys.
	fetchTime = 5 * time.Second
	retryMin  = time.Second
	retryMax  = time.Minute
)

// ticketPurpose names the secrets of TLS session tickets among what is derived of the group keys.
const ticketPurpose = "tls session tickets"

// Opener opens secrets and keeps what it has opened.
type Opener struct {
	opts Options
	wake chan struct{} // size 1: something could not be opened

	mu      sync.Mutex // guards what follows
	opened  map[string]*opened
	waiting map[string]snapshot.Certificate // by key of the entry: what is in the configuration and could not be opened

	tickets atomic.Pointer[ticketSecrets]
}

// ticketSecrets are what has been derived of group keys.
type ticketSecrets struct {
	of      keys.GroupKeys
	secrets [][]byte
}

// opened is a certificate in force.
type opened struct {
	spec snapshot.Certificate
	cert *certs.Certificate
}

// New makes an Opener that has nothing yet.
func New(o Options) (*Opener, error) {
	if o.Certificates == nil || o.Log == nil || o.Registerer == nil {
		return nil, errors.New("secrets: Certificates, Log and Registerer are required")
	}
	if o.Keys == nil {
		o.Keys = func() keys.GroupKeys { return keys.GroupKeys{} }
	}
	if o.Fetch == nil {
		o.Fetch = func(context.Context) error { return errors.New("there is no control plane to ask") }
	}
	p := &Opener{opts: o, wake: make(chan struct{}, 1), opened: map[string]*opened{}, waiting: map[string]snapshot.Certificate{}}
	sealed := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hansa_secrets_unopened_entries",
		Help: "Certificates of the configuration whose private key the gateway cannot open.",
	}, func() float64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return float64(len(p.waiting))
	})
	if err := o.Registerer.Register(sealed); err != nil {
		return nil, fmt.Errorf("register the metrics of secrets: %w", err)
	}
	return p, nil
}

// Await asks for keys that the changed entries of a configuration are sealed to and the gateway does not have. It is called
// before the configuration is brought into force, and does not keep it from being so: the error is logged.
func (p *Opener) Await(ctx context.Context, set *snapshot.Set, changed []string) {
	held := p.opts.Keys()
	for _, key := range changed {
		if !strings.HasPrefix(key, snapshot.ClassCertificate+"/") {
			continue
		}
		e, ok := set.Get(key)
		if !ok {
			continue
		}
		spec, err := snapshot.Decode[snapshot.Certificate](e)
		if err != nil || held.Has(spec.KeyID) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		if err := p.opts.Fetch(ctx); err != nil {
			p.opts.Log.WarnContext(ctx, "the keys of the gateway group cannot be fetched", "key", spec.KeyID, "err", err)
		}
		return // there is one answer, with all keys
	}
}

// Change is what a configuration changes.
type Change struct {
	opener *Opener
	puts   map[string]*opened
	failed map[string]snapshot.Certificate
	gone   []string
}

// Prepare opens the entries that a configuration puts. It changes nothing. The error is that of an entry that cannot be
// read; one that cannot be opened is none.
func (p *Opener) Prepare(puts []snapshot.Entry, gone []string) (*Change, error) {
	c := &Change{opener: p, puts: map[string]*opened{}, failed: map[string]snapshot.Certificate{}, gone: gone}
	held := p.opts.Keys()
	for _, e := range puts {
		spec, err := snapshot.Decode[snapshot.Certificate](e)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Key, err)
		}
		cert, err := open(held, spec)
		if err != nil {
			p.opts.Log.Error("a certificate cannot be opened; what was in force before stays", "certificate", spec.Name, "err", err)
			c.failed[e.Key] = spec
			continue
		}
		c.puts[e.Key] = &opened{spec, cert}
	}
	return c, nil
}

// open opens the private key of a certificate. Errors hold nothing of it.
func open(held keys.GroupKeys, spec snapshot.Certificate) (*certs.Certificate, error) {
	der, err := held.Open(snapshot.CertificateContext(spec.Organization, spec.Name, spec.Fingerprint), spec.SealedKey)
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	for rest := []byte(spec.Chain); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	return certs.ParseDER(chain, der)
}

// Commit brings a change into force. Handshakes see either all of it or nothing.
func (c *Change) Commit() {
	c.opener.mu.Lock()
	defer c.opener.mu.Unlock()
	c.opener.commitLocked(c)
}

func (p *Opener) commitLocked(c *Change) {
	var entries []certs.Entry
	var gone []string
	for _, key := range c.gone {
		delete(p.opened, key)
		delete(p.waiting, key)
		gone = append(gone, key)
	}
	for key, o := range c.puts {
		delete(p.waiting, key)
		p.opened[key] = o
		if len(o.spec.Hostnames) == 0 { // it is for backends
			gone = append(gone, key)
			continue
		}
		entries = append(entries, certs.Entry{ID: key, Names: slices.Clone(o.spec.Hostnames), Certificate: o.cert})
	}
	maps.Copy(p.waiting, c.failed)
	if len(entries)+len(gone) > 0 {
		if err := p.opts.Certificates.Update(certs.SourceResources, entries, gone); err != nil {
			p.opts.Log.Error("certificates of the configuration are not in force", "err", err)
		}
	}
	if len(p.waiting) > 0 {
		select {
		case p.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// Run tries to open what could not be opened, until ctx ends.
func (p *Opener) Run(ctx context.Context) error {
	pause := retryMin
	for {
		if len(p.pending()) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.wake:
				pause = retryMin
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		p.retry(ctx)
		pause = min(2*pause, retryMax)
	}
}

// pending returns what could not be opened.
func (p *Opener) pending() map[string]snapshot.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]snapshot.Certificate, len(p.waiting))
	maps.Copy(out, p.waiting)
	return out
}

// retry fetches keys and opens what they open.
func (p *Opener) retry(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if err := p.opts.Fetch(ctx); err != nil {
		p.opts.Log.DebugContext(ctx, "the keys of the gateway group cannot be fetched", "err", err)
	}
	held := p.opts.Keys()
	for key, spec := range p.pending() {
		cert, err := open(held, spec)
		if err != nil {
			continue
		}
		if p.settle(key, spec, cert) {
			p.opts.Log.InfoContext(ctx, "a certificate that was sealed is open now", "certificate", spec.Name)
		}
	}
}

// settle brings into force what was opened late, unless the configuration has moved on.
func (p *Opener) settle(key string, spec snapshot.Certificate, cert *certs.Certificate) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, ok := p.waiting[key]
	same := ok && now.KeyID == spec.KeyID && now.Fingerprint == spec.Fingerprint && now.Chain == spec.Chain && slices.Equal(now.Hostnames, spec.Hostnames)
	if same {
		p.commitLocked(&Change{puts: map[string]*opened{key: {spec, cert}}})
	}
	return same
}

// Fault says what cannot be opened; nil if everything can.
func (p *Opener) Fault() error {
	waiting := p.pending()
	if len(waiting) == 0 {
		return nil
	}
	var names []string
	for _, spec := range waiting {
		names = append(names, spec.Name)
	}
	slices.Sort(names)
	const shown = 5
	more := ""
	if len(names) > shown {
		more = fmt.Sprintf(" and %d more", len(names)-shown)
		names = names[:shown]
	}
	return fmt.Errorf("the private keys of the certificates %s%s cannot be opened: the gateway does not have the key of its group; it fetches it from a control node, or takes it from a bundle that is sealed with a passphrase",
		strings.Join(names, ", "), more)
}

// ClientCertificate returns the certificate of that name, to show to a backend that asks for one.
func (p *Opener) ClientCertificate(organization, name string) (*tls.Certificate, error) {
	p.mu.Lock()
	o := p.opened[snapshot.EntryKey(snapshot.ClassCertificate, organization, name)]
	p.mu.Unlock()
	if o == nil {
		return nil, fmt.Errorf("client certificate %s/%s: the gateway has none, or cannot open its private key", organization, name)
	}
	t, _, err := o.cert.TLS()
	return t, err
}

// TicketSecrets returns the secrets that keys of TLS session tickets are derived from: the same in all gateways of the
// group, the one to seal with first. There are none without group keys. The caller must not change them.
func (p *Opener) TicketSecrets() [][]byte {
	held := p.opts.Keys()
	if t := p.tickets.Load(); t != nil && t.of.Equal(held) {
		return t.secrets
	}
	t := &ticketSecrets{of: held}
	for _, s := range held.Derive(ticketPurpose) {
		t.secrets = append(t.secrets, s.Reveal())
	}
	p.tickets.Store(t)
	return t.secrets
}
