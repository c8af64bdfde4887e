package v1

import "time"

// OrganizationSpec describes an organization: the owner of every other resource and the border of what a role
// allows.
type OrganizationSpec struct {
	// DisplayName is for people.
	DisplayName string `json:"displayName,omitempty"`
	// Description is for people.
	Description string `json:"description,omitempty"`
}

// SiteSpec describes a place where gateways run.
type SiteSpec struct {
	// Cloud is the provider: aws, azure, gcp, on-premise or any other word.
	Cloud string `json:"cloud,omitempty"`
	// Region is the provider's name of the region.
	Region string `json:"region,omitempty"`
	// Zone is the provider's name of the zone within the region.
	Zone string `json:"zone,omitempty"`
	// Jurisdiction is the law that the site is under: EU, US, CH or any other word.
	Jurisdiction string `json:"jurisdiction,omitempty"`
}

// GatewayGroupSpec describes a set of gateways of one site that run the same configuration.
type GatewayGroupSpec struct {
	// Site is the name of the Site where the gateways of the group run.
	Site string `json:"site"`
}

// EnvironmentSpec describes an environment: a stage such as test or prod that APIs are deployed to.
type EnvironmentSpec struct {
	// DisplayName is for people.
	DisplayName string `json:"displayName,omitempty"`
	// Placements are the gateway groups that run the environment.
	Placements []Placement `json:"placements,omitempty"`
}

// Placement puts an environment on a gateway group.
type Placement struct {
	// GatewayGroup is the name of the GatewayGroup.
	GatewayGroup string `json:"gatewayGroup"`
}

// EnvironmentGroupSpec binds hostnames to environments.
type EnvironmentGroupSpec struct {
	// Hostnames are the names that consumers call: exact, or with "*" as the whole first label
	// ("*.api.example.com"), or "*" alone for every host that no other group names. A hostname belongs to one
	// group of all.
	Hostnames []string `json:"hostnames"`
	// Environments are the environments whose APIs answer under the hostnames. Two APIs deployed to them cannot
	// have the same base path.
	Environments []string `json:"environments"`
	// TLS tells what is asked of consumers that connect to the hostnames.
	TLS *HostTLS `json:"tls,omitempty"`
}

// HostTLS tells what is asked of the connections to some hostnames.
type HostTLS struct {
	// MinVersion is the lowest version of TLS: 1.2 or 1.3. Default: the one of the listener, which a higher one here
	// overrides and a lower one does not.
	MinVersion string `json:"minVersion,omitempty"`
	// ClientCertificate tells whether consumers must show a certificate. Default: they are not asked for one.
	ClientCertificate *ClientCertificate `json:"clientCertificate,omitempty"`
}

// ClientCertificate tells what certificates consumers must show.
type ClientCertificate struct {
	// Mode is none (no certificate is asked for), optional (consumers without one are served, but one that is shown
	// must be good) or required (the others are refused with 403 client-certificate-required, also where they come without
	// TLS). A certificate that is not good is refused with 403 client-certificate-invalid.
	Mode string `json:"mode"`
	// CA is one or more PEM certificates of the CAs that sign the consumers' certificates. Needed unless mode is none. In a
	// file for the command line caFile may stand instead: the name of a file, seen from the one that it is named in.
	CA string `json:"ca,omitempty"`
	// CRL is lists of revoked certificates (RFC 5280) in PEM, the complete one of each CA, signed by one of those in ca. With
	// any, whoever is not known to be good is refused with 403 client-certificate-invalid: a certificate that is on the list of
	// its CA, one whose CA has no list here, and all of a CA whose list has expired (nextUpdate). That goes for the consumer's
	// certificate and for those between it and the CA. Gateways fetch no lists: apply the next one before this one expires. Up
	// to 1 MiB, some 20,000 revoked certificates. In a file for the command line crlFile may stand instead. Default: revocation
	// is not looked at.
	CRL string `json:"crl,omitempty"`
	// MaxDepth is how many certificates may stand between the consumer's and the CA, 1 to 9. Default: 4.
	MaxDepth int `json:"maxDepth,omitempty"`
	// Forward is what backends are told (RFC 9440): none, certificate (the field Client-Cert) or chain (Client-Cert-Chain
	// too). Whatever the consumer sends under these names is removed in any case. Default: none.
	Forward string `json:"forward,omitempty"`
	// FromProxies takes the certificate also from the fields Client-Cert and Client-Cert-Chain (RFC 9440) of a proxy that ends TLS
	// before the gateway, if the listener trusts it (--trusted-proxy), and judges it as if the consumer had shown it here. Such a
	// proxy must itself ask for the certificate, and remove these fields of consumers: certificates are no secret. Default:
	// false, only what is shown in the handshake counts.
	FromProxies bool `json:"fromProxies,omitempty"`
}

// RoleBinding grants a role in an organization.
type RoleBinding struct {
	// Organization is the name of the organization, or "*" for all of them and for the kinds that belong to none.
	Organization string `json:"organization"`
	// Role is admin (everything, also principals, join tokens and backups), editor (resources and keys) or viewer
	// (read only).
	Role string `json:"role"`
}

// PrincipalSpec describes who may call the control API.
type PrincipalSpec struct {
	// Roles are the roles of the principal. Without one it may do nothing.
	Roles []RoleBinding `json:"roles,omitempty"`
	// Tokens are the bearer tokens of the principal, by their hash. Hansa writes them; a token itself is shown once.
	Tokens []TokenHash `json:"tokens,omitempty"`
}

// TokenHash is a bearer token as the record knows it.
type TokenHash struct {
	// ID names the token in lists and audit records.
	ID string `json:"id"`
	// SHA256 is the hash of the token, in lower-case hexadecimal.
	SHA256 string `json:"sha256"`
	// ExpiresAt is when the token ends; absent: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// JoinTokenSpec describes a one-time token that a new gateway enrols with.
type JoinTokenSpec struct {
	// GatewayGroup is the group that the gateway will belong to.
	GatewayGroup string `json:"gatewayGroup"`
	// SHA256 is the hash of the secret part of the token, in lower-case hexadecimal.
	SHA256 string `json:"sha256"`
	// ExpiresAt is when the token ends.
	ExpiresAt time.Time `json:"expiresAt"`
	// UsedBy is the gateway that enrolled with the token; empty while it is unused.
	UsedBy string `json:"usedBy,omitempty"`
}

// GatewaySpec describes an enrolled gateway.
type GatewaySpec struct {
	// GatewayGroup is the group whose configuration the gateway runs.
	GatewayGroup string `json:"gatewayGroup"`
	// PublicKey is the SHA-256 of the gateway's public key (SubjectPublicKeyInfo), in lower-case hexadecimal.
	PublicKey string `json:"publicKey"`
	// EnrolledAt is when the gateway first joined.
	EnrolledAt time.Time `json:"enrolledAt"`
	// Revoked gateways are refused on the link, whatever their certificate says.
	Revoked bool `json:"revoked,omitempty"`
}
