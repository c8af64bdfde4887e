package resource

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

// maxDepth bounds how many certificates may stand between a client's and its CA.
const maxDepth = 9

// hostTLS checks what is asked of the connections to hostnames.
func (c *checker) hostTLS(t *v1.HostTLS) {
	c.enum("spec.tls.minVersion", "HostTLS.minVersion", t.MinVersion)
	cert := t.ClientCertificate
	if cert == nil {
		return
	}
	const path = "spec.tls.clientCertificate"
	c.enum(path+".mode", "ClientCertificate.mode", cert.Mode)
	c.enum(path+".forward", "ClientCertificate.forward", cert.Forward)
	switch {
	case cert.Mode == "":
		c.fault(path+".mode", CodeRequired, "", "it must be said whether a certificate is needed", "write none, optional or required")
	case cert.Mode != "none" && cert.CA == "":
		c.fault(path+".ca", CodeRequired, "", "without a CA no certificate of a client can be verified", "paste the certificates of the CAs that sign the clients' certificates")
	}
	if cert.MaxDepth != 0 {
		c.number(path+".maxDepth", int64(cert.MaxDepth), 1, maxDepth)
	}
	c.authorities(path+".ca", cert.CA)
}

// authorities checks certificates of CAs in PEM; none are fine.
func (c *checker) authorities(path, text string) {
	if text == "" {
		return
	}
	if len(text) > maxCA {
		c.fault(path, CodeOutOfRange, "", fmt.Sprintf("it has %d bytes and may have %d", len(text), maxCA), "leave out the certificates that are not needed")
		return
	}
	if n, err := certificates(text); err != nil {
		c.fault(path, CodeInvalid, "", fmt.Sprintf("certificate %d cannot be read: %v", n+1, err), "paste PEM certificates, with their lines BEGIN and END")
	}
}

// certificates returns how many certificates a PEM text holds, up to the first that is wrong.
func certificates(text string) (n int, err error) {
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return n, fmt.Errorf("it is a %s", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return n, err
		}
		n++
	}
	if n == 0 || strings.TrimSpace(string(rest)) != "" {
		return n, fmt.Errorf("there is other text")
	}
	return n, nil
}
