package keys

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
)

// Fingerprint is the SHA-256 of the root's public key (its 32 bytes). It is the one thing that a new gateway must
// know of a cluster before it can check everything else; join tokens carry it.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a root's public key.
func FingerprintOf(public ed25519.PublicKey) Fingerprint { return sha256.Sum256(public) }

// String returns the fingerprint in lower-case hexadecimal.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Equal compares two fingerprints.
func (f Fingerprint) Equal(g Fingerprint) bool { return subtle.ConstantTimeCompare(f[:], g[:]) == 1 }

// ParseFingerprint reads what String writes.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	if len(s) != hex.EncodedLen(len(f)) {
		return f, fmt.Errorf("root fingerprint %q: want 64 hexadecimal digits", s)
	}
	if _, err := hex.Decode(f[:], []byte(s)); err != nil {
		return Fingerprint{}, fmt.Errorf("root fingerprint %q: %w", s, err)
	}
	return f, nil
}

// Root is the private root key of a cluster. It is needed only to change the trust document: a control node runs
// without it until its signing keys expire.
type Root struct{ private ed25519.PrivateKey }

// GenerateRoot makes a new root key.
func GenerateRoot() (*Root, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate root key: %w", err)
	}
	return &Root{private: private}, nil
}

// LoadRoot reads a root key file, as LoadPrivateKey does. The error is fs.ErrNotExist if there is none.
func LoadRoot(path string, sealer *Sealer) (*Root, error) {
	private, err := loadEd25519(path, sealer)
	if err != nil {
		return nil, fmt.Errorf("load root key: %w", err)
	}
	return &Root{private: private}, nil
}

// Save writes the key to a new file that only the owner may read, as SavePrivateKey does. An existing file is never
// overwritten.
func (r *Root) Save(path string, sealer *Sealer) error {
	if err := SavePrivateKey(path, sealer, r.private); err != nil {
		return fmt.Errorf("save root key: %w", err)
	}
	return nil
}

// Public returns the public half.
func (r *Root) Public() ed25519.PublicKey {
	public, _ := r.private.Public().(ed25519.PublicKey)
	return public
}

// Fingerprint returns what identifies the root.
func (r *Root) Fingerprint() Fingerprint { return FingerprintOf(r.Public()) }

// SignTrust checks and signs a trust document and returns it in the form that ParseTrust reads. Its Root is set to
// the own public key.
func (r *Root) SignTrust(t Trust) ([]byte, error) {
	t.Root = r.Public()
	payload, err := t.payload()
	if err != nil {
		return nil, fmt.Errorf("sign trust document %d of cluster %q: %w", t.Serial, t.Cluster, err)
	}
	return encodeTrust(payload, ed25519.Sign(r.private, signedBytes(purposeTrust, payload)))
}

// GroupKey derives the group key of a view for where there is no control plane: bundles that are made of files. Whoever
// has the root can make it again, so that a later bundle opens and resumes what an earlier one began.
func (r *Root) GroupKey(view string) (*GroupKey, error) {
	b, err := hkdf.Key(sha256.New, r.private.Seed(), nil, "hansa group key v1\x00"+view, groupKeySize)
	if err != nil {
		return nil, fmt.Errorf("derive group key of %q: %w", view, err)
	}
	return ParseGroupKey(b)
}
