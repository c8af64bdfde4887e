package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/x/secret"
)

func TestNoFormShowsTheValue(t *testing.T) {
	t.Parallel()
	const planted = "hunter2-plant"
	type config struct {
		Name     string
		Password secret.Bytes
		Pointer  *secret.Bytes
		Nested   map[string]secret.Bytes
	}
	s := secret.New([]byte(planted))
	c := config{Name: "n", Password: s, Pointer: &s, Nested: map[string]secret.Bytes{"k": s}}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", c)
	}
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	slog.New(slog.NewTextHandler(&out, nil)).Info("dump", "secret", s, "config", c)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("dump", "secret", s, "config", c)

	got := out.String()
	for _, leak := range []string{planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted), "104 117 110"} {
		if strings.Contains(got, leak) {
			t.Errorf("output contains %q:\n%s", leak, got)
		}
	}
	if !strings.Contains(got, secret.Redacted) {
		t.Error("output does not say that something was redacted")
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	a, b, c := secret.New([]byte("a")), secret.New([]byte("a")), secret.New([]byte("ab"))
	if !a.Equal(b) || a.Equal(c) || (secret.Bytes{}).Equal(a) {
		t.Error("Equal is wrong")
	}
	var u secret.Bytes
	if err := u.UnmarshalText([]byte("a")); err != nil || !u.Equal(a) {
		t.Errorf("UnmarshalText = %v, value equal: %v", err, u.Equal(a))
	}
}
