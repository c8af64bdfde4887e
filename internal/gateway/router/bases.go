package router

import (
	"bytes"
	"fmt"

	"hansa.dev/hansa/internal/x/pathpattern"
)

// Bases finds by base path: the longest that matches whole segments, and of equally long ones the one whose first
// differing segment is not "*". The zero value is the empty table.
type Bases[V any] struct {
	root *baseNode[V]
	len  int
}

// baseNode is reached by the segments of a base path. Nodes of a finished table never change.
type baseNode[V any] struct {
	children children[baseNode[V]]
	star     *baseNode[V]
	value    V
	owner    *edit // the edit that made the node and may still change it
	height   int32 // segments to the farthest end below
	ends     bool  // a base path ends here, and value is what it leads to
}

// edit marks the nodes that one With has made, so that it copies no node twice.
type edit struct{ _ byte }

// BaseEntry is one base path and what it leads to.
type BaseEntry[V any] struct {
	Base  pathpattern.Base
	Value V
}

// Len is the number of base paths.
func (t *Bases[V]) Len() int { return t.len }

// With returns the table without the base paths in dels, and then with those in puts. A base path in puts that is
// there already is an error: whoever replaces one names it in dels too.
func (t *Bases[V]) With(puts []BaseEntry[V], dels []pathpattern.Base) (*Bases[V], error) {
	e := new(edit)
	next := *t
	for _, d := range dels {
		next.root = next.del(next.root, d.Segments(), e)
	}
	for _, p := range puts {
		was := next.len
		next.root = next.put(next.root, p.Base.Segments(), p.Value, e)
		if next.len == was {
			return nil, fmt.Errorf("base path %q is taken twice", p.Base)
		}
	}
	return &next, nil
}

func (t *Bases[V]) put(n *baseNode[V], path []pathpattern.Segment, v V, e *edit) *baseNode[V] {
	n = n.editable(e)
	if len(path) == 0 {
		if !n.ends {
			t.len++
		}
		n.value, n.ends = v, true
		return n
	}
	var below *baseNode[V]
	if path[0].Kind == pathpattern.Param {
		n.star = t.put(n.star, path[1:], v, e)
		below = n.star
	} else {
		below = t.put(n.children.get(path[0].Text), path[1:], v, e)
		n.children.set(path[0].Text, below)
	}
	n.height = max(n.height, below.height+1)
	return n
}

func (t *Bases[V]) del(n *baseNode[V], path []pathpattern.Segment, e *edit) *baseNode[V] {
	if n == nil {
		return nil
	}
	if len(path) == 0 {
		if !n.ends {
			return n
		}
		n = n.editable(e)
		t.len--
		var none V
		n.value, n.ends = none, false
		return n.trimmed()
	}
	below, text := n.star, ""
	if path[0].Kind != pathpattern.Param {
		text = path[0].Text
		below = n.children.get(text)
	}
	rest := t.del(below, path[1:], e)
	if rest == below && (rest == nil || rest.owner != e) {
		return n // it was not there
	}
	n = n.editable(e)
	if path[0].Kind == pathpattern.Param {
		n.star = rest
	} else {
		n.children.set(text, rest)
	}
	return n.trimmed()
}

// editable returns n itself if e made it, and otherwise a copy.
func (n *baseNode[V]) editable(e *edit) *baseNode[V] {
	switch {
	case n == nil:
		return &baseNode[V]{owner: e}
	case n.owner == e:
		return n
	}
	c := *n
	c.children = n.children.clone()
	c.owner = e
	return &c
}

// trimmed sets the height anew, and returns nil for a node that leads nowhere.
func (n *baseNode[V]) trimmed() *baseNode[V] {
	if !n.ends && n.star == nil && n.children.len() == 0 {
		return nil
	}
	n.height = 0
	if n.star != nil {
		n.height = n.star.height + 1
	}
	n.children.all(func(c *baseNode[V]) { n.height = max(n.height, c.height+1) })
	return n
}

// BaseMatch is what Match found.
type BaseMatch[V any] struct {
	Value V
	// Rest is what lies below the base path: empty, or a path that begins with a slash.
	Rest []byte
}

// Match finds the base path that a path belongs to.
func (t *Bases[V]) Match(path []byte) (m BaseMatch[V], ok bool) {
	s := baseSearch[V]{depth: -1}
	if t.root != nil {
		s.walk(t.root, path, 0)
	}
	if s.best == nil {
		return m, false
	}
	return BaseMatch[V]{s.best.value, s.rest}, true
}

// baseSearch keeps the best match so far. Literal segments are tried before "*", so of equally long matches the
// first one found wins.
type baseSearch[V any] struct {
	best  *baseNode[V]
	rest  []byte
	depth int32
}

func (s *baseSearch[V]) walk(n *baseNode[V], path []byte, depth int32) {
	for {
		if n.ends && depth > s.depth {
			s.best, s.rest, s.depth = n, path, depth
		}
		if n.height == 0 || len(path) < 2 {
			return
		}
		segment := path[1:]
		if i := bytes.IndexByte(segment, '/'); i >= 0 {
			segment = segment[:i]
		}
		if len(segment) == 0 {
			return
		}
		path = path[1+len(segment):]
		depth++
		next := n.children.find(normal(segment))
		if n.star != nil {
			if next != nil {
				s.walk(next, path, depth)
			}
			if depth+n.star.height <= s.depth {
				return // nothing below can be longer
			}
			next = n.star
		}
		if next == nil {
			return
		}
		n = next
	}
}

// normal returns the form of a segment that literals are compared in. The canonical path of an exchange keeps "%3A"
// apart from ":", because a backend may; whoever routes must not, or an encoded character would lead around the
// operation, and the policies, that a literal stands for. Few segments hold a percent sign.
func normal(segment []byte) []byte {
	if bytes.IndexByte(segment, '%') < 0 {
		return segment
	}
	return pathpattern.AppendNormal(make([]byte, 0, len(segment)), string(segment))
}
