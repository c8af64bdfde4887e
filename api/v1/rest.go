package v1

import "time"

// This file holds what the control API answers with, beside resources themselves. The server, the Go client and
// the command line share these types, so that there is one definition of each shape.

// ContentTypeProblem is the media type of every refusal (RFC 9457).
const ContentTypeProblem = "application/problem+json"

// Problem is the body of every refusal of the control API, after RFC 9457.
type Problem struct {
	// Type is a URL that documents Code.
	Type string `json:"type"`
	// Title is the same for every problem with this Code.
	Title string `json:"title"`
	// Status repeats the HTTP status.
	Status int `json:"status"`
	// Code is the stable name of the problem: "invalid", "conflict".
	Code string `json:"code"`
	// Detail tells what happened this time and what to do.
	Detail string `json:"detail,omitempty"`
	// RequestID is the correlation id, also sent as X-Request-Id; the server's log has the cause under it.
	RequestID string `json:"requestId,omitempty"`
	// Faults are the faults of the input, all of them.
	Faults []Fault `json:"faults,omitempty"`
}

// Fault is one fault of what a user sent.
type Fault struct {
	// File is the file that the resource came from. The server does not know files: the command line fills it in.
	File string `json:"file,omitempty"`
	// Line and Column count from 1; 0: unknown.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Kind and Name identify the resource, as far as they could be read.
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
	// Organization owns the resource.
	Organization string `json:"organization,omitempty"`
	// Path is the field: "spec.operations[3].path".
	Path string `json:"path,omitempty"`
	// Value is what was found there, shortened.
	Value string `json:"value,omitempty"`
	// Code is the stable name of the fault: "unknown-field", "dangling-reference".
	Code string `json:"code"`
	// Message tells what is wrong, for people.
	Message string `json:"message"`
	// Remedy tells what to do about it.
	Remedy string `json:"remedy,omitempty"`
	// FirstLine is the line that the message names of what was there before, if the fault is that it is there again.
	FirstLine int `json:"firstLine,omitempty"`
}

// The actions of a Change.
const (
	ActionCreated = "created"
	ActionUpdated = "updated"
	ActionDeleted = "deleted"
)

// Change is one resource that an apply or delete changed, or would change.
type Change struct {
	Kind         Kind   `json:"kind"`
	Name         string `json:"name"`
	Organization string `json:"organization,omitempty"`
	// Action is created, updated or deleted.
	Action string `json:"action"`
	// Revision is the revision that the change made, if it is of an API.
	Revision uint64 `json:"revision,omitempty"`
	// Before and After are the resource on both sides of the change. Only a plan has them.
	Before *Object `json:"before,omitempty"`
	After  *Object `json:"after,omitempty"`
}

// ApplyResult is the answer to an apply, a delete or a plan.
type ApplyResult struct {
	// Epoch and Seq identify the state of the record after the change; of a dry run, the state it was tried upon.
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// Changes are what changed, in the order in which it was sent. What was equal already is not listed.
	Changes []Change `json:"changes"`
	// DryRun tells that nothing was changed.
	DryRun bool `json:"dryRun,omitempty"`
	// Warnings are for people: what was done all the same and may not be what was meant.
	Warnings []string `json:"warnings,omitempty"`
	// Wait is present if the caller asked to wait.
	Wait *WaitResult `json:"wait,omitempty"`
}

// WaitResult tells which gateways run a change.
type WaitResult struct {
	// Complete tells that every connected gateway of the affected groups has acknowledged the change.
	Complete bool `json:"complete"`
	// Missing are the connected gateways that have not acknowledged it in time.
	Missing []string `json:"missing,omitempty"`
}

// List is a page of resources of one kind.
type List struct {
	// Epoch and Seq identify the state that the page was read from; a watch can begin there.
	Epoch uint64    `json:"epoch"`
	Seq   uint64    `json:"seq"`
	Items []*Object `json:"items"`
	// Continue asks for the next page; empty on the last one. Each page is of the state at its own time.
	Continue string `json:"continue,omitempty"`
}

// The types of a WatchEvent.
const (
	// WatchPut tells that a resource was created or changed.
	WatchPut = "put"
	// WatchDelete tells that a resource was removed.
	WatchDelete = "delete"
	// WatchBookmark tells only how far the watch has come.
	WatchBookmark = "bookmark"
	// WatchError ends a watch; Problem tells why.
	WatchError = "error"
)

// WatchEvent is one line of a watch.
type WatchEvent struct {
	// Type is put, delete, bookmark or error.
	Type string `json:"type"`
	// Epoch and Seq are the change set that the event belongs to. A watch that broke is resumed after the last
	// bookmark; several events may share one change set, and its bookmark follows them.
	Epoch uint64 `json:"epoch,omitempty"`
	Seq   uint64 `json:"seq,omitempty"`
	// Object is the new value of a put.
	Object *Object `json:"object,omitempty"`
	// Kind, Organization and Name identify what a delete removed.
	Kind         Kind   `json:"kind,omitempty"`
	Organization string `json:"organization,omitempty"`
	Name         string `json:"name,omitempty"`
	// Problem is why the watch ended.
	Problem *Problem `json:"problem,omitempty"`
}

// The slots that a key can have.
const (
	SlotPrimary   = "primary"
	SlotSecondary = "secondary"
	SlotImported  = "imported"
)

// KeyRequest asks for a new key, or for the rotation of one.
type KeyRequest struct {
	// Slot is primary or secondary. Default of a new key: the first that is free; of a rotation: primary.
	Slot string `json:"slot,omitempty"`
	// ExpiresAt is when the new key ends; absent: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// Overlap is how long the rotated key stays valid beside the new one. Default: 24h; "0s" ends it at once.
	Overlap *Duration `json:"overlap,omitempty"`
}

// SubscriptionKey is one key of a subscription.
type SubscriptionKey struct {
	Subscription string `json:"subscription"`
	// Slot is primary, secondary or imported.
	Slot string `json:"slot"`
	// Key is the value itself. It is shown only in the answer to the request that made it, and kept nowhere.
	Key string `json:"key,omitempty"`
	// KeyID names the key in lists and logs; it is not secret.
	KeyID string `json:"keyId"`
	// State is active, suspended or revoked. An active key whose time is over is refused all the same.
	State     string    `json:"state,omitempty"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
	// ExpiresAt is when the key ends; absent: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// Wait is there if the request that changed the key asked to wait for the gateways.
	Wait *WaitResult `json:"wait,omitempty"`
}

// KeyList is a page of the keys of a subscription.
type KeyList struct {
	Items    []SubscriptionKey `json:"items"`
	Continue string            `json:"continue,omitempty"`
}

// KeyImport is one line of a bulk import: either the value of the key or its SHA-256.
type KeyImport struct {
	// Subscription is the name of the Subscription. May be left out where the request names it.
	Subscription string `json:"subscription,omitempty"`
	// Key is the value. It is hashed on arrival.
	Key string `json:"key,omitempty"`
	// SHA256 is the hash of the value, in hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
	// ExpiresAt is when the key ends; absent: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// ImportResult is the answer to an import of keys.
type ImportResult struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// Imported is how many keys are new or changed, Unchanged how many were there already.
	Imported  int `json:"imported"`
	Unchanged int `json:"unchanged"`
	// ChangeSets is how many change sets the import took. Each of them is whole or not there at all; a repeated
	// import changes nothing that is there already.
	ChangeSets int  `json:"changeSets"`
	DryRun     bool `json:"dryRun,omitempty"`
	// Keys are the keys themselves, new and old, if they are not more than 1,000. In a dry run those that would be new have
	// an identifier that they will not have.
	Keys []SubscriptionKey `json:"keys,omitempty"`
	// Wait is there if the request asked to wait for the gateways.
	Wait *WaitResult `json:"wait,omitempty"`
}

// GroupKeysRequest asks for the keys of a gateway group, for a bundle.
type GroupKeysRequest struct {
	// Recipient is an X25519 public key in base64, made for this call: the answer is sealed to it.
	Recipient string `json:"recipient"`
}

// GroupKeysAnswer holds the keys of a gateway group.
type GroupKeysAnswer struct {
	// Sealed is what only the holder of the recipient's private key can open, in base64.
	Sealed string `json:"sealed"`
}

// JoinTokenRequest asks for a token that one gateway can enrol with.
type JoinTokenRequest struct {
	// GatewayGroup is the group that the gateway will belong to.
	GatewayGroup string `json:"gatewayGroup"`
	// Expires is how long the token can be used. Default: 1h; at most 30d.
	Expires Duration `json:"expires,omitempty"`
}

// JoinToken is one join token.
type JoinToken struct {
	Name         string `json:"name"`
	GatewayGroup string `json:"gatewayGroup"`
	// Token is the token itself. It is shown only in the answer to the request that made it.
	Token     string    `json:"token,omitempty"`
	ExpiresAt time.Time `json:"expiresAt"`
	// UsedBy is the gateway that enrolled with the token.
	UsedBy string `json:"usedBy,omitempty"`
}

// JoinTokenList holds the join tokens of an organization.
type JoinTokenList struct {
	Items []JoinToken `json:"items"`
}

// TokenRequest asks for a bearer token of a principal.
type TokenRequest struct {
	// Expires is how long the token can be used. Default: 0, for ever.
	Expires Duration `json:"expires,omitempty"`
}

// Token is one bearer token of a principal.
type Token struct {
	Principal string `json:"principal"`
	ID        string `json:"id"`
	// Token is the token itself. It is shown only in the answer to the request that made it.
	Token string `json:"token,omitempty"`
	// ExpiresAt is when the token ends; absent: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// TokenList holds the bearer tokens of a principal.
type TokenList struct {
	Items []Token `json:"items"`
}

// GatewayStatus is what the control plane knows of one gateway.
type GatewayStatus struct {
	Name string `json:"name"`
	// Organization owns the gateway.
	Organization string `json:"organization,omitempty"`
	Site         string `json:"site"`
	Group        string `json:"group"`
	// Role is gateway.
	Role string `json:"role"`
	// Version is the version of the gateway's binary.
	Version string `json:"version,omitempty"`
	// Epoch and Seq are the configuration that the gateway runs, Digest the root of its entries in hexadecimal.
	Epoch  uint64 `json:"epoch"`
	Seq    uint64 `json:"seq"`
	Digest string `json:"digest,omitempty"`
	// AgeSeconds is how long ago the gateway was last heard of; -1: never by this control node.
	AgeSeconds int64 `json:"ageSeconds"`
	// Link is up or down.
	Link string `json:"link"`
	// Revoked gateways are refused on the link.
	Revoked bool `json:"revoked,omitempty"`
	// LastRefusal is the last configuration that the gateway refused.
	LastRefusal *Refusal `json:"lastRefusal,omitempty"`
}

// Refusal tells why a gateway refused a configuration.
type Refusal struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// GatewayList holds the gateways of an organization.
type GatewayList struct {
	Items []GatewayStatus `json:"items"`
}

// AuditRecord tells of one change set.
type AuditRecord struct {
	Epoch     uint64       `json:"epoch"`
	Seq       uint64       `json:"seq"`
	At        time.Time    `json:"at"`
	Principal string       `json:"principal"`
	Reason    string       `json:"reason,omitempty"`
	RequestID string       `json:"requestId,omitempty"`
	Changes   []AuditEntry `json:"changes"`
	// Omitted counts the changes beyond those listed.
	Omitted int `json:"omitted,omitempty"`
	// Credentials counts the keys that were changed.
	Credentials int `json:"credentials,omitempty"`
}

// AuditEntry is one changed resource of an AuditRecord.
type AuditEntry struct {
	Kind         Kind   `json:"kind"`
	Name         string `json:"name"`
	Organization string `json:"organization,omitempty"`
	Action       string `json:"action"`
}

// AuditList is a page of audit records, newest first.
type AuditList struct {
	Items []AuditRecord `json:"items"`
	// Continue asks for older records; empty if there are none.
	Continue string `json:"continue,omitempty"`
}

// ControlStatus is what a control node says of itself.
type ControlStatus struct {
	// Cluster, Epoch and Seq identify the record and its state.
	Cluster string `json:"cluster"`
	Epoch   uint64 `json:"epoch"`
	Seq     uint64 `json:"seq"`
	// Version is the version of the control node's binary.
	Version string `json:"version"`
	// Principal is who asks, Roles what it may do.
	Principal string        `json:"principal"`
	Roles     []RoleBinding `json:"roles"`
	// Organizations counts what the caller may see.
	Organizations []OrganizationStatus `json:"organizations"`
}

// OrganizationStatus counts what an organization holds.
type OrganizationStatus struct {
	Name string `json:"name"`
	// Resources counts the resources of each kind; kinds without any are left out.
	Resources map[Kind]int `json:"resources"`
	// GatewaysUp and GatewaysDown count the gateways by their link; revoked ones are not counted.
	GatewaysUp   int `json:"gatewaysUp"`
	GatewaysDown int `json:"gatewaysDown"`
}
