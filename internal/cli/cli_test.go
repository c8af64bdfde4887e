package cli_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/cli"
	"hansa.dev/hansa/internal/control"
	"hansa.dev/hansa/internal/store/etcd"
)

var update = flag.Bool("update", false, "rewrite the reference page")

// node is a control node of its own with the command line pointed at it.
type node struct {
	t    *testing.T
	dir  string // for the files of a test
	env  map[string]string
	addr string
}

func newNode(t *testing.T) *node {
	t.Helper()
	record, err := etcd.Open(t.Context(), etcd.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := record.Close(); err != nil {
			t.Error(err)
		}
	})
	reg := prometheus.NewRegistry()
	s, err := control.New(control.Options{
		Store: record, Log: slog.New(slog.DiscardHandler), Registerer: reg, Gatherer: reg, Version: "test",
		Join: &control.Join{},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := s.Bootstrap(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = s.HTTPServer()
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(dir, "ca.pem")
	writeFile(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return &node{t: t, dir: t.TempDir(), addr: server.Listener.Addr().String(), env: map[string]string{
		"HANSA_SERVER": server.URL, "HANSA_CA_FILE": ca, "HANSA_TOKEN_FILE": token,
	}}
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// file writes a file of the test and returns its path.
func (n *node) file(name, content string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	writeFile(n.t, path, content)
	return path
}

type result struct {
	code     int
	out, err string
}

// run runs a command with standard input.
func (n *node) run(stdin string, args ...string) result {
	n.t.Helper()
	var out, errs bytes.Buffer
	code := cli.Main(n.t.Context(), args, strings.NewReader(stdin), &out, &errs, func(k string) string { return n.env[k] })
	return result{code, out.String(), errs.String()}
}

// ok runs a command that must succeed and returns its output.
func (n *node) ok(args ...string) string {
	n.t.Helper()
	r := n.run("", args...)
	if r.code != 0 {
		n.t.Fatalf("hansa %s: exit %d\n%s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

const shop = `# the shop
kind: Backend
metadata: {name: catalog}
spec: {endpoints: [{address: "127.0.0.1:9000"}]}
---
kind: API
metadata: {name: catalog, labels: {tier: gold}}
spec:
  basePath: /catalog/v1
  backend: catalog
  policies: {request: [{apiKey: {}}, {quota: {}}]}
---
kind: Product
metadata: {name: gold}
spec: {apis: [catalog], quota: {limit: 100000, window: 1h}}
---
kind: Application
metadata: {name: shop}
spec: {owner: shop@example.com}
---
kind: Subscription
metadata: {name: shop-gold}
spec: {application: shop, product: gold}
`

func TestTheFirstHour(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	file := n.file("shop.yaml", shop)
	if got := n.ok("apply", "-f", file, "--dry-run"); !strings.Contains(got, "5 resources would be changed") {
		t.Errorf("dry run: %s", got)
	}
	want := `Backend catalog created
API catalog created, revision 1
Product gold created
Application shop created
Subscription shop-gold created
5 resources changed (now at 1.2)
`
	if diff := cmp.Diff(want, n.ok("apply", "-f", file)); diff != "" {
		t.Errorf("apply (-want +got):\n%s", diff)
	}
	if got := n.ok("apply", "-f", file); got != "nothing to change (at 1.2)\n" {
		t.Errorf("second apply: %q", got)
	}
	table := `NAME      BASE PATH     BACKEND   OPERATIONS   REVISION   SEQ   LABELS
catalog   /catalog/v1   catalog   all          1          2     tier=gold
`
	for _, args := range [][]string{{"get", "apis"}, {"get", "API", "catalog"}, {"get", "api", "-l", "tier=gold"}} {
		if diff := cmp.Diff(table, n.ok(args...)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", args, diff)
		}
	}
	changed := n.file("changed.yaml", strings.Replace(shop, "100000", "5", 1))
	if got, want := n.ok("plan", "-f", changed), "~ Product gold\n0 to create, 1 to change (tried upon 1.2; nothing was done)\n"; got != want {
		t.Errorf("plan = %q, want %q", got, want)
	}
	if got := n.ok("diff", "-f", changed); !strings.Contains(got, "-    limit: 100000\n+    limit: 5\n") {
		t.Errorf("diff:\n%s", got)
	}
	for _, command := range []string{"plan", "diff"} {
		if r := n.run("", command, "-f", changed, "--exit-code"); r.code != cli.ExitDifferent || r.err != "" {
			t.Errorf("%s --exit-code: exit %d, %q, want 10 and silence", command, r.code, r.err)
		}
		if r := n.run("", command, "-f", file, "--exit-code"); r.code != 0 {
			t.Errorf("%s --exit-code without changes: exit %d", command, r.code)
		}
	}
	// What is exported makes the same elsewhere, and is no change here.
	exported := n.ok("export")
	if r := n.run(exported, "plan", "-f", "-", "--exit-code"); r.code != 0 {
		t.Errorf("an export differs from what is there: %s%s", r.out, r.err)
	}
	other := newNode(t)
	if r := other.run(exported, "apply", "-f", "-"); r.code != 0 {
		t.Errorf("an export does not apply elsewhere: %s\n%s", r.err, exported)
	}
	if r := n.run(n.ok("get", "api", "catalog", "-o", "json"), "apply", "-f", "-"); r.code != 0 || !strings.HasPrefix(r.out, "nothing to change") {
		t.Errorf("what get shows does not apply: %+v", r)
	}
	if got := n.ok("delete", "subscription", "shop-gold"); !strings.HasPrefix(got, "Subscription shop-gold deleted\n") {
		t.Errorf("delete: %s", got)
	}
	n.ok("delete", "-f", file)
	if r := n.run("", "get", "apis"); r.code != 0 || r.out != "" || r.err != "no apis in organization \"default\"\n" {
		t.Errorf("get of nothing: %+v", r)
	}
	audit := n.ok("audit")
	if !strings.Contains(audit, "Subscription shop-gold deleted") || !strings.Contains(audit, "admin") {
		t.Errorf("audit:\n%s", audit)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	file := n.file("shop.yaml", shop)
	n.ok("apply", "-f", file)
	stale := n.file("stale.yaml", "kind: Application\nmetadata: {name: shop, seq: 1}\nspec: {owner: x}\n")
	bad := n.file("bad.yaml", "kind: Site\nmetadata: {name: s}\nspec: {clowd: aws}\n")
	for _, tt := range []struct {
		name string
		args []string
		want int
	}{
		{"help", []string{"--help"}, cli.ExitDone},
		{"nothing", nil, cli.ExitDone},
		{"version", []string{"version"}, cli.ExitDone},
		{"unknown command", []string{"frobnicate"}, cli.ExitUsage},
		{"unknown flag", []string{"apply", "--force"}, cli.ExitUsage},
		{"missing flag", []string{"apply"}, cli.ExitUsage},
		{"missing argument", []string{"get"}, cli.ExitUsage},
		{"unknown kind", []string{"get", "pods"}, cli.ExitUsage},
		{"unknown form", []string{"get", "apis", "-o", "xml"}, cli.ExitUsage},
		{"bad duration", []string{"apply", "-f", file, "--wait=soon"}, cli.ExitUsage},
		{"command of a group", []string{"keys"}, cli.ExitUsage},
		{"missing resource", []string{"get", "api", "none"}, cli.ExitNotFound},
		{"list in no organization", []string{"get", "apis", "--organization", "none"}, cli.ExitNotFound},
		{"gateways of no organization", []string{"get", "gateways", "--organization", "none"}, cli.ExitNotFound},
		{"export of no organization", []string{"export", "--organization", "none"}, cli.ExitNotFound},
		{"what nobody sees", []string{"get", "groupkeys"}, cli.ExitUsage},
		{"import of no keys", []string{"keys", "import", "shop-gold", "/dev/null"}, cli.ExitInvalid},
		{"completion for no shell", []string{"completion", "fish2"}, cli.ExitUsage},
		{"missing file", []string{"apply", "-f", filepath.Join(n.dir, "none.yaml")}, cli.ExitNotFound},
		{"delete of none", []string{"delete", "api", "none"}, cli.ExitNotFound},
		{"in use", []string{"delete", "api", "catalog"}, cli.ExitConflict},
		{"stale", []string{"apply", "-f", stale}, cli.ExitConflict},
		{"other seq", []string{"delete", "subscription", "shop-gold", "--if-seq", "1"}, cli.ExitConflict},
		{"invalid", []string{"apply", "-f", bad}, cli.ExitInvalid},
		{"invalid selector", []string{"get", "apis", "-l", "a=b=c"}, cli.ExitInvalid},
		{"empty folder", []string{"apply", "-f", t.TempDir()}, cli.ExitInvalid},
		{"no server", []string{"get", "apis", "--server", "https://127.0.0.1:1"}, cli.ExitUnreachable},
		{"server that is not trusted", []string{"get", "apis", "--ca-file", n.file("other.pem", otherCA(t))}, cli.ExitUnreachable},
		{"token in the clear", []string{"get", "apis", "--server", "http://example.com"}, cli.ExitUsage},
		{"not allowed", []string{"get", "apis", "--token-file", n.file("empty", "")}, cli.ExitFailed},
	} {
		if r := n.run("", tt.args...); r.code != tt.want {
			t.Errorf("%s: exit %d, want %d: %s", tt.name, r.code, tt.want, r.err)
		} else if r.code != 0 && r.err == "" {
			t.Errorf("%s: exit %d without a word", tt.name, r.code)
		}
	}
}

// otherCA is the certificate of somebody else.
func otherCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestFaultsNameFileAndLine(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.file("config/a.yaml", "# first\nkind: Backend\nmetadata: {name: b}\nspec: {endpoints: [{address: \"127.0.0.1:1\"}]}") // no newline at the end
	n.file("config/sub/b.json", `{"kind": "API", "metadata": {"name": "x"},
  "spec": {"basePath": "/x", "backend": "none"}}`)
	n.file("config/c.yml", "---\nkind: Site\nmetadata: {name: s}\nspec: {}\n---\nkind: Application\nmetadata: {name: app}\nspec:\n  owner: a\n")
	n.file("config/.hidden.yaml", "nonsense")
	n.file("config/notes.txt", "nonsense")
	dir := filepath.Join(n.dir, "config")
	r := n.run("", "apply", "-f", dir)
	place := filepath.Join(dir, "sub", "b.json") + ":2:"
	if r.code != cli.ExitInvalid || !strings.HasPrefix(r.err, place) || !strings.Contains(r.err, "API x: spec.backend: ") {
		t.Fatalf("apply: exit %d, want a fault at %s:\n%s", r.code, place, r.err)
	}
	r = n.run("", "apply", "-f", dir, "-f", n.file("d.yaml", "kind: Application\nmetadata: {name: other}\nspec:\n  ownr: a\n"), "-o", "json")
	var f struct {
		Code, Message, CorrelationID string
		Faults                       []v1.Fault
	}
	if err := json.Unmarshal([]byte(r.err), &f); err != nil {
		t.Fatalf("%v: %s", err, r.err)
	}
	if f.Code != "invalid" || f.CorrelationID == "" || len(f.Faults) != 1 {
		t.Fatalf("failure = %+v", f)
	}
	want := v1.Fault{File: filepath.Join(n.dir, "d.yaml"), Line: 4, Column: 3, Kind: "Application", Name: "other", Path: "spec.ownr", Code: "unknown-field"}
	got := f.Faults[0]
	if got.Message == "" || !strings.Contains(got.Remedy, "owner") {
		t.Errorf("fault = %+v, want a message and a remedy", got)
	}
	got.Message, got.Remedy, got.Value, got.Organization = "", "", "", ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fault (-want +got):\n%s", diff)
	}
	big := n.file("big.yaml", strings.Repeat("#", 50_000_000))
	if r := n.run("", "apply", "-f", big, "-f", dir); r.code != cli.ExitInvalid || !strings.HasPrefix(r.err, big+":1:1: ") {
		t.Errorf("50 MB: exit %d %s", r.code, r.err)
	}
	// Faults of standard input say so.
	if r := n.run("kind: Site\nmetadata: {name: s}\nspec: {x: 1}\n", "apply", "-f", "-"); !strings.HasPrefix(r.err, "stdin:3:") {
		t.Errorf("stdin: %s", r.err)
	}
}

func TestKeysForScripts(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ok("apply", "-f", n.file("shop.yaml", shop))
	var made map[string]any
	if err := json.Unmarshal([]byte(n.ok("keys", "create", "shop-gold", "-o", "json")), &made); err != nil {
		t.Fatal(err)
	}
	if made["subscription"] != "shop-gold" || made["slot"] != "primary" || made["expiresAt"] != nil || !strings.HasPrefix(fmt.Sprint(made["key"]), "hk1_") {
		t.Errorf("keys create = %v", made)
	}
	r := n.run("", "keys", "create", "shop-gold", "--expires", "90d")
	if r.code != 0 || !strings.Contains(r.out, "secondary") || !strings.Contains(r.err, "only this once") {
		t.Errorf("keys create: %+v", r)
	}
	if r := n.run("", "keys", "create", "shop-gold"); r.code != cli.ExitConflict {
		t.Errorf("third key: %+v", r)
	}
	n.ok("keys", "rotate", "shop-gold", "--overlap", "0s")
	n.ok("keys", "revoke", "shop-gold", fmt.Sprint(made["keyId"]))
	if got := n.run("a-key\nb-key\n", "keys", "import", "shop-gold", "-"); got.code != 0 || !strings.HasPrefix(got.out, "2 keys imported") {
		t.Errorf("keys import: %+v", got)
	}
	records := n.file("keys.ndjson", `{"subscription":"shop-gold","key":"c-key"}`+"\n"+`{"subscription":"none","key":"d-key"}`+"\n")
	if r := n.run("", "keys", "import", records); r.code != cli.ExitInvalid || !strings.HasPrefix(r.err, records+":2:") || strings.Contains(r.err, "d-key") {
		t.Errorf("import with a fault: %+v", r)
	}
	if r := n.run("", "keys", "import", n.file("lines", "x\n")); r.code != cli.ExitUsage {
		t.Errorf("lines without a subscription: %+v", r)
	}
	var list struct{ Items []v1.SubscriptionKey }
	if err := json.Unmarshal([]byte(n.ok("keys", "list", "shop-gold", "-o", "json")), &list); err != nil || len(list.Items) != 5 {
		t.Errorf("keys list: %d, %v, want 5", len(list.Items), err)
	}
}

func TestTokensAndGateways(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ok("apply", "-f", n.file("p.yaml", "{kind: Principal, metadata: {name: ci}, spec: {roles: [{organization: default, role: viewer}]}}\n---\n{kind: Site, metadata: {name: s}, spec: {}}\n---\n{kind: GatewayGroup, metadata: {name: eu}, spec: {site: s}}"))
	file := n.file("ci.token", n.ok("tokens", "create", "ci", "--expires", "1h"))
	if got := n.ok("status", "--token-file", file); !strings.Contains(got, "ci (viewer@default)") || !strings.Contains(got, "flags and environment") {
		t.Errorf("status:\n%s", got)
	}
	if r := n.run("", "keys", "create", "x", "--token-file", file); r.code != cli.ExitFailed || !strings.Contains(r.err, "editor") {
		t.Errorf("a viewer makes a key: %+v", r)
	}
	var tokens v1.TokenList
	if err := json.Unmarshal([]byte(n.ok("tokens", "list", "ci", "-o", "json")), &tokens); err != nil || len(tokens.Items) != 1 {
		t.Fatal(tokens, err)
	}
	n.ok("tokens", "revoke", "ci", tokens.Items[0].ID)
	if r := n.run("", "status", "--token-file", file); r.code != cli.ExitFailed {
		t.Errorf("a revoked token: %+v", r)
	}
	if got := n.ok("jointokens", "create", "eu"); !strings.HasPrefix(got, "hj1_") || strings.Count(got, "\n") != 1 {
		t.Errorf("jointokens create = %q, want the token alone", got)
	}
	if got := n.ok("jointokens", "list"); strings.Count(got, "\n") != 2 {
		t.Errorf("jointokens list:\n%s", got)
	}
	if got := n.ok("get", "gateways", "-o", "json"); strings.Join(strings.Fields(got), "") != `{"items":[]}` {
		t.Errorf("get gateways = %s", got)
	}
}

func TestReadyFileIsFound(t *testing.T) { // it changes the working directory
	n := newNode(t)
	t.Chdir(n.dir)
	writeFile(t, filepath.Join(n.dir, ".hansa", "ready.json"), fmt.Sprintf(`{"pid": 1, "addresses": {"api": %q}, "caFile": %q, "tokenFile": %q}`,
		n.addr, n.env["HANSA_CA_FILE"], n.env["HANSA_TOKEN_FILE"]))
	n.env = map[string]string{}
	if got := n.ok("status"); !strings.Contains(got, filepath.Join(".hansa", "ready.json")) {
		t.Errorf("status:\n%s", got)
	}
	if r := n.run("", "status", "--server", "https://127.0.0.1:1"); r.code != cli.ExitUnreachable {
		t.Errorf("a flag does not win over the ready file: %+v", r)
	}
	writeFile(t, filepath.Join(n.dir, ".hansa", "ready.json"), "{")
	if r := n.run("", "status"); r.code != cli.ExitConfig {
		t.Errorf("a damaged ready file: %+v", r)
	}
}

func TestBackupNeverReplacesAFile(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	file := n.file("there", "precious")
	if r := n.run("", "backup", "-o", file); r.code != cli.ExitConflict {
		t.Errorf("backup onto a file: %+v", r)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ok("apply", "-f", n.file("shop.yaml", shop))
	backup := filepath.Join(n.dir, "hansa.backup")
	n.ok("backup", "-o", backup)
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup file: %v, %v, want mode 0600", info, err)
	}
	data := filepath.Join(n.dir, "data")
	if got := n.ok("restore", backup, "--data", data); !strings.Contains(got, "version 2.3") {
		t.Fatalf("restore: %s", got)
	}
	record, err := etcd.Open(t.Context(), etcd.Options{Dir: filepath.Join(data, "record")})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := record.State().Get(v1.Key{Organization: "default", Kind: v1.KindSubscription, Name: "shop-gold"}); !ok {
		t.Error("the restored record lacks what was in the backup")
	}
	if err := record.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file, data string
		want             int
	}{
		{"onto a record", backup, data, cli.ExitConflict},
		{"of nonsense", n.file("half", "half a backup"), filepath.Join(n.dir, "other"), cli.ExitInvalid},
		{"of nothing", filepath.Join(n.dir, "none"), filepath.Join(n.dir, "other"), cli.ExitNotFound},
	} {
		if r := n.run("", "restore", tt.file, "--data", tt.data); r.code != tt.want {
			t.Errorf("restore %s: exit %d, want %d: %s", tt.name, r.code, tt.want, r.err)
		}
	}
}

const petstore = `openapi: 3.0.3
info: {title: Pet Store, version: "1"}
servers: [{url: "https://pets.example.com/v2"}]
paths:
  /pets: {get: {operationId: listPets, responses: {}}, post: {operationId: addPet, responses: {}}}
  /pets/{id}: {get: {operationId: getPet, responses: {}}}
`

func TestImportOpenAPI(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ok("apply", "-f", n.file("env.yaml", "{kind: Environment, metadata: {name: prod}, spec: {}}"))
	doc := n.file("pets.yaml", petstore)
	if r := n.run("", "import", "openapi", doc, "--environment", "prod"); r.code != 0 || !strings.Contains(r.out, "API pet-store created, revision 1") ||
		!strings.Contains(r.out, "Deployment pet-store-prod created") || !strings.Contains(r.err, "3 of 3 operations are served") {
		t.Fatalf("import: %+v", r)
	}
	var out struct {
		Changes    []v1.Change
		Operations int
	}
	if err := json.Unmarshal([]byte(n.ok("import", "openapi", doc, "--environment", "prod", "-o", "json")), &out); err != nil || len(out.Changes) != 0 || out.Operations != 3 {
		t.Errorf("second import = %+v, %v, want no change", out, err)
	}
	if got := n.ok("export", "apis"); !strings.Contains(got, "openapi: 3.0.3") {
		t.Errorf("the document was not kept:\n%s", got)
	}
	written := n.ok("import", "openapi", doc, "--write", "--name", "pets", "--base-path", "/pets/v1", "--drop-definition")
	if r := n.run(written, "apply", "-f", "-"); r.code != 0 || strings.Contains(written, "openapi:") {
		t.Errorf("what import writes does not apply: %+v\n%s", r, written)
	}
	if r := n.run("", "import", "openapi", doc, "--environment", "none"); r.code != cli.ExitInvalid || !strings.Contains(r.err, "Deployment pet-store-none") {
		t.Errorf("import to no environment: %+v", r)
	}
	if r := n.run("nonsense", "import", "openapi", "-"); r.code != cli.ExitInvalid {
		t.Errorf("import of nonsense: %+v", r)
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ok("apply", "-f", n.file("shop.yaml", shop))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"get", "ap"}, "apis\napirevisions\napplications"},
		{[]string{"get", "api", ""}, "catalog"},
		{[]string{"keys", "create", "sh"}, "shop-gold"},
		{[]string{"get", "--organization", ""}, "default"},
		{[]string{"explain", "back"}, "backends"},
		{[]string{"keys", "create", "x", "--slot", ""}, "primary\nsecondary"},
	} {
		got := n.ok(append([]string{"__complete"}, tt.args...)...)
		if !strings.HasPrefix(got, tt.want+"\n:") {
			t.Errorf("completion of %q = %q, want %q", tt.args, got, tt.want)
		}
	}
	if got := n.ok("completion", "bash"); !strings.Contains(got, "hansa") {
		t.Error("no completion script")
	}
}

func TestOfflineCommands(t *testing.T) {
	t.Parallel()
	n := &node{t: t, env: map[string]string{}}
	var schema map[string]any
	if err := json.Unmarshal([]byte(n.ok("schema", "API")), &schema); err != nil || schema["title"] != "API" {
		t.Errorf("schema = %v, %v", schema["title"], err)
	}
	if got := n.ok("explain", "api.basePath"); !strings.Contains(got, "basePath") {
		t.Errorf("explain = %s", got)
	}
	if r := n.run("", "explain", "api.none"); r.code != cli.ExitNotFound {
		t.Errorf("explain of nothing: %+v", r)
	}
	if got := n.ok("version", "-o", "yaml"); !strings.HasPrefix(got, "version: ") {
		t.Errorf("version = %s", got)
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	page := filepath.Join("..", "..", "docs", "reference", "cli.md")
	want := string(cli.Reference())
	if *update {
		writeFile(t, page, want)
		if err := os.Chmod(page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/reference/cli.md is not current, run go test ./internal/cli -run TestReference -update (-want +got):\n%s", diff)
	}
}
