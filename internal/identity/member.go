package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/durable"
)

// Member is what a gateway keeps of its membership: its private key, its certificate, the trust document in force and the
// keys of its group. All of it is sealed at rest.
type Member struct {
	keyPath, statePath string
	sealer             *keys.Sealer

	mu       sync.RWMutex // guards the fields below; held for writing while they are saved
	key      *ecdsa.PrivateKey
	node     Node
	cert     *tls.Certificate // nil: not enrolled
	trust    *keys.Trust      // nil: none yet
	verifier *Verifier
	group    keys.GroupKeys
}

const (
	memberKeyFile      = "node.key"
	memberStateFile    = "node.state"
	memberKeyContext   = "identity node key"
	memberStateContext = "identity node state"
)

// memberState is the content of the state file.
type memberState struct {
	Root  keys.Fingerprint `json:"root"`
	Trust []byte           `json:"trust"`
	Chain [][]byte         `json:"chain,omitempty"`
	// GroupKeys is of the form of keys.GroupKeys.
	GroupKeys []byte `json:"groupKeys,omitempty"`
}

// OpenMember reads the membership in a data folder. Without any it makes a private key, which stays the node's for
// good. What was sealed with another key or was changed is an error (keys.ErrUnseal).
func OpenMember(f *Folder, sealer *keys.Sealer) (*Member, error) {
	m := &Member{keyPath: f.Path(memberKeyFile), statePath: f.Path(memberStateFile), sealer: sealer}
	if err := m.loadKey(); err != nil {
		return nil, fmt.Errorf("open node key: %w", err)
	}
	box, err := os.ReadFile(m.statePath)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open membership: %w", err)
	}
	text, err := sealer.Open(memberStateContext, box)
	if err != nil {
		return nil, fmt.Errorf("open membership: %w", err)
	}
	var st memberState
	if err := json.Unmarshal(text, &st); err != nil {
		return nil, fmt.Errorf("open membership: %w", err)
	}
	if err := m.apply(st); err != nil {
		return nil, fmt.Errorf("open membership: %w", err)
	}
	return m, nil
}

func (m *Member) loadKey() error {
	box, err := os.ReadFile(m.keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := newKey()
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		m.key = key
		return durable.CreateFile(m.keyPath, 0o600, durable.Bytes(m.sealer.Seal(memberKeyContext, der)))
	}
	if err != nil {
		return err
	}
	der, err := m.sealer.Open(memberKeyContext, box)
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	var ok bool
	if m.key, ok = key.(*ecdsa.PrivateKey); !ok {
		return fmt.Errorf("%q holds a %T", m.keyPath, key)
	}
	return nil
}

// apply takes over a state; nothing is changed if it does not fit together.
func (m *Member) apply(st memberState) error {
	trust, err := keys.ParseTrust(st.Trust, st.Root)
	if err != nil {
		return err
	}
	verifier, err := NewVerifier(trust)
	if err != nil {
		return err
	}
	var cert *tls.Certificate
	var node Node
	if len(st.Chain) > 0 {
		leaf, err := x509.ParseCertificate(st.Chain[0])
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(m.key.Public()) {
			return errors.New("certificate: it is for another key")
		}
		peer, err := verifier.Verify([]*x509.Certificate{leaf}, leaf.NotBefore)
		if err != nil {
			return err
		}
		node = peer.Node
		cert = &tls.Certificate{Certificate: st.Chain, PrivateKey: m.key, Leaf: leaf}
	}
	var group keys.GroupKeys
	if len(st.GroupKeys) > 0 {
		if group, err = keys.ParseGroupKeys(st.GroupKeys); err != nil {
			return err
		}
	}
	m.trust, m.verifier, m.cert, m.node, m.group = trust, verifier, cert, node, group
	return nil
}

// change applies and saves a state. If it cannot be saved, the change stays in memory only and the error says so: a
// gateway with a full disk goes on with its new certificate.
func (m *Member) change(st memberState) error {
	if err := m.apply(st); err != nil {
		return err
	}
	text, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode membership: %w", err)
	}
	return durable.WriteFile(m.statePath, 0o600, durable.Bytes(m.sealer.Seal(memberStateContext, text)))
}

// stateLocked returns the state in force. A trust document must be there.
func (m *Member) stateLocked() memberState {
	st := memberState{Root: m.trust.Fingerprint(), Trust: m.trust.Encoded()}
	if m.cert != nil {
		st.Chain = m.cert.Certificate
	}
	if m.group.Len() > 0 {
		st.GroupKeys = m.group.Marshal()
	}
	return st
}

// Request returns a certificate request (PKCS #10, DER) for the node's key. Names are left to whoever issues.
func (m *Member) Request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, m.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// Join takes over what the cluster answered to a join: the certificate for the node's key and the trust document,
// which the root with the pinned fingerprint must have signed.
func (m *Member) Join(pinned keys.Fingerprint, trust []byte, chain [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(chain) == 0 {
		return fmt.Errorf("join: %w", ErrNotEnrolled)
	}
	st := memberState{Root: pinned, Trust: trust, Chain: chain}
	if m.group.Len() > 0 {
		st.GroupKeys = m.group.Marshal() // of the bundle that the gateway began with
	}
	if err := m.change(st); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}

// Renew takes over a renewed certificate, which must name the same node, together with the trust document that
// explains it, unless the one in force is newer.
func (m *Member) Renew(trust []byte, chain [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cert == nil || len(chain) == 0 {
		return fmt.Errorf("renew certificate: %w", ErrNotEnrolled)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != m.node.String() {
		return fmt.Errorf("renew certificate of %s: the new one names another node: %w", m.node, ErrNotNode)
	}
	next, err := keys.ParseTrust(trust, m.trust.Fingerprint())
	if err != nil {
		return fmt.Errorf("renew certificate of %s: %w", m.node, err)
	}
	st := m.stateLocked()
	st.Chain = chain
	switch err := m.trust.Succeed(next); {
	case err == nil:
		st.Trust = trust
	case !errors.Is(err, keys.ErrStale):
		return fmt.Errorf("renew certificate of %s: %w", m.node, err)
	}
	if err := m.change(st); err != nil {
		return fmt.Errorf("renew certificate of %s: %w", m.node, err)
	}
	return nil
}

// SetTrust takes over a trust document of the root with the pinned fingerprint, if it is newer than the one in force.
// The error is keys.ErrForeignRoot or keys.ErrStale. A gateway that starts from a bundle has it from there, without
// a certificate.
func (m *Member) SetTrust(pinned keys.Fingerprint, encoded []byte) error {
	next, err := keys.ParseTrust(encoded, pinned)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trust == nil {
		return m.change(memberState{Root: pinned, Trust: encoded})
	}
	if err := m.trust.Succeed(next); err != nil {
		return err
	}
	if next.Serial == m.trust.Serial {
		return nil
	}
	st := m.stateLocked()
	st.Trust = encoded
	err = m.change(st)
	if errors.Is(err, ErrUnknownAuthority) {
		// The new document has dropped the authority of the own certificate. The document counts all the same; the
		// node has to join again.
		st.Chain = nil
		err = m.change(st)
	}
	return err
}

// UpdateTrust takes over a newer trust document of the own cluster.
func (m *Member) UpdateTrust(encoded []byte) error {
	t := m.Trust()
	if t == nil {
		return fmt.Errorf("update trust document: %w", ErrNotEnrolled)
	}
	return m.SetTrust(t.Fingerprint(), encoded)
}

// Trust returns the trust document in force; nil if there is none yet.
func (m *Member) Trust() *keys.Trust {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.trust
}

// Node returns who the node is. The error is ErrNotEnrolled.
func (m *Member) Node() (Node, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cert == nil {
		return Node{}, ErrNotEnrolled
	}
	return m.node, nil
}

// Certificate returns the certificate in force with its key, expired or not. The error is ErrNotEnrolled.
func (m *Member) Certificate() (*tls.Certificate, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cert == nil {
		return nil, ErrNotEnrolled
	}
	return m.cert, nil
}

// Verify checks the certificate of another node against the trust document in force; see Verifier.
func (m *Member) Verify(chain []*x509.Certificate, now time.Time) (Peer, error) {
	m.mu.RLock()
	v := m.verifier
	m.mu.RUnlock()
	if v == nil {
		return Peer{}, ErrNotEnrolled
	}
	return v.Verify(chain, now)
}

// RenewAt returns when the certificate is to be renewed: with a third of its life left. It is the zero time for a
// node that has none.
func (m *Member) RenewAt() time.Time {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cert == nil {
		return time.Time{}
	}
	return renewAt(m.cert.Leaf.NotBefore, m.cert.Leaf.NotAfter)
}

// AcceptGroupKeys takes over the keys of the gateway's group as a control node delivers them, sealed to the node's key
// (SealGroupKeys). Keys that were held before are kept behind them.
func (m *Member) AcceptGroupKeys(sealed []byte) error {
	node, err := m.Node()
	if err != nil {
		return fmt.Errorf("accept group keys: %w", err)
	}
	text, err := keys.OpenAsNode(m.key, groupKeysContext(node), sealed)
	if err != nil {
		return fmt.Errorf("accept group keys: %w", err)
	}
	group, err := keys.ParseGroupKeys(text)
	if err != nil {
		return fmt.Errorf("accept group keys: %w", err)
	}
	return m.SetGroupKeys(group)
}

// SetGroupKeys takes over keys of the gateway's group, for instance from a bundle, and keeps those that were held before
// behind them. There must be a trust document (ErrNotEnrolled).
func (m *Member) SetGroupKeys(group keys.GroupKeys) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trust == nil {
		return fmt.Errorf("keep group keys: %w", ErrNotEnrolled)
	}
	next := m.group.After(group)
	if next.Equal(m.group) {
		return nil
	}
	st := m.stateLocked()
	st.GroupKeys = next.Marshal()
	if err := m.change(st); err != nil {
		return fmt.Errorf("keep group keys: %w", err)
	}
	return nil
}

// GroupKeys returns the keys of the gateway's group; an empty set if it was given none yet.
func (m *Member) GroupKeys() keys.GroupKeys {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.group
}

// SealGroupKeys seals the keys of a gateway's group to the key of that gateway, for Member.AcceptGroupKeys.
func SealGroupKeys(n Node, public crypto.PublicKey, group keys.GroupKeys) ([]byte, error) {
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("seal group keys to %s: its key is a %T", n, public)
	}
	sealed, err := keys.SealToNode(key, groupKeysContext(n), group.Marshal())
	if err != nil {
		return nil, fmt.Errorf("seal group keys to %s: %w", n, err)
	}
	return sealed, nil
}

func groupKeysContext(n Node) string { return "group keys of " + n.String() }
