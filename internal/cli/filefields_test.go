package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/resource"
)

func TestFilesAreReadIntoCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"tls.crt": "chain\nof \"two\"\n", "tls.key": "key\n", "it's.key": "other\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "resources.yaml")
	for name, tt := range map[string]struct{ in, key string }{
		"block":  {"kind: Certificate\nmetadata: {name: a}\nspec:\n  certificateFile: tls.crt # beside this file\n  privateKeyFile: tls.key\n", "key\n"},
		"flow":   {"kind: Certificate\nmetadata: {name: a}\nspec: {certificateFile: tls.crt, privateKeyFile: 'it''s.key'}\n", "other\n"},
		"json":   {`{"kind": "Certificate", "metadata": {"name": "a"}, "spec": {"certificateFile": "tls.crt", "privateKeyFile": "tls.key"}}`, "key\n"},
		"second": {"kind: Site\nmetadata: {name: ü}\nspec: {}\n---\nkind: Certificate\nmetadata: {name: a}\nspec:\n  privateKeyFile: \"tls.key\"\n  certificateFile: tls.crt\n", "key\n"},
	} {
		out, err := inlineFiles(file, []byte(tt.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.Count(string(out), "\n") != strings.Count(tt.in, "\n") {
			t.Errorf("%s: lines have moved:\n%s", name, out)
		}
		_, faults := resource.Decode(file, out, resource.Options{})
		for _, f := range faults {
			if f.Kind == "Certificate" && f.Code != resource.CodeInvalid { // it is no real certificate
				t.Errorf("%s: %s", name, resource.FormatFault(f))
			}
		}
		if !strings.Contains(string(out), `chain\nof \"two\"\n`) || !strings.Contains(string(out), strings.ReplaceAll(tt.key, "\n", `\n`)) {
			t.Errorf("%s: the files are not in it:\n%s", name, out)
		}
	}
	for name, in := range map[string]string{
		"block": "kind: EnvironmentGroup\nmetadata: {name: a}\nspec:\n  hostnames: [a.example]\n  tls:\n    clientCertificate:\n      crlFile: tls.crt\n      mode: required\n      caFile: tls.key\n",
		"flow":  "kind: EnvironmentGroup\nmetadata: {name: a}\nspec: {hostnames: [a.example], tls: {clientCertificate: {mode: required, caFile: tls.key, crlFile: tls.crt}}}\n",
	} {
		out, err := inlineFiles(file, []byte(in))
		if err != nil || !strings.Contains(string(out), `ca: "key\n"`) || !strings.Contains(string(out), `crl: "chain\nof \"two\"\n"`) {
			t.Errorf("environment group, %s: %v:\n%s", name, err, out)
		}
	}
	for name, in := range map[string]string{
		"missing": "kind: Certificate\nspec:\n  certificateFile: nowhere.crt\n",
		"empty":   "kind: Certificate\nspec:\n  certificateFile: \"\"\n",
		"list":    "kind: Certificate\nspec:\n  certificateFile:\n  - a\n",
	} {
		if _, err := inlineFiles(file, []byte(in)); err == nil || !strings.Contains(err.Error(), "resources.yaml:3") {
			t.Errorf("%s: %v, want an error with the place", name, err)
		}
	}
	for _, in := range []string{"kind: API\nspec:\n  certificateFile: tls.crt\n", "kind: EnvironmentGroup\nspec: {tls: [caFile]}\n", "certificateFile: [", ""} {
		if out, err := inlineFiles(file, []byte(in)); err != nil || string(out) != in {
			t.Errorf("%q became %q, %v; want it left alone", in, out, err)
		}
	}
}
