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
//
// Its tree is a few flat slices, so that what a look-up reads lies close together.
type Operations[V any] struct {
	root   opNode
	names  names[opNode] // with copies of the nodes they lead to
	values []methodValue[V]
	nodes  []opNode // by number
	mixed  []mixedChildren
}

// OperationEntry is one operation and what it leads to.
type OperationEntry[V any] struct {
	Method   string // or "*"
	Template pathpattern.Template
	Value    V
}

// opNode is reached by the segments of a template. With a name it is a line of the processor's cache.
type opNode struct {
	end, slash, rest, one valueList // templates that end here, with a slash, with "*", with a parameter
	param                 uint32    // the child for a parameter that others go on behind, or root
	mixed                 uint32    // where its mixed children are, counted from 1; 0: it has none
	literals              bool      // whether it has others
	_                     uint32
}

// mixedChildren are those of one node, in order of precedence.
type mixedChildren []mixedChild

type mixedChild struct {
	segment pathpattern.Segment
	node    uint32
}

// valueList is where the operations of one template begin among the values, counted from 1; 0: there are none.
type valueList uint32

// methodValue is one of the operations of a template. What goes on the way of most requests comes first.
type methodValue[V any] struct {
	method string
	value  V
	next   valueList
}

// NewOperations makes a table. Two operations with the same method and the same template are an error.
func NewOperations[V any](entries []OperationEntry[V]) (*Operations[V], error) {
	t := &Operations[V]{nodes: make([]opNode, root+1), values: make([]methodValue[V], 0, len(entries))}
	for i := range entries {
		if err := t.add(&entries[i]); err != nil {
			return nil, err
		}
	}
	t.nodes = slices.Clone(t.nodes) // without what append has left room for
	t.root = t.nodes[root]
	for i := range t.names.slots {
		t.names.slots[i].known = t.nodes[t.names.slots[i].node]
	}
	return t, nil
}

func (t *Operations[V]) add(e *OperationEntry[V]) error {
	segments, end := e.Template.Segments(), pathpattern.Literal
	if last := len(segments) - 1; last >= 0 && !e.Template.Slash() && segments[last].Kind >= pathpattern.Param {
		segments, end = segments[:last], segments[last].Kind
	}
	at := uint32(root)
	for _, s := range segments {
		at = t.below(at, s)
	}
	n := &t.nodes[at]
	list := &n.end
	switch {
	case e.Template.Slash():
		list = &n.slash
	case end == pathpattern.Param:
		list = &n.one
	case end == pathpattern.Rest:
		list = &n.rest
	}
	for i := *list; i != 0; i = t.values[i-1].next {
		if t.values[i-1].method == e.Method {
			return fmt.Errorf("operation %s %s is there twice", e.Method, e.Template)
		}
	}
	// Methods are few: their text is shared, so that it is in the processor's cache.
	t.values = append(t.values, methodValue[V]{unique.Make(e.Method).Value(), e.Value, *list})
	*list = valueList(len(t.values))
	return nil
}

// below returns the child of a node for a segment, and makes it if it is not there.
func (t *Operations[V]) below(at uint32, s pathpattern.Segment) uint32 {
	fresh := uint32(len(t.nodes))
	switch s.Kind {
	case pathpattern.Literal:
		if c := t.names.child(at, []byte(s.Text)); c != root {
			return c
		}
		t.names.add(at, s.Text, fresh)
		t.nodes[at].literals = true
	case pathpattern.Mixed:
		n := &t.nodes[at]
		if n.mixed == 0 {
			t.mixed = append(t.mixed, nil)
			n.mixed = uint32(len(t.mixed))
		}
		list := &t.mixed[n.mixed-1]
		i, found := slices.BinarySearchFunc(*list, s, func(c mixedChild, s pathpattern.Segment) int {
			return c.segment.Compare(s)
		})
		if found {
			return (*list)[i].node
		}
		*list = slices.Insert(*list, i, mixedChild{s, fresh})
	default:
		if c := t.nodes[at].param; c != root {
			return c
		}
		t.nodes[at].param = fresh
	}
	t.nodes = append(t.nodes, opNode{})
	return fresh
}

// Match finds what the operation leads to; nil: there is none. path is what lies below the base path; nothing is the
// same as "/".
func (t *Operations[V]) Match(method, path []byte) *V {
	if len(path) == 0 {
		return t.matchSlash(&t.root, method)
	}
	return t.match(root, &t.root, method, path)
}

// match matches a path, or nothing, below the node with that number.
func (t *Operations[V]) match(at uint32, n *opNode, method, path []byte) *V {
	switch len(path) {
	case 0:
		return t.find(n.end, method)
	case 1:
		return t.matchSlash(n, method)
	}
	segment := path[1:]
	if i := bytes.IndexByte(segment, '/'); i >= 0 {
		segment = segment[:i]
	}
	if len(segment) > 0 {
		below := path[1+len(segment):]
		segment = normal(segment)
		if n.literals {
			if s := t.names.find(at, segment); s != nil {
				if v := t.match(s.node, &s.known, method, below); v != nil {
					return v
				}
			}
		}
		if n.mixed != 0 {
			if v := t.matchMixed(t.mixed[n.mixed-1], method, segment, below); v != nil {
				return v
			}
		}
		if len(below) == 0 {
			if v := t.find(n.one, method); v != nil {
				return v
			}
		} else if n.param != root {
			if v := t.match(n.param, &t.nodes[n.param], method, below); v != nil {
				return v
			}
		}
	}
	return t.find(n.rest, method)
}

// matchMixed matches a path by its first segment and what is below.
func (t *Operations[V]) matchMixed(children mixedChildren, method, segment, below []byte) *V {
	for i := range children {
		if c := &children[i]; matchParts(c.segment.Parts, segment) {
			if v := t.match(c.node, &t.nodes[c.node], method, below); v != nil {
				return v
			}
		}
	}
	return nil
}

// matchSlash matches the path "/".
func (t *Operations[V]) matchSlash(n *opNode, method []byte) *V {
	if v := t.find(n.slash, method); v != nil {
		return v
	}
	return t.find(n.rest, method)
}

// find returns the value of a method, or that of any method.
func (t *Operations[V]) find(list valueList, method []byte) *V {
	var anyMethod *V
	for list != 0 {
		m := &t.values[list-1]
		switch m.method {
		case string(method):
			return &m.value
		case "*":
			anyMethod = &m.value
		}
		list = m.next
	}
	return anyMethod
}

// matchParts decides as pathpattern's Segment.Match, on bytes.
func matchParts(parts []pathpattern.Part, text []byte) bool {
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
