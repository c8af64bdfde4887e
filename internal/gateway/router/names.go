package router

import (
	"hash/maphash"
	"slices"
)

// root is the number of a tree's root. It is nobody's child: as the number of a child it says that there is none.
const root = 0

// names are the literal segments in a tree of paths: they lead from node to node, which are numbers. They lie in one hash
// table with open addressing, and their text in its slots with what else is to be known about a node: among 100,000 routes
// none is in the processor's cache, and to find a name so costs a single line of memory. The zero value is empty.
type names[N any] struct {
	slots []slot[N] // a power of two of them, a quarter or more of them free
	long  []string  // by node: the names that do not fit in a slot
	n     int
}

// slot without what is to be known is half a line of the processor's cache.
type slot[N any] struct {
	known        N
	parent, node uint32 // node is root if the slot is free
	size         uint16
	text         [22]byte
}

// seed keeps who names paths from choosing where they collide.
var seed = maphash.MakeSeed()

// find returns the slot of the child of a node with that name; nil: there is none.
func (t *names[N]) find(parent uint32, name []byte) *slot[N] {
	if len(t.slots) == 0 {
		return nil
	}
	if s := &t.slots[t.place(parent, name)]; s.node != root {
		return s
	}
	return nil
}

// child returns the child of a node with that name; root: there is none.
func (t *names[N]) child(parent uint32, name []byte) uint32 {
	if s := t.find(parent, name); s != nil {
		return s.node
	}
	return root
}

// place returns where the child of a node with that name is, or the free slot where it belongs.
func (t *names[N]) place(parent uint32, name []byte) int {
	for i := t.home(parent, name); ; i = (i + 1) & (len(t.slots) - 1) {
		s := &t.slots[i]
		if s.node == root || s.parent == parent && t.named(s, name) {
			return i
		}
	}
}

// home is where looking for a name begins.
func (t *names[N]) home(parent uint32, name []byte) int {
	h := maphash.Bytes(seed, name) + uint64(parent)*0x9e3779b97f4a7c15
	return int(h & uint64(len(t.slots)-1))
}

// named tells whether a slot has that name.
func (t *names[N]) named(s *slot[N], name []byte) bool {
	if int(s.size) > len(s.text) {
		return t.long[s.node] == string(name)
	}
	return string(s.text[:s.size]) == string(name)
}

// name returns the name of a slot.
func (t *names[N]) name(s *slot[N]) []byte {
	if int(s.size) > len(s.text) {
		return []byte(t.long[s.node])
	}
	return s.text[:s.size]
}

// add makes node the child of a node that has none with that name.
func (t *names[N]) add(parent uint32, name string, node uint32) {
	if 4*(t.n+1) > 3*len(t.slots) {
		t.grow()
	}
	s := slot[N]{parent: parent, node: node, size: uint16(len(name))} // a pattern has pathpattern.MaxBytes at most
	if copy(s.text[:], name) < len(name) {
		t.long = append(t.long, make([]string, max(0, int(node)+1-len(t.long)))...)
		t.long[node] = name
	}
	t.slots[t.place(parent, []byte(name))] = s
	t.n++
}

// grow makes room for twice as many.
func (t *names[N]) grow() {
	old := t.slots
	t.slots = make([]slot[N], max(2*len(old), 2))
	for i := range old {
		if s := &old[i]; s.node != root {
			t.slots[t.place(s.parent, t.name(s))] = *s
		}
	}
}

// remove takes away the child of a node that has one with that name.
func (t *names[N]) remove(parent uint32, name string) {
	at := t.place(parent, []byte(name))
	if node := int(t.slots[at].node); node < len(t.long) {
		t.long[node] = ""
	}
	// What follows moves up, unless it would come before where looking for it begins (Knuth, 6.4, algorithm R).
	mask := len(t.slots) - 1
	for i := (at + 1) & mask; t.slots[i].node != root; i = (i + 1) & mask {
		s := &t.slots[i]
		if far := i - t.home(s.parent, t.name(s)); far&mask >= (i-at)&mask {
			t.slots[at] = *s
			at = i
		}
	}
	t.slots[at] = slot[N]{}
	t.n--
}

func (t *names[N]) clone() names[N] {
	return names[N]{slices.Clone(t.slots), slices.Clone(t.long), t.n}
}
