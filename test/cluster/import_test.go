package cluster

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/importer/openapi"
	"hansa.dev/hansa/internal/importer/openapi/realdocs"
	"hansa.dev/hansa/internal/resource"
)

// TestImports sends one request for every operation of GitHub's and of Stripe's document through a gateway, and reads
// in its access log which operation it took each for.
func TestImports(t *testing.T) {
	if os.Getenv("HANSA_REAL") == "" {
		t.Skip("fetches documents with npm: set HANSA_REAL=1 (make test-real does)")
	}
	t.Parallel()
	for _, tc := range []struct{ name, spec, suffix string }{
		{"github", realdocs.GitHub, "/api.github.com.json"},
		{"stripe", realdocs.Directory, "/stripe.com.json"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n := 0
			realdocs.Walk(t, tc.spec, func(name string) bool { return strings.HasSuffix(name, tc.suffix) }, func(_ string, doc []byte) {
				n++
				sendAll(t, tc.name, doc)
			})
			if n == 0 {
				t.Errorf("%s has no document %s", tc.spec, tc.suffix)
			}
		})
	}
}

// topology is what an API needs around it to be served.
const topology = `
kind: Site
metadata: {name: local}
spec: {region: here}
---
kind: GatewayGroup
metadata: {name: local}
spec: {site: local}
---
kind: Environment
metadata: {name: prod}
spec: {placements: [{gatewayGroup: local}]}
---
kind: EnvironmentGroup
metadata: {name: all}
spec: {hostnames: ["*"], environments: [prod]}
`

func sendAll(t *testing.T, name string, doc []byte) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(backend.Close)
	objects, report, err := openapi.Import(doc, openapi.Options{
		Name: name, BasePath: "/" + name, BackendAddress: backend.Listener.Addr().String(), KeepDefinition: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var api *v1.APISpec
	for _, o := range objects {
		if spec, ok := o.Spec.(*v1.APISpec); ok {
			api = spec
			api.Policies = v1.Policies{} // keys are not what is tested here
		}
	}
	objects = append(objects, &v1.Object{
		APIVersion: v1.APIVersion, Kind: v1.KindDeployment, Metadata: v1.Metadata{Name: name + "-prod", Organization: v1.DefaultOrganization},
		Spec: &v1.DeploymentSpec{API: name, Environment: "prod"},
	})
	var documents bytes.Buffer
	if err := resource.WriteYAML(&documents, objects...); err != nil {
		t.Fatal(err)
	}
	c := startControl(t, t.TempDir())
	c.apply(t, topology+"---\n"+documents.String())
	g := startGateway(t, app.GatewayOptions{Data: filepath.Join(t.TempDir(), "gw"), Name: "gw", Control: []string{c.link}, JoinToken: c.joinToken(t)})
	if err := g.AwaitConfiguration(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{} // operation by request id
	for _, op := range api.Operations {
		method, path, err := openapi.SampleRequest(op)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.Ready().Addresses["http"]+"/"+name+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.http.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		resp.Body.Close()
		want[resp.Header.Get("X-Request-Id")] = op.Name
	}
	stopNow(t, g.Stop) // writes the access log out
	log, err := os.Open(g.opts.AccessLog)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	right := 0
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			RequestID, Operation, Method, Path string
			Status                             int
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Operation != want[line.RequestID] || line.Status != http.StatusNoContent {
			t.Errorf("%s %s went to %q with %d, want %q", line.Method, line.Path, line.Operation, line.Status, want[line.RequestID])
			continue
		}
		right++
	}
	if right != len(api.Operations) || right == 0 {
		t.Errorf("%d of %d operations reached", right, len(api.Operations))
	}
	t.Logf("%s: %d bytes, %d operations described, %d made, %d reached", name, len(doc), report.Described, report.Operations, right)
}
