package resource

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

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

func (c *checker) backend(b *v1.BackendSpec) {
	c.enum("spec.protocol", "BackendSpec.protocol", b.Protocol)
	c.endpoints(b.Endpoints)
	if b.Host != "" && b.Host != "endpoint" {
		fault := hostFault(b.Host)
		if fault != "" && addressFault(b.Host+":80") == "" { // an IPv6 address in brackets
			fault = ""
		}
		if fault != "" {
			fault = addressFault(b.Host)
		}
		if fault != "" {
			c.fault("spec.host", CodeInvalid, b.Host, "the host is not one: "+fault, `write a host name, host:port or "endpoint"`)
		}
	}
	if b.TLS != nil {
		c.backendTLS(b)
	}
	if t := b.Timeouts; t != nil {
		c.between("spec.timeouts.connect", t.Connect, 10*time.Millisecond, 5*time.Minute)
		c.between("spec.timeouts.response", t.Response, 10*time.Millisecond, 24*time.Hour)
		c.between("spec.timeouts.idle", t.Idle, 10*time.Millisecond, 24*time.Hour)
		c.between("spec.timeouts.tunnel", t.Tunnel, time.Second, 7*24*time.Hour)
	}
	if n := b.Connections; n != nil {
		c.number("spec.connections.max", int64(n.Max), 1, 65_536)
		c.number("spec.connections.maxIdle", int64(n.MaxIdle), 1, int64(max(n.Max, 1)))
		c.between("spec.connections.idleTimeout", n.IdleTimeout, time.Second, 24*time.Hour)
	}
}

func (c *checker) endpoints(endpoints []v1.Endpoint) {
	if len(endpoints) == 0 {
		c.fault("spec.endpoints", CodeRequired, "", "a backend needs an endpoint", `write at least one: [{address: "10.0.0.1:8080"}]`)
	}
	if len(endpoints) > maxEndpoints {
		c.tooMany("spec.endpoints", len(endpoints), maxEndpoints)
	}
	seen := map[string]bool{}
	for i, e := range endpoints {
		path := join(index("spec.endpoints", i), "address")
		if fault := addressFault(e.Address); fault != "" {
			remedy := `write host:port, such as "catalog.internal:8080" or "[2001:db8::1]:443"`
			if strings.Contains(e.Address, "://") {
				remedy = "write host:port alone; spec.protocol says http or https"
			}
			c.fault(path, CodeInvalid, e.Address, fmt.Sprintf("%q is not an address: %s", shorten(e.Address), fault), remedy)
		}
		if seen[e.Address] {
			c.duplicate(path, e.Address)
		}
		seen[e.Address] = true
	}
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
