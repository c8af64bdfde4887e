package control

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/vault"
)

// keptGroupKeys is how many keys of a group the record holds: the one in use and the one that it replaced, which opens
// what a gateway that was away still has.
const keptGroupKeys = 2

func groupKeyOf(organization, group string) v1.Key {
	return v1.Key{Organization: organization, Kind: v1.KindGroupKey, Name: group}
}

// newGroupKey returns the resource with the first key of a gateway group.
func (s *Server) newGroupKey(organization, group string) (*v1.Object, error) {
	version, err := s.opts.Vault.NewGroupKey(organization, group, s.opts.Now().UTC())
	if err != nil {
		return nil, err
	}
	k := groupKeyOf(organization, group)
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: k.Kind, Metadata: v1.Metadata{Name: k.Name, Organization: k.Organization},
		Spec: &v1.GroupKeySpec{Versions: []v1.GroupKeyVersion{version}},
	}, nil
}

// completeGroups gives every gateway group of e that has no key one.
func (s *Server) completeGroups(state store.State, e *edit) error {
	for _, o := range e.puts {
		if o.Kind != v1.KindGatewayGroup {
			continue
		}
		k := groupKeyOf(o.Metadata.Organization, o.Metadata.Name)
		if _, exists := state.Get(k); exists || slices.ContainsFunc(e.puts, func(p *v1.Object) bool { return p.Key() == k }) {
			continue
		}
		made, err := s.newGroupKey(k.Organization, k.Name)
		if err != nil {
			return err
		}
		e.puts = append(e.puts, made)
	}
	return nil
}

// EnsureGroupKeys gives gateway groups that an earlier version made a key. It is called at the start.
func (s *Server) EnsureGroupKeys(ctx context.Context) error {
	if s.opts.Vault == nil {
		return nil
	}
	who := system("groupkeys")
	_, err := s.commit(ctx, change{who: who, info: store.Info{Principal: who.principal, Reason: "keys of gateway groups"}, build: func(state store.State) (edit, error) {
		var e edit
		for o := range state.List(v1.KindGatewayGroup, "", "") {
			if _, ok := state.Get(groupKeyOf(o.Metadata.Organization, o.Metadata.Name)); ok {
				continue
			}
			made, err := s.newGroupKey(o.Metadata.Organization, o.Metadata.Name)
			if err != nil {
				return edit{}, err
			}
			e.puts = append(e.puts, made)
		}
		return e, nil
	}})
	if err != nil {
		return fmt.Errorf("make keys of gateway groups: %w", err)
	}
	return nil
}

// GroupKeys implements link.GroupKeySource.
func (e Enrolment) GroupKeys(_ context.Context, organization, group string) (keys.GroupKeys, error) {
	return e.s.groupKeys(organization, group)
}

var _ link.GroupKeySource = Enrolment{}

func (s *Server) groupKeys(organization, group string) (keys.GroupKeys, error) {
	o, ok := s.store.State().Get(groupKeyOf(organization, group))
	if !ok || s.opts.Vault == nil {
		return keys.GroupKeys{}, fmt.Errorf("keys of gateway group %s/%s: there are none", organization, group)
	}
	return s.opts.Vault.GroupKeys(organization, group, o.Spec.(*v1.GroupKeySpec))
}

// exportGroupKeys gives out the keys of a gateway group, sealed to a key that the caller made for this call. They are for
// a bundle; neither this answer nor what logs it can be opened by anybody else.
func (s *Server) exportGroupKeys(q *request) error {
	var r v1.GroupKeysRequest
	if err := q.readJSON(&r); err != nil {
		return err
	}
	k := v1.Key{Organization: q.organization, Kind: v1.KindGatewayGroup, Name: q.r.PathValue("name")}
	if _, ok := s.store.State().Get(k); !ok {
		return notFound(k)
	}
	if s.opts.Vault == nil {
		return problem.New(problem.Unavailable, "this control node keeps no secrets")
	}
	recipient, err := base64.StdEncoding.DecodeString(r.Recipient)
	if err != nil {
		return problem.New(problem.BadRequest, "recipient must be an X25519 public key in base64")
	}
	group, err := s.groupKeys(k.Organization, k.Name)
	if err != nil {
		return err
	}
	sealed, err := keys.SealToGroup(recipient, vault.ExportContext(k.Organization, k.Name), group.Marshal())
	if err != nil {
		return problem.New(problem.BadRequest, "recipient must be an X25519 public key in base64").Because(err)
	}
	s.log.InfoContext(q.ctx(), "group keys exported", "group", k.String(), "principal", q.who.principal, "request_id", q.id)
	return q.reply(http.StatusOK, v1.GroupKeysAnswer{Sealed: base64.StdEncoding.EncodeToString(sealed)})
}

// rotateGroupKey makes a new key for a gateway group and seals the secrets of the group to it, in one change. Gateways
// fetch it before they run what is sealed to it.
func (s *Server) rotateGroupKey(q *request) error {
	group := v1.Key{Organization: q.organization, Kind: v1.KindGatewayGroup, Name: q.r.PathValue("name")}
	if s.opts.Vault == nil {
		return problem.New(problem.Unavailable, "this control node keeps no secrets")
	}
	out, err := s.change(q, "rotate group key", func(state store.State) (edit, error) {
		if _, ok := state.Get(group); !ok {
			return edit{}, notFound(group)
		}
		next, err := s.newGroupKey(group.Organization, group.Name)
		if err != nil {
			return edit{}, err
		}
		if before, ok := state.Get(next.Key()); ok {
			spec := next.Spec.(*v1.GroupKeySpec)
			held := before.Spec.(*v1.GroupKeySpec).Versions
			spec.Versions = append(spec.Versions, held[:min(len(held), keptGroupKeys-1)]...)
		}
		return edit{puts: []*v1.Object{next}}, nil
	})
	if err != nil {
		return err
	}
	return s.replyChanges(q, out, false)
}
