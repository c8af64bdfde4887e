package v1

// BackendTLS tells how to verify an https backend, and what to show to it.
type BackendTLS struct {
	// ServerName is the name that the backend is asked for (SNI) and that its certificate must carry. Default: the host of
	// the endpoint.
	ServerName string `json:"serverName,omitempty"`
	// CA is one or more PEM certificates to trust instead of the system's.
	CA string `json:"ca,omitempty"`
	// SubjectNames are names of which the certificate must carry one, in place of ServerName: DNS names, IP addresses, or
	// URIs such as "spiffe://example.com/catalog", which must be equal.
	SubjectNames []string `json:"subjectNames,omitempty"`
	// MinVersion is the lowest version of TLS: 1.2 or 1.3. Default: 1.2.
	MinVersion string `json:"minVersion,omitempty"`
	// Ciphers are the cipher suites of TLS 1.2, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256. Default: those that are
	// safe.
	Ciphers []string `json:"ciphers,omitempty"`
	// ClientCertificate is the name of the Certificate that gateways show to the backend. Default: none.
	ClientCertificate string `json:"clientCertificate,omitempty"`
}
