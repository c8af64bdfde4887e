package router

import "maps"

// children are the nodes below a node by the text of their segment. A few are compared one after the other, which is
// quicker and far smaller than a map; many are kept in a map.
type children[N any] struct {
	few  []child[N]
	many map[string]*N
}

type child[N any] struct {
	text string
	node *N
}

// fewMax is where a map begins to be quicker.
const fewMax = 8

func (c *children[N]) find(segment []byte) *N {
	if c.many != nil {
		return c.many[string(segment)]
	}
	for i := range c.few {
		if c.few[i].text == string(segment) {
			return c.few[i].node
		}
	}
	return nil
}

func (c *children[N]) get(text string) *N {
	if c.many != nil {
		return c.many[text]
	}
	for i := range c.few {
		if c.few[i].text == text {
			return c.few[i].node
		}
	}
	return nil
}

// set puts a node in the place of the one with that text, or removes that if node is nil. c must not be shared.
func (c *children[N]) set(text string, node *N) {
	if c.many != nil {
		if node == nil {
			delete(c.many, text)
		} else {
			c.many[text] = node
		}
		return
	}
	for i := range c.few {
		if c.few[i].text != text {
			continue
		}
		if node != nil {
			c.few[i].node = node
			return
		}
		last := len(c.few) - 1
		c.few[i] = c.few[last]
		c.few[last] = child[N]{}
		c.few = c.few[:last]
		return
	}
	if node == nil {
		return
	}
	if len(c.few) < fewMax {
		c.few = append(c.few, child[N]{text, node})
		return
	}
	c.many = make(map[string]*N, 2*fewMax)
	for _, f := range c.few {
		c.many[f.text] = f.node
	}
	c.many[text] = node
	c.few = nil
}

func (c *children[N]) clone() children[N] {
	if c.many != nil {
		return children[N]{many: maps.Clone(c.many)}
	}
	return children[N]{few: append([]child[N](nil), c.few...)}
}

func (c *children[N]) len() int { return len(c.few) + len(c.many) }

// all calls f for every child.
func (c *children[N]) all(f func(*N)) {
	for i := range c.few {
		f(c.few[i].node)
	}
	for _, n := range c.many {
		f(n)
	}
}
