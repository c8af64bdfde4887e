package openapi

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"hansa.dev/hansa/internal/x/pathpattern"
)

// template turns a path of a document into a path template, with a sentence for everything that had to be changed.
// OpenAPI says little about paths, and documents hold what their frameworks print. slashes are the names of parameters
// whose values may hold slashes.
func template(path string, slashes map[string]bool) (t pathpattern.Template, changes []string, err error) {
	change := func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }
	p := path
	if i := strings.IndexAny(p, "?#"); i >= 0 {
		change("the part after %q does not tell requests apart", p[i:i+1])
		p = p[:i]
	}
	if !strings.HasPrefix(p, "/") {
		change("a slash is put before it")
		p = "/" + p
	}
	slash := len(p) > 1 && strings.HasSuffix(p, "/")
	var parts []string
	w := &writer{slashes: slashes, names: map[string]bool{}, change: change}
	split := segments(strings.TrimSuffix(p[1:], "/"))
	for i, s := range split {
		switch {
		case s != "":
			parts = append(parts, w.segment(s, i == len(split)-1 && !slash))
		case len(split) > 1:
			change("an empty segment is left out")
		}
	}
	p = "/" + strings.Join(parts, "/")
	if slash && len(parts) > 0 {
		p += "/"
	}
	t, err = pathpattern.ParseTemplate(p)
	if pe, ok := errors.AsType[*pathpattern.Error](err); ok {
		err = errors.New(pe.Reason)
	}
	return t, changes, err
}

// segments splits a path at the slashes outside of braces.
func segments(p string) []string {
	var out []string
	start, depth := 0, 0
	for i := range len(p) {
		switch p[i] {
		case '{':
			depth++
		case '}':
			depth = max(0, depth-1)
		case '/':
			if depth == 0 || !strings.Contains(p[i:], "}") {
				out = append(out, p[start:i])
				start = i + 1
			}
		}
	}
	return append(out, p[start:])
}

// writer rewrites the segments of a path.
type writer struct {
	slashes map[string]bool // parameters whose values may hold slashes
	names   map[string]bool // of the parameters so far
	change  func(format string, args ...any)
}

// segment rewrites one segment. last tells that it may take the rest of the path.
func (w *writer) segment(s string, last bool) string {
	if s == "*" || s == "**" {
		if last {
			w.change("%q is read as the rest of the path", s)
			return "*"
		}
		w.change("%q is read as a parameter", s)
		return "{" + w.unique("any") + "}"
	}
	var sb strings.Builder
	wasParam := false
	for rest := s; rest != ""; {
		open := strings.IndexByte(rest, '{')
		end := -1
		if open >= 0 {
			end = strings.IndexByte(rest[open:], '}')
		}
		if end < 0 {
			sb.WriteString(literal(rest, w.change))
			break
		}
		if open > 0 {
			sb.WriteString(literal(rest[:open], w.change))
			wasParam = false
		}
		raw := rest[open+1 : open+end]
		rest = rest[open+end+1:]
		if wasParam {
			w.change("the parameters around {%s} stand side by side and are taken as one", raw)
			continue
		}
		wasParam = true
		sb.WriteString(w.parameter(raw, last && rest == "" && sb.Len() == 0))
	}
	return sb.String()
}

// parameter rewrites what stands between braces. mayRest tells that it is the whole last segment.
func (w *writer) parameter(raw string, mayRest bool) string {
	name, reserved := strings.CutPrefix(raw, "+") // RFC 6570: reserved expansion, which may hold slashes
	name, many := strings.CutSuffix(name, "*")
	name, constraint, limited := strings.Cut(name, "=") // {name=projects/*} of gRPC transcoding
	if !limited {
		name, constraint, limited = strings.Cut(name, ":") // {id:[0-9]+} of routers
	}
	if limited {
		w.change("what {%s} says about its values is not checked", raw)
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("_-.$", r):
			return r
		}
		return '_'
	}, strings.TrimSpace(name))
	clean = w.unique(clean[:min(len(clean), pathpattern.MaxName-4)])
	slashes := reserved || many || w.slashes[name] || strings.Contains(constraint, "/") || strings.Contains(constraint, ".*")
	switch {
	case slashes && mayRest:
		w.change("{%s} may hold slashes and is read as the rest of the path", raw)
		return "{" + clean + "*}"
	case slashes:
		w.change("{%s} may hold slashes; they are matched only as %%2F, since more of the path follows", raw)
	case clean != name:
		w.change("the parameter {%s} is called {%s}", raw, clean)
	}
	return "{" + clean + "}"
}

// unique returns name, or name with a number if it is taken, and takes it.
func (w *writer) unique(name string) string {
	out := cmp.Or(name, "p")
	for n := 2; w.names[out]; n++ {
		out = fmt.Sprintf("%s%d", cmp.Or(name, "p"), n)
	}
	w.names[out] = true
	return out
}

// literal encodes what a template would read as something else.
func literal(s string, change func(string, ...any)) string {
	out := strings.NewReplacer("*", "%2A", "{", "%7B", "}", "%7D").Replace(s)
	if out != s {
		change("%q holds characters with another meaning, which are encoded", s)
	}
	var sb strings.Builder
	for i := range len(out) {
		if out[i] == '%' && (i+2 >= len(out) || !hex(out[i+1]) || !hex(out[i+2])) {
			change("a lone percent sign is encoded")
			sb.WriteString("%25")
			continue
		}
		sb.WriteByte(out[i])
	}
	return sb.String()
}

func hex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }
