package vault

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/certpem"
)

// Describe returns what the record says of a chain in PEM: names, fingerprint and times, without a key.
func Describe(chain string) (*v1.CertificateKeySpec, error) {
	parsed, err := certpem.ParseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	leaf := parsed[0]
	return &v1.CertificateKeySpec{
		Names: certpem.Names(leaf), Fingerprint: certpem.Fingerprint(leaf),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
	}, nil
}

// PrivateKeyOf reads a private key in PEM and returns it in PKCS #8. It must be the one of the chain, in PEM too.
func PrivateKeyOf(chain, privateKey string) ([]byte, error) {
	parsed, err := certpem.ParseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key, err := certpem.ParseKey(privateKey)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	if !certpem.Belongs(key, parsed[0]) {
		return nil, errors.New("the private key is not the one of the certificate")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return der, nil
}

// SealPrivateKey seals the private key of a certificate for the record.
func (v *Vault) SealPrivateKey(organization, name, fingerprint string, der []byte) string {
	return v.Seal(snapshot.CertificateContext(organization, name, fingerprint), der)
}

// PrivateKey opens the private key of a certificate.
func (v *Vault) PrivateKey(organization, name string, spec *v1.CertificateKeySpec) ([]byte, error) {
	return v.Open(snapshot.CertificateContext(organization, name, spec.Fingerprint), spec.Sealed)
}

// SealTo seals the private key of a certificate to a gateway group.
func SealTo(group string, version v1.GroupKeyVersion, organization, name, fingerprint string, der []byte) (v1.SealedToGroup, error) {
	public, err := base64.StdEncoding.DecodeString(version.Public)
	if err != nil {
		return v1.SealedToGroup{}, fmt.Errorf("key of gateway group %s/%s: %w", organization, group, err)
	}
	box, err := keys.SealToGroup(public, snapshot.CertificateContext(organization, name, fingerprint), der)
	if err != nil {
		return v1.SealedToGroup{}, fmt.Errorf("seal certificate %s/%s: %w", organization, name, err)
	}
	return v1.SealedToGroup{GatewayGroup: group, KeyID: version.ID, Sealed: base64.StdEncoding.EncodeToString(box)}, nil
}

// The secrets of ACME: what each is, and whose.

// OrderKeyContext is what the private key of a certificate is bound to until the certificate is issued.
func OrderKeyContext(organization, name string) string {
	return "key of certificate order " + organization + "/" + name
}

// AccountKeyContext is what the private key of an ACME account is bound to.
func AccountKeyContext(organization, account string) string {
	return "key of ACME account " + organization + "/" + account
}

// ExternalKeyContext is what the key that ties an ACME account to another one is bound to.
func ExternalKeyContext(organization, account string) string {
	return "external key of ACME account " + organization + "/" + account
}
