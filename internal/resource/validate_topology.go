package resource

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

func (c *checker) environment(e *v1.EnvironmentSpec) {
	c.short("spec.displayName", e.DisplayName)
	seen := map[string]bool{}
	for i, p := range e.Placements {
		path := join(index("spec.placements", i), "gatewayGroup")
		c.ref(path, p.GatewayGroup)
		if seen[p.GatewayGroup] {
			c.duplicate(path, p.GatewayGroup)
		}
		seen[p.GatewayGroup] = true
	}
}

func (c *checker) environmentGroup(g *v1.EnvironmentGroupSpec) {
	if len(g.Hostnames) == 0 {
		c.fault("spec.hostnames", CodeRequired, "", "an environment group needs a hostname", `write at least one, or "*" for every host`)
	}
	if len(g.Hostnames) > maxHostnames {
		c.tooMany("spec.hostnames", len(g.Hostnames), maxHostnames)
	}
	seen := map[string]bool{}
	for i, h := range g.Hostnames {
		path := index("spec.hostnames", i)
		if fault, remedy := hostnameFault(h); fault != "" {
			c.fault(path, CodeInvalid, h, fmt.Sprintf("%q is not a hostname: %s", shorten(h), fault), remedy)
		}
		if h := strings.ToLower(h); seen[h] {
			c.duplicate(path, h)
		}
		seen[strings.ToLower(h)] = true
	}
	c.refs("spec.environments", g.Environments)
}

func (c *checker) backendTLS(b *v1.BackendSpec) {
	if b.Protocol != "https" {
		c.fault("spec.tls", CodeInvalid, b.Protocol, "it means nothing unless the protocol is https", "write protocol: https, or remove the field")
	}
	if s := b.TLS.ServerName; s != "" {
		if fault := hostFault(s); fault != "" {
			c.fault("spec.tls.serverName", CodeInvalid, s, fmt.Sprintf("%q is not a host name: %s", shorten(s), fault), "write the DNS name that the certificate carries")
		}
	}
	if b.TLS.CA == "" {
		return
	}
	if len(b.TLS.CA) > maxCA {
		c.fault("spec.tls.ca", CodeOutOfRange, "", fmt.Sprintf("it has %d bytes and may have %d", len(b.TLS.CA), maxCA), "leave out the certificates that are not needed")
		return
	}
	if n, err := certificates(b.TLS.CA); err != nil {
		c.fault("spec.tls.ca", CodeInvalid, "", fmt.Sprintf("certificate %d cannot be read: %v", n+1, err), "paste PEM certificates, with their lines BEGIN and END")
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
