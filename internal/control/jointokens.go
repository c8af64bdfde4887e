package control

import (
	"net/http"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/store"
)

const (
	defaultJoinTime = time.Hour
	maxJoinTime     = 30 * 24 * time.Hour
	// keepJoinTokens is how long a join token is still listed after it has expired.
	keepJoinTokens = 7 * 24 * time.Hour
)

func joinTokenOf(o *v1.Object) v1.JoinToken {
	spec := o.Spec.(*v1.JoinTokenSpec)
	return v1.JoinToken{Name: o.Metadata.Name, GatewayGroup: spec.GatewayGroup, ExpiresAt: spec.ExpiresAt, UsedBy: spec.UsedBy}
}

func (s *Server) listJoinTokens(q *request) error {
	out := v1.JoinTokenList{Items: []v1.JoinToken{}}
	for o := range s.store.State().List(v1.KindJoinToken, q.organization, "") {
		out.Items = append(out.Items, joinTokenOf(o))
	}
	return q.reply(http.StatusOK, out)
}

// createJoinToken makes a token; those that expired long ago go with the same change.
func (s *Server) createJoinToken(q *request) error {
	var r v1.JoinTokenRequest
	if err := q.readJSON(&r); err != nil {
		return err
	}
	if s.opts.Join == nil {
		return problem.New(problem.Unavailable, "this control node has no link that gateways could join by")
	}
	if r.Expires == 0 {
		r.Expires = v1.Duration(defaultJoinTime)
	}
	if r.Expires < 0 || r.Expires.Std() > maxJoinTime {
		return problem.New(problem.BadRequest, "expires %s must be a duration up to %s", r.Expires, v1.Duration(maxJoinTime))
	}
	minted, err := identity.MintJoinToken(s.store.Cluster(), newID("join-"), s.opts.Join.Root, s.opts.Join.Addresses...)
	if err != nil {
		return err
	}
	now := s.opts.Now()
	made := &v1.Object{
		APIVersion: v1.APIVersion, Kind: v1.KindJoinToken,
		Metadata: v1.Metadata{Name: minted.ID, Organization: q.organization},
		Spec:     &v1.JoinTokenSpec{GatewayGroup: r.GatewayGroup, SHA256: minted.SecretHash(), ExpiresAt: now.Add(r.Expires.Std()).UTC().Truncate(time.Second)},
	}
	_, err = s.change(q, "create join token", func(state store.State) (edit, error) {
		group := v1.Key{Organization: q.organization, Kind: v1.KindGatewayGroup, Name: r.GatewayGroup}
		if _, ok := state.Get(group); !ok {
			return edit{}, notFound(group)
		}
		e := edit{puts: []*v1.Object{made}}
		for o := range state.List(v1.KindJoinToken, q.organization, "") {
			if now.Sub(o.Spec.(*v1.JoinTokenSpec).ExpiresAt) > keepJoinTokens {
				e.deletes = append(e.deletes, o.Key())
			}
		}
		return e, nil
	})
	if err != nil {
		return err
	}
	answer := joinTokenOf(made)
	if !q.dryRun {
		answer.Token = minted.Text()
	}
	return q.reply(http.StatusCreated, answer)
}

func (s *Server) deleteJoinToken(q *request) error {
	k := v1.Key{Organization: q.organization, Kind: v1.KindJoinToken, Name: q.r.PathValue("name")}
	_, err := s.change(q, "delete join token", func(store.State) (edit, error) {
		return edit{deletes: []v1.Key{k}}, nil
	})
	if err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}
