package secrets_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/gateway/certs"
	"hansa.dev/hansa/internal/gateway/certs/certstest"
	"hansa.dev/hansa/internal/gateway/secrets"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
)

// node is a gateway's part: the keys that it has, and those that it would be given.
type node struct {
	mu            sync.Mutex
	held, offered keys.GroupKeys
	down          bool
	asked         int
}

func (n *node) keys() keys.GroupKeys {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held
}

func (n *node) fetch(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if n.down {
		return errors.New("the link is down")
	}
	n.held = n.held.After(n.offered)
	return nil
}

func (n *node) offer(k *keys.GroupKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.offered = n.offered.After(keys.NewGroupKeys(k))
}

func groupKey(t *testing.T) *keys.GroupKey {
	t.Helper()
	k, err := keys.GenerateGroupKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newOpener(t *testing.T, n *node) (*secrets.Opener, *certs.Store) {
	t.Helper()
	store, err := certs.New(certs.Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	o, err := secrets.New(secrets.Options{
		Keys: n.keys, Fetch: n.fetch, Certificates: store, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return o, store
}

// entry seals a certificate to a group key.
func entry(t *testing.T, to *keys.GroupKey, leaf *certstest.Leaf, name string, hostnames ...string) snapshot.Entry {
	t.Helper()
	block, _ := pem.Decode(leaf.KeyPEM)
	sealed, err := keys.SealToGroup(to.Public(), snapshot.CertificateContext("acme", name, "f"), block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	e, err := snapshot.NewEntry(snapshot.EntryKey(snapshot.ClassCertificate, "acme", name), 1, 1, false, snapshot.Certificate{
		Organization: "acme", Name: name, Hostnames: hostnames, Chain: string(leaf.CertPEM), Fingerprint: "f", KeyID: to.ID(), SealedKey: sealed,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func apply(t *testing.T, o *secrets.Opener, puts []snapshot.Entry, gone ...string) {
	t.Helper()
	set := snapshot.NewSet().With(puts, nil)
	var changed []string
	for _, e := range puts {
		changed = append(changed, e.Key)
	}
	o.Await(t.Context(), set, append(changed, gone...))
	c, err := o.Prepare(puts, gone)
	if err != nil {
		t.Fatal(err)
	}
	c.Commit()
}

// shown returns the certificate for a hostname; nil for none.
func shown(store *certs.Store, hostname string) *tls.Certificate {
	c, err := store.GetCertificate(&tls.ClientHelloInfo{
		ServerName: hostname, SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	})
	if err != nil {
		return nil
	}
	return c
}

func TestKeysAreFetchedBeforeAConfigurationIsInForce(t *testing.T) {
	t.Parallel()
	n, first, second := &node{}, groupKey(t), groupKey(t)
	n.offer(first)
	o, store := newOpener(t, n)
	ca := certstest.NewAuthority(t, "ca")
	apply(t, o, []snapshot.Entry{entry(t, first, ca.Issue(t, "a.example.com"), "a", "a.example.com"), entry(t, first, ca.Issue(t, "b.example.com"), "b")})
	if shown(store, "a.example.com") == nil || o.Fault() != nil || n.asked != 1 {
		t.Errorf("after the first configuration: fault %v, asked %d times; want the certificate shown", o.Fault(), n.asked)
	}
	if shown(store, "b.example.com") != nil {
		t.Error("a certificate for backends is shown to clients")
	}
	if c, err := o.ClientCertificate("acme", "b"); err != nil || c == nil {
		t.Errorf("ClientCertificate = %v", err)
	}
	if _, err := o.ClientCertificate("other", "b"); err == nil {
		t.Error("another organization has the certificate too")
	}
	tickets := o.TicketSecrets()
	n.offer(second)
	apply(t, o, []snapshot.Entry{entry(t, second, ca.Issue(t, "a.example.com"), "a", "a.example.com")})
	if o.Fault() != nil || n.asked != 2 {
		t.Errorf("after a rotation: fault %v, asked %d times", o.Fault(), n.asked)
	}
	if after := o.TicketSecrets(); len(after) != 2 || string(after[1]) != string(tickets[0]) || string(after[0]) == string(tickets[0]) {
		t.Error("sessions from before the rotation cannot be resumed, or new ones are sealed with the old secret")
	}
	apply(t, o, nil, snapshot.EntryKey(snapshot.ClassCertificate, "acme", "a"))
	if shown(store, "a.example.com") != nil {
		t.Error("a certificate that is gone is still shown")
	}
}

func TestWhatCannotBeOpenedIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, first, second := &node{}, groupKey(t), groupKey(t)
		n.offer(first)
		o, store := newOpener(t, n)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		ca := certstest.NewAuthority(t, "ca")
		apply(t, o, []snapshot.Entry{entry(t, first, ca.Issue(t, "a.example.com"), "a", "a.example.com")})
		before := shown(store, "a.example.com")

		n.mu.Lock()
		n.down = true
		n.mu.Unlock()
		n.offer(second)
		apply(t, o, []snapshot.Entry{entry(t, second, ca.Issue(t, "a.example.com"), "a", "a.example.com")})
		if err := o.Fault(); err == nil || !strings.Contains(err.Error(), " a ") {
			t.Errorf("Fault = %v, want one that names the certificate", err)
		}
		if shown(store, "a.example.com") != before {
			t.Error("the certificate from before is no longer shown")
		}
		n.mu.Lock()
		n.down = false
		n.mu.Unlock()
		<-time.After(5 * time.Minute) // of the bubble's time
		if after := shown(store, "a.example.com"); o.Fault() != nil || after == nil || after == before {
			t.Errorf("after the link is back: fault %v, new certificate %v", o.Fault(), after != before)
		}
		cancel()
		<-done
	})
}
