package build

import (
	"encoding/base64"
	"slices"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/vault"
)

// sealCertificates does what the control API does with certificates: it takes the private keys out and seals them to the
// gateway groups of their organization, whose keys derive from the root. Compiling picks those that are needed.
func (o Options) sealCertificates(st state) error {
	certificates := slices.Clone(st.kinds[v1.KindCertificate])
	if len(certificates) == 0 {
		return nil
	}
	versions := map[string]map[string]v1.GroupKeyVersion{} // by organization and group
	for _, g := range slices.Clone(st.kinds[v1.KindGatewayGroup]) {
		organization, name := g.Metadata.Organization, g.Metadata.Name
		key, err := o.Root.GroupKey(compile.ViewName(organization, name))
		if err != nil {
			return err
		}
		version := v1.GroupKeyVersion{ID: key.ID(), Public: base64.StdEncoding.EncodeToString(key.Public()), CreatedAt: o.Now}
		if versions[organization] == nil {
			versions[organization] = map[string]v1.GroupKeyVersion{}
		}
		versions[organization][name] = version
		st.put(system(v1.KindGroupKey, organization, name, &v1.GroupKeySpec{Versions: []v1.GroupKeyVersion{version}}))
	}
	var faults []v1.Fault
	for _, c := range certificates {
		spec, k := c.Spec.(*v1.CertificateSpec), c.Key()
		if spec.ACME != nil {
			faults = append(faults, v1.Fault{
				Kind: string(k.Kind), Name: k.Name, Organization: k.Organization, Path: "spec.acme", Code: resource.CodeInvalid,
				Message: "only a control node has certificates issued by a CA", Remedy: "export the bundle from the control node, or leave the certificate out",
			})
			continue
		}
		if spec.PrivateKey == "" {
			faults = append(faults, v1.Fault{
				Kind: string(k.Kind), Name: k.Name, Organization: k.Organization, Path: "spec.certificate", Code: resource.CodeRequired,
				Message: "there is no private key", Remedy: "add spec.privateKey or privateKeyFile",
			})
			continue
		}
		held, err := vault.Describe(spec.Certificate)
		if err != nil {
			return err
		}
		der, err := vault.PrivateKeyOf(spec.Certificate, spec.PrivateKey)
		if err != nil {
			return err
		}
		for name, version := range versions[k.Organization] {
			box, err := vault.SealTo(name, version, k.Organization, k.Name, held.Fingerprint, der)
			if err != nil {
				return err
			}
			held.Groups = append(held.Groups, box)
		}
		clear(der)
		bare, bareSpec := *c, *spec
		bareSpec.PrivateKey = ""
		bare.Spec = &bareSpec
		st.put(&bare)
		st.put(system(v1.KindCertificateKey, k.Organization, k.Name, held))
	}
	return resource.AsError(faults)
}

func system(kind v1.Kind, organization, name string, spec v1.Spec) *v1.Object {
	return &v1.Object{APIVersion: v1.APIVersion, Kind: kind, Metadata: v1.Metadata{Name: name, Organization: organization}, Spec: spec}
}
