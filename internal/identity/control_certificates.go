package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/x/durable"
)

// Issue makes a certificate for a node and returns it with the authority's.
func (c *Control) Issue(n Node, public crypto.PublicKey) ([][]byte, error) {
	if n.Cluster != c.o.Cluster {
		return nil, fmt.Errorf("issue certificate for %s: this is cluster %q: %w", n, c.o.Cluster, ErrNotNode)
	}
	c.mu.RLock()
	a := c.authority
	c.mu.RUnlock()
	if a == nil {
		return nil, fmt.Errorf("issue certificate for %s: the trust document lists no authority of this control node: %w", n, ErrNoRoot)
	}
	der, err := a.issueNode(n, public, c.o.Now(), c.o.NodeLife)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", n, err)
	}
	return [][]byte{der, a.cert.Raw}, nil
}

// renewOwn issues the node's own certificates anew if they are due, or if their authority no longer counts.
func (c *Control) renewOwn() error {
	now := c.o.Now()
	c.mu.RLock()
	a, node, api := c.authority, c.node, c.api
	c.mu.RUnlock()
	if a == nil {
		return fmt.Errorf("certificates of the control node: the trust document lists none of its authorities: %w", ErrNoRoot)
	}
	stale := func(cert *tls.Certificate) bool {
		return cert == nil || !now.Before(renewAt(cert.Leaf.NotBefore, cert.Leaf.NotAfter)) || cert.Leaf.CheckSignatureFrom(a.cert) != nil
	}
	var err error
	if stale(node) {
		node, err = a.issueOwn(func(key *ecdsa.PrivateKey) ([]byte, error) {
			return a.issueNode(c.Node(), key.Public(), now, c.o.NodeLife)
		})
		if err != nil {
			return err
		}
	}
	if stale(api) {
		api, err = a.issueOwn(func(key *ecdsa.PrivateKey) ([]byte, error) {
			return a.issueServer(c.hosts(), key.Public(), now)
		})
		if err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node, c.api = node, api
	return nil
}

func (a *authority) issueOwn(issue func(*ecdsa.PrivateKey) ([]byte, error)) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	der, err := issue(key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (c *Control) hosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil { // a machine without a name has no certificate for one
		hosts = append(hosts, name)
	}
	hosts = append(hosts, c.o.Hosts...)
	slices.Sort(hosts[3:])
	return slices.Compact(hosts)
}

// bestAuthority returns the own authority among the given certificates that lives longest; nil if there is none.
func (c *Control) bestAuthority(listed [][]byte) (*authority, error) {
	own, err := c.authorities()
	if err != nil {
		return nil, err
	}
	var best *authority
	for _, a := range own {
		isListed := slices.ContainsFunc(listed, func(der []byte) bool { return slices.Equal(der, a.cert.Raw) })
		if isListed && (best == nil || a.cert.NotAfter.After(best.cert.NotAfter)) {
			best = a
		}
	}
	return best, nil
}

// nextAuthority returns an own authority that still waits for the root, or makes one. Only one that is newer than the
// best listed one can be waiting; others were replaced and must not come back.
func (c *Control) nextAuthority(best *authority, listed [][]byte) (*authority, error) {
	own, err := c.authorities()
	if err != nil {
		return nil, err
	}
	for _, a := range own {
		isListed := slices.ContainsFunc(listed, func(der []byte) bool { return slices.Equal(der, a.cert.Raw) })
		if !isListed && (best == nil || a.cert.NotBefore.After(best.cert.NotBefore)) && !due(a.cert.NotAfter, authorityLife, c.o.Now()) {
			return a, nil
		}
	}
	return c.makeAuthority()
}

func (c *Control) makeAuthority() (*authority, error) {
	a, err := newAuthority(c.o.Cluster, c.o.Now())
	if err != nil {
		return nil, err
	}
	name := c.path(authorityPrefix + authorityID(a.cert))
	if err := keys.SavePrivateKey(name+".key", c.o.Sealer, a.key); err != nil {
		return nil, fmt.Errorf("save authority: %w", err)
	}
	if err := durable.CreateFile(name+".crt", 0o644, durable.Bytes(encodeChain([][]byte{a.cert.Raw}))); err != nil {
		return nil, fmt.Errorf("save authority: %w", err)
	}
	return a, nil
}

// ReplaceAuthority makes a new authority and takes the own ones so far out of the trust document, which needs the root
// key (ErrNoRoot). It is for an authority whose key was stolen: every certificate that they issued is void, and the
// gateways that have one must join again.
func (c *Control) ReplaceAuthority() error {
	c.maintaining.Lock()
	defer c.maintaining.Unlock()
	if _, err := c.loadRoot(); err != nil {
		return fmt.Errorf("replace authority: %w", err)
	}
	old, err := c.authorities()
	if err != nil {
		return err
	}
	draft, why, err := c.draft()
	if err != nil {
		return err
	}
	next, err := c.makeAuthority()
	if err != nil {
		return err
	}
	draft.CAs = slices.DeleteFunc(draft.CAs, func(der []byte) bool {
		return slices.ContainsFunc(old, func(a *authority) bool { return slices.Equal(der, a.cert.Raw) })
	})
	draft.CAs = append(draft.CAs, next.cert.Raw)
	if err := c.publish(draft, append(why, "replaced authority "+authorityID(next.cert))); err != nil {
		return err
	}
	for _, a := range old {
		for _, suffix := range []string{".crt", ".key"} {
			if err := os.Remove(c.path(authorityPrefix + authorityID(a.cert) + suffix)); err != nil {
				return fmt.Errorf("remove replaced authority: %w", err)
			}
		}
	}
	return c.renewOwn()
}

// authorities reads the own authorities from the disk.
func (c *Control) authorities() ([]*authority, error) {
	names, err := filepath.Glob(c.path(authorityPrefix + "*.crt"))
	if err != nil {
		return nil, fmt.Errorf("list authorities: %w", err)
	}
	var out []*authority
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("load authority: %w", err)
		}
		chain, err := decodeChain(text)
		if err != nil {
			return nil, fmt.Errorf("load authority %q: %w", name, err)
		}
		cert, err := x509.ParseCertificate(chain[0])
		if err != nil {
			return nil, fmt.Errorf("load authority %q: %w", name, err)
		}
		private, err := keys.LoadPrivateKey(strings.TrimSuffix(name, ".crt")+".key", c.o.Sealer)
		if err != nil {
			return nil, fmt.Errorf("load authority %q: %w", name, err)
		}
		key, ok := private.(*ecdsa.PrivateKey)
		if !ok || !key.PublicKey.Equal(cert.PublicKey) {
			return nil, fmt.Errorf("load authority %q: key and certificate do not belong together", name)
		}
		out = append(out, &authority{cert: cert, key: key})
	}
	return out, nil
}

func authorityID(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return fmt.Sprintf("%x", sum[:8])
}
