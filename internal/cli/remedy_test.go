package cli_test

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/cli"
)

// What is wrong with a command line is told together with what is right.
func TestRemedies(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	data := func(name string) string { return filepath.Join(n.dir, name) }
	file := n.file("app.yaml", "kind: Application\nmetadata: {name: a}\nspec: {owner: a}\n")
	n.ok("apply", "-f", n.file("sites.yaml", "kind: Site\nmetadata: {name: used}\nspec: {region: here}\n---\nkind: GatewayGroup\nmetadata: {name: user}\nspec: {site: used}\n"))
	cut := n.file("cut.bundle", "HANSABUNDLE1P\x00\x00")
	for _, tt := range []struct {
		name, stdin string
		args        []string
		code        int
		want        string
	}{
		{"command misspelt", "", []string{"aply", "-f", file}, cli.ExitUsage, `did you mean "hansa apply"?`},
		{"command of a group misspelt", "", []string{"keys", "crate", "x"}, cli.ExitUsage, `did you mean "hansa keys create"?`},
		{"command unknown", "", []string{"frobnicate"}, cli.ExitUsage, `there is no command "hansa frobnicate"`},
		{"help of an unknown command", "", []string{"help", "keys", "x"}, cli.ExitUsage, `there is no command "hansa keys x"`},
		{"group alone", "", []string{"keys"}, cli.ExitUsage, "create, import, list, revoke, rotate"},
		{"no kind", "", []string{"get"}, cli.ExitUsage, "name a kind: organizations, "},
		{"argument missing", "", []string{"schema"}, cli.ExitUsage, "an argument is missing; it is used as"},
		{"argument too many", "", []string{"schema", "API", "x"}, cli.ExitUsage, `the argument "x" is one too many`},
		{"wait without =", "", []string{"apply", "-f", file, "--wait", "3s"}, cli.ExitUsage, "write --wait=3s"},
		{"no time at all", "", []string{"keys", "create", "x", "--expires", "0d"}, cli.ExitUsage, `"0d" is not a duration above 0`},
		{"form in place of a file", "", []string{"bundle", "build", "-f", file, "-o", "json"}, cli.ExitUsage, "names the file to write"},
		{"nothing on standard input", "", []string{"apply", "-f", "-"}, cli.ExitInvalid, "there is no resource in stdin"},
		{"nothing in a file", "", []string{"diff", "-f", n.file("none.yaml", "\xef\xbb\xbf# later\r\n---\r\n")}, cli.ExitInvalid, "there is no resource in " + data("none.yaml")},
		{"control character", "kind: Site\nmetadata: {name: \"a\x00\"}\n", []string{"apply", "-f", "-"}, cli.ExitInvalid, "stdin:2:20: the control character U+0000"},
		{"still in use", "", []string{"delete", "site", "used"}, cli.ExitConflict, "hansa delete: nothing was changed (in-use, "},
		{"CA without certificate", "", []string{"get", "apis", "--ca-file", file}, cli.ExitInvalid, file + " holds no PEM certificate"},
		{"damaged bundle", "", []string{"bundle", "inspect", cut}, cli.ExitInvalid, "is damaged"},
		{"gateway from it", "", []string{"gateway", "--data", data("gw"), "--bundle", cut, "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}, cli.ExitConfig, "is damaged"},
		{"no address", "", []string{"control", "--data", data("c"), "--api-addr", "localhost", "--link-addr", ":ninety"}, cli.ExitUsage, `--link-addr: ":ninety" is not an address to listen on: write HOST:PORT`},
		{"port taken", "", []string{"gateway", "--data", data("gw2"), "--http-addr", "127.0.0.1:0", "--admin-addr", taken.Addr().String()}, cli.ExitFailed, "choose another one with --admin-addr"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if r := n.run(tt.stdin, tt.args...); r.code != tt.code || !strings.Contains(r.err, tt.want) {
				t.Errorf("hansa %s: exit %d, want %d and %q: %s", strings.Join(tt.args, " "), r.code, tt.code, tt.want, r.err)
			}
		})
	}
}

// A resource that is described twice is told with both places, in whatever files they are.
func TestDuplicatesNameBothPlaces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	one := "kind: Application\nmetadata: {name: a}\nspec: {owner: a}\n"
	first, second := n.file("first.yaml", "# first\n---\n"+one+"---\n"+one), n.file("second.yaml", one)
	r := n.run("", "apply", "-f", first, "-f", second)
	for _, want := range []string{
		first + ":7:1: Application a: metadata.name: Application default/a is already described in line 3\n",
		second + ":1:1: Application a: metadata.name: Application default/a is already described in line 3 of " + first + "\n",
	} {
		if r.code != cli.ExitInvalid || !strings.Contains(r.err, want) {
			t.Errorf("exit %d, want %q in:\n%s", r.code, want, r.err)
		}
	}
}

// A key that is imported alone is told as one that is made, without its value.
func TestImportedKeyForScripts(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.ok("apply", "-f", n.file("shop.yaml", shop))
	r := n.run("a-key\n", "keys", "import", "shop-gold", "-", "-o", "json")
	var out map[string]any
	if err := json.Unmarshal([]byte(r.out), &out); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if end, there := out["expiresAt"]; out["subscription"] != "shop-gold" || out["slot"] != "imported" || out["keyId"] == "" || !there || end != nil || out["key"] != nil {
		t.Errorf("import of one key = %s", r.out)
	}
	r = n.run("a-key\nb-key\n", "keys", "import", "shop-gold", "-", "-o", "json")
	var several struct {
		Imported, Unchanged int
		KeyID               string
		Keys                []struct{ Subscription, Slot, KeyID string }
	}
	if err := json.Unmarshal([]byte(r.out), &several); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if several.Imported != 1 || several.Unchanged != 1 || several.KeyID != "" || len(several.Keys) != 2 || several.Keys[1].KeyID != out["keyId"] {
		t.Errorf("import of two keys = %s, want the old one as %v", r.out, out["keyId"])
	}
}
