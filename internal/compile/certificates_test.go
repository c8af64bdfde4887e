package compile

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
)

const certificateWorld = `
{kind: Site, metadata: {name: here}, spec: {}}
---
{kind: GatewayGroup, metadata: {name: eu}, spec: {site: here}}
---
{kind: GatewayGroup, metadata: {name: us}, spec: {site: here}}
---
{kind: Environment, metadata: {name: prod}, spec: {placements: [{gatewayGroup: eu}]}}
---
{kind: Environment, metadata: {name: test}, spec: {placements: [{gatewayGroup: us}]}}
---
{kind: EnvironmentGroup, metadata: {name: public}, spec: {hostnames: [api.example.com, "*.shop.example.com"], environments: [prod]}}
---
{kind: EnvironmentGroup, metadata: {name: trial}, spec: {hostnames: [test.example.com], environments: [test]}}
---
{kind: Backend, metadata: {name: bank}, spec: {protocol: https, endpoints: [{address: "10.0.0.1:443"}], tls: {clientCertificate: us-only}}}
---
{kind: API, metadata: {name: pay}, spec: {basePath: /pay, backend: bank}}
---
{kind: Deployment, metadata: {name: pay-test}, spec: {api: pay, environment: test}}
`

// certificateOf returns a certificate with the given names, and its key sealed to groups (as "group:key").
func certificateOf(name string, hostnames, names, sealedTo []string) []*v1.Object {
	key := &v1.CertificateKeySpec{Names: names, Fingerprint: "f-" + name}
	for _, to := range sealedTo {
		group, id, _ := strings.Cut(to, ":")
		key.Groups = append(key.Groups, v1.SealedToGroup{GatewayGroup: group, KeyID: id, Sealed: base64.StdEncoding.EncodeToString([]byte("box for " + to))})
	}
	meta := v1.Metadata{Name: name, Organization: v1.DefaultOrganization}
	return []*v1.Object{
		{APIVersion: v1.APIVersion, Kind: v1.KindCertificate, Metadata: meta, Spec: &v1.CertificateSpec{Hostnames: hostnames, Certificate: "chain of " + name}},
		{APIVersion: v1.APIVersion, Kind: v1.KindCertificateKey, Metadata: meta, Spec: key},
	}
}

func groupKey(group, id string) *v1.Object {
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: v1.KindGroupKey, Metadata: v1.Metadata{Name: group, Organization: v1.DefaultOrganization},
		Spec: &v1.GroupKeySpec{Versions: []v1.GroupKeyVersion{{ID: id}}},
	}
}

func (m memory) plus(objects ...*v1.Object) (memory, []v1.Key) {
	next := memory{}
	maps.Copy(next, m)
	var keys []v1.Key
	for _, o := range objects {
		next[o.Key()] = o
		keys = append(keys, o.Key())
	}
	return next, keys
}

// shownIn returns the hostnames of the certificates in each view, as "group/certificate: hostnames".
func shownIn(t *testing.T, r *Result) []string {
	t.Helper()
	var out []string
	for view, set := range r.Views {
		for e := range set.Class(snapshot.ClassCertificate) {
			c, err := snapshot.Decode[snapshot.Certificate](e)
			if err != nil {
				t.Fatal(err)
			}
			_, group, _ := strings.Cut(view, "/")
			if want := "box for " + group + ":" + c.KeyID; string(c.SealedKey) != want {
				t.Errorf("view %s has the box %q, want %q", view, c.SealedKey, want)
			}
			if e.Critical {
				t.Errorf("%s is critical: older gateways would refuse the configuration", e.Key)
			}
			out = append(out, fmt.Sprintf("%s/%s: %s", group, c.Name, strings.Join(c.Hostnames, " ")))
		}
	}
	slices.Sort(out)
	return out
}

func TestCertificatesGoWhereTheyAreNeeded(t *testing.T) {
	t.Parallel()
	st, _ := memory{}.with(t, "world", certificateWorld)
	st, _ = st.plus(groupKey("eu", "e1"), groupKey("us", "u1"))
	both := []string{"eu:e1", "us:u1"}
	for _, c := range [][]*v1.Object{
		certificateOf("exact", nil, []string{"api.example.com", "unknown.example.org"}, both),
		certificateOf("wild", nil, []string{"*.example.com"}, both),
		certificateOf("deep", []string{"a.shop.example.com"}, []string{"*.shop.example.com"}, both),
		certificateOf("us-only", nil, nil, both),
		certificateOf("nobody", nil, []string{"x.example.net"}, both),
	} {
		st, _ = st.plus(c...)
	}
	r, err := Compile(st, 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"eu/deep: a.shop.example.com", "eu/exact: api.example.com", "eu/wild: *.example.com", "us/us-only: ", "us/wild: *.example.com"}
	if got := shownIn(t, r); !slices.Equal(got, want) || len(r.Unsealed) > 0 {
		t.Errorf("certificates: %q (unsealed %v), want %q", got, r.Unsealed, want)
	}

	// Step by step comes to the same as all at once.
	steps := [][]*v1.Object{
		{groupKey("eu", "e2")},
		certificateOf("wild", nil, []string{"*.example.com"}, []string{"eu:e2", "us:u1"}),
		{{Kind: v1.KindEnvironment, Metadata: v1.Metadata{Name: "prod", Organization: v1.DefaultOrganization}, Spec: &v1.EnvironmentSpec{Placements: []v1.Placement{{GatewayGroup: "us"}}}}},
		{{Kind: v1.KindEnvironmentGroup, Metadata: v1.Metadata{Name: "trial", Organization: v1.DefaultOrganization}, Spec: &v1.EnvironmentGroupSpec{Hostnames: []string{"x.example.net"}, Environments: []string{"test"}}}},
	}
	for i, step := range steps {
		next, keys := st.plus(step...)
		after, err := r.Next(next, uint64(i+2), keys)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := Compile(next, uint64(i+2), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := shownIn(t, after), shownIn(t, whole); !slices.Equal(got, want) {
			t.Errorf("step %d: %q, all at once %q", i+1, got, want)
		}
		if i == 0 && len(after.Unsealed) != 3 {
			t.Errorf("after a new group key %v are unsealed, want the three certificates of the group", after.Unsealed)
		}
		st, r = next, after
	}
	if got := shownIn(t, r); !slices.Contains(got, "us/nobody: x.example.net") || !slices.Contains(got, "us/exact: api.example.com") {
		t.Errorf("at the end: %q", got)
	}
}

func TestCertificatesOfForeignHostnamesAreRefused(t *testing.T) {
	t.Parallel()
	st, _ := memory{}.with(t, "world", strings.ReplaceAll(certificateWorld, ", tls: {clientCertificate: us-only}", ""))
	next, _ := st.plus(certificateOf("c", []string{"api.example.com", "api.example.org"}, nil, nil)...)
	_, err := Compile(next, 1, Options{})
	faults := resource.FaultsOf(err)
	if len(faults) != 1 || faults[0].Code != resource.CodeHostnameUnowned || faults[0].Path != "spec.hostnames[1]" {
		t.Errorf("faults = %+v, want one about spec.hostnames[1]", faults)
	}
}

// challengesIn returns what gateways answer in each view, as "group/certificate: hostname token".
func challengesIn(t *testing.T, r *Result) []string {
	t.Helper()
	var out []string
	for view, set := range r.Views {
		for e := range set.Class(snapshot.ClassChallenge) {
			c, err := snapshot.Decode[snapshot.Challenges](e)
			if err != nil {
				t.Fatal(err)
			}
			if e.Critical {
				t.Errorf("%s is critical: older gateways would refuse the configuration", e.Key)
			}
			_, group, _ := strings.Cut(view, "/")
			for _, ch := range c.Challenges {
				out = append(out, fmt.Sprintf("%s/%s: %s %s", group, c.Certificate, ch.Hostname, ch.Token))
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestACME follows a certificate from its order over the challenge to what the CA has issued, for fewer hostnames than are
// asked for meanwhile.
func TestACME(t *testing.T) {
	t.Parallel()
	st, _ := memory{}.with(t, "world", strings.ReplaceAll(certificateWorld, ", tls: {clientCertificate: us-only}", ""))
	st, _ = st.plus(groupKey("eu", "e1"), groupKey("us", "u1"))
	meta := v1.Metadata{Name: "public", Organization: v1.DefaultOrganization}
	asked := func(hostnames ...string) *v1.Object {
		return &v1.Object{APIVersion: v1.APIVersion, Kind: v1.KindCertificate, Metadata: meta, Spec: &v1.CertificateSpec{Hostnames: hostnames, ACME: &v1.ACME{}}}
	}
	order := func(challenges ...v1.ACMEChallenge) *v1.Object {
		return &v1.Object{APIVersion: v1.APIVersion, Kind: v1.KindCertificateOrder, Metadata: meta, Spec: &v1.CertificateOrderSpec{Challenges: challenges}}
	}
	issued := certificateOf("public", nil, []string{"api.example.com", "test.example.com"}, []string{"eu:e1", "us:u1"})[1]
	issued.Spec.(*v1.CertificateKeySpec).Certificate = "chain"
	r, err := Compile(st, 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		put               *v1.Object
		shown, challenges []string
	}{
		{asked("api.example.com", "test.example.com"), nil, nil},
		{
			order(v1.ACMEChallenge{Hostname: "api.example.com", Token: "a"}, v1.ACMEChallenge{Hostname: "test.example.com", Token: "t"}, v1.ACMEChallenge{Hostname: "b.example", Token: "b"}),
			nil,
			[]string{"eu/public: api.example.com a", "us/public: test.example.com t"},
		},
		{
			issued,
			[]string{"eu/public: api.example.com", "us/public: test.example.com"},
			[]string{"eu/public: api.example.com a", "us/public: test.example.com t"},
		},
		{order(), []string{"eu/public: api.example.com", "us/public: test.example.com"}, nil},
		{asked("api.example.com", "a.shop.example.com"), []string{"eu/public: api.example.com"}, nil},
	} {
		next, keys := st.plus(step.put)
		after, err := r.Next(next, uint64(i+2), keys)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := Compile(next, uint64(i+2), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]*Result{"step by step": after, "at once": whole} {
			if got := shownIn(t, r); !slices.Equal(got, step.shown) {
				t.Errorf("step %d, %s: certificates %q, want %q", i, name, got, step.shown)
			}
			if got := challengesIn(t, r); !slices.Equal(got, step.challenges) {
				t.Errorf("step %d, %s: challenges %q, want %q", i, name, got, step.challenges)
			}
		}
		st, r = next, after
	}
	want := map[string][]string{"eu": {"api.example.com", "a.shop.example.com"}}
	if got := r.GroupsOf(v1.DefaultOrganization, "public"); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("GroupsOf = %q, want %q", got, want)
	}
}
