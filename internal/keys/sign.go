package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// What signatures are made for.
const (
	PurposeCheckpoint = "checkpoint" // a view's configuration (snapshot.Checkpoint)
	PurposeBundle     = "bundle"     // the manifest of a bundle
	PurposeEvent      = "event"      // an event of a control node on the link
	purposeTrust      = "trust"      // the trust document; by the root alone
)

// MaxSigningLife is the longest time that a signing key may be valid for.
const MaxSigningLife = 30 * 24 * time.Hour

// Signer signs messages for a purpose. It is what publishers get: neither the private key nor its lifetime shows.
type Signer interface {
	KeyID() string
	Sign(purpose string, msg []byte) ([]byte, error)
}

// SigningKey is the private half of an online signing key.
type SigningKey struct {
	private ed25519.PrivateKey
	id      string
}

// GenerateSigningKey makes a new key.
func GenerateSigningKey() (*SigningKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate signing key: %w", err)
	}
	return newSigningKey(private), nil
}

func newSigningKey(private ed25519.PrivateKey) *SigningKey {
	public, _ := private.Public().(ed25519.PublicKey)
	return &SigningKey{private: private, id: KeyID(public)}
}

// KeyID returns the name of the key, derived from its public half.
func (k *SigningKey) KeyID() string { return k.id }

// Public returns the public half.
func (k *SigningKey) Public() ed25519.PublicKey {
	public, _ := k.private.Public().(ed25519.PublicKey)
	return public
}

// Sign signs msg for a purpose. Any purpose but that of the root is allowed here; those who check look up in the
// trust document what the key may sign for.
func (k *SigningKey) Sign(purpose string, msg []byte) ([]byte, error) {
	if purpose == purposeTrust || purpose == "" {
		return nil, fmt.Errorf("sign for purpose %q with key %s: %w", purpose, k.id, ErrWrongPurpose)
	}
	return ed25519.Sign(k.private, signedBytes(purpose, msg)), nil
}

// KeyID derives the name of a key from its public half: the first 16 bytes of its SHA-256, in hexadecimal. A name
// can therefore not be claimed by another key.
func KeyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:16])
}

// signedBytes is what is really signed: a prefix that no certificate (DER begins with 0x30) and no other protocol
// has, the purpose, and the message. Purposes hold no zero byte, so that no two pairs give the same bytes.
func signedBytes(purpose string, msg []byte) []byte {
	const prefix = "hansa signature v1\x00"
	b := make([]byte, 0, len(prefix)+len(purpose)+1+len(msg))
	b = append(b, prefix...)
	b = append(b, purpose...)
	b = append(b, 0)
	return append(b, msg...)
}
