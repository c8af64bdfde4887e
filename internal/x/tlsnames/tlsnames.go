// Package tlsnames reads the names that configurations have for versions and cipher suites of TLS. What is known to be weak
// has none.
package tlsnames

import (
	"crypto/tls"
	"fmt"
)

// Version reads a version: 1.2 or 1.3. "" is 0.
func Version(text string) (uint16, error) {
	switch text {
	case "":
		return 0, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("%q is not a version of TLS that is taken; write 1.2 or 1.3", text)
}

// Ciphers reads names of cipher suites of TLS 1.2, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256. Those of TLS 1.3 cannot be
// chosen.
func Ciphers(names []string) ([]uint16, error) {
	var all []uint16
	for _, name := range names {
		id, err := cipher(name)
		if err != nil {
			return nil, err
		}
		all = append(all, id)
	}
	return all, nil
}

func cipher(name string) (uint16, error) {
	for _, suite := range tls.CipherSuites() {
		if suite.Name == name && suite.SupportedVersions[0] != tls.VersionTLS13 {
			return suite.ID, nil
		}
	}
	for _, suite := range tls.InsecureCipherSuites() {
		if suite.Name == name {
			return 0, fmt.Errorf("the cipher suite %s is weak", name)
		}
	}
	return 0, fmt.Errorf("%q is not a cipher suite of TLS 1.2; one is TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", name)
}
