// Package pathpattern parses the base paths and the path templates of APIs.
//
// It is the one place that says what such a path means: resource validates with it, compile finds conflicts with
// its canonical forms, importers write it, and the gateway's router is built from its segments. [Template.Match]
// and [Base.Match] are the plain reference for the router, which must decide alike but faster.
//
// # Grammar
//
//	base      = "/" | 1*( "/" ( "*" | literal ) )          one trailing "/" is dropped
//	template  = "/" | 1*( "/" segment ) [ "/" ]
//	segment   = literal | mixed | "{" name "}" | rest      rest only as the last one
//	mixed     = parameters between literal text, never two side by side: "{id}.json", "{from}..{to}", "x:{verb}"
//	rest      = "*" | "{" name "*}"
//
// A literal is any text without "/", "?", "#", "*", "{", "}" and control characters, and is neither "." nor "..";
// what cannot be written so is percent-encoded. Literals are compared in the form that [Normal] makes, so
// "/caf%c3%a9", "/café" and "/caf%C3%A9" are the same path. Letters keep their case.
//
// A parameter takes at least one byte of one segment. A rest takes what is left, which may be nothing and may
// hold slashes. A trailing slash of a template is significant: "/items/" does not match "/items".
//
// All values are immutable and safe for concurrent use. The package imports only the standard library.
package pathpattern

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// What a pattern may hold at most. The bounds keep the router's tables small; no real API comes near them.
const (
	MaxBytes    = 2048
	MaxSegments = 64
	MaxName     = 64
)

// Kind is the type of a segment. Lower kinds are more specific and win over higher ones.
type Kind uint8

// The kinds of segments, in order of precedence.
const (
	Literal Kind = iota // exactly Text
	Mixed               // Parts: parameters between literal text
	Param               // any one non-empty segment; for a base path "*"
	Rest                // everything that is left, slashes included; templates only
)

// Segment is one segment of a pattern.
type Segment struct {
	Kind  Kind
	Text  string // of a Literal, in normal form
	Name  string // of a Param or Rest; "" for "*"
	Parts []Part // of a Mixed: at least two, no two parameters side by side
}

// Part is one piece of a Mixed segment: a parameter if Name is set, otherwise literal text in normal form.
type Part struct {
	Name string
	Text string
}

// Error says what is wrong with a pattern and how to mend it.
type Error struct {
	Pattern string
	Reason  string // "segment 2 is empty"
	Remedy  string // "write one slash between segments"
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("path %q: %s", e.Pattern, e.Reason) }

// segments splits s and checks what bases and templates have in common. slash tells that s ends in one.
func segments(s string) (parts []string, slash bool, err *Error) {
	fail := func(remedy, format string, args ...any) ([]string, bool, *Error) {
		return nil, false, &Error{Pattern: s, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
	}
	switch {
	case s == "":
		return fail(`begin with "/"`, "it is empty")
	case len(s) > MaxBytes:
		return fail("shorten it", "it is longer than %d bytes", MaxBytes)
	case s[0] != '/':
		return fail(`begin with "/"`, "it does not begin with a slash")
	case !utf8.ValidString(s):
		return fail("write UTF-8 or percent-encoding", "it is not valid UTF-8")
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '?' || c == '#':
			return fail("leave the query and the fragment out, or percent-encode the character", "it holds %q", string(c))
		case c < 0x20 || c == 0x7f:
			return fail("percent-encode it", "it holds the control character %#02x", c)
		case c == '%' && (i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0):
			return fail(`write a lone "%" as "%25"`, "the percent sign at byte %d is not followed by two hexadecimal digits", i)
		}
	}
	if s == "/" {
		return nil, true, nil
	}
	body, slash := strings.CutSuffix(s[1:], "/")
	parts = strings.Split(body, "/")
	if len(parts) > MaxSegments {
		return fail("shorten it", "it has more than %d segments", MaxSegments)
	}
	for i, p := range parts {
		switch Normal(p) {
		case "":
			return fail("write one slash between segments", "segment %d is empty", i+1)
		case ".", "..":
			return fail("write the path without it", "segment %d is %q", i+1, p)
		}
	}
	return parts, slash, nil
}

// Normal returns the normal form of literal text within a segment: percent-encoding is upper case and is used
// exactly for the bytes that RFC 3986 does not allow in a segment (pchar). A "%" that begins no escape stays.
func Normal(s string) string {
	if isNormal(s) {
		return s
	}
	return string(AppendNormal(make([]byte, 0, len(s)+8), s))
}

// AppendNormal appends the normal form of s to dst. It treats "/" as a byte of a path, so that a whole path can
// be passed, and never makes one: "%2F" stays as it is.
func AppendNormal(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c, escaped := s[i], false
		if c == '%' {
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				dst = append(dst, c)
				continue
			}
			c, escaped = byte(unhex(s[i+1])<<4|unhex(s[i+2])), true
			i += 2
		}
		if pchar(c) || c == '/' && !escaped {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

func isNormal(s string) bool {
	for i := range len(s) {
		if c := s[i]; !pchar(c) && c != '/' {
			return false
		}
	}
	return true
}

const upperHex = "0123456789ABCDEF"

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// pchar tells whether RFC 3986, section 3.3, allows c in a segment without encoding.
func pchar(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
}
