package cluster

import (
	"net/http"
	"path/filepath"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/app"
)

// TestKeysHaveArrived makes and revokes keys and asks the gateway once, with no patience, as soon as the call returns.
func TestKeysHaveArrived(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := startControl(t, t.TempDir())
	c.apply(t, startSample(t)+"---"+manyKeys)
	g := startGateway(t, app.GatewayOptions{Data: filepath.Join(t.TempDir(), "gw"), Name: "gw", Control: []string{c.link}, JoinToken: c.joinToken(t)})
	open := c.key(t, "shop-open")
	eventually(t, patience, func() error { return g.want(ctx, item, open, http.StatusOK) })
	wait, err := v1.ParseDuration("20s")
	if err != nil {
		t.Fatal(err)
	}
	admin := c.Waiting(wait)
	for range 10 {
		k, err := admin.CreateKey(ctx, v1.DefaultOrganization, "shop-open", v1.KeyRequest{Slot: v1.SlotSecondary})
		if err != nil || k.Wait == nil || !k.Wait.Complete {
			t.Fatalf("create: %+v, %v", k.Wait, err)
		}
		if err := g.want(ctx, item, k.Key, http.StatusOK); err != nil {
			t.Errorf("with a new key: %v", err)
		}
		gone, err := admin.RevokeKey(ctx, v1.DefaultOrganization, "shop-open", k.KeyID)
		if err != nil || gone.Wait == nil || !gone.Wait.Complete {
			t.Fatalf("revoke: %+v, %v", gone.Wait, err)
		}
		if err := g.want(ctx, item, k.Key, http.StatusForbidden); err != nil {
			t.Errorf("with a revoked key: %v", err)
		}
	}
}
