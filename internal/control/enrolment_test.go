package control_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/link"
)

func TestEnrolment(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.Join = &control.Join{} })
	c.apply(shop)
	e := c.control.Enrolment()
	mint := func() identity.JoinToken {
		t.Helper()
		made, err := c.admin.CreateJoinToken(t.Context(), "default", v1.JoinTokenRequest{GatewayGroup: "eu"})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := identity.ParseJoinToken(made.Token)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	redeem := func(tok identity.JoinToken, gateway, publicKey string) error {
		t.Helper()
		organization, group, err := e.Redeem(t.Context(), tok.ID, tok.SecretHash(), gateway, publicKey)
		if err == nil && (organization != "default" || group != "eu") {
			t.Errorf("Redeem = %q, %q, want default and eu", organization, group)
		}
		return err
	}
	want := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	keyA, keyB := strings.Repeat("a", 64), strings.Repeat("b", 64)
	first, second, late := mint(), mint(), mint()
	_, _, err := e.Redeem(t.Context(), first.ID, strings.Repeat("0", 64), "gw-1", keyA)
	want("another secret", err, link.ErrTokenInvalid)
	_, _, err = e.Redeem(t.Context(), "none", first.SecretHash(), "gw-1", keyA)
	want("another name", err, link.ErrTokenInvalid)
	want("first", redeem(first, "gw-1", keyA), nil)
	version := c.store.State().Version()
	want("again", redeem(first, "gw-1", keyA), nil)
	if c.store.State().Version() != version {
		t.Error("a repeated call changed the record")
	}
	want("with another key", redeem(first, "gw-1", keyB), link.ErrTokenUsed)
	want("by another gateway", redeem(first, "gw-2", keyA), link.ErrTokenUsed)
	want("name of another", redeem(second, "gw-1", keyB), link.ErrNameTaken)
	c.clock.Advance(2 * time.Hour)
	want("too late", redeem(late, "gw-3", keyB), link.ErrTokenInvalid)

	node := identity.Gateway(c.store.Cluster(), "default", "eu", "gw-1")
	want("renewal", e.Renewable(t.Context(), node, keyA), nil)
	want("renewal with another key", e.Renewable(t.Context(), node, keyB), link.ErrRevoked)
	want("renewal of an unknown one", e.Renewable(t.Context(), identity.Gateway(c.store.Cluster(), "default", "eu", "gw-9"), keyA), link.ErrRevoked)
	want("renewal in another group", e.Renewable(t.Context(), identity.Gateway(c.store.Cluster(), "default", "us", "gw-1"), keyA), link.ErrRevoked)
	if e.Revoked(identity.Peer{Node: identity.ControlNode(c.store.Cluster(), "c")}) {
		t.Error("a control node is shut out")
	}

	list, err := c.admin.Gateways(t.Context(), "default")
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("gateways = %+v, %v", list, err)
	}
	if g := list.Items[0]; g.Name != "gw-1" || g.Group != "eu" || g.Site != "eu-west" || g.Link != "down" || g.AgeSeconds != -1 {
		t.Errorf("gateway = %+v", g)
	}
	_, err = c.admin.Delete(t.Context(), key(v1.KindGateway, "gw-1"), 0, client.ApplyOptions{})
	wantCode(t, err, "in-use")
	if _, err := c.admin.RevokeGateway(t.Context(), "default", "gw-1"); err != nil {
		t.Fatal(err)
	}
	want("renewal of a revoked one", e.Renewable(t.Context(), node, keyA), link.ErrRevoked)
	want("joining again", redeem(first, "gw-1", keyA), link.ErrTokenUsed)
	if _, err := c.admin.Delete(t.Context(), key(v1.KindGateway, "gw-1"), 0, client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	want("renewal of a forgotten one", e.Renewable(t.Context(), node, keyA), link.ErrRevoked)
}

func TestOneTokenLetsOneGatewayIn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *control.Options) { o.Join = &control.Join{} })
	c.apply(shop)
	made, err := c.admin.CreateJoinToken(t.Context(), "default", v1.JoinTokenRequest{GatewayGroup: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := identity.ParseJoinToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	const racers = 8
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			_, _, errs[i] = c.control.Enrolment().Redeem(t.Context(), tok.ID, tok.SecretHash(), fmt.Sprintf("gw-%d", i), strings.Repeat("a", 64))
		})
	}
	wg.Wait()
	in := 0
	for _, err := range errs {
		switch {
		case err == nil:
			in++
		case !errors.Is(err, link.ErrTokenUsed):
			t.Errorf("Redeem: %v, want nil or %v", err, link.ErrTokenUsed)
		}
	}
	if in != 1 {
		t.Errorf("%d gateways joined with one token", in)
	}
}
