package control_test

import (
	"context"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/feed/serve"
	"hansa.dev/hansa/internal/snapshot"
)

// knownGateways are gateways of which only the status is known.
type knownGateways struct{ list []serve.Status }

func (g *knownGateways) WaitApplied(context.Context, []string, uint64, uint64) []string { return nil }

func (g *knownGateways) Gateways() []serve.Status  { return g.list }
func (g *knownGateways) Disconnect(string, string) {}

func TestDeploymentStatus(t *testing.T) {
	t.Parallel()
	g := &knownGateways{}
	c := newCluster(t, func(o *control.Options) { o.Gateways = g })
	c.apply(shop)
	c.apply("{kind: Environment, metadata: {name: empty}}\n---\n{kind: Deployment, metadata: {name: nowhere}, spec: {api: catalog, environment: empty}}")
	current := serve.Status{Name: "a", Organization: "default", Group: "eu", Link: true, Current: true}
	behind, away, elsewhere, refusing := current, current, current, current
	behind.Name, behind.Current = "b", false
	away.Link, away.Current = false, false
	elsewhere.Group, elsewhere.Current = "us", false
	refusing.Name, refusing.LastRefusal = "c", &serve.Refused{Refusal: snapshot.Refusal{Code: snapshot.RefusedReader}}
	tests := []struct {
		name, deployment string
		gateways         []serve.Status
		status, reason   string
	}{
		{"no placement", "nowhere", []serve.Status{current}, "False", "NoPlacement"},
		{"no gateway", "catalog-prod", nil, "Unknown", "NoGateway"},
		{"none that is connected", "catalog-prod", []serve.Status{away, elsewhere}, "Unknown", "NoGateway"},
		{"all current", "catalog-prod", []serve.Status{current, away, elsewhere}, "True", "Confirmed"},
		{"one behind", "catalog-prod", []serve.Status{current, behind}, "False", "Unconfirmed"},
		{"one refuses", "catalog-prod", []serve.Status{refusing, behind}, "False", "Refused"},
	}
	for _, tt := range tests {
		g.list = tt.gateways
		o, err := c.admin.Get(t.Context(), key(v1.KindDeployment, tt.deployment))
		if err != nil {
			t.Fatal(err)
		}
		if o.Status == nil || len(o.Status.Conditions) != 1 || o.Status.ObservedSeq != c.store.State().Version().Seq {
			t.Fatalf("%s: status = %+v, want one condition at the head", tt.name, o.Status)
		}
		if got := o.Status.Conditions[0]; got.Type != "Serving" || got.Status != tt.status || got.Reason != tt.reason || got.Message == "" {
			t.Errorf("%s: %+v, want Serving %s because of %s", tt.name, got, tt.status, tt.reason)
		}
	}
}
