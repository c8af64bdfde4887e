package control

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
)

// overlay is a state with some resources changed on top: the prospective state of a change set. Credentials and the
// version are those of the state below.
type overlay struct {
	store.State
	changed map[v1.Key]*v1.Object // nil: deleted
	puts    map[v1.Kind][]*v1.Object
}

func newOverlay(base store.State, puts []*v1.Object, deletes []v1.Key) *overlay {
	o := &overlay{State: base, changed: make(map[v1.Key]*v1.Object, len(puts)+len(deletes)), puts: map[v1.Kind][]*v1.Object{}}
	for _, k := range deletes {
		o.changed[k] = nil
	}
	for _, p := range puts {
		o.changed[p.Key()] = p
		o.puts[p.Kind] = append(o.puts[p.Kind], p)
	}
	for _, list := range o.puts {
		slices.SortFunc(list, byName)
	}
	return o
}

func byName(a, b *v1.Object) int {
	return cmp.Or(strings.Compare(a.Metadata.Organization, b.Metadata.Organization), strings.Compare(a.Metadata.Name, b.Metadata.Name))
}

// Get implements store.State.
func (o *overlay) Get(k v1.Key) (*v1.Object, bool) {
	if c, ok := o.changed[k]; ok {
		return c, c != nil
	}
	return o.State.Get(k)
}

// List implements store.State: it merges what is put on top into what is below, both in order.
func (o *overlay) List(kind v1.Kind, organization, after string) iter.Seq[*v1.Object] {
	return func(yield func(*v1.Object) bool) {
		top := slices.Clone(o.puts[kind])
		top = slices.DeleteFunc(top, func(p *v1.Object) bool {
			return organization != "" && p.Metadata.Organization != organization || after != "" && p.Metadata.Name <= after
		})
		for below := range o.State.List(kind, organization, after) {
			if _, covered := o.changed[below.Key()]; covered {
				continue
			}
			for len(top) > 0 && byName(top[0], below) < 0 {
				if !yield(top[0]) {
					return
				}
				top = top[1:]
			}
			if !yield(below) {
				return
			}
		}
		for _, p := range top {
			if !yield(p) {
				return
			}
		}
	}
}
