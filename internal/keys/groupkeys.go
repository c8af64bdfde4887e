package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"slices"

	"hansa.dev/hansa/internal/x/secret"
)

// GroupKeys are the keys of a gateway group: the one in use first, then those that it replaced. Secrets are sealed to the
// first; the others open what is older, for instance a configuration on the disk of a gateway that was away. The zero
// value has none. A value never changes.
type GroupKeys struct{ keys []*GroupKey }

const (
	groupKeySize   = 32
	groupKeysMagic = "HGKS1"
	nodeMagic      = "HNODE1"
	// MaxGroupKeys is how many keys a set holds. What was replaced so often is gone.
	MaxGroupKeys = 4
)

// NewGroupKeys makes a set, the key in use first. Keys beyond MaxGroupKeys are left out.
func NewGroupKeys(keys ...*GroupKey) GroupKeys {
	return GroupKeys{keys: slices.Clone(keys[:min(len(keys), MaxGroupKeys)])}
}

// Current returns the key in use; nil if there is none.
func (g GroupKeys) Current() *GroupKey {
	if len(g.keys) == 0 {
		return nil
	}
	return g.keys[0]
}

// Len is the number of keys.
func (g GroupKeys) Len() int { return len(g.keys) }

// Has tells whether the key of that ID is in the set.
func (g GroupKeys) Has(id string) bool {
	return slices.ContainsFunc(g.keys, func(k *GroupKey) bool { return k.ID() == id })
}

// After returns the set that follows g when newer is delivered: newer, then what only g has.
func (g GroupKeys) After(newer GroupKeys) GroupKeys {
	all := slices.Clone(newer.keys)
	for _, k := range g.keys {
		if !newer.Has(k.ID()) {
			all = append(all, k)
		}
	}
	return NewGroupKeys(all...)
}

// Equal tells whether two sets hold the same keys in the same order.
func (g GroupKeys) Equal(h GroupKeys) bool {
	return slices.EqualFunc(g.keys, h.keys, func(a, b *GroupKey) bool { return a.ID() == b.ID() })
}

// Open opens what was sealed to any of the keys for the context. The error is ErrUnseal.
func (g GroupKeys) Open(context string, sealed []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(sealed, []byte(groupMagic))
	if !ok || len(rest) < keyTagSize {
		return nil, fmt.Errorf("open %s: not sealed to a group: %w", context, ErrUnseal)
	}
	id := fmt.Sprintf("%x", rest[:keyTagSize])
	for _, k := range g.keys {
		if k.ID() == id {
			return k.Open(context, sealed)
		}
	}
	return nil, fmt.Errorf("open %s: sealed to group key %s, which this node does not have: %w", context, id, ErrUnseal)
}

// Derive returns a secret of 32 bytes of each key for a purpose, the key in use first. It is the same in all gateways of
// the group and in no other, and says nothing about the keys or about secrets for other purposes (HKDF, RFC 5869).
func (g GroupKeys) Derive(purpose string) []secret.Bytes {
	out := make([]secret.Bytes, len(g.keys))
	for i, k := range g.keys {
		b, err := hkdf.Key(sha256.New, k.Bytes(), nil, "hansa group secret v1\x00"+purpose, groupKeySize)
		if err != nil {
			panic(err) // only for lengths that HKDF cannot make
		}
		out[i] = secret.New(b)
	}
	return out
}

// Marshal returns the keys as ParseGroupKeys reads them. They are secrets: seal them before they are stored or sent.
func (g GroupKeys) Marshal() []byte {
	out := []byte(groupKeysMagic)
	for _, k := range g.keys {
		out = append(out, k.Bytes()...)
	}
	return out
}

// ParseGroupKeys reads what Marshal returned.
func ParseGroupKeys(b []byte) (GroupKeys, error) {
	rest, ok := bytes.CutPrefix(b, []byte(groupKeysMagic))
	if !ok || len(rest)%groupKeySize != 0 || len(rest) > MaxGroupKeys*groupKeySize {
		return GroupKeys{}, fmt.Errorf("parse group keys: %d bytes that are none", len(b))
	}
	var g GroupKeys
	for raw := range slices.Chunk(rest, groupKeySize) {
		k, err := ParseGroupKey(raw)
		if err != nil {
			return GroupKeys{}, err
		}
		g.keys = append(g.keys, k)
	}
	return g, nil
}

// SealToNode seals plaintext to the key of a node, an ECDSA key on P-256 that its certificate holds. Context is bound in
// and must be the same for opening. The scheme is HPKE (RFC 9180), base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256,
// AES-256-GCM. That one key pair both signs and receives is sound for ECDSA and Diffie-Hellman with domain separation
// (Degabriele, Lehmann, Paterson, Smart and Strefler, CT-RSA 2012).
func SealToNode(public *ecdsa.PublicKey, context string, plaintext []byte) ([]byte, error) {
	pub, err := public.ECDH()
	if err != nil {
		return nil, fmt.Errorf("seal to node: %w", err)
	}
	recipient, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("seal to node: %w", err)
	}
	box, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), nodeInfo(context), plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal to node: %w", err)
	}
	return append([]byte(nodeMagic), box...), nil
}

// OpenAsNode opens what SealToNode sealed. The error is ErrUnseal.
func OpenAsNode(private *ecdsa.PrivateKey, context string, sealed []byte) ([]byte, error) {
	box, ok := bytes.CutPrefix(sealed, []byte(nodeMagic))
	if !ok {
		return nil, fmt.Errorf("open %s: not sealed to a node: %w", context, ErrUnseal)
	}
	priv, err := private.ECDH()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, err)
	}
	recipient, err := hpke.NewDHKEMPrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, err)
	}
	plaintext, err := hpke.Open(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), nodeInfo(context), box)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, ErrUnseal)
	}
	return plaintext, nil
}

func nodeInfo(context string) []byte { return []byte("hansa node v1\x00" + context) }
