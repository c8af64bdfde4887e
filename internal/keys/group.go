package keys

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// groupMagic begins what is sealed to a group; the ID of the group's key follows.
const groupMagic = "HGRP1"

// GroupKey is the private key of a gateway group. A secret is sealed once, when it is written, to the public half;
// every gateway of the group opens it. Control nodes need the private half only to hand it to a gateway that enrols.
// The scheme is HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
type GroupKey struct {
	private *ecdh.PrivateKey
	id      string
}

func newGroupKey(private *ecdh.PrivateKey) *GroupKey {
	return &GroupKey{private: private, id: GroupKeyID(private.PublicKey().Bytes())}
}

// GenerateGroupKey makes a new key.
func GenerateGroupKey() (*GroupKey, error) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate group key: %w", err)
	}
	return newGroupKey(private), nil
}

// ParseGroupKey reads what Bytes returned.
func ParseGroupKey(b []byte) (*GroupKey, error) {
	private, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("parse group key: %w", err)
	}
	return newGroupKey(private), nil
}

// Bytes returns the private key. It is a secret: seal it before it is stored or sent.
func (k *GroupKey) Bytes() []byte { return k.private.Bytes() }

// Public returns the public half, 32 bytes, which is no secret.
func (k *GroupKey) Public() []byte { return k.private.PublicKey().Bytes() }

// ID names the key after its public half.
func (k *GroupKey) ID() string { return k.id }

// GroupKeyID derives the name of a group key from its public half.
func GroupKeyID(public []byte) string {
	sum := sha256.Sum256(public)
	return fmt.Sprintf("%x", sum[:keyTagSize])
}

// SealToGroup seals plaintext to the public key of a group. Context is bound in and must be the same for opening.
func SealToGroup(public []byte, context string, plaintext []byte) ([]byte, error) {
	pub, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("seal to group: %w", err)
	}
	recipient, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("seal to group: %w", err)
	}
	box, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), groupInfo(context), plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal to group: %w", err)
	}
	id := sha256.Sum256(public)
	return append(append([]byte(groupMagic), id[:keyTagSize]...), box...), nil
}

// Open opens what was sealed to the group for the context. The error is ErrUnseal.
func (k *GroupKey) Open(context string, sealed []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(sealed, []byte(groupMagic))
	if !ok || len(rest) < keyTagSize {
		return nil, fmt.Errorf("open %s: not sealed to a group: %w", context, ErrUnseal)
	}
	if id := fmt.Sprintf("%x", rest[:keyTagSize]); id != k.ID() {
		return nil, fmt.Errorf("open %s: sealed to group key %s, not to %s: %w", context, id, k.ID(), ErrUnseal)
	}
	private, err := hpke.NewDHKEMPrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, err)
	}
	plaintext, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), groupInfo(context), rest[keyTagSize:])
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, ErrUnseal)
	}
	return plaintext, nil
}

func groupInfo(context string) []byte { return []byte("hansa group v1\x00" + context) }
