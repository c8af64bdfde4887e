package v1

import "time"

// ACME says how a CA issues a certificate. The control node orders it, answers the CA's challenge through the gateways
// that serve the hostnames, and renews it. Whoever applies it agrees to the terms of service of the CA.
type ACME struct {
	// Directory is the https URL of the CA's directory. Default: "https://acme-v02.api.letsencrypt.org/directory", Let's
	// Encrypt; to try things out, "https://acme-staging-v02.api.letsencrypt.org/directory".
	Directory string `json:"directory,omitempty"`
	// CA is what the server of the directory is verified against, in PEM. Default: the CAs of the control node's system. In
	// a file for the command line caFile may stand instead.
	CA string `json:"ca,omitempty"`
	// Email is where the CA can reach somebody about the account. Default: none.
	Email string `json:"email,omitempty"`
	// Challenge is how the CA is shown that the hostnames are the organization's: "http-01", which gateways answer on
	// port 80, or "tls-alpn-01", which they answer on port 443. Default: "http-01".
	Challenge string `json:"challenge,omitempty"`
	// KeyType is the kind of private key: "ecdsa-p256", "ecdsa-p384", "rsa-2048" or "rsa-4096". Every certificate gets a key
	// of its own. Default: "ecdsa-p256".
	KeyType string `json:"keyType,omitempty"`
	// Profile is the name of one of the CA's profiles, which decides among other things how long certificates live.
	// Default: the CA chooses.
	Profile string `json:"profile,omitempty"`
	// ExternalAccount ties the account to one that exists with the CA, if it asks for that.
	ExternalAccount *ExternalAccount `json:"externalAccount,omitempty"`
}

// ExternalAccount is what a CA gives its customers to tie ACME accounts to theirs (RFC 8555, section 7.3.4).
type ExternalAccount struct {
	// KeyID names the key.
	KeyID string `json:"keyId"`
	// Key is the key, in base64url as CAs give it out. It is only ever written: Hansa seals it at once and never gives it
	// out. Leave it out to keep the key that is stored.
	Key string `json:"key,omitempty"`
}

// ACMEAccountSpec describes an account with a CA. All certificates of an organization with the same directory, email and
// external account use the same one. Hansa writes it.
type ACMEAccountSpec struct {
	// Directory is the URL of the CA's directory.
	Directory string `json:"directory"`
	// Email is the contact that the CA was given.
	Email string `json:"email,omitempty"`
	// URL is what the CA calls the account; empty until it is registered.
	URL string `json:"url,omitempty"`
	// Sealed is the private key of the account (PKCS #8), sealed with the at-rest key of the control nodes, in base64.
	Sealed string `json:"sealed,omitempty"`
	// ExternalKeyID names the key that the account is tied to another one with.
	ExternalKeyID string `json:"externalKeyId,omitempty"`
	// ExternalSealed is that key, sealed likewise.
	ExternalSealed string `json:"externalSealed,omitempty"`
}

// CertificateOrderSpec describes how far a CA is with the Certificate of the same name. Hansa writes it.
type CertificateOrderSpec struct {
	// Asked tells what is ordered, as in CertificateKey.
	Asked string `json:"asked"`
	// Account is the ACMEAccount that orders.
	Account string `json:"account,omitempty"`
	// URL is what the CA calls the order; empty if none is open.
	URL string `json:"url,omitempty"`
	// Sealed is the private key of the certificate to come (PKCS #8), sealed with the at-rest key of the control nodes, in
	// base64.
	Sealed string `json:"sealed,omitempty"`
	// Challenges are what gateways are to answer the CA, as long as the order is open.
	Challenges []ACMEChallenge `json:"challenges,omitempty"`
	// Failures is how many attempts have failed since the last one that did not.
	Failures int `json:"failures,omitempty"`
	// NextAttempt is when the next one may begin.
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	// Problem is why the last one failed.
	Problem *ACMEProblem `json:"problem,omitempty"`
	// RenewAt is when the certificate that was issued last is to be renewed.
	RenewAt time.Time `json:"renewAt,omitzero"`
}

// ACMEChallenge is what gateways answer a CA that wants to see that a hostname is the organization's.
type ACMEChallenge struct {
	// Type is "http-01" or "tls-alpn-01".
	Type string `json:"type"`
	// Hostname is the name that the CA asks for.
	Hostname string `json:"hostname"`
	// Token is what the CA calls the challenge.
	Token string `json:"token"`
	// KeyAuthorization is the answer.
	KeyAuthorization string `json:"keyAuthorization"`
}

// ACMEProblem is why an attempt to have a certificate issued failed.
type ACMEProblem struct {
	// Reason is a stable code in CamelCase: "RateLimited".
	Reason string `json:"reason"`
	// Message is for people; it holds what the CA said.
	Message string `json:"message"`
	// At is when the attempt failed.
	At time.Time `json:"at"`
}
