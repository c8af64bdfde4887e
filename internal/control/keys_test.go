package control_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/token"
)

// credential returns what the record has of a key.
func (c *cluster) credential(value string) (snapshot.Credential, bool) {
	return c.store.State().Credential("default", snapshot.HashCredential([]byte(value)))
}

func TestKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	const sub = "shop-gold"
	create := func(r v1.KeyRequest) v1.SubscriptionKey {
		t.Helper()
		k, err := c.admin.CreateKey(t.Context(), "default", sub, r)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	trial, err := c.admin.Trial().CreateKey(t.Context(), "default", sub, v1.KeyRequest{})
	if err != nil || trial.Key != "" || trial.Slot != v1.SlotPrimary {
		t.Errorf("dry run of a key = %+v, %v, want a slot and no value", trial, err)
	}
	first := create(v1.KeyRequest{})
	if err := token.Check(control.KeyPrefix, first.Key); err != nil || first.Slot != v1.SlotPrimary || first.KeyID == "" {
		t.Fatalf("key = %+v (%v), want a well-formed one in the primary slot", first, err)
	}
	got, ok := c.credential(first.Key)
	want := snapshot.Credential{
		Hash: snapshot.HashCredential([]byte(first.Key)), ID: first.KeyID, Organization: "default", Subscription: sub,
		Application: "shop", Product: "gold", Slot: snapshot.SlotPrimary, State: snapshot.StateActive, CreatedAt: c.clock.Now().Unix(),
	}
	if !ok || got != want {
		t.Errorf("credential = %+v, want %+v", got, want)
	}
	ends := c.clock.Now().Add(time.Hour).UTC()
	second := create(v1.KeyRequest{ExpiresAt: ends})
	if second.Slot != v1.SlotSecondary || !second.ExpiresAt.Equal(ends) {
		t.Errorf("second key = %+v, want it in the secondary slot until %v", second, ends)
	}
	_, err = c.admin.CreateKey(t.Context(), "default", sub, v1.KeyRequest{})
	wantCode(t, err, "slot-taken")
	_, err = c.admin.CreateKey(t.Context(), "default", sub, v1.KeyRequest{Slot: "third"})
	wantCode(t, err, "bad-request")
	_, err = c.admin.CreateKey(t.Context(), "default", sub, v1.KeyRequest{ExpiresAt: c.clock.Now()})
	wantCode(t, err, "bad-request")
	_, err = c.admin.CreateKey(t.Context(), "default", "none", v1.KeyRequest{})
	wantCode(t, err, "not-found")

	// A rotated key stays for the overlap and no longer; one that ends earlier keeps its end.
	rotated, err := c.admin.RotateKey(t.Context(), "default", sub, v1.KeyRequest{})
	if err != nil || rotated.Slot != v1.SlotPrimary {
		t.Fatalf("rotate = %+v, %v", rotated, err)
	}
	if got, _ := c.credential(first.Key); got.ExpiresAt != c.clock.Now().Add(24*time.Hour).Unix() || got.State != snapshot.StateActive {
		t.Errorf("the rotated key = %+v, want it to end in 24h", got)
	}
	if _, err := c.admin.RotateKey(t.Context(), "default", sub, v1.KeyRequest{Slot: v1.SlotSecondary}); err != nil {
		t.Fatal(err)
	}
	if got, _ := c.credential(second.Key); got.ExpiresAt != ends.Unix() {
		t.Errorf("the second key = %+v, want its own end", got)
	}
	now := v1.Duration(0)
	if _, err := c.admin.RotateKey(t.Context(), "default", sub, v1.KeyRequest{Overlap: &now}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []v1.SubscriptionKey{first, rotated} {
		if got, _ := c.credential(k.Key); got.State != snapshot.StateRevoked {
			t.Errorf("key %s = %+v after a rotation without overlap, want it revoked", k.KeyID, got)
		}
	}
	revoked, err := c.admin.RevokeKey(t.Context(), "default", sub, second.KeyID)
	if err != nil || revoked.State != "revoked" {
		t.Errorf("revoke = %+v, %v", revoked, err)
	}
	version := c.store.State().Version()
	if _, err := c.admin.RevokeKey(t.Context(), "default", sub, second.KeyID); err != nil || c.store.State().Version() != version {
		t.Errorf("a second revoke: %v, or it changed the record", err)
	}
	_, err = c.admin.RevokeKey(t.Context(), "default", sub, "key-none")
	wantCode(t, err, "not-found")

	var listed int
	for o := (client.ListOptions{Limit: 2}); ; {
		page, err := c.admin.Keys(t.Context(), "default", sub, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Items {
			if listed++; k.Key != "" {
				t.Errorf("a list shows the value of %s", k.KeyID)
			}
		}
		if o.Continue = page.Continue; o.Continue == "" {
			break
		}
	}
	if listed != 5 {
		t.Errorf("%d keys are listed, want 5", listed)
	}
}

func TestCredentialsFollowTheirSubscription(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	k, err := c.admin.CreateKey(t.Context(), "default", "shop-gold", v1.KeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	dead, err := c.admin.CreateKey(t.Context(), "default", "shop-gold", v1.KeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.RevokeKey(t.Context(), "default", "shop-gold", dead.KeyID); err != nil {
		t.Fatal(err)
	}
	c.apply("{kind: Product, metadata: {name: silver}, spec: {apis: [catalog]}}")
	c.apply("{kind: Subscription, metadata: {name: shop-gold}, spec: {application: shop, product: silver, suspended: true}}")
	if got, _ := c.credential(k.Key); got.Product != "silver" || got.State != snapshot.StateSuspended {
		t.Errorf("credential = %+v, want silver and suspended", got)
	}
	if got, _ := c.credential(dead.Key); got.Product != "silver" || got.State != snapshot.StateRevoked {
		t.Errorf("revoked credential = %+v, want silver and still revoked", got)
	}
	// A key of a suspended subscription is suspended from the beginning.
	late, err := c.admin.CreateKey(t.Context(), "default", "shop-gold", v1.KeyRequest{})
	if err != nil || late.State != "suspended" {
		t.Errorf("key = %+v, %v, want it suspended", late, err)
	}
	c.apply("{kind: Subscription, metadata: {name: shop-gold}, spec: {application: shop, product: silver}}")
	for _, value := range []string{k.Key, late.Key} {
		if got, _ := c.credential(value); got.State != snapshot.StateActive {
			t.Errorf("credential = %+v, want it active again", got)
		}
	}
	if _, err := c.admin.Delete(t.Context(), key(v1.KindSubscription, "shop-gold"), 0, client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{k.Key, dead.Key, late.Key} {
		if got, ok := c.credential(value); ok {
			t.Errorf("credential %+v is there without its subscription", got)
		}
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	c := newCluster(t, func(o *control.Options) { o.Log = slogTo(&logged) })
	c.apply(shop)
	c.apply("{kind: Subscription, metadata: {name: other}, spec: {application: shop, product: gold}}")
	lines := func(subscription, text string) (v1.ImportResult, error) {
		return c.admin.ImportKeys(t.Context(), "default", subscription, client.ContentTypeKeyLines, strings.NewReader(text))
	}
	records := func(text string) (v1.ImportResult, error) {
		return c.admin.ImportKeys(t.Context(), "default", "", client.ContentTypeKeyRecords, strings.NewReader(text))
	}
	out, err := lines("shop-gold", "planted-secret-1\r\n\n  planted-secret-2\nplanted-secret-1\nplanted-secret-3")
	if err != nil || out.Imported != 3 || out.Unchanged != 1 || out.ChangeSets != 1 || len(out.Keys) != 4 {
		t.Fatalf("import = %+v, %v, want 3 new and 1 repeated", out, err)
	}
	got, ok := c.credential("planted-secret-3")
	if !ok || got.Slot != snapshot.SlotImported || got.Product != "gold" || got.ExpiresAt != 0 {
		t.Errorf("credential = %+v, %v", got, ok)
	}
	again, err := lines("shop-gold", "planted-secret-3\n")
	if err != nil || again.Imported != 0 || again.Unchanged != 1 || again.Seq != out.Seq {
		t.Errorf("repeated import = %+v, %v, want nothing new", again, err)
	}
	hash := sha256.Sum256([]byte("planted-secret-4"))
	ends := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	out, err = records(fmt.Sprintf(`{"subscription":"other","sha256":"%s","expiresAt":"2030-01-01T00:00:00Z"}`+"\n"+`{"subscription":"shop-gold","key":"planted-secret-1","expiresAt":"2030-01-01T00:00:00Z"}`, hex.EncodeToString(hash[:])))
	if err != nil || out.Imported != 2 {
		t.Fatalf("import of records = %+v, %v, want 2", out, err)
	}
	if got, _ := c.credential("planted-secret-4"); got.Subscription != "other" || got.ExpiresAt != ends.Unix() {
		t.Errorf("credential = %+v, want it of other until %v", got, ends)
	}
	keys, err := c.admin.Keys(t.Context(), "default", "other", client.ListOptions{})
	if err != nil || len(keys.Items) != 1 {
		t.Fatal(keys, err)
	}
	if _, err := c.admin.RevokeKey(t.Context(), "default", "other", keys.Items[0].KeyID); err != nil {
		t.Fatal(err)
	}

	version := c.store.State().Version()
	_, err = records(strings.Join([]string{
		`{"subscription":"shop-gold","key":"planted-secret-5"}`,
		`{"subscription":"none","key":"planted-secret-6"}`,
		`{"subscription":"shop-gold","sha256":"12"}`,
		`{"subscription":"shop-gold"}`,
		`{"subscription":"other","key":"planted-secret-1"}`,
		`{"subscription":"other","key":"planted-secret-4"}`,
		`{"subscription":"other","key":"planted secret"}`,
		`{"subscription":"other","kee":"planted-secret-7"}`,
		`planted-secret-8`,
		`{"subscription":"other","key":"x","expiresAt":"1931-01-01T00:00:00Z"}`,
	}, "\n"))
	e := wantCode(t, err, "invalid")
	var lineNumbers []int
	for _, f := range e.Faults {
		lineNumbers = append(lineNumbers, f.Line)
		if strings.Contains(fmt.Sprint(f), "planted") {
			t.Errorf("fault %+v shows a key", f)
		}
	}
	// What cannot be read comes before what does not fit the record.
	if fmt.Sprint(lineNumbers) != "[3 4 7 8 9 10 2 5 6]" && fmt.Sprint(lineNumbers) != "[3 4 7 8 9 10]" {
		t.Errorf("faults in lines %v: %+v", lineNumbers, e.Faults)
	}
	if c.store.State().Version() != version {
		t.Error("a faulty import changed the record")
	}
	for _, tt := range []struct{ name, subscription, ctype, body, code string }{
		{"no subscription", "none", client.ContentTypeKeyLines, "a", "not-found"},
		{"lines for many", "", client.ContentTypeKeyLines, "a", "unsupported-media-type"},
		{"other type", "other", "text/csv", "a", "unsupported-media-type"},
		{"long line", "other", client.ContentTypeKeyLines, strings.Repeat("x", 10_000), "invalid"},
		{"long key", "other", client.ContentTypeKeyLines, strings.Repeat("x", 1025), "invalid"},
	} {
		_, err := c.admin.ImportKeys(t.Context(), "default", tt.subscription, tt.ctype, strings.NewReader(tt.body))
		wantCode(t, err, tt.code)
	}
	if out, err := c.admin.Trial().ImportKeys(t.Context(), "default", "other", client.ContentTypeKeyLines, strings.NewReader("tried\n")); err != nil || out.Imported != 1 || !out.DryRun {
		t.Errorf("dry run = %+v, %v", out, err)
	}
	if _, ok := c.credential("tried"); ok {
		t.Error("a dry run imported a key")
	}
	if strings.Contains(logged.String(), "planted") {
		t.Errorf("the log shows a key:\n%s", logged.String())
	}
}

// numbered yields keys, one a line.
func numbered(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		for i := range n {
			if _, err := fmt.Fprintf(w, "imported-key-%08d\n", i); err != nil {
				return
			}
		}
		w.Close()
	}()
	return r
}

func TestImportInBatches(t *testing.T) {
	t.Parallel()
	const batch, n = 1000, 2001
	c := newCluster(t, func(o *control.Options) { o.ImportBatch = batch })
	c.apply(shop)
	out, err := c.admin.ImportKeys(t.Context(), "default", "shop-gold", client.ContentTypeKeyLines, numbered(n))
	if err != nil || out.Imported != n || out.ChangeSets != 3 {
		t.Fatalf("import = %+v, %v, want %d keys in 3 change sets", out, err, n)
	}
	// A change of the subscription reaches all of them at once.
	c.apply("{kind: Subscription, metadata: {name: shop-gold}, spec: {application: shop, product: gold, suspended: true}}")
	for _, i := range []int{0, batch - 1, batch, n - 1} {
		if got, ok := c.credential(fmt.Sprintf("imported-key-%08d", i)); !ok || got.State != snapshot.StateSuspended {
			t.Errorf("key %d = %+v, %v, want it suspended", i, got, ok)
		}
	}
	if again, err := c.admin.ImportKeys(t.Context(), "default", "shop-gold", client.ContentTypeKeyLines, numbered(n)); err != nil || again.Unchanged != n || again.ChangeSets != 0 {
		t.Errorf("repeated import = %+v, %v, want nothing new", again, err)
	}
}

func TestJoinTokensAndGateways(t *testing.T) {
	t.Parallel()
	var root [32]byte
	c := newCluster(t, func(o *control.Options) { o.Join = &control.Join{Root: root, Addresses: []string{"127.0.0.1:8091"}} })
	c.apply(shop)
	_, err := c.admin.CreateJoinToken(t.Context(), "default", v1.JoinTokenRequest{GatewayGroup: "none"})
	wantCode(t, err, "not-found")
	_, err = c.admin.CreateJoinToken(t.Context(), "default", v1.JoinTokenRequest{GatewayGroup: "eu", Expires: v1.Duration(31 * 24 * time.Hour)})
	wantCode(t, err, "bad-request")
	made, err := c.admin.CreateJoinToken(t.Context(), "default", v1.JoinTokenRequest{GatewayGroup: "eu"})
	if err != nil || !strings.HasPrefix(made.Token, "hj1_") || !made.ExpiresAt.Equal(c.clock.Now().Add(time.Hour)) {
		t.Fatalf("join token = %+v, %v", made, err)
	}
	list, err := c.admin.JoinTokens(t.Context(), "default")
	if err != nil || len(list.Items) != 1 || list.Items[0].Token != "" || list.Items[0].Name != made.Name {
		t.Errorf("join tokens = %+v, %v", list, err)
	}
	if err := c.admin.DeleteJoinToken(t.Context(), "default", made.Name); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.admin.DeleteJoinToken(t.Context(), "default", made.Name), "not-found")

	none := newCluster(t)
	none.apply(shop)
	_, err = none.admin.CreateJoinToken(t.Context(), "default", v1.JoinTokenRequest{GatewayGroup: "eu"})
	wantCode(t, err, "unavailable")

	gateways, err := c.admin.Gateways(t.Context(), "default")
	if err != nil || gateways.Items == nil || len(gateways.Items) != 0 {
		t.Errorf("gateways = %+v, %v, want an empty list", gateways, err)
	}
	_, err = c.admin.RevokeGateway(t.Context(), "default", "none")
	wantCode(t, err, "not-found")
	if res, _ := c.raw("GET", "/api/v1/organizations/default/gateways/none", nil, nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("a gateway that does not exist: status %d", res.StatusCode)
	}
}
