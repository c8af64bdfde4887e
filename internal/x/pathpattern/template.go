package pathpattern

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Template is a parsed path of an operation, below the base path.
type Template struct {
	segments []Segment
	slash    bool // ends in a slash; true for "/"
}

// ParseTemplate reads the path of an operation.
func ParseTemplate(s string) (Template, error) {
	parts, slash, err := segments(s)
	if err != nil {
		return Template{}, err
	}
	t := Template{segments: make([]Segment, len(parts)), slash: slash}
	var names []string
	for i, p := range parts {
		seg, err := parseSegment(s, p)
		if err != nil {
			return Template{}, err
		}
		if seg.Kind == Rest && (i < len(parts)-1 || slash) {
			return Template{}, &Error{Pattern: s, Reason: fmt.Sprintf("%q is not the last segment", p), Remedy: "only the last segment may take the rest of the path"}
		}
		for _, name := range seg.names() {
			if slices.Contains(names, name) {
				return Template{}, &Error{Pattern: s, Reason: fmt.Sprintf("the parameter {%s} stands in it twice", name), Remedy: "give each parameter a name of its own"}
			}
			names = append(names, name)
		}
		t.segments[i] = seg
	}
	return t, nil
}

func parseSegment(pattern, p string) (Segment, *Error) {
	fail := func(remedy, format string, args ...any) (Segment, *Error) {
		return Segment{}, &Error{Pattern: pattern, Reason: fmt.Sprintf(format, args...), Remedy: remedy}
	}
	if p == "*" {
		return Segment{Kind: Rest}, nil
	}
	var parts []Part
	for rest := p; rest != ""; {
		open := strings.IndexAny(rest, "{}*")
		if open < 0 {
			parts = append(parts, Part{Text: Normal(rest)})
			break
		}
		if c := rest[open]; c != '{' {
			return fail(fmt.Sprintf(`write "%%%02X" for the character itself`, c), "%q stands alone in segment %q", string(c), p)
		}
		if open > 0 {
			parts = append(parts, Part{Text: Normal(rest[:open])})
		}
		end := strings.IndexByte(rest[open:], '}')
		if end < 0 {
			return fail(`close it with "}"`, "a parameter in segment %q does not end", p)
		}
		name := rest[open+1 : open+end]
		rest = rest[open+end+1:]
		tail, wild := strings.CutSuffix(name, "*")
		if !validName(tail) {
			return fail(fmt.Sprintf(`a name is 1 to %d of letters, digits, "_", "-", "." and "$"`, MaxName), "{%s} is not a parameter", name)
		}
		if wild {
			if len(parts) > 0 || rest != "" {
				return fail("let it be a segment of its own", "{%s} stands beside other text in segment %q", name, p)
			}
			return Segment{Kind: Rest, Name: tail}, nil
		}
		if n := len(parts); n > 0 && parts[n-1].Name != "" {
			return fail("put text between them", "two parameters stand side by side in segment %q", p)
		}
		parts = append(parts, Part{Name: tail})
	}
	switch {
	case len(parts) > 1:
		return Segment{Kind: Mixed, Parts: parts}, nil
	case parts[0].Name != "":
		return Segment{Kind: Param, Name: parts[0].Name}, nil
	default:
		return Segment{Kind: Literal, Text: parts[0].Text}, nil
	}
}

func validName(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.', c == '$':
		default:
			return false
		}
	}
	return true
}

// Segments returns the segments, none for "/". The caller must not change them.
func (t Template) Segments() []Segment { return t.segments }

// Slash tells whether the template ends in a slash, as "/" does.
func (t Template) Slash() bool { return t.slash }

// String returns the template with its literals in normal form.
func (t Template) String() string {
	return t.format(true)
}

// Canonical returns the form in which two templates are equal exactly if they match the same paths with the same
// precedence: names are left out, "/a/{}" for "/a/{id}".
func (t Template) Canonical() string {
	return t.format(false)
}

// Fill returns the path in which value(name) stands for each parameter; "" is asked for a nameless rest.
func (t Template) Fill(value func(name string) string) string {
	var sb strings.Builder
	for _, s := range t.segments {
		sb.WriteByte('/')
		switch s.Kind {
		case Literal:
			sb.WriteString(s.Text)
		case Param, Rest:
			sb.WriteString(value(s.Name))
		case Mixed:
			for _, p := range s.Parts {
				if p.Name != "" {
					sb.WriteString(value(p.Name))
				} else {
					sb.WriteString(p.Text)
				}
			}
		}
	}
	if t.slash {
		sb.WriteByte('/')
	}
	return sb.String()
}

func (t Template) format(named bool) string {
	var sb strings.Builder
	for _, s := range t.segments {
		sb.WriteByte('/')
		switch {
		case s.Kind == Literal:
			sb.WriteString(literal(s.Text))
		case s.Kind == Mixed:
			sb.WriteString(mixed(s.Parts, named))
		case s.Kind == Rest && (s.Name == "" || !named):
			sb.WriteByte('*')
		case s.Kind == Rest:
			sb.WriteString("{" + s.Name + "*}")
		case named:
			sb.WriteString("{" + s.Name + "}")
		default:
			sb.WriteString("{}")
		}
	}
	if t.slash {
		sb.WriteByte('/')
	}
	return sb.String()
}

// mixed writes the parts of a mixed segment, with the names of parameters or without.
func mixed(parts []Part, named bool) string {
	var sb strings.Builder
	for _, p := range parts {
		switch {
		case p.Name == "":
			sb.WriteString(literal(p.Text))
		case named:
			sb.WriteString("{" + p.Name + "}")
		default:
			sb.WriteString("{}")
		}
	}
	return sb.String()
}

// Match tells whether t matches a path in normal form. The path is what is below the base path; where nothing
// is below, it is "/".
func (t Template) Match(path string) bool {
	for _, s := range t.segments {
		if path == "" || path[0] != '/' {
			return false
		}
		if s.Kind == Rest {
			return true
		}
		seg, _, _ := strings.Cut(path[1:], "/")
		if !s.Match(seg) {
			return false
		}
		path = path[1+len(seg):]
	}
	if t.slash {
		return path == "/"
	}
	return path == ""
}

// Match tells whether a Literal, Mixed or Param segment matches the text of one segment in normal form. In a
// Mixed one each parameter takes as little as it can, which finds a match wherever there is one.
func (s Segment) Match(text string) bool {
	switch s.Kind {
	case Literal:
		return text == s.Text
	case Param:
		return text != ""
	case Rest:
		return true
	}
	parts := s.Parts
	if p := parts[0]; p.Name == "" {
		rest, ok := strings.CutPrefix(text, p.Text)
		if !ok {
			return false
		}
		text, parts = rest, parts[1:]
	}
	if p := parts[len(parts)-1]; p.Name == "" {
		rest, ok := strings.CutSuffix(text, p.Text)
		if !ok {
			return false
		}
		text, parts = rest, parts[:len(parts)-1]
	}
	// What is left begins and ends with a parameter: {a} text {b} text {c}.
	for i := 1; i < len(parts); i += 2 {
		if text == "" {
			return false
		}
		at := strings.Index(text[1:], parts[i].Text)
		if at < 0 {
			return false
		}
		text = text[1+at+len(parts[i].Text):]
	}
	return text != ""
}

// Compare orders templates by precedence: t is before u, a negative result, if t wins where both match. The first
// differing segment decides: literal before mixed before {name} before rest, and of two mixed ones the one with
// more literal text. It returns 0 exactly if the canonical forms are equal.
func (t Template) Compare(u Template) int {
	for i := range min(len(t.segments), len(u.segments)) {
		if d := t.segments[i].Compare(u.segments[i]); d != 0 {
			return d
		}
	}
	// Of different length, both match only if the longer one has a rest left, which the end wins over.
	if d := cmp.Compare(len(t.segments), len(u.segments)); d != 0 {
		return d
	}
	if t.slash != u.slash {
		if u.slash {
			return -1
		}
		return 1
	}
	return 0
}

// Compare orders segments by precedence, as Template.Compare does.
func (s Segment) Compare(u Segment) int {
	if d := cmp.Compare(s.Kind, u.Kind); d != 0 {
		return d
	}
	switch s.Kind {
	case Literal:
		return cmp.Compare(s.Text, u.Text)
	case Mixed:
		if d := cmp.Compare(literalBytes(u.Parts), literalBytes(s.Parts)); d != 0 {
			return d
		}
		return cmp.Compare(mixed(s.Parts, false), mixed(u.Parts, false))
	}
	return 0
}

func literalBytes(parts []Part) int {
	n := 0
	for _, p := range parts {
		n += len(p.Text)
	}
	return n
}

func (s Segment) names() []string {
	if s.Kind != Mixed {
		if s.Name == "" {
			return nil
		}
		return []string{s.Name}
	}
	var names []string
	for _, p := range s.Parts {
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	return names
}
