package router

import (
	"hash/maphash"
	"slices"
)

// children are the nodes below a node by the text of their segment. A few are compared one after the other. Many are in
// a hash table with open addressing, which finds one by two lines of memory where a map of the language needs six: among
// 100,000 routes none of them is in the processor's cache.
type children[N any] struct {
	slots []child[N] // a power of two of them if there are more than fewMax; then those without a node are free
	n     int
}

type child[N any] struct {
	text string
	node *N
	hash uint64
}

// fewMax is where hashing begins to be quicker.
const fewMax = 8

// seed keeps who names paths from choosing where they collide.
var seed = maphash.MakeSeed()

func (c *children[N]) find(segment []byte) *N {
	if len(c.slots) <= fewMax {
		for i := range c.slots {
			if c.slots[i].text == string(segment) {
				return c.slots[i].node
			}
		}
		return nil
	}
	hash := maphash.Bytes(seed, segment)
	for i := hash; ; i++ {
		s := &c.slots[i&uint64(len(c.slots)-1)]
		if s.node == nil || s.hash == hash && s.text == string(segment) {
			return s.node
		}
	}
}

// get is find for text.
func (c *children[N]) get(text string) *N { return c.find([]byte(text)) }

// set puts a node in the place of the one with that text, or removes that if node is nil. c must not be shared.
func (c *children[N]) set(text string, node *N) {
	hash := maphash.String(seed, text)
	at := c.place(text, hash)
	switch there := at < len(c.slots) && c.slots[at].node != nil; {
	case there && node == nil:
		c.remove(at)
	case there:
		c.slots[at].node = node
	case node == nil:
	case len(c.slots) < fewMax:
		c.slots = append(c.slots, child[N]{text, node, hash})
		c.n++
	default:
		if len(c.slots) == fewMax || 4*c.n >= 3*len(c.slots) {
			c.grow()
			at = c.place(text, hash)
		}
		c.slots[at] = child[N]{text, node, hash}
		c.n++
	}
}

// place returns where the child with that text is, or where it belongs.
func (c *children[N]) place(text string, hash uint64) int {
	if len(c.slots) <= fewMax {
		if i := slices.IndexFunc(c.slots, func(s child[N]) bool { return s.text == text }); i >= 0 {
			return i
		}
		return len(c.slots)
	}
	i := c.home(hash)
	for c.slots[i].node != nil && c.slots[i].text != text {
		i = c.home(uint64(i + 1))
	}
	return i
}

// home is where looking for a hash begins.
func (c *children[N]) home(hash uint64) int { return int(hash & uint64(len(c.slots)-1)) }

// grow makes room for twice as many.
func (c *children[N]) grow() {
	old := c.slots
	c.slots = make([]child[N], max(2*len(old), 2*fewMax))
	for _, s := range old {
		if s.node != nil {
			c.slots[c.place(s.text, s.hash)] = s
		}
	}
}

// remove takes out a child.
func (c *children[N]) remove(at int) {
	c.n--
	if len(c.slots) <= fewMax {
		c.slots = slices.Delete(c.slots, at, at+1)
		return
	}
	// What follows moves up, unless it would come before where looking for it begins (Knuth, 6.4, algorithm R).
	for i := c.home(uint64(at + 1)); c.slots[i].node != nil; i = c.home(uint64(i + 1)) {
		if far := i - c.home(c.slots[i].hash); c.home(uint64(far)) >= c.home(uint64(i-at)) {
			c.slots[at] = c.slots[i]
			at = i
		}
	}
	c.slots[at] = child[N]{}
}

func (c *children[N]) clone() children[N] { return children[N]{slices.Clone(c.slots), c.n} }

func (c *children[N]) len() int { return c.n }

// all calls f for every child.
func (c *children[N]) all(f func(*N)) {
	for i := range c.slots {
		if n := c.slots[i].node; n != nil {
			f(n)
		}
	}
}
