package control

import (
	"fmt"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
)

// The condition of a Deployment and its reasons.
const (
	conditionServing = "Serving"

	reasonConfirmed   = "Confirmed"
	reasonUnconfirmed = "Unconfirmed"
	reasonRefused     = "Refused"
	reasonNoGateway   = "NoGateway"
	reasonNoPlacement = "NoPlacement"
)

// serving returns a deployment with what its gateways say now: they run the newest configuration, and with it the
// deployment, or they do not yet. It is worked out for the answer and stored nowhere, so nobody knows since when it holds.
func (s *Server) serving(state store.State, o *v1.Object) *v1.Object {
	spec, ok := o.Spec.(*v1.DeploymentSpec)
	if !ok {
		return o
	}
	c := *o
	c.Status = &v1.Status{ObservedSeq: state.Version().Seq, Conditions: []v1.Condition{s.servingCondition(state, o.Metadata.Organization, spec)}}
	return &c
}

func (s *Server) servingCondition(state store.State, organization string, spec *v1.DeploymentSpec) v1.Condition {
	says := func(status, reason, message string, args ...any) v1.Condition {
		return v1.Condition{Type: conditionServing, Status: status, Reason: reason, Message: fmt.Sprintf(message, args...)}
	}
	var groups []string
	if o, ok := state.Get(v1.Key{Organization: organization, Kind: v1.KindEnvironment, Name: spec.Environment}); ok {
		for _, p := range o.Spec.(*v1.EnvironmentSpec).Placements {
			groups = append(groups, p.GatewayGroup)
		}
	}
	if len(groups) == 0 {
		return says("False", reasonNoPlacement, "environment %q is placed on no gateway group", spec.Environment)
	}
	connected := 0
	var refused, behind []string
	if s.opts.Gateways != nil {
		for _, g := range s.opts.Gateways.Gateways() {
			if !g.Link || g.Organization != organization || !slices.Contains(groups, g.Group) {
				continue
			}
			connected++
			switch {
			case g.LastRefusal != nil || g.Frozen:
				refused = append(refused, g.Name)
			case !g.Current:
				behind = append(behind, g.Name)
			}
		}
	}
	slices.Sort(refused)
	slices.Sort(behind)
	switch {
	case connected == 0:
		return says("Unknown", reasonNoGateway, "no gateway of %s is connected; those that run go on with what they have", strings.Join(groups, ", "))
	case len(refused) > 0:
		return says("False", reasonRefused, "%s refused the newest configuration: \"hansa get gateways\" says why", strings.Join(refused, ", "))
	case len(behind) > 0:
		return says("False", reasonUnconfirmed, "%s did not confirm the newest configuration yet", strings.Join(behind, ", "))
	}
	return says("True", reasonConfirmed, "%d connected gateways run the newest configuration", connected)
}
