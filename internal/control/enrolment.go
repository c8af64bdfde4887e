package control

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/store"
)

// Enrolment is what the link asks of the record: it redeems join tokens and knows which gateways are shut out.
type Enrolment struct{ s *Server }

var _ link.EnrolmentStore = Enrolment{}

// Enrolment returns the part of the server that lets gateways join.
func (s *Server) Enrolment() Enrolment { return Enrolment{s} }

// Redeem implements link.EnrolmentStore: it marks the token as used and enters the gateway, in one change set.
func (e Enrolment) Redeem(ctx context.Context, tokenID, secretHash, gateway, publicKey string) (organization, group string, err error) {
	who := system("enrolment")
	info := store.Info{Principal: who.principal, Reason: fmt.Sprintf("gateway %s joins with %s", gateway, tokenID)}
	_, err = e.s.commit(ctx, change{who: who, info: info, build: func(state store.State) (edit, error) {
		now := e.s.opts.Now()
		t, spec := findJoinToken(state, tokenID, secretHash)
		if t == nil {
			return edit{}, link.ErrTokenInvalid
		}
		organization, group = t.Metadata.Organization, spec.GatewayGroup
		k := v1.Key{Organization: organization, Kind: v1.KindGateway, Name: gateway}
		have, exists := state.Get(k)
		if spec.UsedBy != "" {
			if spec.UsedBy == gateway && exists && !revoked(have, group, publicKey) {
				return edit{}, nil // the answer to the first call was lost
			}
			return edit{}, link.ErrTokenUsed
		}
		if !now.Before(spec.ExpiresAt) {
			return edit{}, link.ErrTokenInvalid
		}
		if exists {
			return edit{}, link.ErrNameTaken
		}
		used, usedSpec := *t, *spec
		usedSpec.UsedBy = gateway
		used.Spec = &usedSpec
		return edit{puts: []*v1.Object{&used, {
			APIVersion: v1.APIVersion, Kind: k.Kind, Metadata: v1.Metadata{Name: k.Name, Organization: k.Organization},
			Spec: &v1.GatewaySpec{GatewayGroup: group, PublicKey: publicKey, EnrolledAt: now.UTC().Truncate(time.Second)},
		}}}, nil
	}})
	if err != nil {
		return "", "", err
	}
	return organization, group, nil
}

// findJoinToken returns the token with that name and secret.
func findJoinToken(state store.State, tokenID, secretHash string) (*v1.Object, *v1.JoinTokenSpec) {
	for o := range state.List(v1.KindJoinToken, "", "") {
		spec := o.Spec.(*v1.JoinTokenSpec)
		if o.Metadata.Name == tokenID && subtle.ConstantTimeCompare([]byte(spec.SHA256), []byte(secretHash)) == 1 {
			return o, spec
		}
	}
	return nil, nil
}

// revoked tells whether a gateway's resource refuses whoever calls with that group and public key.
func revoked(o *v1.Object, group, publicKey string) bool {
	spec := o.Spec.(*v1.GatewaySpec)
	return spec.Revoked || spec.GatewayGroup != group || spec.PublicKey != publicKey
}

// Renewable implements link.EnrolmentStore.
func (e Enrolment) Renewable(_ context.Context, gateway identity.Node, publicKey string) error {
	if e.Revoked(identity.Peer{Node: gateway, PublicKey: publicKey}) {
		return link.ErrRevoked
	}
	return nil
}

// Revoked tells whether a node is shut out although its certificate is good: a gateway that the record does not have,
// has with another key, or has as revoked. It reads memory only.
func (e Enrolment) Revoked(p identity.Peer) bool {
	if p.Node.Role != identity.RoleGateway {
		return false
	}
	o, ok := e.s.store.State().Get(v1.Key{Organization: p.Node.Organization, Kind: v1.KindGateway, Name: p.Node.Name})
	return !ok || revoked(o, p.Node.Group, p.PublicKey)
}
