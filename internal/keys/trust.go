package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Limits of a trust document; a larger one is refused before anything in it is looked at.
const (
	MaxTrustBytes   = 256 << 10
	maxTrustEntries = 256
)

// Trust is the document by which a cluster's root says what to believe: signing keys, certificate authorities and
// the highest epoch. It is signed as a whole and carries a serial number, so that adding a key, taking one away and
// raising the epoch are all the same act, and a newer document simply takes the place of an older one. A *Trust from
// ParseTrust never changes.
type Trust struct {
	// Cluster is the cluster that the document is for.
	Cluster string `json:"cluster"`
	// Serial counts the documents of a cluster; the higher one is in force.
	Serial uint64 `json:"serial"`
	// IssuedAt is for people.
	IssuedAt time.Time `json:"issuedAt"`
	// Root is the public key that signed the document.
	Root ed25519.PublicKey `json:"root"`
	// Epoch is the highest epoch that a configuration of the cluster may have. Only the root can raise it, so that a
	// stolen signing key cannot outrank the record for good.
	Epoch uint64 `json:"epoch"`
	// Keys are the signing keys, also those that have expired but may have signed what a gateway still holds.
	Keys []TrustedKey `json:"keys"`
	// CAs are the certificates (DER) of the authorities that issue node certificates.
	CAs [][]byte `json:"cas"`
	// Revoked are the IDs of signing keys that must not be believed any more, whenever they signed.
	Revoked []string `json:"revoked,omitempty"`

	encoded []byte
}

// TrustedKey is the root's statement on one signing key.
type TrustedKey struct {
	PublicKey ed25519.PublicKey `json:"publicKey"`
	NotBefore time.Time         `json:"notBefore"`
	NotAfter  time.Time         `json:"notAfter"`
	// Purposes are what the key may sign for.
	Purposes []string `json:"purposes"`
}

// ID returns the name of the key.
func (k TrustedKey) ID() string { return KeyID(k.PublicKey) }

// ValidAt tells whether t is within the lifetime of the key.
func (k TrustedKey) ValidAt(t time.Time) bool { return !t.Before(k.NotBefore) && t.Before(k.NotAfter) }

// trustFile is the outer form: the signed bytes as they are, so that nothing depends on encoding JSON twice alike.
type trustFile struct {
	Signed    []byte `json:"signed"`
	Signature []byte `json:"signature"`
}

func encodeTrust(payload, signature []byte) ([]byte, error) {
	b, err := json.Marshal(trustFile{Signed: payload, Signature: signature})
	if err != nil {
		return nil, fmt.Errorf("encode trust document: %w", err)
	}
	return b, nil
}

// ParseTrust reads a signed trust document and checks that the root with the pinned fingerprint signed it. The error
// is ErrForeignRoot if another root did and ErrBadSignature if the document was changed.
func ParseTrust(b []byte, pinned Fingerprint) (*Trust, error) {
	if len(b) > MaxTrustBytes {
		return nil, fmt.Errorf("trust document of %d bytes: at most %d are allowed", len(b), MaxTrustBytes)
	}
	var file trustFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("decode trust document: %w", err)
	}
	t := new(Trust)
	if err := json.Unmarshal(file.Signed, t); err != nil {
		return nil, fmt.Errorf("decode trust document: %w", err)
	}
	if len(t.Root) != ed25519.PublicKeySize || !FingerprintOf(t.Root).Equal(pinned) {
		return nil, fmt.Errorf("trust document of cluster %q: root %s instead of %s: %w",
			t.Cluster, FingerprintOf(t.Root), pinned, ErrForeignRoot)
	}
	if !ed25519.Verify(t.Root, signedBytes(purposeTrust, file.Signed), file.Signature) {
		return nil, fmt.Errorf("trust document of cluster %q: %w", t.Cluster, ErrBadSignature)
	}
	if err := t.validate(); err != nil {
		return nil, fmt.Errorf("trust document %d of cluster %q: %w", t.Serial, t.Cluster, err)
	}
	t.encoded = slices.Clone(b)
	return t, nil
}

// Encoded returns the signed form that t was parsed from. The caller must not change it.
func (t *Trust) Encoded() []byte { return t.encoded }

// Fingerprint returns the fingerprint of the root that signed t.
func (t *Trust) Fingerprint() Fingerprint { return FingerprintOf(t.Root) }

// Succeed checks whether next may take the place of t: same root, same cluster, higher serial, and no lower epoch.
// The very same document is fine too. The error is ErrForeignRoot or ErrStale.
func (t *Trust) Succeed(next *Trust) error {
	switch {
	case bytes.Equal(t.encoded, next.encoded):
		return nil
	case next.Cluster != t.Cluster || !next.Fingerprint().Equal(t.Fingerprint()):
		return fmt.Errorf("trust document of cluster %q in place of that of %q: %w", next.Cluster, t.Cluster, ErrForeignRoot)
	case next.Serial <= t.Serial || next.Epoch < t.Epoch:
		return fmt.Errorf("trust document %d (epoch %d) after %d (epoch %d): %w",
			next.Serial, next.Epoch, t.Serial, t.Epoch, ErrStale)
	}
	return nil
}

// Verify checks a signature on something new: the key must be known, not revoked, allowed to sign for the purpose
// and valid now. The errors are the sentinels of this package.
func (t *Trust) Verify(purpose, keyID string, msg, sig []byte, now time.Time) error {
	k, err := t.lookup(purpose, keyID)
	if err != nil {
		return err
	}
	if now.Before(k.NotBefore) {
		return fmt.Errorf("signing key %s is valid from %s, it is %s: %w", keyID, stamp(k.NotBefore), stamp(now), ErrEarlyKey)
	}
	if !now.Before(k.NotAfter) {
		return fmt.Errorf("signing key %s was valid until %s: %w", keyID, stamp(k.NotAfter), ErrExpiredKey)
	}
	return checkSignature(k, purpose, msg, sig)
}

// VerifyHeld checks a signature on something that was accepted before and is now read back. It differs from Verify
// in that the time does not matter: whoever accepted a checkpoint goes on serving it, however long the control plane
// is away. A revoked key is still refused.
func (t *Trust) VerifyHeld(purpose, keyID string, msg, sig []byte) error {
	k, err := t.lookup(purpose, keyID)
	if err != nil {
		return err
	}
	return checkSignature(k, purpose, msg, sig)
}

// Key returns the statement on a signing key.
func (t *Trust) Key(keyID string) (TrustedKey, bool) {
	for _, k := range t.Keys {
		if k.ID() == keyID {
			return k, true
		}
	}
	return TrustedKey{}, false
}

func (t *Trust) lookup(purpose, keyID string) (TrustedKey, error) {
	if slices.Contains(t.Revoked, keyID) {
		return TrustedKey{}, fmt.Errorf("signing key %q: %w", keyID, ErrRevokedKey)
	}
	k, ok := t.Key(keyID)
	if !ok {
		return TrustedKey{}, fmt.Errorf("signing key %q, trust document %d: %w", keyID, t.Serial, ErrUnknownKey)
	}
	if !slices.Contains(k.Purposes, purpose) {
		return TrustedKey{}, fmt.Errorf("signing key %s, purpose %q: %w", keyID, purpose, ErrWrongPurpose)
	}
	return k, nil
}

func checkSignature(k TrustedKey, purpose string, msg, sig []byte) error {
	if !ed25519.Verify(k.PublicKey, signedBytes(purpose, msg), sig) {
		return fmt.Errorf("signature for %q by key %s: %w", purpose, k.ID(), ErrBadSignature)
	}
	return nil
}

// payload validates t and returns the bytes to sign.
func (t *Trust) payload() ([]byte, error) {
	if err := t.validate(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b, nil
}

func (t *Trust) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if t.Cluster == "" {
		fault("cluster is empty")
	}
	if t.Serial == 0 {
		fault("serial is 0")
	}
	if t.Epoch == 0 {
		fault("epoch is 0")
	}
	if len(t.Keys) > maxTrustEntries || len(t.CAs) > maxTrustEntries || len(t.Revoked) > maxTrustEntries {
		fault("more than %d keys, authorities or revocations", maxTrustEntries)
	}
	for i, k := range t.Keys {
		if len(k.PublicKey) != ed25519.PublicKeySize {
			fault("keys[%d]: public key of %d bytes", i, len(k.PublicKey))
			continue
		}
		if life := k.NotAfter.Sub(k.NotBefore); life <= 0 || life > MaxSigningLife {
			fault("keys[%d]: lifetime %s is not within 30 days", i, life)
		}
		if len(k.Purposes) == 0 || slices.Contains(k.Purposes, purposeTrust) {
			fault("keys[%d]: purposes %q are not allowed", i, k.Purposes)
		}
	}
	return errors.Join(faults...)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
