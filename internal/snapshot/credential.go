package snapshot

import "crypto/sha256"

// CredentialHash is the SHA-256 of the value of a credential. The value itself is kept nowhere.
type CredentialHash [sha256.Size]byte

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
