package pathpattern

import (
	"cmp"
	"strings"
)

// Base is a parsed base path.
type Base struct {
	segments []Segment // Literal or Param
}

// ParseBase reads a base path: whole segments, each a literal or "*".
func ParseBase(s string) (Base, error) {
	parts, _, err := segments(s)
	if err != nil {
		return Base{}, err
	}
	b := Base{segments: make([]Segment, len(parts))}
	for i, p := range parts {
		switch {
		case p == "*":
			b.segments[i] = Segment{Kind: Param}
		case strings.Contains(p, "*"):
			return Base{}, &Error{Pattern: s, Reason: `"*" stands for a whole segment only`, Remedy: `write "/*/", or "%2A" for the character itself`}
		case strings.ContainsAny(p, "{}"):
			return Base{}, &Error{Pattern: s, Reason: "a base path has no parameters", Remedy: `write "*" for a segment that may be anything`}
		default:
			b.segments[i] = Segment{Kind: Literal, Text: Normal(p)}
		}
	}
	return b, nil
}

// Segments returns the segments, none for "/". The caller must not change them.
func (b Base) Segments() []Segment { return b.segments }

// String returns the canonical form: a leading slash, no trailing one, literals in normal form. Two base paths
// conflict exactly if their canonical forms are equal.
func (b Base) String() string {
	if len(b.segments) == 0 {
		return "/"
	}
	var sb strings.Builder
	for _, s := range b.segments {
		sb.WriteByte('/')
		if s.Kind == Param {
			sb.WriteByte('*')
		} else {
			sb.WriteString(literal(s.Text))
		}
	}
	return sb.String()
}

// Match tells whether a path in normal form lies at or below b, and returns what is below: "" or a path that
// begins with a slash.
func (b Base) Match(path string) (rest string, ok bool) {
	for _, s := range b.segments {
		if path == "" || path[0] != '/' {
			return "", false
		}
		seg, _, _ := strings.Cut(path[1:], "/")
		if s.Kind == Literal && seg != s.Text || seg == "" {
			return "", false
		}
		path = path[1+len(seg):]
	}
	return path, path == "" || path[0] == '/'
}

// Compare orders base paths by precedence: b is before c, a negative result, if b wins where both match. The
// longer one wins; of equal length the one whose first differing segment is not "*". Others are in order of text.
func (b Base) Compare(c Base) int {
	if d := cmp.Compare(len(c.segments), len(b.segments)); d != 0 {
		return d
	}
	for i, s := range b.segments {
		if d := cmp.Compare(s.Kind, c.segments[i].Kind); d != 0 {
			return d
		}
	}
	return cmp.Compare(b.String(), c.String())
}

// literal writes text so that it is read as a literal again.
func literal(text string) string { return strings.ReplaceAll(text, "*", "%2A") }
