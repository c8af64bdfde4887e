package control_test

import (
	"context"
	"slices"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/feed/serve"
)

// slowGateways are gateways of which one never acknowledges anything.
type slowGateways struct {
	views chan []string // what was waited for
}

func (g *slowGateways) WaitApplied(ctx context.Context, views []string, _, _ uint64) []string {
	g.views <- views
	<-ctx.Done()
	return []string{"slow"}
}

func (g *slowGateways) Gateways() []serve.Status  { return nil }
func (g *slowGateways) Disconnect(string, string) {}

// TestKeysWait asks for keys to have arrived at a gateway that does not answer. The key must be in the answer all the
// same, since nobody will ever see it again.
func TestKeysWait(t *testing.T) {
	t.Parallel()
	g := &slowGateways{views: make(chan []string, 1)}
	c := newCluster(t, func(o *control.Options) { o.Gateways = g })
	c.apply(shop)
	wait, err := v1.ParseDuration("10ms")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	k, err := c.admin.Waiting(wait).CreateKey(t.Context(), v1.DefaultOrganization, "shop-gold", v1.KeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if k.Key == "" || k.Wait == nil || k.Wait.Complete || !slices.Equal(k.Wait.Missing, []string{"slow"}) || time.Since(began) < wait.Std() {
		t.Errorf("after %s the answer is %+v with %+v, want a key and that slow has not got it", time.Since(began), k, k.Wait)
	}
	if views := <-g.views; !slices.Contains(views, "default/eu") {
		t.Errorf("waited for %q, want the groups of the organization", views)
	}
	if k, err = c.admin.RevokeKey(t.Context(), v1.DefaultOrganization, "shop-gold", k.KeyID); err != nil || k.Wait != nil {
		t.Errorf("revoked without waiting: %+v, %v", k.Wait, err)
	}
}
