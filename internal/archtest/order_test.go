package archtest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// importOrderText is the import order of this repository: "a, b < c, d" lets c and d import a and b and everything
// that a and b may import. "a !< b" states that the lines above do not let b import a, by any way.
//
// Packages are written without "internal/". "*" stands for every folder at that place, each of them for itself. A
// package that is not named belongs to the nearest package above it that is: internal/store/storetest to store.
// Tests are free.
const importOrderText = `
	NONE
	< x/*, archtest;

	x/*
	< api/v1, api/link/v1, snapshot, exchange, policyspec, health, dispatch, keys;

	api/v1
	< control/problem;

	x/*, keys
	< telemetry, identity, localstore;

	api/v1, policyspec
	< client, resource;

	resource
	< importer/openapi;

	api/v1, keys, snapshot
	< vault;

	resource, keys, snapshot
	< store;

	resource, snapshot, dispatch, policyspec
	< compile;

	snapshot, localstore, telemetry
	< quota, revocation, credential, oauth;

	quota < credential;

	identity, telemetry, api/link/v1
	< link;

	link, snapshot, keys
	< feed/wire
	< feed/serve;

	feed/wire, localstore
	< feed/fetch;

	store, compile, feed/serve
	< publish;

	store, resource, vault
	< acme
	< control;

	link, quota, revocation, credential, oauth, health
	< quota/broker, revocation/sync, health/spread, gateway/cache/sync;

	exchange, snapshot, health, dispatch, policyspec, quota, revocation, credential, oauth
	< gateway/ingress, gateway/certs, gateway/challenge
	< gateway/listen, gateway/router, gateway/upstream, gateway/cache, gateway/accesslog, gateway/policy,
	  gateway/http1, gateway/http2, gateway/http3;

	gateway/certs, exchange, snapshot
	< gateway/handshake;

	gateway/certs, keys, snapshot
	< gateway/secrets;

	telemetry
	< connect/*;

	api/v1, gateway/policy, policyspec, connect/*, oauth
	< gateway/policy/*;

	gateway/listen, gateway/router, gateway/upstream, gateway/cache, gateway/accesslog, gateway/certs, gateway/handshake,
	gateway/secrets, gateway/challenge,
	gateway/http1, gateway/http2, gateway/http3, gateway/policy/*
	< gateway;

	snapshot, dispatch, health
	< xds/translate, dns;

	xds/translate
	< xds/serve;

	api/v1
	< control/problem;

	store, compile, publish, vault, importer/openapi, control/problem, quota/broker, revocation/sync, health/spread
	< control;

	compile, keys, identity, localstore, credential, vault
	< bundle;

	telemetry
	< analytics;

	client
	< console, portal;

	control, gateway, gateway/cache/sync, feed/fetch, publish, bundle, analytics, console, portal, xds/serve, dns,
	messaging, files, broker, importer/openapi
	< app;

	gateway
	< operate
	< app;

	app, client
	< cli
	< cmd/*;

	client
	< bench;

	NONE
	< test/*;

	store, compile, control !< gateway;
	gateway !< control;
	control !< console, portal;
	store !< compile, feed/fetch;
`

// confined lists modules and packages outside this module that only the named packages may import, and what for.
func confined() map[string][]string {
	return map[string][]string{
		"go.etcd.io/":                       {"store"}, // the record's revisions never leave it
		"github.com/spf13/cobra":            {"cli"},
		"github.com/getkin/kin-openapi":     {"importer/openapi"},
		"github.com/anishathalye/porcupine": {},
		"github.com/rogpeppe/go-internal":   {},
		"github.com/google/go-cmp":          {},
	}
}

// pure lists the packages that are functions of their input, and may therefore not import what reaches outside.
func pure() []string {
	return []string{"snapshot", "policyspec", "resource", "compile", "dispatch", "xds/translate", "gateway/router"}
}

// importOrder checks that the packages import each other in the import order and nobody else's confined modules.
func importOrder(t *tree) []fault {
	order, err := parseOrder(importOrderText, t.nodes())
	if err != nil {
		return []fault{{path: "internal/archtest/order_test.go", text: err.Error()}}
	}
	var faults []fault
	for f := range t.goFiles {
		if !f.test {
			faults = append(faults, order.checkFile(t, f)...)
		}
	}
	return faults
}

func (o order) checkFile(t *tree, f *goFile) []fault {
	var faults []fault
	from := o.node(nodeName(path.Dir(f.path)))
	if from == "" {
		return []fault{{path: path.Dir(f.path), text: "has no place in the import order of internal/archtest/order_test.go"}}
	}
	for imp, pos := range f.imports() {
		inside, ok := strings.CutPrefix(imp, t.module+"/")
		if !ok {
			faults = append(faults, checkOutside(t, f, from, imp)...)
			continue
		}
		to := o.node(nodeName(inside))
		switch {
		case to == "":
			faults = append(faults, t.at(pos, "imports %s, which has no place in the import order", imp))
		case to != from && !o.below[from][to]:
			faults = append(faults, t.at(pos, "%s may not import %s", from, to))
		}
	}
	return faults
}

// checkOutside checks one import of f from outside this module.
func checkOutside(t *tree, f *goFile, from, imp string) []fault {
	pos := f.imports()[imp]
	if !strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") { // the standard library
		if slices.Contains(pure(), from) && slices.Contains([]string{"os", "net", "net/http", "os/exec", "math/rand", "math/rand/v2", "crypto/rand"}, imp) {
			return []fault{t.at(pos, "%s is pure: it may not import %s", from, imp)}
		}
		return nil
	}
	if from == "api/v1" || strings.HasPrefix(from, "x/") {
		return []fault{t.at(pos, "%s may import only the standard library, not %s", from, imp)}
	}
	for prefix, allowed := range confined() {
		if strings.HasPrefix(imp, prefix) && !slices.Contains(allowed, from) {
			return []fault{t.at(pos, "%s may not import %s; only %s may", from, imp, strings.Join(append(allowed, "tests"), ", "))}
		}
	}
	return nil
}

// nodes returns the names of all packages of t as the import order writes them.
func (t *tree) nodes() []string {
	var names []string
	for _, p := range t.pkgs {
		names = append(names, nodeName(p.dir))
	}
	return names
}

func nodeName(dir string) string { return strings.TrimPrefix(dir, "internal/") }

// order is a parsed import order: below[a] are the packages that a may import.
type order struct {
	below map[string]map[string]bool
}

// parseOrder reads the text of an import order. Wildcards stand for those of the given packages that they match.
func parseOrder(text string, packages []string) (order, error) {
	direct := map[string][]string{}
	var never [][2]string
	for stmt := range strings.SplitSeq(text, ";") {
		if left, right, ok := strings.Cut(stmt, "!<"); ok {
			for _, a := range list(left, packages) {
				for _, b := range list(right, packages) {
					never = append(never, [2]string{a, b})
				}
			}
			continue
		}
		var lower []string
		for part := range strings.SplitSeq(stmt, "<") {
			names := list(part, packages)
			for _, name := range names {
				direct[name] = append(direct[name], lower...)
			}
			lower = append(lower, names...)
		}
	}
	o := order{below: map[string]map[string]bool{}}
	for name := range direct {
		if err := o.close(name, direct, nil); err != nil {
			return order{}, err
		}
	}
	for _, n := range never {
		if o.below[n[1]][n[0]] {
			return order{}, fmt.Errorf("the import order lets %s import %s, which it must never do", n[1], n[0])
		}
	}
	return o, nil
}

// close fills in o.below[name] from what name and everything below it may import directly. above is the way down to
// name.
func (o order) close(name string, direct map[string][]string, above []string) error {
	if slices.Contains(above, name) {
		return fmt.Errorf("the import order has a cycle: %s", strings.Join(append(above, name), " > "))
	}
	if o.below[name] != nil {
		return nil
	}
	below := map[string]bool{}
	for _, l := range direct[name] {
		if err := o.close(l, direct, append(above, name)); err != nil {
			return err
		}
		below[l] = true
		maps.Copy(below, o.below[l])
	}
	o.below[name] = below
	return nil
}

// node returns the package of the order that name belongs to: itself or the nearest above it, or "".
func (o order) node(name string) string {
	for ; name != "." && name != ""; name = path.Dir(name) {
		if o.below[name] != nil {
			return name
		}
	}
	return ""
}

// list splits a list of packages and expands its wildcards. NONE is the empty list.
func list(text string, packages []string) []string {
	var names []string
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "NONE" || name == "":
		case strings.Contains(name, "*"):
			for _, p := range packages {
				if ok, _ := path.Match(name, p); ok {
					names = append(names, p)
				}
			}
		default:
			names = append(names, name)
		}
	}
	return names
}

func TestParseOrder(t *testing.T) {
	t.Parallel()
	packages := []string{"x/a", "x/b"}
	f := func(text, want string) {
		t.Helper()
		_, err := parseOrder(text, packages)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseOrder(%q) = %v, want an error with %q", text, err, want)
		}
	}
	f("a < b; b < a", "cycle: ")
	f("x/* < x/a", "cycle: x/a > x/a")
	f("a < b < c; a !< c", "lets c import a")

	o, err := parseOrder("a < b, c; NONE < x/*; x/* < a", packages)
	if err != nil {
		t.Fatal(err)
	}
	if !o.below["c"]["x/a"] || o.below["c"]["b"] || o.below["x/a"]["x/b"] {
		t.Errorf("below = %v: want c above x/a, beside b, and x/a beside x/b", o.below)
	}
	if got := o.node("a/deep/er"); got != "a" {
		t.Errorf("node(a/deep/er) = %q, want a", got)
	}
}
