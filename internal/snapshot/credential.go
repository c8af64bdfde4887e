package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// CredentialHash is the SHA-256 of the value of a credential. The value itself is kept nowhere.
type CredentialHash [sha256.Size]byte

// HashCredential returns the hash of a credential's value.
func HashCredential(value []byte) CredentialHash { return sha256.Sum256(value) }

// String returns the hash in hexadecimal.
func (h CredentialHash) String() string { return hex.EncodeToString(h[:]) }

// Compare orders hashes as tables of credentials do.
func (h CredentialHash) Compare(o CredentialHash) int { return bytes.Compare(h[:], o[:]) }

// Shard returns the shard of a credential: the first 12 bits of its hash.
func (h CredentialHash) Shard() int { return int(binary.BigEndian.Uint16(h[:2]) >> 4) }

// Credential is what the record and every gateway know of one key of a subscription. Application and product
// are repeated from the subscription, so that a gateway decides with one look-up; the change set that changes a
// subscription also rewrites its credentials.
type Credential struct {
	Hash         CredentialHash `json:"hash"`
	ID           string         `json:"id"` // shown in lists and logs; not secret
	Organization string         `json:"organization"`
	Subscription string         `json:"subscription"`
	Application  string         `json:"application"`
	Product      string         `json:"product"`
	Slot         Slot           `json:"slot"`
	State        State          `json:"state"`
	CreatedAt    int64          `json:"createdAt"`           // Unix seconds
	ExpiresAt    int64          `json:"expiresAt,omitempty"` // Unix seconds; 0: never
}

// Slot is one of the two places that a subscription has for keys, so that one can be rotated while the other
// is in use. Imported keys beyond those have SlotImported, of which there may be many.
type Slot uint8

// The slots.
const (
	SlotPrimary Slot = iota
	SlotSecondary
	SlotImported
)

// State tells whether a credential may be used.
type State uint8

// The states.
const (
	StateActive State = iota
	StateRevoked
	StateSuspended // the subscription is suspended
)

// maxCredentialText bounds each text of a credential: names have at most 63 bytes, identifiers fewer than this.
const maxCredentialText = 255

// Validate tells whether a credential can be encoded.
func (c *Credential) Validate() error {
	for _, s := range [...]string{c.ID, c.Organization, c.Subscription, c.Application, c.Product} {
		if len(s) > maxCredentialText {
			return fmt.Errorf("%w credential %.8s: text %.20q… has %d bytes and may have %d", ErrMalformed, c.Hash, s, len(s), maxCredentialText)
		}
	}
	if c.Slot > SlotImported || c.State > StateSuspended || c.CreatedAt < 0 || c.ExpiresAt < 0 {
		return fmt.Errorf("%w credential %.8s: slot %d, state %d, created at %d, expires at %d", ErrMalformed, c.Hash, c.Slot, c.State, c.CreatedAt, c.ExpiresAt)
	}
	return nil
}

// AppendCredential appends the binary form of a valid credential, which ParseCredential reads.
func AppendCredential(dst []byte, c Credential) []byte {
	dst = append(dst, c.Hash[:]...)
	for _, s := range [...]string{c.ID, c.Organization, c.Subscription, c.Application, c.Product} {
		dst = appendString(dst, s)
	}
	dst = append(dst, byte(c.Slot)<<4|byte(c.State))
	dst = binary.AppendUvarint(dst, uint64(c.CreatedAt))
	return binary.AppendUvarint(dst, uint64(c.ExpiresAt))
}

// ParseCredential reads one credential from the front of b and returns what follows. The credential shares no
// memory with b.
func ParseCredential(b []byte) (Credential, []byte, error) {
	r := reader[[]byte]{b: b}
	c := readCredential(&r)
	if r.err != nil {
		return Credential{}, nil, fmt.Errorf("parse credential: %w", r.err)
	}
	return c, r.b, nil
}

func readCredential[T ~string | ~[]byte](r *reader[T]) (c Credential) {
	c.Hash = r.hash()
	for _, s := range [...]*string{&c.ID, &c.Organization, &c.Subscription, &c.Application, &c.Product} {
		*s = r.text(maxCredentialText)
	}
	readTail(r, &c)
	return c
}

// readTail takes the fields that are the same in both binary forms, and checks the whole.
func readTail[T ~string | ~[]byte](r *reader[T], c *Credential) {
	kind := r.byte()
	c.Slot, c.State = Slot(kind>>4), State(kind&15)
	c.CreatedAt = int64(r.uvarint())
	c.ExpiresAt = int64(r.uvarint())
	if c.Slot > SlotImported || c.State > StateSuspended || c.CreatedAt < 0 || c.ExpiresAt < 0 {
		r.fail()
	}
}
