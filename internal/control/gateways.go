package control

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/http"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/store"
)

const (
	linkUp   = "up"
	linkDown = "down"
)

// gatewayStatus joins what the record knows of the gateways of an organization with what is known of their links.
func (s *Server) gatewayStatus(state store.State, organization string) []v1.GatewayStatus {
	live := map[string]serve.Status{}
	if s.opts.Gateways != nil {
		for _, g := range s.opts.Gateways.Gateways() {
			if g.Organization == organization {
				live[g.Name] = g
			}
		}
	}
	out := []v1.GatewayStatus{}
	for o := range state.List(v1.KindGateway, organization, "") {
		spec := o.Spec.(*v1.GatewaySpec)
		g := v1.GatewayStatus{
			Name: o.Metadata.Name, Organization: organization, Group: spec.GatewayGroup, Role: "gateway", Revoked: spec.Revoked,
			Link: linkDown, AgeSeconds: -1,
		}
		if group, ok := state.Get(v1.Key{Organization: organization, Kind: v1.KindGatewayGroup, Name: spec.GatewayGroup}); ok {
			g.Site = group.Spec.(*v1.GatewayGroupSpec).Site
		}
		if l, known := live[o.Metadata.Name]; known {
			g.Version, g.Epoch, g.Seq, g.AgeSeconds = l.Version, l.Epoch, l.Seq, int64(l.Age.Seconds())
			g.Role = cmp.Or(l.Role, g.Role)
			g.Digest = hex.EncodeToString(l.Digest[:])
			if l.Link {
				g.Link = linkUp
			}
			if r := l.LastRefusal; r != nil {
				g.LastRefusal = &v1.Refusal{Code: string(r.Code), Message: r.Error(), At: r.At}
			}
		}
		out = append(out, g)
	}
	return out
}

func (s *Server) listGateways(q *request) error {
	return q.reply(http.StatusOK, v1.GatewayList{Items: s.gatewayStatus(s.store.State(), q.organization)})
}

func (q *request) gatewayKey() v1.Key {
	return v1.Key{Organization: q.organization, Kind: v1.KindGateway, Name: q.r.PathValue("name")}
}

func (s *Server) getGateway(q *request) error {
	k := q.gatewayKey()
	for _, g := range s.gatewayStatus(s.store.State(), q.organization) {
		if g.Name == k.Name {
			return q.reply(http.StatusOK, g)
		}
	}
	return notFound(k)
}

// revokeGateway refuses a gateway on the link from now on. It goes on serving what it has until its configuration
// is too old.
func (s *Server) revokeGateway(q *request) error {
	k := q.gatewayKey()
	out, err := s.change(q, "revoke gateway", func(state store.State) (edit, error) {
		o, ok := state.Get(k)
		if !ok {
			return edit{}, notFound(k)
		}
		revoked := *o
		spec := *o.Spec.(*v1.GatewaySpec)
		spec.Revoked = true
		revoked.Spec = &spec
		return edit{puts: []*v1.Object{&revoked}}, nil
	})
	if err != nil {
		return err
	}
	if s.opts.Gateways != nil && !q.dryRun {
		s.opts.Gateways.Disconnect(k.Organization, k.Name) // other control nodes learn of it from the record
	}
	return s.replyChanges(q, out, false)
}

// deleteGateway forgets a revoked gateway.
func (s *Server) deleteGateway(q *request) error {
	k := q.gatewayKey()
	out, err := s.change(q, "delete gateway", func(state store.State) (edit, error) {
		o, ok := state.Get(k)
		if !ok {
			return edit{}, notFound(k)
		}
		if !o.Spec.(*v1.GatewaySpec).Revoked {
			return edit{}, problem.New(problem.InUse, "gateway %q is not revoked: revoke it before it is forgotten", k.Name)
		}
		return edit{deletes: []v1.Key{k}}, nil
	})
	if err != nil {
		return fmt.Errorf("forget gateway: %w", err)
	}
	return s.replyChanges(q, out, false)
}
