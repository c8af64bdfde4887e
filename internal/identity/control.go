package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/durable"
)

// Control is what a control node keeps: its signing keys, its authority, the trust document that vouches for them,
// and, unless the operator took it away, the root key. Files are in one folder:
//
//	root.key           the root key; may live elsewhere, or offline
//	root.fingerprint   which root this cluster has
//	trust.json         the trust document in force, signed by the root
//	trust-request.json what waits for the root's signature; only while the root key is away
//	trust-answer.json  the signed answer to it (SignRequest), put there by the operator; taken and removed
//	signing-<id>.key   signing keys
//	ca-<id>.key, .crt  authorities
//
// Private keys are sealed with the at-rest key of the node, which lies elsewhere.
//
// The keys for the node's own TLS connections are made at every start.
type Control struct {
	o    ControlOptions
	ring *keys.Ring

	maintaining sync.Mutex // held by whatever changes the trust document; taken before mu

	mu        sync.RWMutex // guards the fields below
	root      keys.Fingerprint
	trust     *keys.Trust
	verifier  *Verifier
	authority *authority
	node, api *tls.Certificate
}

// ControlOptions are for OpenControl.
type ControlOptions struct {
	// Dir is the folder for keys.
	Dir string
	// RootFile is the root key. "": root.key in Dir. It is made if neither it nor a trust document exists. In Dir it is
	// sealed; elsewhere, where the operator keeps it, it is made as PEM, and read in either form.
	RootFile string
	// Sealer seals the private keys in Dir. Required. Files that an earlier version left unsealed are sealed at the start.
	Sealer *keys.Sealer
	// Cluster and Name name the control node.
	Cluster, Name string
	// Hosts are the names and IP addresses for the certificate of the control API, besides localhost, the loopback
	// addresses and the machine's host name.
	Hosts []string
	// NodeLife is how long node certificates live. 0: DefaultNodeLife.
	NodeLife time.Duration
	// SigningLife is how long signing keys live. 0: keys.MaxSigningLife.
	SigningLife time.Duration
	// Now is the clock. nil: time.Now.
	Now func() time.Time
	// Logger must be set.
	Logger *slog.Logger
}

const (
	rootFile        = "root.key"
	fingerprintFile = "root.fingerprint"
	trustFile       = "trust.json"
	requestFile     = "trust-request.json"
	answerFile      = "trust-answer.json"
	authorityPrefix = "ca-"
	// keepExpired is for how long the trust document still lists what has expired: signing keys for checkpoints that
	// gateways hold, authorities for certificates that want renewal.
	keepExpired = 180 * 24 * time.Hour
	// maintainEvery is how often Run looks whether something is to be renewed.
	maintainEvery = time.Hour
)

// OpenControl reads the keys of a control node, makes what is missing and renews what is due. Without the root key it
// opens as long as there is a trust document.
func OpenControl(o ControlOptions) (*Control, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("open control keys: %w", err)
	}
	if err := durable.Mkdir(o.Dir); err != nil {
		return nil, fmt.Errorf("open control keys: %w", err)
	}
	if err := durable.RemoveTemp(o.Dir); err != nil {
		return nil, fmt.Errorf("open control keys: %w", err)
	}
	ring, err := keys.OpenRing(o.Dir, o.Sealer)
	if err != nil {
		return nil, fmt.Errorf("open control keys: %w", err)
	}
	if err := sealFiles(o); err != nil {
		return nil, fmt.Errorf("open control keys: %w", err)
	}
	c := &Control{o: o, ring: ring}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("open control keys in %q: %w", o.Dir, err)
	}
	if err := c.Maintain(); err != nil {
		return nil, fmt.Errorf("open control keys in %q: %w", o.Dir, err)
	}
	return c, nil
}

func (o *ControlOptions) complete() error {
	if o.RootFile == "" {
		o.RootFile = filepath.Join(o.Dir, rootFile)
	}
	if o.NodeLife == 0 {
		o.NodeLife = DefaultNodeLife
	}
	if o.SigningLife == 0 {
		o.SigningLife = keys.MaxSigningLife
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil || o.Sealer == nil {
		return errors.New("the options Logger and Sealer are required")
	}
	o.Logger = o.Logger.With("component", "identity")
	if o.NodeLife < time.Minute || o.NodeLife > authorityLife/4 {
		return fmt.Errorf("life of node certificates %s: want a minute to %s", o.NodeLife, authorityLife/4)
	}
	if o.SigningLife < time.Minute || o.SigningLife > keys.MaxSigningLife {
		return fmt.Errorf("life of signing keys %s: want a minute to %s", o.SigningLife, keys.MaxSigningLife)
	}
	return ControlNode(o.Cluster, o.Name).Validate()
}

// rootSealer seals the root key if it lies among the node's keys.
func (o *ControlOptions) rootSealer() *keys.Sealer {
	if o.RootFile == filepath.Join(o.Dir, rootFile) {
		return o.Sealer
	}
	return nil
}

// sealFiles seals the keys that an earlier version kept as they are.
func sealFiles(o ControlOptions) error {
	paths, err := filepath.Glob(filepath.Join(o.Dir, authorityPrefix+"*.key"))
	if err != nil {
		return fmt.Errorf("list authorities: %w", err)
	}
	for _, path := range append(paths, filepath.Join(o.Dir, rootFile)) {
		if err := keys.SealPrivateKey(path, o.Sealer); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// load reads the fingerprint and the trust document. A first start makes the root key.
func (c *Control) load() error {
	text, err := os.ReadFile(c.path(fingerprintFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c.firstStart()
	}
	if err != nil {
		return err
	}
	if c.root, err = keys.ParseFingerprint(strings.TrimSpace(string(text))); err != nil {
		return err
	}
	encoded, err := os.ReadFile(c.path(trustFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the first start was cut short; Maintain goes on
	}
	if err != nil {
		return err
	}
	trust, err := keys.ParseTrust(encoded, c.root)
	if err != nil {
		return err
	}
	if trust.Cluster != c.o.Cluster {
		return fmt.Errorf("the trust document is of cluster %q, this node of %q: %w", trust.Cluster, c.o.Cluster, keys.ErrForeignRoot)
	}
	return c.use(trust)
}

func (c *Control) firstStart() error {
	root, err := keys.LoadRoot(c.o.RootFile, c.o.Sealer)
	if errors.Is(err, fs.ErrNotExist) {
		if root, err = keys.GenerateRoot(); err == nil {
			err = root.Save(c.o.RootFile, c.o.rootSealer())
		}
	}
	if err != nil {
		return err
	}
	c.root = root.Fingerprint()
	c.o.Logger.Info("cluster has a root", "cluster", c.o.Cluster, "root", c.root.String(), "file", c.o.RootFile)
	return durable.CreateFile(c.path(fingerprintFile), 0o644, durable.Bytes([]byte(c.root.String()+"\n")))
}

// Maintain takes an answer of the root that lies ready, and renews what has a third of its life left: signing key,
// authority, certificates. It is called at start and by Run. If the root key is away and the trust document must change, the request for it is written to
// trust-request.json and the log says so; the error is ErrNoRoot only if there is no trust document at all.
func (c *Control) Maintain() error {
	c.maintaining.Lock()
	defer c.maintaining.Unlock()
	c.takeAnswer()
	draft, why, err := c.draft()
	if err != nil {
		return err
	}
	if len(why) > 0 {
		if err := c.publish(draft, why); err != nil {
			return err
		}
	}
	if err := c.ring.Remove(c.Trust(), c.o.Now()); err != nil {
		return err
	}
	return c.renewOwn()
}

// draft returns the trust document as it should be, and why it differs from the one in force.
func (c *Control) draft() (t keys.Trust, why []string, err error) {
	now := c.o.Now()
	current := c.Trust()
	t = keys.Trust{Cluster: c.o.Cluster, Epoch: 1}
	if current != nil {
		t = keys.Trust{Cluster: current.Cluster, Serial: current.Serial, Epoch: current.Epoch, Revoked: slices.Clone(current.Revoked)}
		t.Keys = slices.DeleteFunc(slices.Clone(current.Keys), func(k keys.TrustedKey) bool { return now.Sub(k.NotAfter) > keepExpired })
		t.CAs = slices.DeleteFunc(slices.Clone(current.CAs), func(der []byte) bool {
			cert, err := x509.ParseCertificate(der)
			return err != nil || now.Sub(cert.NotAfter) > keepExpired
		})
	}
	t.Serial++
	t.IssuedAt = now

	if due(c.signingEnd(current, now), c.o.SigningLife, now) {
		key, err := c.nextSigningKey(current)
		if err != nil {
			return t, nil, err
		}
		begin := now.Add(-min(backdate, c.o.SigningLife/2))
		t.Keys = append(t.Keys, keys.TrustedKey{
			PublicKey: key.Public(), NotBefore: begin, NotAfter: begin.Add(c.o.SigningLife),
			Purposes: []string{keys.PurposeCheckpoint, keys.PurposeBundle, keys.PurposeEvent},
		})
		why = append(why, "signing key "+key.KeyID())
	}
	own, err := c.bestAuthority(t.CAs)
	if err != nil {
		return t, nil, err
	}
	if own == nil || due(own.cert.NotAfter, authorityLife, now) {
		next, err := c.nextAuthority(own, t.CAs)
		if err != nil {
			return t, nil, err
		}
		t.CAs = append(t.CAs, next.cert.Raw)
		why = append(why, "authority "+authorityID(next.cert))
	}
	return t, why, nil
}

func (c *Control) signingEnd(t *keys.Trust, now time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return c.ring.NotAfter(t, keys.PurposeCheckpoint, now)
}

// nextSigningKey takes a key that still waits for the root, so that attempts do not pile up keys.
func (c *Control) nextSigningKey(t *keys.Trust) (*keys.SigningKey, error) {
	if waiting := c.ring.Unlisted(t); len(waiting) > 0 {
		return waiting[0], nil
	}
	return c.ring.Generate()
}

// due tells whether less than a third is left of something that ends at end.
func due(end time.Time, life time.Duration, now time.Time) bool { return end.Sub(now) < life/3 }

// publish has the draft signed and puts it in force.
func (c *Control) publish(draft keys.Trust, why []string) error {
	root, err := c.loadRoot()
	if errors.Is(err, ErrNoRoot) {
		request, jsonErr := json.MarshalIndent(draft, "", "  ")
		if jsonErr != nil {
			return fmt.Errorf("encode trust request: %w", jsonErr)
		}
		if err := durable.WriteFile(c.path(requestFile), 0o600, durable.Bytes(request)); err != nil {
			return err
		}
		if c.Trust() == nil {
			return err
		}
		c.o.Logger.Warn("the root must sign a new trust document", "for", why, "request", c.path(requestFile))
		return nil
	}
	if err != nil {
		return err
	}
	encoded, err := root.SignTrust(draft)
	if err != nil {
		return err
	}
	c.o.Logger.Info("the root signed a new trust document", "serial", draft.Serial, "for", why)
	return c.install(encoded)
}

func (c *Control) loadRoot() (*keys.Root, error) {
	root, err := keys.LoadRoot(c.o.RootFile, c.o.Sealer)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q: %w", c.o.RootFile, ErrNoRoot)
	}
	if err != nil {
		return nil, err
	}
	if !root.Fingerprint().Equal(c.root) {
		return nil, fmt.Errorf("%q holds the root %s, the cluster's is %s: %w", c.o.RootFile, root.Fingerprint(), c.root, keys.ErrForeignRoot)
	}
	return root, nil
}

// Install puts a trust document in force that the root signed elsewhere.
func (c *Control) Install(encoded []byte) error {
	c.maintaining.Lock()
	defer c.maintaining.Unlock()
	if err := c.install(encoded); err != nil {
		return fmt.Errorf("install trust document: %w", err)
	}
	return c.renewOwn()
}

func (c *Control) install(encoded []byte) error {
	next, err := keys.ParseTrust(encoded, c.root)
	if err != nil {
		return err
	}
	if current := c.Trust(); current != nil {
		if err := current.Succeed(next); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(c.path(trustFile), 0o644, durable.Bytes(encoded)); err != nil {
		return err
	}
	if err := os.Remove(c.path(requestFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove answered trust request: %w", err)
	}
	return c.use(next)
}

// use makes a trust document the one in force.
func (c *Control) use(t *keys.Trust) error {
	verifier, err := NewVerifier(t)
	if err != nil {
		return err
	}
	own, err := c.bestAuthority(t.CAs)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trust, c.verifier, c.authority = t, verifier, own
	return nil
}

// takeAnswer installs trust-answer.json. A bad one stays where it is, for the operator to look at; the log says why.
func (c *Control) takeAnswer() {
	encoded, err := os.ReadFile(c.path(answerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = c.install(encoded)
	}
	if err == nil {
		err = os.Remove(c.path(answerFile))
	}
	if err != nil {
		c.o.Logger.Error("take the root's answer", "file", c.path(answerFile), "err", err)
	}
}

// SignRequest signs what a control node wrote to trust-request.json; the answer goes to trust-answer.json beside it, or
// to Install. It runs where the root key is.
func SignRequest(root *keys.Root, request []byte) ([]byte, error) {
	var draft keys.Trust
	if err := json.Unmarshal(request, &draft); err != nil {
		return nil, fmt.Errorf("decode trust request: %w", err)
	}
	return root.SignTrust(draft)
}

// AllowEpoch raises the epoch that configurations of the cluster may have, which needs the root key (ErrNoRoot).
func (c *Control) AllowEpoch(epoch uint64) error {
	return c.amend(fmt.Sprintf("epoch %d", epoch), func(t *keys.Trust) bool {
		if t.Epoch >= epoch {
			return false
		}
		t.Epoch = epoch
		return true
	})
}

// RevokeSigningKey makes everybody disbelieve a signing key, which needs the root key (ErrNoRoot). If it is the one
// in use, another is made.
func (c *Control) RevokeSigningKey(keyID string) error {
	err := c.amend("revocation of signing key "+keyID, func(t *keys.Trust) bool {
		if slices.Contains(t.Revoked, keyID) {
			return false
		}
		t.Revoked = append(t.Revoked, keyID)
		return true
	})
	if err != nil {
		return err
	}
	return c.Maintain()
}

func (c *Control) amend(why string, change func(*keys.Trust) bool) error {
	c.maintaining.Lock()
	defer c.maintaining.Unlock()
	draft, due, err := c.draft()
	if err != nil {
		return err
	}
	if !change(&draft) {
		return nil
	}
	if _, err := c.loadRoot(); err != nil {
		return fmt.Errorf("%s: %w", why, err)
	}
	return c.publish(draft, append(due, why))
}

// Run renews what is due until the context ends, and returns its cause.
func (c *Control) Run(ctx context.Context) error {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if err := c.Maintain(); err != nil {
				c.o.Logger.Error("renew keys", "err", err)
			}
		}
	}
}

// Trust returns the trust document in force.
func (c *Control) Trust() *keys.Trust {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.trust
}

// Root returns the fingerprint of the cluster's root.
func (c *Control) Root() keys.Fingerprint { return c.root }

// Node returns the name of the control node.
func (c *Control) Node() Node { return ControlNode(c.o.Cluster, c.o.Name) }

// Signer returns the key to sign with now. The error is keys.ErrNoSigningKey.
func (c *Control) Signer(purpose string) (keys.Signer, error) {
	return c.ring.Signer(c.Trust(), purpose, c.o.Now())
}

// Certificate returns the node's own certificate for the link.
func (c *Control) Certificate() (*tls.Certificate, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.node, nil
}

// APICertificate returns the certificate for the control API, in the form of tls.Config.GetCertificate.
func (c *Control) APICertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.api, nil
}

// APIAuthorities returns the certificates, in PEM, by which clients know the control API.
func (c *Control) APIAuthorities() []byte { return encodeChain(c.Trust().CAs) }

// Verify checks the certificate of another node; see Verifier.
func (c *Control) Verify(chain []*x509.Certificate, now time.Time) (Peer, error) {
	c.mu.RLock()
	v := c.verifier
	c.mu.RUnlock()
	return v.Verify(chain, now)
}

func (c *Control) path(name string) string { return filepath.Join(c.o.Dir, name) }
