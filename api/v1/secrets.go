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

// CertificateSpec describes a certificate with its private key: what gateways show for hostnames, and what they prove
// themselves with to backends.
type CertificateSpec struct {
	// Hostnames are the names that the certificate is shown for, exact or with "*" as the whole first label. The
	// certificate must cover each, and each must be a hostname of an environment group of the organization, or lie under
	// one. Default: those names of the certificate for which that holds. With acme they are what the certificate is
	// ordered for: required, without "*", and at most 100.
	Hostnames []string `json:"hostnames,omitempty"`
	// ACME has the certificate issued and renewed by a CA (RFC 8555). It stands in place of certificate and privateKey. A
	// certificate that stood here before is shown until the CA has issued another one.
	ACME *ACME `json:"acme,omitempty"`
	// Certificate is the certificate in PEM, followed by those that lead to the root, each having signed the one before.
	// In a file for the command line certificateFile may stand instead: the name of a file, seen from the one that it is
	// named in. Required without acme.
	Certificate string `json:"certificate,omitempty"`
	// PrivateKey is the key of the certificate in PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted; RSA of 2048 bits or more,
	// ECDSA or Ed25519. It is only ever written: Hansa seals it at once and never gives it out. Leave it out to keep the
	// key that is stored. In a file for the command line privateKeyFile may stand instead.
	PrivateKey string `json:"privateKey,omitempty"`
}

// CertificateKeySpec describes the private key of a Certificate of the same name. Hansa writes it.
type CertificateKeySpec struct {
	// Names are the DNS names that the certificate carries, in lower case.
	Names []string `json:"names,omitempty"`
	// Fingerprint is the SHA-256 of the public key (SubjectPublicKeyInfo), in lower-case hexadecimal.
	Fingerprint string `json:"fingerprint"`
	// NotBefore is when the certificate begins to be valid.
	NotBefore time.Time `json:"notBefore"`
	// NotAfter is when it expires.
	NotAfter time.Time `json:"notAfter"`
	// Certificate is the chain in PEM, unless it stands in the Certificate.
	Certificate string `json:"certificate,omitempty"`
	// Asked tells what the certificate was ordered for by ACME: a digest of directory, hostnames, keyType and profile.
	Asked string `json:"asked,omitempty"`
	// Sealed is the private key (PKCS #8), sealed with the at-rest key of the control nodes, in base64.
	Sealed string `json:"sealed,omitempty"`
	// Groups are the private key sealed to the gateway groups that need it.
	Groups []SealedToGroup `json:"groups,omitempty"`
}

// SealedToGroup is a secret that the gateways of one group can open.
type SealedToGroup struct {
	// GatewayGroup is the group.
	GatewayGroup string `json:"gatewayGroup"`
	// KeyID names the key of the group that it is sealed to.
	KeyID string `json:"keyId"`
	// Sealed is the secret, in base64.
	Sealed string `json:"sealed"`
}
