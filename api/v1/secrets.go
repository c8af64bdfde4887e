package v1

import "time"

// GroupKeySpec describes the keys of a gateway group, which secrets are sealed to before they are written. The resource
// has the name of its gateway group. Hansa makes it together with the group.
type GroupKeySpec struct {
	// Versions are the keys, the one in use first, then those that it replaced.
	Versions []GroupKeyVersion `json:"versions"`
}

// GroupKeyVersion is one key of a gateway group.
type GroupKeyVersion struct {
	// ID names the key; it is derived from its public half.
	ID string `json:"id"`
	// Public is the public half, in base64.
	Public string `json:"public"`
	// Sealed is the private half, sealed with the at-rest key of the control nodes, in base64.
	Sealed string `json:"sealed"`
	// CreatedAt is when the key was made.
	CreatedAt time.Time `json:"createdAt"`
}
