package resource

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "hansa.dev/hansa/api/v1"
)

// TestBackendFaults checks the paths of what is wrong with a backend, one fault at a time and several.
func TestBackendFaults(t *testing.T) {
	t.Parallel()
	const endpoints = "endpoints: [{address: \"a:1\"}], "
	for _, tt := range []struct{ spec, want string }{
		{endpoints, ""},
		{"discovery: {type: dns, name: a.test}", ""},
		{"discovery: {type: srv, name: _http._tcp.a.test, resolvers: [\"192.0.2.1:53\"], family: ipv6}", ""},
		{endpoints + "loadBalancing: {method: consistentHash, hashBy: {cookie: s}}, healthCheck: {}, outliers: {successRate: {}}, retries: {}, hedging: {}, circuitBreaker: {}, limits: {}", ""},
		{endpoints + "healthCheck: {type: grpc, service: acme.Catalog}", ""},
		{endpoints + "healthCheck: {method: POST, body: \"<ping/>\\n\", expectHeaders: {X-State: ready}}", ""},
		{endpoints + "healthCheck: {expectHeaders: {\"X State\": a, X-A: \"a\\nb\"}, body: \"\\0\"}", "spec.healthCheck.body spec.healthCheck.expectHeaders[\"X State\"] spec.healthCheck.expectHeaders[\"X-A\"]"},
		{endpoints + "healthCheck: {type: tcp, body: x, expectHeaders: {A: b}}", "spec.healthCheck.body spec.healthCheck.expectHeaders"},
		{endpoints + "healthCheck: {method: OPTIONS, path: \"*\", statuses: [\"204\", 200-399]}", ""},
		{endpoints + "retries: {on: [connect, \"503\"], max: 0}", ""},
		{"", "spec.endpoints"},
		{"endpoints: [{address: \"a:1\", priority: 16, weight: 1001, site: X}]", "spec.endpoints[0].priority spec.endpoints[0].site spec.endpoints[0].weight"},
		{endpoints + "discovery: {type: dns, name: a.test}", "spec.discovery"},
		{"discovery: {type: \"\", name: \"\"}", "spec.discovery.name spec.discovery.type"},
		{"discovery: {type: dns, name: 192.0.2.1}", "spec.discovery.name"},
		{"discovery: {type: srv, name: a.test, port: 80}", "spec.discovery.port"},
		{"discovery: {type: dns, name: a.test, resolvers: [ns.test]}", "spec.discovery.resolvers[0]"},
		{"discovery: {type: dns, name: a.test, minTTL: 10m}", "spec.discovery.minTTL"},
		{endpoints + "httpVersion: \"3\"", "spec.httpVersion"},
		{endpoints + "proxyProtocol: v2, httpVersion: \"2\"", "spec.proxyProtocol"},
		{endpoints + "loadBalancing: {method: consistentHash}", "spec.loadBalancing.hashBy"},
		{endpoints + "loadBalancing: {method: consistentHash, hashBy: {cookie: s, clientIP: true}}", "spec.loadBalancing.hashBy"},
		{endpoints + "loadBalancing: {hashBy: {cookie: s}, decay: 1s, maxLoadPercent: 120, panicPercent: 101}", "spec.loadBalancing.decay spec.loadBalancing.hashBy spec.loadBalancing.maxLoadPercent spec.loadBalancing.panicPercent"},
		{endpoints + "healthCheck: {type: tcp, path: /x, service: s, host: h}", "spec.healthCheck.host spec.healthCheck.path spec.healthCheck.service"},
		{endpoints + "healthCheck: {path: x, method: get, statuses: [\"99\", \"300-200\"], headers: {Host: x}}", "spec.healthCheck.headers[\"Host\"] spec.healthCheck.method spec.healthCheck.path spec.healthCheck.statuses[0] spec.healthCheck.statuses[1]"},
		{endpoints + "healthCheck: {interval: 1ms, timeout: 1ms, healthyAfter: 101, jitterPercent: 91}", "spec.healthCheck.healthyAfter spec.healthCheck.interval spec.healthCheck.jitterPercent spec.healthCheck.timeout"},
		{endpoints + "outliers: {ejectionTime: 10m, interval: 1ms}", "spec.outliers.ejectionTime spec.outliers.interval"},
		{endpoints + "retries: {on: [reste, \"200\"], max: 11, methods: [get], maxBackoff: 1ms}", "spec.retries.max spec.retries.maxBackoff spec.retries.methods[0] spec.retries.on[0] spec.retries.on[1]"},
		{endpoints + "hedging: {after: 1s, percentile: 90}", "spec.hedging.percentile"},
		{endpoints + "limits: {headerBytes: 10, headers: 1000}", "spec.limits.headerBytes spec.limits.headers"},
		{endpoints + "timeouts: {try: 1ms, total: 25h}", "spec.timeouts.total spec.timeouts.try"},
	} {
		got := faultPaths(t, "Backend", tt.spec)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.spec, diff)
		}
	}
}

// TestSplitFaults does the same for what an API forwards to.
func TestSplitFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ spec, want string }{
		{"split: {backends: [{backend: a, weight: 9}, {backend: b, weight: 1}], stickBy: {clientIP: true}}, mirror: {backend: c}", ""},
		{"split: {backends: [{backend: a, weight: 9}]}", "spec.split.backends"},
		{"split: {backends: [{backend: a, weight: 0}, {backend: b, weight: 0}]}", "spec.split.backends"},
		{"backend: a, split: {backends: [{backend: a, weight: 9}, {backend: a, weight: 1001}]}", "spec.split spec.split.backends[1].backend spec.split.backends[1].weight"},
		{"backend: a, mirror: {backend: b, percent: 101}", "spec.mirror.percent"},
		{"policies: {request: [{respond: {}}]}, mirror: {backend: b}", "spec.mirror"},
	} {
		if diff := cmp.Diff(tt.want, faultPaths(t, "API", "basePath: /x, "+tt.spec)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.spec, diff)
		}
	}
}

// faultPaths returns the paths of the faults of a resource, in order.
func faultPaths(t *testing.T, kind, spec string) string {
	t.Helper()
	spec = "{" + spec + "}"
	_, faults := Decode("x.yaml", []byte("kind: "+kind+"\nmetadata: {name: x}\nspec: "+spec+"\n"), Options{})
	var paths []string
	for _, f := range faults {
		paths = append(paths, f.Path)
	}
	slices.Sort(paths)
	return strings.Join(paths, " ")
}

// TestBackendsOf lists what an API needs, in references too.
func TestBackendsOf(t *testing.T) {
	t.Parallel()
	api := &v1.APISpec{
		Split:  &v1.Split{Backends: []v1.SplitBackend{{Backend: "a"}, {Backend: "b"}}},
		Mirror: &v1.Mirror{Backend: "c"},
	}
	var got []string
	for _, r := range References(&v1.Object{Kind: v1.KindAPI, Metadata: v1.Metadata{Organization: "default"}, Spec: api}) {
		got = append(got, r.Path+"="+r.Key.Name)
	}
	want := []string{"spec.split.backends[0].backend=a", "spec.split.backends[1].backend=b", "spec.mirror.backend=c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for path := range Backends("spec", api) {
		if path != want[0][:len(path)] {
			t.Errorf("the first one is at %s", path)
		}
		break // and nothing after that
	}
}
