package control_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/control"
)

// TestEveryRouteIsGuarded walks the whole surface: nobody gets in without a token, without the role, or with the role in
// another organization.
func TestEveryRouteIsGuarded(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply("{kind: Organization, metadata: {name: acme}, spec: {}}")
	token := func(name, roles string) string {
		c.apply(fmt.Sprintf("{kind: Principal, metadata: {name: %s}, spec: {roles: [%s]}}", name, roles))
		tok, err := c.admin.CreateToken(t.Context(), name, v1.TokenRequest{Expires: v1.Duration(24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return tok.Token
	}
	nothing := token("nothing", "")
	in := func(organization string) map[control.Role]string {
		out := map[control.Role]string{control.NoRole: nothing}
		for i, r := range []control.Role{control.Viewer, control.Editor, control.Admin} {
			out[r] = token(fmt.Sprintf("p%d-%s", i, map[string]string{"*": "all"}[organization]+strings.Trim(organization, "*")),
				fmt.Sprintf("{organization: %q, role: %s}", organization, r))
		}
		return out
	}
	here, there, all := in("default"), in("acme"), in("*")

	status := func(rt control.RouteInfo, token string) (int, string) {
		t.Helper()
		path := strings.ReplaceAll(rt.Path, "{organization}", "default")
		if strings.HasSuffix(path, "/organizations/{name}") {
			path = strings.ReplaceAll(path, "{name}", "default")
		}
		path = regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(path, "x")
		if rt.Query {
			path += "?organization=default"
		}
		header := http.Header{"Authorization": {token}}
		if token == "" {
			header = http.Header{"Authorization": {"none"}}
		}
		res, body := c.raw(rt.Method, path, header, nil)
		return res.StatusCode, body
	}
	for _, rt := range control.Routes() {
		name := rt.Method + " " + rt.Path
		if rt.Public {
			if code, body := status(rt, ""); code == 401 || code == 403 || strings.HasPrefix(rt.Path, "/api/") {
				t.Errorf("%s is public: status %d %s; nothing below /api/ may be", name, code, body)
			}
			continue
		}
		if rt.Role == control.NoRole {
			t.Errorf("%s asks for no role", name)
		}
		for who, tt := range map[string]struct {
			token string
			want  int
		}{
			"nobody":         {"", 401},
			"a wrong scheme": {"Basic " + c.token, 401},
			"a made-up one":  {"Bearer hp1_0000000000000000000000000000000000000000000000000", 401},
			"no role":        {"Bearer " + nothing, 403},
			"a lower role":   {"Bearer " + all[rt.Role-1], 403},
		} {
			if code, _ := status(rt, tt.token); code != tt.want {
				t.Errorf("%s with %s: status %d, want %d", name, who, code, tt.want)
			}
		}
		if rt.Method == http.MethodDelete && strings.HasSuffix(rt.Path, "/tokens/{token}") || rt.Path == "/api/v1/backup" {
			continue // guarded as the others; not called for real here
		}
		if !rt.Somewhere {
			if code, _ := status(rt, "Bearer "+there[rt.Role]); code != 403 {
				t.Errorf("%s with the role in another organization: status %d, want 403", name, code)
			}
		}
		want := here
		if rt.Everywhere {
			want = all
			if code, _ := status(rt, "Bearer "+here[control.Admin]); code != 403 {
				t.Errorf("%s with the role in one organization: status %d, want 403", name, code)
			}
		}
		if code, body := status(rt, "Bearer "+want[rt.Role]); code == 401 || code == 403 || code >= 500 && code != 503 {
			t.Errorf("%s with the role that it asks for: status %d %s, want it to get through", name, code, body)
		}
	}

	// Of an organization that does not exist only those learn who would see into it.
	const nowhere = "/api/v1/organizations/none/applications"
	for token, want := range map[string]int{here[control.Admin]: 403, nothing: 403, all[control.Viewer]: 404} {
		for _, path := range []string{nowhere, nowhere + "?watch=true", nowhere + "/x"} {
			if res, body := c.raw("GET", path, http.Header{"Authorization": {"Bearer " + token}}, nil); res.StatusCode != want {
				t.Errorf("GET %s: status %d %s, want %d", path, res.StatusCode, body, want)
			} else if want == 404 && !strings.Contains(body, `there is no Organization \"none\"`) {
				t.Errorf("GET %s: %s", path, body)
			}
		}
	}

	c.clock.Advance(25 * time.Hour)
	if code, body := status(control.RouteInfo{Method: "GET", Path: "/api/v1/status"}, "Bearer "+here[control.Viewer]); code != 401 || !strings.Contains(body, "expired") {
		t.Errorf("an expired token: status %d %s, want 401", code, body)
	}
}

func TestEachResourceIsDecidedUpon(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.apply("{kind: Organization, metadata: {name: acme}, spec: {}}")
	c.apply(shop)
	acme := c.principal("acme-editor", "acme", "editor")
	here := c.principal("editor", "default", "editor")
	viewer := c.principal("viewer", "default", "viewer")
	orgAdmin := c.principal("org-admin", "default", "admin")

	site := "{kind: Site, metadata: {name: s%s}, spec: {}}"
	for _, tt := range []struct {
		name string
		by   *client.Client
		docs string
		want string
	}{
		{"own organization", here, site, ""},
		{"organization of another", acme, "{kind: Site, metadata: {name: s, organization: default}, spec: {}}", "forbidden"},
		{"what is equal already, of another", acme, shop, "forbidden"},
		{"one of two", acme, "{kind: Site, metadata: {name: s, organization: acme}, spec: {}}\n---\n{kind: Site, metadata: {name: s, organization: default}, spec: {}}", "forbidden"},
		{"a principal", orgAdmin, "{kind: Principal, metadata: {name: me}, spec: {roles: [{organization: \"*\", role: admin}]}}", "forbidden"},
		{"an organization", orgAdmin, "{kind: Organization, metadata: {name: mine}, spec: {}}", "forbidden"},
		{"a viewer", viewer, site, "forbidden"},
	} {
		docs := strings.ReplaceAll(tt.docs, "%s", "")
		_, err := tt.by.Apply(t.Context(), strings.NewReader(docs), client.ApplyOptions{})
		if tt.want == "" && err != nil {
			t.Errorf("apply of %s: %v", tt.name, err)
		} else if tt.want != "" {
			wantCode(t, err, tt.want)
		}
		if tt.want != "" && !strings.Contains(tt.docs, "roles") {
			_, err = tt.by.DeleteAll(t.Context(), strings.NewReader(docs), client.ApplyOptions{})
			wantCode(t, err, tt.want)
			_, err = tt.by.Trial().Apply(t.Context(), strings.NewReader(docs), client.ApplyOptions{})
			wantCode(t, err, tt.want)
		}
	}
	if _, err := acme.Get(t.Context(), v1.Key{Organization: "acme", Kind: v1.KindSite, Name: "s"}); err == nil {
		t.Error("half of a refused apply was made")
	}
	// Lists of what is global show what the caller may see.
	list, err := acme.List(t.Context(), v1.KindOrganization, "", client.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Metadata.Name != "acme" {
		t.Errorf("organizations = %v, %v, want acme only", list.Items, err)
	}
	st, err := acme.Status(t.Context())
	if err != nil || len(st.Organizations) != 1 || st.Principal != "acme-editor" {
		t.Errorf("status = %+v, %v, want acme only", st, err)
	}
	_, err = acme.Audit(t.Context(), client.AuditOptions{})
	wantCode(t, err, "forbidden")
	audit, err := orgAdmin.Audit(t.Context(), client.AuditOptions{Organization: "default"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range audit.Items {
		for _, ch := range r.Changes {
			if ch.Organization != "default" {
				t.Errorf("the audit of an organization shows %+v", ch)
			}
		}
	}
	if len(audit.Items) == 0 {
		t.Error("the audit of an organization shows nothing")
	}
}

func TestPrincipalsAndTokens(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ci := c.principal("ci", "default", "editor")
	o, err := c.admin.Get(t.Context(), key(v1.KindPrincipal, "ci"))
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Spec.(*v1.PrincipalSpec).Tokens) != 0 {
		t.Errorf("a principal shows its tokens: %+v", o.Spec)
	}
	// Applying what was read keeps the tokens, and nobody can write them.
	o.Spec.(*v1.PrincipalSpec).Roles[0].Role = "viewer"
	if _, err := c.admin.Put(t.Context(), o, client.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if st, err := ci.Status(t.Context()); err != nil || st.Roles[0].Role != "viewer" {
		t.Errorf("after the change of role: %+v, %v", st, err)
	}
	_, err = c.admin.Apply(t.Context(), strings.NewReader(`{kind: Principal, metadata: {name: ci}, spec: {tokens: [{id: x, sha256: "`+strings.Repeat("0", 64)+`"}]}}`), client.ApplyOptions{})
	wantCode(t, err, "invalid")

	tokens, err := c.admin.Tokens(t.Context(), "ci")
	if err != nil || len(tokens.Items) != 1 || tokens.Items[0].Token != "" {
		t.Fatalf("tokens = %+v, %v, want one without its value", tokens, err)
	}
	if err := c.admin.Trial().RevokeToken(t.Context(), "ci", tokens.Items[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := ci.Status(t.Context()); err != nil {
		t.Errorf("a dry run revoked the token: %v", err)
	}
	if err := c.admin.RevokeToken(t.Context(), "ci", tokens.Items[0].ID); err != nil {
		t.Fatal(err)
	}
	_, err = ci.Status(t.Context())
	wantCode(t, err, "unauthenticated")
	wantCode(t, c.admin.RevokeToken(t.Context(), "ci", "none"), "not-found")

	// The cluster cannot be locked by mistake.
	own, err := c.admin.Tokens(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.admin.RevokeToken(t.Context(), "admin", own.Items[0].ID), "last-admin")
	_, err = c.admin.Delete(t.Context(), key(v1.KindPrincipal, "admin"), 0, client.ApplyOptions{})
	wantCode(t, err, "last-admin")
	second := c.principal("second", "*", "admin")
	if _, err := second.Delete(t.Context(), key(v1.KindPrincipal, "admin"), 0, client.ApplyOptions{}); err != nil {
		t.Errorf("delete of an administrator beside another: %v", err)
	}
	_, err = c.admin.Status(t.Context())
	wantCode(t, err, "unauthenticated")
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	info, err := os.Stat(c.tokenFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v, %v, want mode 0600", info.Mode(), err)
	}
	before := c.store.State().Version()
	other := filepath.Join(t.TempDir(), "token")
	if err := c.control.Bootstrap(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other); err == nil || c.store.State().Version() != before {
		t.Error("a second start made another token or changed the record")
	}
	if err := c.control.Bootstrap(t.Context(), filepath.Join(t.TempDir(), "none", "token")); err != nil {
		t.Errorf("a second start looks at the token file: %v", err)
	}

	// A start that was cut off after the file was written goes on with the token in it.
	cut := openStore(t)
	again, err := control.New(control.Options{Store: cut, Log: discard(), Registerer: prometheus.NewRegistry(), Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Bootstrap(t.Context(), c.tokenFile); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(c.tokenFile)
	if err != nil || strings.TrimSpace(string(b)) != c.token {
		t.Errorf("the token file was changed (%v)", err)
	}
	if err := os.WriteFile(other, []byte("not a token"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty, err := control.New(control.Options{Store: openStore(t), Log: discard(), Registerer: prometheus.NewRegistry(), Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Bootstrap(t.Context(), other); err == nil {
		t.Error("a token file with something else in it was taken")
	}
}
