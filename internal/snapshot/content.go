package snapshot

import (
	"encoding/json"
	"strings"
)

// The classes of entries. An entry's key is its class and its names, joined by "/": "api/acme/prod/catalog".
const (
	ClassSite    = "site"    // site/<organization>: one per view
	ClassHosts   = "hosts"   // hosts/<organization>/<environment group>
	ClassAPI     = "api"     // api/<organization>/<environment>/<api>
	ClassBackend = "backend" // backend/<organization>/<backend>
	ClassProduct = "product" // product/<organization>/<product>
	// certificate/<organization>/<certificate>; not critical: a gateway that cannot read it serves without.
	ClassCertificate = "certificate"
	// challenge/<organization>/<certificate>; not critical, likewise.
	ClassChallenge = "challenge"
)

// EntryKey joins a class and names to the key of an entry.
func EntryKey(class string, names ...string) string {
	return class + "/" + strings.Join(names, "/")
}

// Site is the content of the entry that tells a gateway where it is.
type Site struct {
	Organization string `json:"organization"`
	GatewayGroup string `json:"gatewayGroup"`
	Name         string `json:"name"`
	Cloud        string `json:"cloud,omitempty"`
	Region       string `json:"region,omitempty"`
	Zone         string `json:"zone,omitempty"`
	Jurisdiction string `json:"jurisdiction,omitempty"`
}

// Hosts is the content of the entry of an environment group: hostnames and the environments behind them. Only the
// environments that are placed on the view's gateway group are listed.
type Hosts struct {
	Organization string   `json:"organization"`
	Name         string   `json:"name"`
	Hostnames    []string `json:"hostnames"` // lower case; exact, "*.suffix" or "*"
	Environments []string `json:"environments"`
	TLS          *HostTLS `json:"tls,omitempty"` // from reader version ReaderHostTLS on
}

// HostTLS is what is asked of the connections to the hostnames.
type HostTLS struct {
	MinVersion        string `json:"minVersion,omitempty"`
	ClientCertificate string `json:"clientCertificate,omitempty"` // optional or required; "": not asked for
	ClientCA          string `json:"clientCA,omitempty"`
	ClientCRL         string `json:"clientCRL,omitempty"` // from reader version ReaderClientCRL on; "": nobody is looked up
	ClientDepth       int    `json:"clientDepth,omitempty"`
	ForwardClient     string `json:"forwardClient,omitempty"` // certificate or chain; "": nothing
	ClientFromProxies bool   `json:"clientFromProxies,omitempty"`
}

// API is the content of the entry of one deployed API in one environment: all that a gateway needs to serve it,
// with every default filled in.
type API struct {
	Organization    string      `json:"organization"`
	Environment     string      `json:"environment"`
	Name            string      `json:"name"`
	Revision        uint64      `json:"revision"`
	BasePath        string      `json:"basePath"`          // canonical: leading slash, no trailing one; "/" for the root
	Backend         string      `json:"backend,omitempty"` // name within the organization
	Split           *Split      `json:"split,omitempty"`   // instead of Backend
	Mirror          *Mirror     `json:"mirror,omitempty"`
	BackendPath     string      `json:"backendPath"` // canonical, as BasePath
	Operations      []Operation `json:"operations,omitempty"`
	Request         []Policy    `json:"request,omitempty"`
	Response        []Policy    `json:"response,omitempty"`
	MaxRequestBytes int64       `json:"maxRequestBytes,omitempty"`
}

// Operation is one call of an API. Its policies come after those of the API.
type Operation struct {
	Name     string   `json:"name"`
	Method   string   `json:"method"` // or "*"
	Path     string   `json:"path"`
	Request  []Policy `json:"request,omitempty"`
	Response []Policy `json:"response,omitempty"`
}

// Policy is one step. Config is the JSON of the policy's type in api/v1, defaults filled in.
type Policy struct {
	Use    string          `json:"use"` // the name in policyspec: "apiKey"
	Config json.RawMessage `json:"config,omitempty"`
}

// Product is the content of the entry of a product.
type Product struct {
	Organization string   `json:"organization"`
	Name         string   `json:"name"`
	APIs         []string `json:"apis"`
	Quota        *Limit   `json:"quota,omitempty"`
	RateLimit    *Limit   `json:"rateLimit,omitempty"`
}

// Limit is a number of requests per window.
type Limit struct {
	Limit        uint64 `json:"limit"`
	WindowMillis int64  `json:"windowMillis"`
}

// Certificate is the content of the entry of a certificate with its private key. It differs from view to view: the key is
// sealed to the group.
type Certificate struct {
	Organization string `json:"organization"`
	Name         string `json:"name"`
	// Hostnames are what the certificate is shown for, in lower case, exact or "*.suffix". None: it is only for backends.
	Hostnames []string `json:"hostnames,omitempty"`
	// Chain is in PEM, the certificate itself first.
	Chain string `json:"chain"`
	// Fingerprint is the SHA-256 of the public key, in hexadecimal.
	Fingerprint string `json:"fingerprint"`
	// KeyID names the group key that SealedKey is sealed to.
	KeyID string `json:"keyId"`
	// SealedKey is the private key in PKCS #8, sealed for CertificateContext.
	SealedKey []byte `json:"sealedKey"`
}

// CertificateContext is what the sealed private key of a certificate is bound to.
func CertificateContext(organization, name, fingerprint string) string {
	return "certificate " + organization + "/" + name + " " + fingerprint
}

// Challenges is the content of the entry of what a gateway answers a CA that validates the hostnames of a certificate
// (RFC 8555, section 8). It is there only while the CA does.
type Challenges struct {
	Organization string      `json:"organization"`
	Certificate  string      `json:"certificate"`
	Challenges   []Challenge `json:"challenges"`
}

// The types of challenges.
const (
	ChallengeHTTP    = "http-01"     // RFC 8555, section 8.3
	ChallengeTLSALPN = "tls-alpn-01" // RFC 8737
)

// Challenge is one of them.
type Challenge struct {
	Type             string `json:"type"`
	Hostname         string `json:"hostname"` // in lower case
	Token            string `json:"token"`
	KeyAuthorization string `json:"keyAuthorization"`
}
