package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

// documents is a stream of resources as JSON documents, which YAML's reader takes too.
type documents struct{ strings.Builder }

// add appends a resource.
func (d *documents) add(name string, spec v1.Spec) {
	b, err := json.Marshal(v1.Object{APIVersion: v1.APIVersion, Kind: spec.Kind(), Metadata: v1.Metadata{Name: name}, Spec: spec})
	if err != nil { // of types that hold nothing that JSON cannot
		panic(err)
	}
	d.WriteString("---\n")
	d.Write(b)
	d.WriteString("\n")
}

// site appends a site, its gateway group and a backend.
func (d *documents) site(backend string) {
	d.add(groupName, &v1.SiteSpec{Cloud: "on-premise", Region: "here", Jurisdiction: "EU"})
	d.add(groupName, &v1.GatewayGroupSpec{Site: groupName})
	d.add(groupName, &v1.BackendSpec{Endpoints: []v1.Endpoint{{Address: backend}}})
}

// environment appends an environment on the group, under one hostname.
func (d *documents) environment(name, hostname string) {
	d.add(name, &v1.EnvironmentSpec{Placements: []v1.Placement{{GatewayGroup: groupName}}})
	d.add(name, &v1.EnvironmentGroupSpec{Hostnames: []string{hostname}, Environments: []string{name}})
}

// api appends an API and its deployment.
func (d *documents) api(name, environment string, spec *v1.APISpec) {
	d.add(name, spec)
	d.add(name, &v1.DeploymentSpec{API: name, Environment: environment})
}

const (
	proxyHost = "bench.example.com"
	plainPath = "/plain/v1/items/17"
	keyedPath = "/keyed/v1/items/17"
	postPath  = "/plain/v1/items"
	path64k   = "/bytes/65536"
	path1m    = "/bytes/1048576"
)

// proxyDocuments are the resources of the cases of proxy: the APIs plain, bytes and grpc without policies, and keyed, which asks for a key and
// counts a quota that is never used up.
func proxyDocuments(backend, grpc string) string {
	var d documents
	d.site(backend)
	d.environment("bench", proxyHost)
	item := []v1.Operation{{Name: "getItem", Method: "GET", Path: "/items/{id}"}}
	d.api("plain", "bench", &v1.APISpec{BasePath: "/plain/v1", Backend: groupName, Operations: append(item,
		v1.Operation{Name: "createItem", Method: "POST", Path: "/items"})})
	d.api("bytes", "bench", &v1.APISpec{BasePath: "/bytes", Backend: groupName, Operations: []v1.Operation{
		{Name: "getBytes", Method: "GET", Path: "/{size}"},
	}})
	d.add("grpc", &v1.BackendSpec{HTTPVersion: "2", Endpoints: []v1.Endpoint{{Address: grpc}}})
	service, method := path.Split(grpcPath)
	service = path.Clean(service)
	d.api("grpc", "bench", &v1.APISpec{BasePath: service, BackendPath: service, Backend: "grpc", Operations: []v1.Operation{
		{Name: "echo", Method: "POST", Path: "/" + method},
	}})
	d.api("keyed", "bench", &v1.APISpec{BasePath: "/keyed/v1", Backend: groupName, Operations: item, Policies: v1.Policies{
		Request: []v1.Policy{{APIKey: &v1.APIKeyPolicy{}}, {Quota: &v1.QuotaPolicy{}}},
	}})
	day, _ := v1.ParseDuration("1d")
	d.add("gold", &v1.ProductSpec{APIs: []string{"keyed"}, Quota: &v1.Limit{Limit: 1e12, Window: day}})
	for i := range keyQuotaApplications {
		d.add(subscriptionName(i), &v1.ApplicationSpec{Owner: "bench@example.com"})
		d.add(subscriptionName(i), &v1.SubscriptionSpec{Application: subscriptionName(i), Product: "gold"})
	}
	return d.String()
}

func subscriptionName(i int) string { return fmt.Sprintf("app-%06d", i) }

// keyValue returns the value of the i-th key.
func keyValue(i int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "key %d", i))
	return hex.EncodeToString(h[:20])
}

// keyRecords streams the keys from first up to but not including last, spread over the subscriptions, as records of an import.
func keyRecords(first, last, subscriptions int) io.Reader {
	r, w := io.Pipe()
	go func() { // ends when all is written or the reader is closed
		enc := json.NewEncoder(w)
		for i := first; i < last; i++ {
			hash := sha256.Sum256([]byte(keyValue(i)))
			if err := enc.Encode(v1.KeyImport{Subscription: subscriptionName(i % subscriptions), SHA256: hex.EncodeToString(hash[:])}); err != nil {
				return
			}
		}
		w.Close()
	}()
	return r
}

// feedHosts is the number of hostnames of the case feed.
const feedHosts = 100

// feedAPI identifies one API of the case feed.
type feedAPI int

func (a feedAPI) name() string        { return fmt.Sprintf("api-%05d", int(a)) }
func (a feedAPI) environment() string { return fmt.Sprintf("env-%02d", int(a)%feedHosts) }
func (a feedAPI) host() string        { return fmt.Sprintf("h%02d.example.com", int(a)%feedHosts) }
func (a feedAPI) path() string        { return "/" + a.name() + "/v1/items/17" }

// spec returns the API with five operations and three policies; version is what it answers in the field X-Version.
func (a feedAPI) spec(version string) *v1.APISpec {
	second, _ := v1.ParseDuration("1s")
	return &v1.APISpec{
		DisplayName: "API " + a.name(),
		BasePath:    "/" + a.name() + "/v1",
		Backend:     groupName,
		Operations: []v1.Operation{
			{Name: "listItems", Method: "GET", Path: "/items"},
			{Name: "createItem", Method: "POST", Path: "/items"},
			{Name: "getItem", Method: "GET", Path: "/items/{id}"},
			{Name: "replaceItem", Method: "PUT", Path: "/items/{id}"},
			{Name: "deleteItem", Method: "DELETE", Path: "/items/{id}"},
		},
		Policies: v1.Policies{
			Request: []v1.Policy{
				{RateLimit: &v1.RateLimitPolicy{Limit: 1_000_000, Window: second, By: "api"}},
				{SetHeaders: &v1.SetHeadersPolicy{Remove: []string{"X-Internal"}, Set: map[string]string{"X-Api": a.name()}}},
			},
			Response: []v1.Policy{{SetHeaders: &v1.SetHeadersPolicy{Set: map[string]string{"X-Version": version}}}},
		},
	}
}

// change returns the document that changes the API's answer.
func (a feedAPI) change(version string) string {
	var d documents
	d.add(a.name(), a.spec(version))
	return d.String()
}

// feedDocuments returns the resources of the case feed in parts of at most 1,000 APIs.
func feedDocuments(backend string, apis int) []string {
	var d documents
	d.site(backend)
	for i := range feedHosts {
		d.environment(feedAPI(i).environment(), feedAPI(i).host())
	}
	parts := []string{}
	for i := range apis {
		a := feedAPI(i)
		d.api(a.name(), a.environment(), a.spec("0"))
		if (i+1)%1000 == 0 || i+1 == apis {
			parts = append(parts, d.String())
			d = documents{}
		}
	}
	return parts
}

// The cases of routes are asked for the same paths, so that they differ in the number of routes and in nothing else: what so
// many different requests cost the caches by themselves is in all of them. The paths are spread over routeAPIs base paths and
// routeOperations operations of each.
const (
	routeAPIs       = 1000
	routeOperations = 100
)

// routePath returns a path of the i-th of 100,000 routes.
func routePath(i int) string {
	return fmt.Sprintf("/shop-%04d/v1/things-%02d/17", i/routeOperations, i%routeOperations)
}

// routeSample returns the paths that are asked for: as many as suffice to leave no route in the processor's caches for long.
func routeSample() (paths []string) {
	const step = 10
	for i := 0; i < routeAPIs*routeOperations; i += step {
		paths = append(paths, routePath(i))
	}
	return paths
}

// routeDocuments returns the resources of a case of routes: one route for all paths, one for each base path, or one for
// each operation.
func routeDocuments(backend, name string) string {
	var d documents
	d.site(backend)
	d.environment("bench", proxyHost)
	each := []v1.Operation{{Name: "getThing", Method: "GET", Path: "/{kind}/{id}"}}
	switch name {
	case caseRoutes1:
		d.api("shops", "bench", &v1.APISpec{BasePath: "/*/v1", Backend: groupName, Operations: each})
		return d.String()
	case caseRoutes100k:
		each = nil
		for i := range routeOperations {
			each = append(each, v1.Operation{Name: fmt.Sprintf("getThing%02d", i), Method: "GET", Path: fmt.Sprintf("/things-%02d/{id}", i)})
		}
	}
	for i := range routeAPIs {
		shop := fmt.Sprintf("shop-%04d", i)
		d.api(shop, "bench", &v1.APISpec{BasePath: "/" + shop + "/v1", Backend: groupName, Operations: each})
	}
	return d.String()
}
