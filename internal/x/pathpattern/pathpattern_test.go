package pathpattern

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseBase(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want, reason string }{
		{in: "/", want: "/"},
		{in: "/catalog/v1", want: "/catalog/v1"},
		{in: "/catalog/v1/", want: "/catalog/v1"},
		{in: "/*/v1", want: "/*/v1"},
		{in: "/*", want: "/*"},
		{in: "/caf%c3%a9", want: "/caf%C3%A9"},
		{in: "/café", want: "/caf%C3%A9"},
		{in: "/a%2Ab", want: "/a%2Ab"},
		{in: "/a%2fb", want: "/a%2Fb"},
		{in: "/%61", want: "/a"},
		{in: "", reason: "empty"},
		{in: "a", reason: "does not begin"},
		{in: "//", reason: "segment 1 is empty"},
		{in: "/a//b", reason: "segment 2 is empty"},
		{in: "/**", reason: "whole segment"},
		{in: "/a*", reason: "whole segment"},
		{in: "/{a}", reason: "no parameters"},
		{in: "/a/../b", reason: `segment 2 is ".."`},
		{in: "/%2E", reason: `segment 1 is "%2E"`},
		{in: "/a?b=c", reason: `holds "?"`},
		{in: "/a%zz", reason: "percent sign"},
		{in: "/a\x00", reason: "control character"},
		{in: "/\xff", reason: "UTF-8"},
		{in: "/" + strings.Repeat("a/", MaxSegments)},
		{in: "/" + strings.Repeat("a/", MaxSegments+1), reason: "more than 64 segments"},
		{in: "/" + strings.Repeat("a", MaxBytes), reason: "longer than"},
	} {
		b, err := ParseBase(tt.in)
		checkParse(t, tt.in, err, tt.reason)
		if tt.want != "" && b.String() != tt.want {
			t.Errorf("ParseBase(%q) = %q, want %q", tt.in, b, tt.want)
		}
	}
}

func TestParseTemplate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, str, canonical, reason string }{
		{in: "/", str: "/", canonical: "/"},
		{in: "/items/{id}", str: "/items/{id}", canonical: "/items/{}"},
		{in: "/items/", str: "/items/", canonical: "/items/"},
		{in: "/{a}.{b}", str: "/{a}.{b}", canonical: "/{}.{}"},
		{in: "/x:{verb}", str: "/x:{verb}", canonical: "/x:{}"},
		{in: "/reports/{id}.json", str: "/reports/{id}.json", canonical: "/reports/{}.json"},
		{in: "/files/{path*}", str: "/files/{path*}", canonical: "/files/*"},
		{in: "/files/*", str: "/files/*", canonical: "/files/*"},
		{in: "/a%2A/{b}%2a", str: "/a%2A/{b}%2A", canonical: "/a%2A/{}%2A"},
		{in: "/o'brien(1)", str: "/o'brien(1)", canonical: "/o'brien(1)"},
		{in: "/{a}{b}", reason: "side by side"},
		{in: "/{a}/{a}", reason: "twice"},
		{in: "/{a}.{a}", reason: "twice"},
		{in: "/*/x", reason: "not the last"},
		{in: "/{p*}/x", reason: "not the last"},
		{in: "/{p*}/", reason: "not the last"},
		{in: "/x{p*}", reason: "beside other text"},
		{in: "/{p*}x", reason: "beside other text"},
		{in: "/{}", reason: "not a parameter"},
		{in: "/{a b}", reason: "not a parameter"},
		{in: "/{a", reason: "does not end"},
		{in: "/a}", reason: "stands alone"},
		{in: "/*.json", reason: "stands alone"},
		{in: "/{a/b}", reason: "does not end"},
	} {
		tpl, err := ParseTemplate(tt.in)
		checkParse(t, tt.in, err, tt.reason)
		if tt.reason == "" && (tpl.String() != tt.str || tpl.Canonical() != tt.canonical) {
			t.Errorf("ParseTemplate(%q) = %q, %q, want %q, %q", tt.in, tpl, tpl.Canonical(), tt.str, tt.canonical)
		}
	}
}

func checkParse(t *testing.T, in string, err error, reason string) {
	t.Helper()
	if reason == "" {
		if err != nil {
			t.Errorf("parsing %q: %v", in, err)
		}
		return
	}
	pe, ok := errors.AsType[*Error](err)
	if !ok || !strings.Contains(pe.Reason, reason) || pe.Remedy == "" {
		t.Errorf("parsing %q: %#v, want a reason with %q and a remedy", in, err, reason)
	}
}

func TestBaseMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		base, path, rest string
		ok               bool
	}{
		{"/", "/", "/", true},
		{"/", "/a/b", "/a/b", true},
		{"/a", "/a", "", true},
		{"/a", "/a/", "/", true},
		{"/a", "/ab", "", false},
		{"/a", "/", "", false},
		{"/a/*", "/a/x/y", "/y", true},
		{"/a/*", "/a/", "", false},
		{"/a/*", "/a", "", false},
		{"/*/b", "/x/b/c", "/c", true},
	} {
		b, err := ParseBase(tt.base)
		if err != nil {
			t.Fatal(err)
		}
		if rest, ok := b.Match(tt.path); rest != tt.rest || ok != tt.ok {
			t.Errorf("base %q: Match(%q) = %q, %v, want %q, %v", tt.base, tt.path, rest, ok, tt.rest, tt.ok)
		}
	}
}

func TestTemplateMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		template string
		yes, no  []string
	}{
		{"/", []string{"/"}, []string{"", "/a"}},
		{"/items", []string{"/items"}, []string{"/items/", "/item", "/items/1"}},
		{"/items/", []string{"/items/"}, []string{"/items", "/items/1"}},
		{"/items/{id}", []string{"/items/1", "/items/a.b"}, []string{"/items/", "/items", "/items/1/", "/items/1/2"}},
		{"/{a}.{b}", []string{"/x.y", "/x.y.z", "/..y"}, []string{"/x.", "/.y", "/xy", "/."}},
		{"/{a}..{b}..{c}", []string{"/1..2..3", "/1...2..3"}, []string{"/1..2", "/1....3"}},
		{"/x:{verb}", []string{"/x:go"}, []string{"/x:", "/y:go"}},
		{"/{id}.json", []string{"/1.json", "/.json.json"}, []string{"/.json", "/1.jso"}},
		{"/v{n}-{m}x", []string{"/v1-2x"}, []string{"/v-2x", "/v1-x"}},
		{"/f/{p*}", []string{"/f/", "/f/a", "/f/a/b/"}, []string{"/f", "/g/a"}},
		{"/*", []string{"/", "/a"}, []string{""}},
	} {
		tpl, err := ParseTemplate(tt.template)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range tt.yes {
			if !tpl.Match(p) {
				t.Errorf("%q does not match %q", tt.template, p)
			}
		}
		for _, p := range tt.no {
			if tpl.Match(p) {
				t.Errorf("%q matches %q", tt.template, p)
			}
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	templates := []string{ // in order of precedence
		"/a/b", "/a/{x}.json", "/a/{x}.js", "/a/{x}", "/a/{x}/c", "/a/*", "/{x}.{y}", "/{x}/b", "/*",
	}
	for i, a := range templates {
		for j, b := range templates {
			ta, _ := ParseTemplate(a)
			tb, _ := ParseTemplate(b)
			if got, want := sign(ta.Compare(tb)), sign(i-j); got != want {
				t.Errorf("Compare(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
	bases := []string{"/a/b/c", "/a/*/*", "/a/b", "/a/*", "/*/b", "/a", "/*", "/"}
	for i, a := range bases {
		for j, b := range bases {
			ba, _ := ParseBase(a)
			bb, _ := ParseBase(b)
			if got, want := sign(ba.Compare(bb)), sign(i-j); got != want {
				t.Errorf("Compare(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func sign(n int) int { return max(-1, min(1, n)) }

func TestFill(t *testing.T) {
	t.Parallel()
	tpl, err := ParseTemplate("/a/{b}.{c}/{d}/{e*}")
	if err != nil {
		t.Fatal(err)
	}
	got := tpl.Fill(strings.ToUpper)
	if want := "/a/B.C/D/E"; got != want {
		t.Errorf("Fill = %q, want %q", got, want)
	}
	if !tpl.Match(got) {
		t.Errorf("%q does not match what it was filled to, %q", tpl, got)
	}
}

// FuzzParse checks that forms are stable: what is printed is read back as the same, and a filled template matches.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"/", "/a/*/b/", "/a/{b}", "/{a}.{b}", "/x:{verb}", "/%2a%7b", "/{p*}", "/é", "/%", "/a//b", "/{{}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n := Normal(s); Normal(n) != n {
			t.Errorf("Normal(%q) = %q, and again %q", s, n, Normal(n))
		}
		if b, err := ParseBase(s); err == nil {
			again, err := ParseBase(b.String())
			if err != nil || b.Compare(again) != 0 || again.String() != b.String() {
				t.Errorf("base %q is read back as %q, %v", b, again, err)
			}
		}
		tpl, err := ParseTemplate(s)
		if err != nil {
			return
		}
		again, err := ParseTemplate(tpl.String())
		if err != nil && len(tpl.String()) <= MaxBytes {
			t.Fatalf("template %q is not read back: %v", tpl, err)
		}
		if err == nil && (tpl.Compare(again) != 0 || again.Canonical() != tpl.Canonical()) {
			t.Errorf("template %q is read back as %q", tpl, again)
		}
		if p := tpl.Fill(func(string) string { return "v" }); !tpl.Match(p) {
			t.Errorf("template %q does not match %q", tpl, p)
		}
	})
}

// FuzzCompare checks that precedence is a total order that agrees with the canonical form.
func FuzzCompare(f *testing.F) {
	f.Add("/a/{b}", "/a/*", "/a/b")
	f.Add("/{a}.{b}", "/{a}.x", "/")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var ts []Template
		for _, s := range []string{a, b, c} {
			tpl, err := ParseTemplate(s)
			if err != nil {
				return
			}
			ts = append(ts, tpl)
		}
		for _, x := range ts {
			for _, y := range ts {
				if d := x.Compare(y); d != -y.Compare(x) || (d == 0) != (x.Canonical() == y.Canonical()) {
					t.Errorf("Compare(%q, %q) = %d, the other way %d", x, y, d, y.Compare(x))
				}
			}
		}
		slices.SortFunc(ts, Template.Compare)
		if ts[0].Compare(ts[2]) > 0 {
			t.Errorf("no order of %q, %q, %q", a, b, c)
		}
	})
}
