package exchange

import "time"

// TLS is what is known of a connection of TLS. It is the same for all exchanges on the connection.
type TLS struct {
	// ServerName is the name that the client has asked for (SNI), in lower case; "" for none.
	ServerName string
	// Version and CipherSuite are those of crypto/tls.
	Version, CipherSuite uint16
	// Resumed tells that the session was resumed.
	Resumed bool
	// Session belongs to who made the connection.
	Session any
}

// VersionName returns the version as it stands in the access log: "1.3".
func (t *TLS) VersionName() string {
	switch t.Version {
	case 0x0303:
		return "1.2"
	case 0x0304:
		return "1.3"
	}
	return ""
}

// ClientCert is a certificate that a client has shown and that was verified. It does not change.
type ClientCert struct {
	// Subject and Issuer are distinguished names as RFC 2253 writes them.
	Subject, Issuer string
	// Serial is the serial number in hexadecimal, Fingerprint the SHA-256 of the certificate, in lower-case hexadecimal.
	Serial, Fingerprint string
	// DNSNames, URIs, Emails and IPs are the subject's other names.
	DNSNames, URIs, Emails, IPs []string
	// NotAfter is when the certificate expires.
	NotAfter time.Time
	// Field and ChainField are the values of Client-Cert and Client-Cert-Chain (RFC 9440); the latter is "" if the root has
	// signed the certificate itself.
	Field, ChainField string
}
