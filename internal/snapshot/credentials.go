package snapshot

import (
	"fmt"
	"iter"
)

// CredentialShards is the number of shards of a table of credentials.
const CredentialShards = Buckets

// Credentials is a table of credentials by hash, usually those of one organization. It never changes; With and
// Batch derive another one that shares all shards in which nothing changed, so that the record, the feed and the
// gateway can each hold a version of it at the price of one. Root covers the digests of all shards.
type Credentials struct {
	shards [CredentialShards]*Shard
	root   Hash
	count  int
	bytes  uint64
}

// NewCredentials returns the empty table.
func NewCredentials() *Credentials {
	t := new(Credentials)
	t.seal()
	return t
}

// Lookup returns the credential with that hash, without allocating.
func (t *Credentials) Lookup(hash CredentialHash) (Credential, bool) {
	return t.shards[hash.Shard()].Lookup(hash)
}

// Len is the number of credentials.
func (t *Credentials) Len() int { return t.count }

// Bytes is the sum of the sizes of the shards.
func (t *Credentials) Bytes() uint64 { return t.bytes }

// Root is the digest over the digests of all shards.
func (t *Credentials) Root() Hash { return t.root }

// Shard returns one shard; nil if it is empty.
func (t *Credentials) Shard(i int) *Shard { return t.shards[i] }

// All yields all credentials in order of hash.
func (t *Credentials) All() iter.Seq[Credential] {
	return func(yield func(Credential) bool) {
		for _, s := range t.shards {
			for c := range s.All() {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// Changes yields what makes t out of old.
func (t *Credentials) Changes(old *Credentials) iter.Seq[CredentialChange] {
	return func(yield func(CredentialChange) bool) {
		for i, s := range t.shards {
			o := old.shards[i]
			if s == o || s.Digest() == o.Digest() {
				continue
			}
			for c := range s.All() {
				if was, ok := o.Lookup(c.Hash); (!ok || was != c) && !yield(CredentialChange{Credential: c}) {
					return
				}
			}
			for c := range o.All() {
				if _, ok := s.Lookup(c.Hash); !ok && !yield(CredentialChange{Credential: c, Remove: true}) {
					return
				}
			}
		}
	}
}

// With returns the table that results from the changes; of two with one hash the last counts.
func (t *Credentials) With(changes []CredentialChange) *Credentials {
	byShard := make(map[int][]CredentialChange)
	for _, c := range changes {
		at := c.Credential.Hash.Shard()
		byShard[at] = append(byShard[at], c)
	}
	shards := make(map[int]*Shard, len(byShard))
	var m shardMaker
	for at, changes := range byShard {
		shards[at] = m.with(t.shards[at], changes)
	}
	return t.WithShards(shards)
}

// WithShards returns the table with some shards replaced.
func (t *Credentials) WithShards(shards map[int]*Shard) *Credentials {
	next, changed := *t, false
	for at, s := range shards {
		changed = next.replace(at, s) || changed
	}
	if !changed {
		return t
	}
	next.seal()
	return &next
}

func (t *Credentials) replace(at int, s *Shard) bool {
	old := t.shards[at]
	if old.Digest() == s.Digest() {
		return false
	}
	t.count += s.Len() - old.Len()
	t.bytes += uint64(s.Size()) - uint64(old.Size())
	t.shards[at] = s
	return true
}

func (t *Credentials) seal() {
	t.root = rootOf("hansa credentials 1\x00", func(i int) Hash { return t.shards[i].Digest() })
}

// CredentialBatch collects any number of changes to a table in their compact form, so that a million credentials
// take their own size in memory and each shard is made once. It is for one goroutine.
type CredentialBatch struct {
	base    *Credentials
	changes [CredentialShards][]byte
}

// Batch begins a batch of changes.
func (t *Credentials) Batch() *CredentialBatch { return &CredentialBatch{base: t} }

// Add adds a change; of two with one hash the last counts.
func (b *CredentialBatch) Add(c CredentialChange) error {
	if c.Remove {
		c.Credential = Credential{Hash: c.Credential.Hash}
	}
	if err := c.Credential.Validate(); err != nil {
		return err
	}
	at := c.Credential.Hash.Shard()
	b.changes[at] = AppendCredentialChange(b.changes[at], c)
	return nil
}

// Table returns the base with the changes. The batch is empty afterwards.
func (b *CredentialBatch) Table() *Credentials {
	next, changed := *b.base, false
	var m shardMaker
	var changes []CredentialChange
	for at, buf := range &b.changes { // not over a copy, which would keep every buffer
		if buf == nil {
			continue
		}
		changes = changes[:0]
		r := reader[string]{b: string(buf)}
		for r.b != "" {
			changes = append(changes, readCredentialChange(&r))
		}
		changed = next.replace(at, m.with(b.base.shards[at], changes)) || changed
		b.changes[at] = nil // free as we go: a batch can be as large as the table
	}
	if !changed {
		return b.base
	}
	next.seal()
	b.base = &next
	return &next
}

// AppendCredentialChange appends the binary form of a change, which ParseCredentialChange reads.
func AppendCredentialChange(dst []byte, c CredentialChange) []byte {
	dst = append(dst, flag(c.Remove))
	if c.Remove {
		return append(dst, c.Credential.Hash[:]...)
	}
	return AppendCredential(dst, c.Credential)
}

// ParseCredentialChange reads one change from the front of b and returns what follows.
func ParseCredentialChange(b []byte) (CredentialChange, []byte, error) {
	r := reader[[]byte]{b: b}
	c := readCredentialChange(&r)
	if r.err != nil {
		return CredentialChange{}, nil, fmt.Errorf("parse credential change: %w", r.err)
	}
	return c, r.b, nil
}

func readCredentialChange[T ~string | ~[]byte](r *reader[T]) (c CredentialChange) {
	switch r.byte() {
	case 0:
		c.Credential = readCredential(r)
	case 1:
		c.Credential.Hash = r.hash()
		c.Remove = true
	default:
		r.fail()
	}
	return c
}
