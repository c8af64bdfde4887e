package control

import (
	"encoding/hex"
	"net/http"
	"slices"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/x/token"
)

// maxTokens bounds the tokens of one principal.
const maxTokens = 100

func (q *request) principal(state store.State) (*v1.Object, *v1.PrincipalSpec, error) {
	k := v1.Key{Kind: v1.KindPrincipal, Name: q.r.PathValue("name")}
	o, ok := state.Get(k)
	if !ok {
		return nil, nil, notFound(k)
	}
	return o, o.Spec.(*v1.PrincipalSpec), nil
}

// withTokens returns a copy of a principal with other tokens.
func withTokens(o *v1.Object, tokens []v1.TokenHash) *v1.Object {
	c := *o
	c.Spec = &v1.PrincipalSpec{Roles: o.Spec.(*v1.PrincipalSpec).Roles, Tokens: tokens}
	return &c
}

// newToken makes a bearer token and what the record keeps of it.
func newToken(expiresAt time.Time) (string, v1.TokenHash) {
	value := token.New(TokenPrefix)
	return value, hashOf(value, expiresAt)
}

func hashOf(value string, expiresAt time.Time) v1.TokenHash {
	hash := token.Hash(value)
	return v1.TokenHash{ID: newID("token-"), SHA256: hex.EncodeToString(hash[:]), ExpiresAt: expiresAt}
}

func (s *Server) listTokens(q *request) error {
	o, spec, err := q.principal(s.store.State())
	if err != nil {
		return err
	}
	out := v1.TokenList{Items: []v1.Token{}}
	for _, t := range spec.Tokens {
		out.Items = append(out.Items, v1.Token{Principal: o.Metadata.Name, ID: t.ID, ExpiresAt: t.ExpiresAt})
	}
	return q.reply(http.StatusOK, out)
}

// createToken makes a token; those that have expired go with the same change.
func (s *Server) createToken(q *request) error {
	var r v1.TokenRequest
	if err := q.readJSON(&r); err != nil {
		return err
	}
	if r.Expires < 0 {
		return problem.New(problem.BadRequest, "expires %s is negative", r.Expires)
	}
	now := s.opts.Now()
	expiresAt := time.Time{}
	if r.Expires > 0 {
		expiresAt = now.Add(r.Expires.Std()).UTC().Truncate(time.Second)
	}
	value, hash := newToken(expiresAt)
	_, err := s.change(q, "create token", func(state store.State) (edit, error) {
		o, spec, err := q.principal(state)
		if err != nil {
			return edit{}, err
		}
		tokens := slices.DeleteFunc(slices.Clone(spec.Tokens), func(t v1.TokenHash) bool {
			return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
		})
		if len(tokens) >= maxTokens {
			return edit{}, problem.New(problem.InUse, "principal %q has %d valid tokens, which is as many as it may: revoke some", o.Metadata.Name, len(tokens))
		}
		return edit{puts: []*v1.Object{withTokens(o, append(tokens, hash))}}, nil
	})
	if err != nil {
		return err
	}
	if q.dryRun {
		value = ""
	}
	return q.reply(http.StatusCreated, v1.Token{Principal: q.r.PathValue("name"), ID: hash.ID, Token: value, ExpiresAt: expiresAt})
}

func (s *Server) revokeToken(q *request) error {
	id := q.r.PathValue("token")
	_, err := s.change(q, "revoke token "+id, func(state store.State) (edit, error) {
		o, spec, err := q.principal(state)
		if err != nil {
			return edit{}, err
		}
		tokens := slices.DeleteFunc(slices.Clone(spec.Tokens), func(t v1.TokenHash) bool { return t.ID == id })
		if len(tokens) == len(spec.Tokens) {
			return edit{}, problem.New(problem.NotFound, "principal %q has no token %q", o.Metadata.Name, id)
		}
		return edit{puts: []*v1.Object{withTokens(o, tokens)}}, nil
	})
	if err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}
