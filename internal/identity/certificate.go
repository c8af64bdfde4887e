package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"hansa.dev/hansa/internal/keys"
)

// Lifetimes. A certificate begins an hour before it is issued (less if it is short-lived), for nodes whose clocks are
// behind.
const (
	// DefaultNodeLife is how long a node certificate lives: the longest promised time without control plane.
	DefaultNodeLife = 30 * 24 * time.Hour
	authorityLife   = 5 * 365 * 24 * time.Hour
	serverLife      = 90 * 24 * time.Hour
	backdate        = time.Hour
)

// authority issues certificates: an ECDSA P-256 key with its self-signed certificate, which the trust document lists.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

func newAuthority(cluster string, now time.Time) (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := certificateTemplate(now, now.Add(authorityLife))
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: "hansa authority", Organization: []string{cluster}}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA = true
	template.MaxPathLenZero = true // it issues no further authorities
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	return &authority{cert: cert, key: key}, nil
}

// issueNode makes the certificate of a node, good for both ends of a TLS connection.
func (a *authority) issueNode(n Node, public crypto.PublicKey, now time.Time, life time.Duration) ([]byte, error) {
	if err := n.Validate(); err != nil {
		return nil, err
	}
	template, err := certificateTemplate(now, now.Add(life))
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(n.String())
	if err != nil {
		return nil, fmt.Errorf("name of node: %w", err)
	}
	template.URIs = []*url.URL{u}
	template.Subject = pkix.Name{CommonName: n.Name}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	return a.issue(template, public)
}

// issueServer makes the certificate of an HTTPS server under the given host names and IP addresses.
func (a *authority) issueServer(names []string, public crypto.PublicKey, now time.Time) ([]byte, error) {
	template, err := certificateTemplate(now, now.Add(serverLife))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	template.Subject = pkix.Name{CommonName: names[0]}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.issue(template, public)
}

func (a *authority) issue(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return der, nil
}

func certificateTemplate(now, end time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-min(backdate, end.Sub(now)/2)),
		NotAfter:              end,
		BasicConstraintsValid: true,
	}, nil
}

// Peer is a node that has proved who it is.
type Peer struct {
	Node Node
	// PublicKey is the SHA-256 of the node's public key (SubjectPublicKeyInfo) in lower-case hexadecimal, as
	// api/v1.GatewaySpec holds it.
	PublicKey string
	// Key is the public key itself.
	Key crypto.PublicKey
	// NotAfter is when the certificate expires.
	NotAfter time.Time
	// Expired: the certificate is past its time. Such a node may renew it and nothing else.
	Expired bool
}

// HashPublicKey returns the SHA-256 of a public key as Peer.PublicKey has it.
func HashPublicKey(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Verifier checks the certificates of nodes against one trust document.
type Verifier struct {
	cluster string
	pool    *x509.CertPool
}

// NewVerifier makes a verifier of a trust document.
func NewVerifier(t *keys.Trust) (*Verifier, error) {
	v := &Verifier{cluster: t.Cluster, pool: x509.NewCertPool()}
	for i, der := range t.CAs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("trust document %d, authority %d: %w", t.Serial, i, err)
		}
		v.pool.AddCert(cert)
	}
	return v, nil
}

// Verify checks the certificate that a node showed, the first of the chain. That the node has the key is for TLS to
// prove. A certificate past its time passes with Expired set. The error is ErrUnknownAuthority or ErrNotNode.
func (v *Verifier) Verify(chain []*x509.Certificate, now time.Time) (Peer, error) {
	if len(chain) == 0 {
		return Peer{}, fmt.Errorf("no certificate: %w", ErrNotNode)
	}
	leaf := chain[0]
	at := now
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.pool, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return Peer{}, fmt.Errorf("certificate %q: %w", leaf.Subject.CommonName, ErrUnknownAuthority)
	}
	if err != nil {
		return Peer{}, fmt.Errorf("certificate %q: %w: %w", leaf.Subject.CommonName, ErrNotNode, err)
	}
	if len(leaf.URIs) != 1 {
		return Peer{}, fmt.Errorf("certificate %q names %d URIs instead of one: %w", leaf.Subject.CommonName, len(leaf.URIs), ErrNotNode)
	}
	node, err := ParseNode(leaf.URIs[0].String())
	if err != nil {
		return Peer{}, fmt.Errorf("certificate %q: %w: %w", leaf.Subject.CommonName, ErrNotNode, err)
	}
	if node.Cluster != v.cluster {
		return Peer{}, fmt.Errorf("certificate of %s in cluster %q: %w", node, v.cluster, ErrNotNode)
	}
	hash, err := HashPublicKey(leaf.PublicKey)
	if err != nil {
		return Peer{}, err
	}
	return Peer{Node: node, PublicKey: hash, Key: leaf.PublicKey, NotAfter: leaf.NotAfter, Expired: now.After(leaf.NotAfter)}, nil
}

// renewAt is when a certificate has a third of its life left.
func renewAt(notBefore, notAfter time.Time) time.Time {
	return notAfter.Add(-notAfter.Sub(notBefore) / 3)
}

func encodeChain(chain [][]byte) []byte {
	var out []byte
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

func decodeChain(text []byte) ([][]byte, error) {
	var chain [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, errors.New("no PEM block \"CERTIFICATE\"")
	}
	return chain, nil
}

// ParseRequest reads a certificate request (PKCS #10, DER) and checks that whoever made it has the key. It returns
// the public key and its hash. Names in the request do not count.
func ParseRequest(der []byte) (public crypto.PublicKey, hash string, err error) {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, "", errors.New("certificate request: the key is not ECDSA P-256")
	}
	hash, err = HashPublicKey(key)
	return key, hash, err
}
