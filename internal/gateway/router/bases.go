package router

import (
	"bytes"
	"fmt"
	"slices"

	"hansa.dev/hansa/internal/x/pathpattern"
)

// Bases finds by base path: the longest that matches whole segments, and of equally long ones the one whose first
// differing segment is not "*". The zero value is the empty table. Its tree is a few flat slices: a change copies them.
type Bases[V any] struct {
	names names[struct{}]
	nodes []baseNode[V] // by number; the root is there once there was a base path
	free  []uint32      // numbers of nodes that are not in the tree
	len   int
}

// baseNode is reached by the segments of a base path.
type baseNode[V any] struct {
	value    V
	star     uint32 // the child for "*", or root
	literals uint32 // how many other children there are
	height   uint8  // segments to the farthest end below; perhaps more, if some were removed
	ends     bool   // a base path ends here, and value is what it leads to
}

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
	next := &Bases[V]{names: t.names.clone(), nodes: slices.Clone(t.nodes), free: slices.Clone(t.free), len: t.len}
	if len(next.nodes) == 0 {
		next.nodes = make([]baseNode[V], root+1)
	}
	for _, d := range dels {
		next.del(d.Segments())
	}
	for _, p := range puts {
		if !next.put(p.Base.Segments(), p.Value) {
			return nil, fmt.Errorf("base path %q is taken twice", p.Base)
		}
	}
	return next, nil
}

// put adds a base path, unless it is there.
func (t *Bases[V]) put(path []pathpattern.Segment, v V) bool {
	at := uint32(root)
	for i, s := range path {
		t.nodes[at].height = max(t.nodes[at].height, uint8(len(path)-i)) // at most pathpattern.MaxSegments
		below := t.below(at, s)
		if below == root {
			below = t.grow(at, s)
		}
		at = below
	}
	n := &t.nodes[at]
	if n.ends {
		return false
	}
	n.value, n.ends = v, true
	t.len++
	return true
}

// below returns the child of a node for a segment; root: there is none.
func (t *Bases[V]) below(at uint32, s pathpattern.Segment) uint32 {
	if s.Kind == pathpattern.Param {
		return t.nodes[at].star
	}
	return t.names.child(at, []byte(s.Text))
}

// grow makes the child of a node for a segment.
func (t *Bases[V]) grow(at uint32, s pathpattern.Segment) (child uint32) {
	if last := len(t.free) - 1; last >= 0 {
		child, t.free = t.free[last], t.free[:last]
	} else {
		child = uint32(len(t.nodes))
		t.nodes = append(t.nodes, baseNode[V]{})
	}
	if s.Kind == pathpattern.Param {
		t.nodes[at].star = child
	} else {
		t.nodes[at].literals++
		t.names.add(at, s.Text, child)
	}
	return child
}

// del removes a base path if it is there, and the nodes that lead nowhere without it.
func (t *Bases[V]) del(path []pathpattern.Segment) {
	var above [pathpattern.MaxSegments]uint32
	at := uint32(root)
	for i, s := range path {
		above[i] = at
		if at = t.below(at, s); at == root {
			return
		}
	}
	if !t.nodes[at].ends {
		return
	}
	t.len--
	var none V
	t.nodes[at].value, t.nodes[at].ends = none, false
	for i := len(path) - 1; i >= 0; i-- {
		if n := &t.nodes[at]; n.ends || n.star != root || n.literals > 0 {
			return
		}
		t.nodes[at] = baseNode[V]{}
		t.free = append(t.free, at)
		at = above[i]
		if n := &t.nodes[at]; path[i].Kind == pathpattern.Param {
			n.star = root
		} else {
			n.literals--
			t.names.remove(at, path[i].Text)
		}
	}
}

// BaseMatch is what Match found.
type BaseMatch[V any] struct {
	Value V
	// Rest is what lies below the base path: empty, or a path that begins with a slash.
	Rest []byte
}

// Match finds the base path that a path belongs to.
func (t *Bases[V]) Match(path []byte) (m BaseMatch[V], ok bool) {
	s := baseSearch[V]{table: t, depth: -1}
	if t.len > 0 {
		s.walk(root, path, 0)
	}
	if s.best == nil {
		return m, false
	}
	return BaseMatch[V]{s.best.value, s.rest}, true
}

// baseSearch keeps the best match so far. Literal segments are tried before "*", so of equally long matches the
// first one found wins.
type baseSearch[V any] struct {
	table *Bases[V]
	best  *baseNode[V]
	rest  []byte
	depth int
}

func (s *baseSearch[V]) walk(at uint32, path []byte, depth int) {
	for {
		n := &s.table.nodes[at]
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
		next := uint32(root)
		if n.literals > 0 {
			next = s.table.names.child(at, normal(segment))
		}
		if n.star != root {
			if next != root {
				s.walk(next, path, depth)
			}
			if depth+int(s.table.nodes[n.star].height) <= s.depth {
				return // nothing below can be longer
			}
			next = n.star
		}
		if next == root {
			return
		}
		at = next
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
