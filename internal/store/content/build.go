package content

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"hansa.dev/hansa/internal/store"
)

// pendingLimit is how many bytes of changed credentials a Builder collects before it merges them, so that a million
// changes copy every shard a few times and not hundreds of times.
const pendingLimit = 32 << 20

// Builder makes the State that follows another. It is for one goroutine and one State.
type Builder struct {
	next    *State
	pending map[string]*pendingCredentials // by organization
	arena   []byte                         // the records of pending
}

// pendingCredentials are changes of one organization that are not merged yet, by shard, in the order in which they
// came.
type pendingCredentials struct {
	shards map[int][]pendingChange
}

// pendingChange is a record in the arena, or only a hash if remove is set.
type pendingChange struct {
	start, end int
	remove     bool
}

// Derive begins the State with version v that follows s.
func (s *State) Derive(v store.Version) *Builder {
	s.mu.Lock()
	tree := s.resources.Clone()
	s.mu.Unlock()
	return &Builder{next: &State{version: v, resources: tree, organizations: s.organizations, bytes: s.bytes}}
}

// Apply makes the change that op describes. If it is one of a resource, Apply returns it decoded.
func (b *Builder) Apply(op Op) (store.Change, error) {
	if op.IsCredential() {
		org, rec, err := op.credential()
		if err == nil {
			b.changeCredential(org, rec, op.Code == CodeRemoveCredential)
		}
		return store.Change{}, err
	}
	c, err := op.Change()
	if err != nil {
		return store.Change{}, err
	}
	if c.Object != nil {
		b.put(resource{object: c.Object, size: len(op.payload)})
		return c, nil
	}
	old, ok := b.next.resources.Delete(pivot(c.Key))
	if !ok {
		return store.Change{}, fmt.Errorf("delete %s: there is none", c.Key)
	}
	b.next.bytes -= int64(old.size)
	return c, nil
}

// State returns the finished State. The Builder must not be used any more.
func (b *Builder) State() *State {
	b.merge()
	return b.next
}

func (b *Builder) put(r resource) {
	b.next.bytes += int64(r.size)
	if old, ok := b.next.resources.ReplaceOrInsert(r); ok {
		b.next.bytes -= int64(old.size)
	}
}

// changeCredential notes a change; rec is a record, or only a hash if remove is set.
func (b *Builder) changeCredential(org string, rec []byte, remove bool) {
	if len(b.arena)+len(rec) > pendingLimit {
		b.merge()
	}
	if b.pending == nil {
		b.pending = make(map[string]*pendingCredentials)
	}
	p, ok := b.pending[org]
	if !ok {
		p = &pendingCredentials{shards: make(map[int][]pendingChange)}
		b.pending[org] = p
	}
	start := len(b.arena)
	b.arena = append(b.arena, rec...)
	i := shardOf(rec)
	p.shards[i] = append(p.shards[i], pendingChange{start: start, end: len(b.arena), remove: remove})
}

// merge brings the pending changes into the State.
func (b *Builder) merge() {
	if len(b.pending) == 0 {
		return
	}
	orgs := maps.Clone(b.next.organizations)
	if orgs == nil {
		orgs = make(map[string]*credentials)
	}
	for org, p := range b.pending {
		var next credentials
		if old, ok := orgs[org]; ok {
			next = *old
		}
		next.seq = b.next.version.Seq
		owned := make(map[int]bool) // pages that are copied already
		for i, changes := range p.shards {
			pg := i / pageSize
			if !owned[pg] {
				owned[pg] = true
				var copied page
				if next.pages[pg] != nil {
					copied = *next.pages[pg]
				}
				next.pages[pg] = &copied
			}
			old := next.pages[pg][i%pageSize]
			if old == nil {
				old = &shard{}
			}
			sh := b.mergeShard(old, changes)
			next.n += sh.n - old.n
			next.bytes += int64(len(sh.data) - len(old.data))
			next.pages[pg][i%pageSize] = sh
		}
		orgs[org] = &next
	}
	b.next.organizations = orgs
	b.pending = nil
	b.arena = b.arena[:0]
}

// mergeShard returns what old becomes by the changes.
func (b *Builder) mergeShard(old *shard, changes []pendingChange) *shard {
	hash := func(c pendingChange) []byte { return b.arena[c.start : c.start+hashSize] }
	slices.SortStableFunc(changes, func(x, y pendingChange) int { return bytes.Compare(hash(x), hash(y)) })
	size := len(old.data)
	for _, c := range changes {
		if !c.remove {
			size += c.end - c.start
		}
	}
	next := &shard{seq: b.next.version.Seq, data: make([]byte, 0, size)}
	keep := func(rec []byte) {
		next.data = append(next.data, rec...)
		next.n++
	}
	data := old.data
	for i, c := range changes {
		if i+1 < len(changes) && bytes.Equal(hash(c), hash(changes[i+1])) {
			continue // the later one counts
		}
		for len(data) > 0 {
			r := firstRecord(data)
			order := bytes.Compare(r.hash(), hash(c))
			if order > 0 {
				break
			}
			data = data[len(r):]
			if order == 0 {
				break // replaced or removed
			}
			keep(r)
		}
		if !c.remove {
			keep(b.arena[c.start:c.end])
		}
	}
	for len(data) > 0 {
		r := firstRecord(data)
		data = data[len(r):]
		keep(r)
	}
	if cap(next.data) > len(next.data)+len(next.data)/8 {
		next.data = bytes.Clone(next.data)
	}
	return next
}
