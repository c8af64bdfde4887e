package control_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

func TestApplyIsWholeAndRepeatable(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	first := c.apply(shop)
	if len(first.Changes) != 10 || first.Seq == 0 {
		t.Fatalf("apply = %+v, want 10 changes", first)
	}
	for _, ch := range first.Changes {
		if ch.Action != v1.ActionCreated || ch.Before != nil || ch.After != nil {
			t.Errorf("change %+v, want created and no sides", ch)
		}
		if (ch.Kind == v1.KindAPI) != (ch.Revision == 1) {
			t.Errorf("change %+v, want revision 1 of the API and of nothing else", ch)
		}
	}
	again := c.apply(shop)
	if len(again.Changes) != 0 || again.Seq != first.Seq || again.Epoch != first.Epoch {
		t.Errorf("second apply = %+v, want no change at %d.%d", again, first.Epoch, first.Seq)
	}

	_, err := c.admin.Apply(t.Context(), strings.NewReader(`
kind: Application
metadata: {name: other}
spec: {}
---
kind: Subscription
metadata: {name: other-none}
spec: {application: other, product: none}
`), client.ApplyOptions{})
	e := wantCode(t, err, "invalid")
	if len(e.Faults) != 1 || e.Faults[0].Line != 8 || e.Faults[0].Path != "spec.product" || e.Faults[0].Code != "dangling-reference" || e.Faults[0].Remedy == "" {
		t.Errorf("faults = %+v, want a dangling reference at line 8", e.Faults)
	}
	_, err = c.admin.Get(t.Context(), key(v1.KindApplication, "other"))
	wantCode(t, err, "not-found")
}

func TestRevisions(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	get := func() *v1.Object {
		t.Helper()
		o, err := c.admin.Get(t.Context(), key(v1.KindAPI, "catalog"))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if got := get().Metadata.Revision; got != 1 {
		t.Fatalf("revision = %d, want 1", got)
	}
	c.apply(strings.Replace(shop, "tier: gold", "tier: silver", 1))
	if got := get(); got.Metadata.Revision != 1 || got.Metadata.Labels["tier"] != "silver" {
		t.Errorf("after a change of labels: revision %d, labels %v, want 1 and the new label", got.Metadata.Revision, got.Metadata.Labels)
	}
	out := c.apply(strings.Replace(shop, "getItem", "readItem", 1))
	if got := get(); got.Metadata.Revision != 2 || got.Metadata.Seq != out.Seq {
		t.Errorf("after a change of spec: revision %d at seq %d, want 2 at %d", got.Metadata.Revision, got.Metadata.Seq, out.Seq)
	}
	for n, want := range map[int]string{1: "getItem", 2: "readItem"} {
		o, err := c.admin.Get(t.Context(), key(v1.KindAPIRevision, fmt.Sprintf("catalog.%d", n)))
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Spec.(*v1.APIRevisionSpec).Spec.Operations[0].Name; got != want {
			t.Errorf("revision %d has the operation %q, want %q", n, got, want)
		}
	}
	res, _ := c.raw("DELETE", "/api/v1/organizations/default/apirevisions/catalog.1", nil, nil)
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("delete of a revision: status %d, want 405", res.StatusCode)
	}
	// The revisions go with their API, and only with theirs.
	c.apply("kind: API\nmetadata: {name: catalog.x}\nspec: {basePath: /x, backend: catalog}")
	if _, err := c.admin.DeleteAll(t.Context(), strings.NewReader("{kind: Product, metadata: {name: gold}}\n---\n{kind: Subscription, metadata: {name: shop-gold}}\n---\n{kind: Deployment, metadata: {name: catalog-prod}}\n---\n{kind: API, metadata: {name: catalog}}"), client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	var left []string
	for o, err := range c.admin.All(t.Context(), v1.KindAPIRevision, "default", client.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, o.Metadata.Name)
	}
	if diff := cmp.Diff([]string{"catalog.x.1"}, left); diff != "" {
		t.Errorf("revisions left after the delete (-want +got):\n%s", diff)
	}
}

func TestDeleteRefusesWhatIsInUse(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	for _, tt := range []struct {
		key  v1.Key
		want string
	}{
		{key(v1.KindBackend, "catalog"), "API default/catalog"},
		{key(v1.KindAPI, "catalog"), "Deployment default/catalog-prod, Product default/gold"},
		{key(v1.KindSite, "eu-west"), "GatewayGroup default/eu"},
		{key(v1.KindProduct, "gold"), "Subscription default/shop-gold"},
		{key(v1.KindOrganization, "default"), "exists in every cluster"},
	} {
		_, err := c.admin.Delete(t.Context(), tt.key, 0, client.ApplyOptions{})
		if e := wantCode(t, err, "in-use"); !strings.Contains(e.Detail, tt.want) {
			t.Errorf("delete %s: %q, want it to name %q", tt.key, e.Detail, tt.want)
		}
	}
	// A pinned revision keeps the backend that it forwards to, also when the newest one names another.
	c.apply("{kind: Backend, metadata: {name: next}, spec: {endpoints: [{address: \"127.0.0.1:9001\"}]}}")
	c.apply(strings.Replace(shop, "environment: prod}", "environment: prod, revision: 1}", 1))
	c.apply(strings.Replace(strings.Replace(shop, "backend: catalog", "backend: next", 1), "environment: prod}", "environment: prod, revision: 1}", 1))
	_, err := c.admin.Delete(t.Context(), key(v1.KindBackend, "catalog"), 0, client.ApplyOptions{})
	if e := wantCode(t, err, "in-use"); !strings.Contains(e.Detail, "catalog-prod") {
		t.Errorf("delete of the backend of a pinned revision: %q, want it to name the deployment", e.Detail)
	}
	// All at once it goes, whatever the order.
	if _, err := c.admin.DeleteAll(t.Context(), strings.NewReader(shop), client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = c.admin.Delete(t.Context(), key(v1.KindBackend, "none"), 0, client.ApplyOptions{})
	wantCode(t, err, "not-found")
}

func TestOrganizations(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, err := c.admin.Apply(t.Context(), strings.NewReader("{kind: Site, metadata: {name: s, organization: acme}, spec: {}}"), client.ApplyOptions{})
	if e := wantCode(t, err, "invalid"); len(e.Faults) != 1 || e.Faults[0].Path != "metadata.organization" {
		t.Errorf("a resource of an unknown organization: faults %+v", e.Faults)
	}
	c.apply("{kind: Organization, metadata: {name: acme}, spec: {}}\n---\n{kind: Site, metadata: {name: s, organization: acme}, spec: {}}")
	_, err = c.admin.Delete(t.Context(), key(v1.KindOrganization, "acme"), 0, client.ApplyOptions{})
	if e := wantCode(t, err, "in-use"); !strings.Contains(e.Detail, "Site acme/s") {
		t.Errorf("delete of an organization that is not empty: %q, want it to name the site", e.Detail)
	}
	if _, err := c.admin.DeleteAll(t.Context(), strings.NewReader("{kind: Site, metadata: {name: s}}\n---\n{kind: Organization, metadata: {name: acme}}"), client.ApplyOptions{Organization: "acme"}); err != nil {
		t.Errorf("delete of an organization with what it holds: %v", err)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	out := c.apply(shop)
	const path = "/api/v1/organizations/default/applications/shop"
	res, _ := c.raw("GET", path, nil, nil)
	tag := res.Header.Get("ETag")
	if want := fmt.Sprintf(`"%d.%d"`, out.Epoch, out.Seq); tag != want {
		t.Fatalf("ETag = %s, want %s", tag, want)
	}
	body := func() *strings.Reader {
		return strings.NewReader(`{"kind":"Application","metadata":{"name":"shop"},"spec":{"owner":"new@example.com"}}`)
	}
	jsonType := func(k, v string) http.Header { return http.Header{"Content-Type": {"application/json"}, k: {v}} }
	for _, tt := range []struct {
		name   string
		method string
		header http.Header
		status int
	}{
		{"other tag", "PUT", jsonType("If-Match", `"1.999"`), 412},
		{"must not exist", "PUT", jsonType("If-None-Match", "*"), 412},
		{"tag of an older epoch", "PUT", jsonType("If-Match", fmt.Sprintf(`"0.%d"`, out.Seq)), 412},
		{"not modified", "GET", http.Header{"If-None-Match": {tag}}, 304},
		{"delete of another state", "DELETE", http.Header{"If-Match": {`"7"`}}, 412},
		{"dry run", "PUT?dryRun=true", jsonType("If-Match", tag), 200},
		{"current tag", "PUT", jsonType("If-Match", `"5.5", `+tag), 200},
		{"the tag before", "PUT", jsonType("If-Match", tag), 412},
	} {
		method, query, _ := strings.Cut(tt.method, "?")
		var r *strings.Reader
		req := path
		if query != "" {
			req += "?" + query
		}
		var got string
		var status int
		if method == "PUT" {
			r = body()
			res, got = c.raw(method, req, tt.header, r)
		} else {
			res, got = c.raw(method, req, tt.header, nil)
		}
		if status = res.StatusCode; status != tt.status {
			t.Errorf("%s: status %d, want %d: %s", tt.name, status, tt.status, got)
		}
	}
	// metadata.seq in the body makes any write conditional.
	o, err := c.admin.Get(t.Context(), key(v1.KindApplication, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.(*v1.ApplicationSpec).Owner = "third@example.com"
	if _, err := c.admin.Put(t.Context(), o, client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	o.Spec.(*v1.ApplicationSpec).Owner = "fourth@example.com"
	_, err = c.admin.Put(t.Context(), o, client.ApplyOptions{})
	wantCode(t, err, "conflict")
}

func TestRacingAppliers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply(shop)
	start, err := c.admin.Get(t.Context(), key(v1.KindApplication, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	const racers = 8
	codes := make([]string, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			o := *start
			o.Spec = &v1.ApplicationSpec{Owner: fmt.Sprintf("racer-%d", i)}
			_, err := c.admin.Put(t.Context(), &o, client.ApplyOptions{})
			codes[i] = "won"
			if err != nil {
				codes[i] = wantCode(t, err, "conflict").Code
			}
		})
	}
	wg.Wait()
	won := slices.Index(codes, "won")
	if won < 0 || slices.Contains(codes[won+1:], "won") {
		t.Fatalf("outcomes %v, want exactly one winner", codes)
	}
	o, err := c.admin.Get(t.Context(), key(v1.KindApplication, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := o.Spec.(*v1.ApplicationSpec).Owner, fmt.Sprintf("racer-%d", won); got != want {
		t.Errorf("owner = %q, want the winner's %q", got, want)
	}
	// Unconditional changes of different resources all get through.
	for i := range racers {
		wg.Go(func() {
			doc := fmt.Sprintf("{kind: Application, metadata: {name: app-%d}, spec: {}}", i)
			if _, err := c.admin.Apply(t.Context(), strings.NewReader(doc), client.ApplyOptions{}); err != nil {
				t.Errorf("apply %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestPagesAndSelectors(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var docs strings.Builder
	for i := range 25 {
		fmt.Fprintf(&docs, "---\n{kind: Application, metadata: {name: app-%02d, labels: {odd: \"%d\"}}, spec: {}}\n", i, i%2)
	}
	c.apply(docs.String())
	names := func(o client.ListOptions) (out []string) {
		t.Helper()
		for obj, err := range c.admin.All(t.Context(), v1.KindApplication, "default", o) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, obj.Metadata.Name)
		}
		return out
	}
	for _, limit := range []int{0, 1, 7, 25, 26} {
		if got := names(client.ListOptions{Limit: limit}); len(got) != 25 || !slices.IsSorted(got) {
			t.Errorf("limit %d: %d names, sorted %v, want 25 in order", limit, len(got), slices.IsSorted(got))
		}
	}
	if got := names(client.ListOptions{Limit: 5, Selector: "odd=1"}); len(got) != 12 || got[0] != "app-01" {
		t.Errorf("odd=1: %v, want the 12 odd ones", got)
	}
	if got := names(client.ListOptions{Selector: "odd!=1,odd"}); len(got) != 13 {
		t.Errorf("odd!=1,odd: %d, want 13", len(got))
	}
	page, err := c.admin.List(t.Context(), v1.KindApplication, "default", client.ListOptions{Limit: 1})
	if err != nil || page.Continue == "" || page.Seq == 0 {
		t.Fatalf("first page = %+v, %v", page, err)
	}
	_, err = c.admin.List(t.Context(), v1.KindProduct, "default", client.ListOptions{Continue: page.Continue})
	wantCode(t, err, "bad-request")
	for _, query := range []string{"limit=0", "limit=x", "limit=999999", "continue=!!", "selector=a=b=c", "watch=yes"} {
		if res, body := c.raw("GET", "/api/v1/organizations/default/applications?"+query, nil, nil); res.StatusCode != 400 {
			t.Errorf("%s: status %d, want 400: %s", query, res.StatusCode, body)
		}
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	first := c.apply(shop)
	out, err := c.admin.Plan(t.Context(), strings.NewReader(strings.Replace(shop, "100000", "5", 1)), client.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Changes) != 1 || !out.DryRun || out.Changes[0].Action != v1.ActionUpdated || out.Seq != first.Seq {
		t.Fatalf("plan = %+v, want one update and nothing done", out)
	}
	before, after := out.Changes[0].Before.Spec.(*v1.ProductSpec), out.Changes[0].After.Spec.(*v1.ProductSpec)
	if before.Quota.Limit != 100000 || after.Quota.Limit != 5 {
		t.Errorf("plan shows %d and %d, want 100000 and 5", before.Quota.Limit, after.Quota.Limit)
	}
	if again := c.apply(shop); len(again.Changes) != 0 {
		t.Errorf("the plan changed %+v", again.Changes)
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, tt := range []struct {
		name, ctype, body string
		status            int
	}{
		{"too long", "application/yaml", strings.Repeat("# x\n", 50<<20/4), 413},
		{"media type", "image/png", "x", 415},
		{"no documents", "application/yaml", "", 200},
		{"invalid UTF-8", "application/yaml", "kind: API\nmetadata: {name: \"\xff\"}", 422},
		{"alias bomb", "application/yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]", 422},
		{"deep", "application/json", strings.Repeat("[", 10000), 422},
		{"unknown field", "application/yaml", "kind: Site\nmetadata: {name: a}\nspec: {clowd: aws}", 422},
		{"system kind", "application/yaml", "kind: Gateway\nmetadata: {name: a}\nspec: {gatewayGroup: eu}", 422},
	} {
		res, body := c.raw("POST", "/api/v1/apply", http.Header{"Content-Type": {tt.ctype}}, strings.NewReader(tt.body))
		if res.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d: %.200s", tt.name, res.StatusCode, tt.status, body)
		}
		if tt.status == 422 && !strings.Contains(body, `"line":`) {
			t.Errorf("%s: the fault names no line: %.300s", tt.name, body)
		}
	}
}
