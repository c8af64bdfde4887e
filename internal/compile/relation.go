package compile

import (
	"iter"

	"github.com/google/btree"
)

// tuple is the key of a row. Unused places are empty.
type tuple [6]string

// relation is an ordered set of rows with cheap clones: what a change does not touch is shared (copy on write).
type relation[V any] struct {
	tree *btree.BTreeG[row[V]]
}

type row[V any] struct {
	key tuple
	val V
}

func newRelation[V any]() relation[V] {
	const degree = 32
	return relation[V]{tree: btree.NewG(degree, func(a, b row[V]) bool { return a.key.less(&b.key) })}
}

func (t *tuple) less(u *tuple) bool {
	for i := range t {
		if t[i] != u[i] {
			return t[i] < u[i]
		}
	}
	return false
}

// clone returns a relation that can be changed without changing r. Two clones must not be made at the same time.
func (r relation[V]) clone() relation[V] { return relation[V]{tree: r.tree.Clone()} }

func (r relation[V]) put(key tuple, v V) { r.tree.ReplaceOrInsert(row[V]{key, v}) }
func (r relation[V]) delete(key tuple)   { r.tree.Delete(row[V]{key: key}) }

// with yields the rows whose key begins with the given places, in order.
func (r relation[V]) with(prefix ...string) iter.Seq2[tuple, V] {
	return func(yield func(tuple, V) bool) {
		r.tree.AscendGreaterOrEqual(row[V]{key: start(prefix)}, func(x row[V]) bool {
			return x.key.has(prefix) && yield(x.key, x.val)
		})
	}
}

// next yields the different values of the place after the prefix, in order. It costs one look-up each, however many
// rows share a value.
func (r relation[V]) next(prefix ...string) iter.Seq[string] {
	return func(yield func(string) bool) {
		from := start(prefix)
		for {
			found := false
			r.tree.AscendGreaterOrEqual(row[V]{key: from}, func(x row[V]) bool {
				if x.key.has(prefix) {
					found = true
					from = start(x.key[:len(prefix)+1])
				}
				return false
			})
			if !found || !yield(from[len(prefix)]) {
				return
			}
			from[len(prefix)] += "\x00" // the first text after that value
		}
	}
}

func start(prefix []string) (t tuple) {
	copy(t[:], prefix)
	return t
}

func (t *tuple) has(prefix []string) bool {
	for i, p := range prefix {
		if t[i] != p {
			return false
		}
	}
	return true
}
