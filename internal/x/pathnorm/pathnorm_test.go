package pathnorm

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/x/pathpattern"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/":                     "/",
		"/a/b":                  "/a/b",
		"/a/b/":                 "/a/b/",
		"/a.b/c..d/...":         "/a.b/c..d/...",
		"/.well-known/x":        "/.well-known/x",
		"//a///b//":             "/a/b/",
		"/a/./b":                "/a/b",
		"/a/.":                  "/a/",
		"/a/..":                 "/",
		"/a/../":                "/",
		"/a/b/../../c":          "/c",
		"/a//..//b":             "/b",
		"/%61%2d%2D%7e":         "/a--~",
		"/a%2e%2E/b":            "/a../b",
		"/a/%2e%2e/b":           "/b",
		"/a/.%2e/b":             "/b",
		"/a%2fb":                "/a%2Fb",
		"/a%2Fb/..":             "/",
		"/a%252e%252e/b":        "/a%252e%252e/b",
		"/a;v=1/b":              "/a;v=1/b",
		"/a%3bb":                "/a%3Bb",
		"/a%20b":                "/a%20b",
		"/%c3%a9":               "/%C3%A9",
		"/{id}|\"<>^`[]":        "/%7Bid%7D%7C%22%3C%3E%5E%60%5B%5D",
		"/!$&'()*+,;=:@-._~":    "/!$&'()*+,;=:@-._~",
		"/%21%24":               "/%21%24",
		"/a/b/c/../../../":      "/",
		"/x/...;/y":             "/x/...;/y",
		"/a%2f.../b":            "/a%2F.../b",
		"/very/long/../../a/b/": "/a/b/",
	} {
		got, err := Append([]byte("pre"), []byte(in))
		if err != nil || string(got) != "pre"+want {
			t.Errorf("Append(%q) = %q, %v, want %q", in, got, err, "pre"+want)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]error{
		"":                  ErrNotAbsolute,
		"a":                 ErrNotAbsolute,
		"*":                 ErrNotAbsolute,
		"/a\\b":             ErrCharacter,
		"/a%5cb":            ErrCharacter,
		"/%00":              ErrCharacter,
		"/%0a":              ErrCharacter,
		"/%7F":              ErrCharacter,
		"/a b":              ErrCharacter,
		"/a\tb":             ErrCharacter,
		"/é":                ErrCharacter,
		"/a#b":              ErrCharacter,
		"/a?b":              ErrCharacter,
		"/%":                ErrEncoding,
		"/%4":               ErrEncoding,
		"/%4g":              ErrEncoding,
		"/%u0041":           ErrEncoding,
		"/..":               ErrAboveRoot,
		"/a/../..":          ErrAboveRoot,
		"/a/%2e%2e/%2e%2e/": ErrAboveRoot,
		"/a/..;/b":          ErrHiddenDots,
		"/a/..;x=1/b":       ErrHiddenDots,
		"/a/.;/b":           ErrHiddenDots,
		"/a/..%3b/b":        ErrHiddenDots,
		"/a/..%2fb":         ErrHiddenDots,
		"/a/%2e%2e%2Fb":     ErrHiddenDots,
		"/a/b%2f..":         ErrHiddenDots,
		"/a/b%2f.%2fc":      ErrHiddenDots,
		"/a/b%2f..;x%2fc":   ErrHiddenDots,
		"/a/b;x%2f..":       ErrHiddenDots,
	} {
		if got, err := Append([]byte("pre"), []byte(in)); !errors.Is(err, want) || string(got) != "pre" {
			t.Errorf("Append(%q) = %q, %v, want %v", in, got, err, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]bool{
		"/": true, "/a/b/": true, "/a.b": true, "/a;b": true,
		"": false, "a": false, "//": false, "/a//b": false, "/.a": false, "/a%20": false, "/a/..": false, "/{": false,
	} {
		if got := Canonical([]byte(in)); got != want {
			t.Errorf("Canonical(%q) = %t, want %t", in, got, want)
		}
	}
	p := []byte("/catalog/v1/items/12345")
	if n := testing.AllocsPerRun(100, func() { Canonical(p) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func FuzzAppend(f *testing.F) {
	for _, s := range []string{
		"/", "/a/b", "/a//b/../c", "/%2e%2e/", "/a%2fb", "/a;b=c/d", "/%41%zz", "/a\\b", "/{x}", "/..;/", "/a%2F..%2Fb", "/a%252f",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Append(nil, in)
		if Canonical(in) && (err != nil || !bytes.Equal(got, in)) {
			t.Fatalf("Canonical(%q), but Append = %q, %v", in, got, err)
		}
		if err != nil {
			return
		}
		again, err := Append(nil, got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("Append(%q) = %q, and again %q, %v", in, got, again, err)
		}
		// However often a backend decodes slashes, and whether or not it cuts parameters: no dot segment appears.
		for _, slashes := range []string{"%2F", "/"} {
			loose := strings.ReplaceAll(strings.ReplaceAll(string(got), "%2F", slashes), "%3B", ";")
			for segment := range strings.SplitSeq(loose, "/") {
				name, _, _ := strings.Cut(segment, ";")
				if name == "." || name == ".." {
					t.Fatalf("Append(%q) = %q holds a dot segment", in, got)
				}
			}
		}
		if bytes.Contains(got, []byte("//")) {
			t.Fatalf("Append(%q) = %q holds an empty segment", in, got)
		}
		// It names the same resource as the standard library makes of it, wherever that has an opinion.
		want, err := url.PathUnescape(string(in))
		if err != nil {
			t.Fatalf("Append(%q) = %q, but it cannot be decoded: %v", in, got, err)
		}
		have, err := url.PathUnescape(string(got))
		if err != nil {
			t.Fatalf("Append(%q) = %q cannot be decoded: %v", in, got, err)
		}
		if !bytes.Contains(got, []byte("%2F")) && path.Clean(have) != path.Clean(want) && !bytes.Contains(bytes.ToLower(in), []byte("%2f")) {
			t.Fatalf("Append(%q) = %q is %q, want %q", in, got, path.Clean(have), path.Clean(want))
		}
	})
}

// FuzzSameResource encodes characters that need no encoding: the paths stay different where RFC 3986 lets them differ, and
// are one path for whoever compares them in the normal form of pathpattern, as the router does.
func FuzzSameResource(f *testing.F) {
	f.Add([]byte("/a:b/admin@x/1,2;v=1"), uint64(0xffff))
	f.Add([]byte("/a/b/c"), uint64(5))
	f.Add([]byte("/a/..;/b"), uint64(1))
	f.Fuzz(func(t *testing.T, in []byte, which uint64) {
		plain, err := Append(nil, in)
		if err != nil {
			return
		}
		var other []byte
		for i, c := range plain {
			if which>>(i%64)&1 != 0 && c != '/' && c != '%' && (i < 1 || plain[i-1] != '%') && (i < 2 || plain[i-2] != '%') {
				other = fmt.Appendf(other, "%%%02x", c)
			} else {
				other = append(other, c)
			}
		}
		got, err := Append(nil, other)
		if err != nil {
			t.Fatalf("Append(%q) = %q, but of %q it is %v", in, plain, other, err)
		}
		if a, b := pathpattern.Normal(string(plain)), pathpattern.Normal(string(got)); a != b {
			t.Fatalf("%q and %q compare as %q and %q", plain, got, a, b)
		}
	})
}

func BenchmarkCanonical(b *testing.B) {
	p := []byte("/catalog/v1/items/12345/reviews")
	b.ReportAllocs()
	for b.Loop() {
		Canonical(p)
	}
}
