package router

import (
	"bytes"
	"fmt"
	"slices"

	"hansa.dev/hansa/internal/x/pathpattern"
)

// Operations finds the operation of an API by method and by the path below the base path: the most specific template
// that matches and has the method, in the order of pathpattern's Template.Compare. Of one template, the operation
// with the very method wins over that with "*".
type Operations[V any] struct {
	root opNode[V]
}

// OperationEntry is one operation and what it leads to.
type OperationEntry[V any] struct {
	Method   string // or "*"
	Template pathpattern.Template
	Value    V
}

// opNode is reached by the segments of a template.
type opNode[V any] struct {
	literals children[opNode[V]]
	mixed    []mixedChild[V] // in order of precedence
	param    *opNode[V]
	end      []methodValue[V] // templates that end here
	slash    []methodValue[V] // and with a slash
	rest     []methodValue[V] // and with "*"
}

type mixedChild[V any] struct {
	segment pathpattern.Segment
	node    *opNode[V]
}

type methodValue[V any] struct {
	method string
	value  V
}

// NewOperations makes a table. Two operations with the same method and the same template are an error.
func NewOperations[V any](entries []OperationEntry[V]) (*Operations[V], error) {
	t := new(Operations[V])
	for _, e := range entries {
		if err := t.add(e); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Operations[V]) add(e OperationEntry[V]) error {
	n := &t.root
	list := &n.end
	for _, s := range e.Template.Segments() {
		if s.Kind == pathpattern.Rest {
			list = &n.rest
			break
		}
		n = n.below(s)
		list = &n.end
	}
	if e.Template.Slash() {
		list = &n.slash
	}
	for _, m := range *list {
		if m.method == e.Method {
			return fmt.Errorf("operation %s %s is there twice", e.Method, e.Template)
		}
	}
	*list = append(*list, methodValue[V]{e.Method, e.Value})
	return nil
}

// below returns the child for a segment, and makes it if it is not there.
func (n *opNode[V]) below(s pathpattern.Segment) *opNode[V] {
	switch s.Kind {
	case pathpattern.Literal:
		c := n.literals.get(s.Text)
		if c == nil {
			c = new(opNode[V])
			n.literals.set(s.Text, c)
		}
		return c
	case pathpattern.Mixed:
		i, found := slices.BinarySearchFunc(n.mixed, s, func(c mixedChild[V], s pathpattern.Segment) int {
			return c.segment.Compare(s)
		})
		if !found {
			n.mixed = slices.Insert(n.mixed, i, mixedChild[V]{s, new(opNode[V])})
		}
		return n.mixed[i].node
	default:
		if n.param == nil {
			n.param = new(opNode[V])
		}
		return n.param
	}
}

// Match finds the operation. path is what lies below the base path; nothing is the same as "/".
func (t *Operations[V]) Match(method, path []byte) (v V, ok bool) {
	m := t.root.match(method, path)
	if len(path) == 0 {
		m = t.root.matchSlash(method)
	}
	if m == nil {
		return v, false
	}
	return m.value, true
}

func (n *opNode[V]) match(method, path []byte) *methodValue[V] {
	switch len(path) {
	case 0:
		return find(n.end, method)
	case 1:
		return n.matchSlash(method)
	}
	segment := path[1:]
	if i := bytes.IndexByte(segment, '/'); i >= 0 {
		segment = segment[:i]
	}
	if len(segment) > 0 {
		below := path[1+len(segment):]
		segment = normal(segment)
		if c := n.literals.find(segment); c != nil {
			if m := c.match(method, below); m != nil {
				return m
			}
		}
		for i := range n.mixed {
			if c := &n.mixed[i]; matchMixed(c.segment.Parts, segment) {
				if m := c.node.match(method, below); m != nil {
					return m
				}
			}
		}
		if n.param != nil {
			if m := n.param.match(method, below); m != nil {
				return m
			}
		}
	}
	return find(n.rest, method)
}

// matchSlash matches the path "/".
func (n *opNode[V]) matchSlash(method []byte) *methodValue[V] {
	if m := find(n.slash, method); m != nil {
		return m
	}
	return find(n.rest, method)
}

// find returns the entry of a method, or that of any method.
func find[V any](list []methodValue[V], method []byte) *methodValue[V] {
	var any *methodValue[V]
	for i := range list {
		switch {
		case list[i].method == string(method):
			return &list[i]
		case list[i].method == "*":
			any = &list[i]
		}
	}
	return any
}

// matchMixed decides as pathpattern's Segment.Match, on bytes.
func matchMixed(parts []pathpattern.Part, text []byte) bool {
	if p := parts[0]; p.Name == "" {
		if len(text) < len(p.Text) || string(text[:len(p.Text)]) != p.Text {
			return false
		}
		text, parts = text[len(p.Text):], parts[1:]
	}
	if p := parts[len(parts)-1]; p.Name == "" {
		cut := len(text) - len(p.Text)
		if cut < 0 || string(text[cut:]) != p.Text {
			return false
		}
		text, parts = text[:cut], parts[:len(parts)-1]
	}
	// What is left begins and ends with a parameter, each of at least one byte.
	for i := 1; i < len(parts); i += 2 {
		if len(text) == 0 {
			return false
		}
		at := index(text[1:], parts[i].Text)
		if at < 0 {
			return false
		}
		text = text[1+at+len(parts[i].Text):]
	}
	return len(text) > 0
}

// index is bytes.Index with text to look for.
func index(b []byte, text string) int {
	for i := 0; i+len(text) <= len(b); i++ {
		if string(b[i:i+len(text)]) == text {
			return i
		}
	}
	return -1
}
