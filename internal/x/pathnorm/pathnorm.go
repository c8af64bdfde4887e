// Package pathnorm makes the path of a request canonical, once, before anything looks at it. Routing, policies, logs
// and backends all see the canonical form, so that no two of them can read one path differently.
//
// The rules:
//
//   - A path begins with "/" and consists of printable ASCII.
//   - Percent-encoded letters, digits, "-", ".", "_" and "~" are decoded; what stays encoded is written with capital
//     digits (RFC 3986, section 6.2.2). "%25" stays, so nothing is decoded twice.
//   - Characters that a path cannot hold as they are, such as "{", "|" or a quote, are encoded.
//   - Empty segments are dropped: "//" is "/". A slash at the end stays.
//   - The segments "." and ".." are resolved, also when they were encoded. Leaving the root is refused.
//   - "%2F" stays encoded and is a character of its segment, not a border between two. ";" is a character of its
//     segment as well. Since backends differ in both, a segment that holds a dot segment once either is taken for a
//     border ("..%2Fx", "..;x") is refused.
//   - Other reserved characters, such as ":" and "%3A", stay as they were written, since a backend may tell them apart (RFC
//     3986, section 2.2). Who matches paths must not: the router compares in the form of pathpattern.Normal, in which they
//     are one, so that no spelling leads around an operation.
//   - Backslashes and control characters are refused, encoded or not.
//
// Everything in the package is a pure function. It is used by the engines of the gateway.
package pathnorm

import (
	"bytes"
	"errors"
)

// What is wrong with a path.
var (
	ErrNotAbsolute = errors.New("the path does not begin with a slash")
	ErrCharacter   = errors.New("the path holds a backslash, a control character or one outside ASCII")
	ErrEncoding    = errors.New("a percent sign in the path is not followed by two hexadecimal digits")
	ErrAboveRoot   = errors.New("the path leaves the root")
	ErrHiddenDots  = errors.New("the path hides a dot segment behind an encoded slash or a semicolon")
)

// The classes of bytes.
const (
	refused uint8 = iota
	encoded       // must be percent-encoded
	plain         // stands for itself
	unreserved
	slash
	dot
	percent
)

var class = func() (t [256]uint8) {
	for c := byte(0x21); c < 0x7f; c++ {
		t[c] = encoded
	}
	for c := byte('0'); c <= '9'; c++ {
		t[c] = unreserved
	}
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = unreserved, unreserved
	}
	for _, c := range []byte("-_~") {
		t[c] = unreserved
	}
	for _, c := range []byte("!$&'()*+,;=:@") {
		t[c] = plain
	}
	t['/'], t['.'], t['%'], t['\\'] = slash, dot, percent, refused
	t['#'], t['?'] = refused, refused
	return t
}()

// unhex holds the values of hexadecimal digits, and 16 for every other byte.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 16
	}
	for i := range byte(10) {
		t['0'+i] = i
	}
	for i := range byte(6) {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()

// Canonical tells whether path is in canonical form already. It is the quick answer for nearly every request.
func Canonical(path []byte) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	border := false // the last byte was a slash
	for i := range path {
		switch class[path[i]] {
		case unreserved, plain:
			border = false
		case slash:
			if border {
				return false
			}
			border = true
		case dot:
			if border {
				return false // perhaps a dot segment: let Append look
			}
		default:
			return false
		}
	}
	return true
}

// Append appends the canonical form of path to dst. On an error dst is returned as it was.
func Append(dst, path []byte) ([]byte, error) {
	if len(path) == 0 || path[0] != '/' {
		return dst, ErrNotAbsolute
	}
	root := len(dst)
	out := append(dst, '/')
	for i := 1; i <= len(path); {
		from := len(out) // out[from-1] is the slash before the segment
		var err error
		if out, i, err = appendSegment(out, path, i); err != nil {
			return dst, err
		}
		last := i >= len(path)
		i++
		switch segment := out[from:]; {
		case len(segment) == 0 || string(segment) == ".":
			out = out[:from]
			continue
		case string(segment) == "..":
			parent := bytes.LastIndexByte(out[root:from-1], '/')
			if parent < 0 {
				return dst, ErrAboveRoot
			}
			out = out[:root+parent+1]
		case hidesDots(segment):
			return dst, ErrHiddenDots
		case !last:
			out = append(out, '/')
		}
	}
	return out, nil
}

// appendSegment appends the segment of path that begins at i, normalised but for dots, and returns where it ends.
func appendSegment(out, path []byte, i int) ([]byte, int, error) {
	const hex = "0123456789ABCDEF"
	for ; i < len(path); i++ {
		c := path[i]
		switch class[c] {
		case slash:
			return out, i, nil
		case unreserved, plain, dot:
			out = append(out, c)
		case encoded:
			out = append(out, '%', hex[c>>4], hex[c&15])
		case percent:
			if i+2 >= len(path) || unhex[path[i+1]] > 15 || unhex[path[i+2]] > 15 {
				return out, i, ErrEncoding
			}
			c = unhex[path[i+1]]<<4 | unhex[path[i+2]]
			i += 2
			switch {
			case class[c] == unreserved || class[c] == dot:
				out = append(out, c)
			case c < 0x20 || c == 0x7f || c == '\\':
				return out, i, ErrCharacter
			default:
				out = append(out, '%', hex[c>>4], hex[c&15])
			}
		default:
			return out, i, ErrCharacter
		}
	}
	return out, i, nil
}

// hidesDots tells whether a normalised segment holds "." or ".." between encoded slashes or before parameters.
func hidesDots(segment []byte) bool {
	for from := 0; from < len(segment); {
		// One part ends at "%2F", its name at ";" or "%3B".
		to, name := len(segment), -1
		next := to
		for i := from; i < len(segment); i++ {
			if c := segment[i]; c == ';' || c == '%' && segment[i+1] == '3' && segment[i+2] == 'B' {
				if name < 0 {
					name = i
				}
			} else if c == '%' && segment[i+1] == '2' && segment[i+2] == 'F' {
				to, next = i, i+3
				break
			}
		}
		if name < 0 {
			name = to
		}
		if s := string(segment[from:name]); s == "." || s == ".." {
			return true
		}
		from = next
	}
	return false
}
