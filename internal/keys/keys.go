// Package keys signs and seals: the root key and what it vouches for, the signing keys of control nodes, and the
// sealing of files at rest, of secrets for a gateway group and of bundles.
//
// # Signing
//
// One Ed25519 root key per cluster, which can live offline, signs one document, the [Trust]: which signing keys and
// which certificate authorities the cluster has, and up to which epoch its configuration may go. Everybody who knows
// the [Fingerprint] of the root can check a Trust from any source. Signing keys live at most [MaxSigningLife] and
// sign what control nodes publish. Each signature is made over a purpose and the message, so that a signature for one
// purpose is worthless for another.
//
// # Sealing
//
// A [Sealer] encrypts files at rest with AES-256-GCM under keys of a [Provider]. A [GroupKey] opens what was sealed
// once for all gateways of a group (HPKE, RFC 9180). Passphrase streams protect bundles (Argon2id, RFC 9106).
//
// What each key protects from is explained in docs/explanation/keys-and-trust.md. All types are safe for concurrent
// use; nothing here reads a clock: callers pass the time. The package is used by identity, localstore, store, feed,
// control and the command line, and imports only the standard library, x and golang.org/x/crypto.
package keys

import "errors"

// Why a signature or a sealed value is refused.
var (
	ErrUnknownKey   = errors.New("the key is not in the trust document")
	ErrRevokedKey   = errors.New("the key is revoked")
	ErrExpiredKey   = errors.New("the key has expired")
	ErrEarlyKey     = errors.New("the key is not valid yet")
	ErrWrongPurpose = errors.New("the key is not allowed to sign for this purpose")
	ErrBadSignature = errors.New("the signature does not fit")
	// ErrForeignRoot: the document is of another cluster or signed by another root than the one that is pinned.
	ErrForeignRoot = errors.New("signed by another root")
	// ErrStale: there is already a newer trust document.
	ErrStale = errors.New("older than the trust document in force")
	// ErrNoSigningKey: no own signing key is valid now.
	ErrNoSigningKey = errors.New("no valid signing key")
	// ErrUnseal: the key is not the one that sealed the value, or the value was changed.
	ErrUnseal = errors.New("wrong key or changed content")
)
