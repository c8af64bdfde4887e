// Package vault seals what the record keeps secret: the private halves of group keys. A backup of the record, a member of
// its cluster and whoever reads its disk get nothing of them without the at-rest key of the control nodes, which lies
// outside the record and the data folder.
//
// Every value is bound to what it is and whose it is, so that none can be put in another's place. All control nodes of a
// cluster have the same at-rest key. Errors name what was to be opened and never what is in it. A Vault is safe for
// concurrent use. The package is used by control and app.
package vault

import (
	"encoding/base64"
	"fmt"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/keys"
)

// Vault seals with the at-rest key of the control nodes.
type Vault struct{ sealer *keys.Sealer }

// New makes a vault.
func New(sealer *keys.Sealer) *Vault { return &Vault{sealer: sealer} }

// Seal returns plaintext sealed for the context, in base64.
func (v *Vault) Seal(context string, plaintext []byte) string {
	return base64.StdEncoding.EncodeToString(v.sealer.Seal("record "+context, plaintext))
}

// Open returns what was sealed for the context. The error is keys.ErrUnseal.
func (v *Vault) Open(context, sealed string) ([]byte, error) {
	box, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, fmt.Errorf("open record %s: not base64: %w", context, keys.ErrUnseal)
	}
	return v.sealer.Open("record "+context, box)
}

// NewGroupKey makes a key for a gateway group.
func (v *Vault) NewGroupKey(organization, group string, at time.Time) (v1.GroupKeyVersion, error) {
	key, err := keys.GenerateGroupKey()
	if err != nil {
		return v1.GroupKeyVersion{}, err
	}
	return v1.GroupKeyVersion{
		ID: key.ID(), Public: base64.StdEncoding.EncodeToString(key.Public()),
		Sealed: v.Seal(groupContext(organization, group, key.ID()), key.Bytes()), CreatedAt: at,
	}, nil
}

// GroupKeys opens the keys of a gateway group.
func (v *Vault) GroupKeys(organization, group string, spec *v1.GroupKeySpec) (keys.GroupKeys, error) {
	all := make([]*keys.GroupKey, 0, len(spec.Versions))
	for _, version := range spec.Versions {
		b, err := v.Open(groupContext(organization, group, version.ID), version.Sealed)
		if err != nil {
			return keys.GroupKeys{}, err
		}
		key, err := keys.ParseGroupKey(b)
		if err != nil {
			return keys.GroupKeys{}, fmt.Errorf("group key %s of %s/%s: %w", version.ID, organization, group, err)
		}
		if key.ID() != version.ID {
			return keys.GroupKeys{}, fmt.Errorf("group key %s of %s/%s: the record holds %s under that name", version.ID, organization, group, key.ID())
		}
		all = append(all, key)
	}
	return keys.NewGroupKeys(all...), nil
}

func groupContext(organization, group, id string) string {
	return "group key " + organization + "/" + group + "/" + id
}

// ExportContext is what the keys of a gateway group are bound to when they are sealed to a caller of the control API.
func ExportContext(organization, group string) string {
	return "export of group keys " + organization + "/" + group
}
