package content

import (
	"fmt"
	"maps"

	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

// pendingLimit is how many changes of credentials a Builder collects before it merges them. A merge holds the shards
// before and after it and the changes, so more of them save nothing unless the changes outgrow the shards: a million
// changes are some 130 MB.
const pendingLimit = 1 << 20

// Builder makes the State that follows another. It is for one goroutine and one State.
type Builder struct {
	next    *State
	pending map[string]*snapshot.CredentialBatch // by organization
	count   int                                  // of changes in pending
}

// Derive begins the State with version v that follows s.
func (s *State) Derive(v store.Version) *Builder {
	s.mu.Lock()
	tree := s.resources.Clone()
	s.mu.Unlock()
	return &Builder{next: &State{version: v, resources: tree, organizations: s.organizations, none: s.none, bytes: s.bytes}}
}

// Apply makes the change that op describes. If it is one of a resource, Apply returns it decoded.
func (b *Builder) Apply(op Op) (store.Change, error) {
	if op.IsCredential() {
		c, err := op.CredentialChange()
		if err == nil {
			err = b.changeCredential(c)
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

// changeCredential notes a change of a credential.
func (b *Builder) changeCredential(c store.CredentialChange) error {
	if b.count == pendingLimit {
		b.merge()
	}
	org := c.Credential.Organization
	batch, ok := b.pending[org]
	if !ok {
		if b.pending == nil {
			b.pending = make(map[string]*snapshot.CredentialBatch)
		}
		batch = b.next.CredentialTable(org).Batch()
		b.pending[org] = batch
	}
	b.count++
	return batch.Add(snapshot.CredentialChange{Credential: c.Credential, Remove: c.Remove})
}

// merge brings the pending changes into the State.
func (b *Builder) merge() {
	if len(b.pending) == 0 {
		return
	}
	orgs := maps.Clone(b.next.organizations)
	if orgs == nil {
		orgs = make(map[string]credentials)
	}
	for org, batch := range b.pending {
		// What removes nothing, or puts what is there, changes neither the table nor its seq.
		old, ok := orgs[org]
		if table := batch.Table(); ok && table != old.table || !ok && table.Len() > 0 {
			orgs[org] = credentials{table: table, seq: b.next.version.Seq}
		}
	}
	b.next.organizations, b.pending, b.count = orgs, nil, 0
}
