package router

import (
	"bytes"
	"fmt"
	"slices"
	"unique"

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

// opNode is reached by the segments of a template. What lies on the way is in its first 64 bytes and what most templates
// end with in the second: with values of the size of a pointer that is two lines of the processor's cache.
type opNode[V any] struct {
	literals children[opNode[V]]
	param    *opNode[V]
	mixed    []mixedChild[V] // in order of precedence

	end   methodValues[V] // templates that end here
	tails *methodTails[V] // templates that go on; nil: none
}

// methodTails are the templates that end a slash or more behind a node.
type methodTails[V any] struct {
	slash methodValues[V] // with a slash
	rest  methodValues[V] // with "*"
}

type mixedChild[V any] struct {
	segment pathpattern.Segment
	node    *opNode[V]
}

// methodValues are the operations of one template. The first, mostly the only one, lies with the node.
type methodValues[V any] struct {
	first methodValue[V]
	more  []methodValue[V]
}

type methodValue[V any] struct {
	method string // "": there is none
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
			list = &n.tail().rest
			break
		}
		n = n.below(s)
		list = &n.end
	}
	if e.Template.Slash() {
		list = &n.tail().slash
	}
	if !list.add(e.Method, e.Value) {
		return fmt.Errorf("operation %s %s is there twice", e.Method, e.Template)
	}
	return nil
}

// tail returns the tails, and makes them if they are not there.
func (n *opNode[V]) tail() *methodTails[V] {
	if n.tails == nil {
		n.tails = new(methodTails[V])
	}
	return n.tails
}

// add adds the value of a method, unless there is one.
func (l *methodValues[V]) add(method string, value V) bool {
	for _, m := range l.more {
		if m.method == method {
			return false
		}
	}
	// Methods are few: their text is shared, so that it is in the processor's cache.
	m := methodValue[V]{unique.Make(method).Value(), value}
	switch l.first.method {
	case "":
		l.first = m
	case method:
		return false
	default:
		l.more = append(l.more, m)
	}
	return true
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
		return n.end.find(method)
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
	if n.tails == nil {
		return nil
	}
	return n.tails.rest.find(method)
}

// matchSlash matches the path "/".
func (n *opNode[V]) matchSlash(method []byte) *methodValue[V] {
	if n.tails == nil {
		return nil
	}
	if m := n.tails.slash.find(method); m != nil {
		return m
	}
	return n.tails.rest.find(method)
}

// find returns the entry of a method, or that of any method.
func (l *methodValues[V]) find(method []byte) *methodValue[V] {
	var any *methodValue[V]
	switch l.first.method {
	case "":
		return nil
	case string(method):
		return &l.first
	case "*":
		any = &l.first
	}
	for i := range l.more {
		switch {
		case l.more[i].method == string(method):
			return &l.more[i]
		case l.more[i].method == "*":
			any = &l.more[i]
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
