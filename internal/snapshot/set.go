package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
)

// Buckets is the number of buckets that entries are spread over by the hash of their key.
const Buckets = 4096

// Set is a configuration: entries with unique keys. It never changes; With derives another one that shares all
// buckets in which nothing changed. The digest of a bucket covers its entries and Root covers the digests, so that
// two sets are equal if their roots are, and what differs is found by comparing digests.
type Set struct {
	buckets [Buckets]*bucket // nil: empty
	root    Hash
	count   int
	bytes   uint64
}

type bucket struct {
	digest  Hash
	entries []Entry // in order of key
}

// NewSet returns the empty set.
func NewSet() *Set {
	s := new(Set)
	s.seal()
	return s
}

// BucketOf returns the bucket of a key: the first 12 bits of the key's SHA-256.
func BucketOf(key string) int {
	sum := sha256.Sum256([]byte(key))
	return int(binary.BigEndian.Uint16(sum[:2]) >> 4)
}

// Get returns the entry with that key.
func (s *Set) Get(key string) (Entry, bool) {
	b := s.buckets[BucketOf(key)]
	if b == nil {
		return Entry{}, false
	}
	i, ok := b.find(key)
	if !ok {
		return Entry{}, false
	}
	return b.entries[i], true
}

// Len is the number of entries.
func (s *Set) Len() int { return s.count }

// Bytes is the sum of the sizes of the entries.
func (s *Set) Bytes() uint64 { return s.bytes }

// Root is the digest over the digests of all buckets.
func (s *Set) Root() Hash { return s.root }

// BucketHash is the digest of one bucket; zero if it is empty.
func (s *Set) BucketHash(i int) Hash {
	if b := s.buckets[i]; b != nil {
		return b.digest
	}
	return Hash{}
}

// Bucket yields the entries of one bucket in order of key.
func (s *Set) Bucket(i int) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		if b := s.buckets[i]; b != nil {
			for _, e := range b.entries {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// All yields all entries in order of bucket and key: an order that is the same everywhere, and means nothing.
func (s *Set) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := range s.buckets {
			for e := range s.Bucket(i) {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Class yields the entries of a class in the order of All.
func (s *Set) Class(class string) iter.Seq[Entry] {
	prefix := class + "/"
	return func(yield func(Entry) bool) {
		for e := range s.All() {
			if strings.HasPrefix(e.Key, prefix) && !yield(e) {
				return
			}
		}
	}
}

// With returns the set that results from removing the keys in dels and then adding or replacing puts; of two puts
// with one key the last counts. The cost follows the size of the change. An entry that is already there with the
// same hash is left as it is, with its Seq.
func (s *Set) With(puts []Entry, dels []string) *Set {
	type change struct {
		bucket int
		key    string
		put    *Entry // nil: delete
	}
	changes := make([]change, 0, len(puts)+len(dels))
	for _, key := range dels {
		changes = append(changes, change{bucket: BucketOf(key), key: key})
	}
	for i := range puts {
		changes = append(changes, change{bucket: BucketOf(puts[i].Key), key: puts[i].Key, put: &puts[i]})
	}
	slices.SortStableFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.key, b.key))
	})

	next := *s
	changed := false
	for len(changes) > 0 {
		at := changes[0].bucket
		old := next.buckets[at]
		edited := old.clone()
		dirty := false
		for len(changes) > 0 && changes[0].bucket == at {
			c := changes[0]
			changes = changes[1:]
			if len(changes) > 0 && changes[0].bucket == at && changes[0].key == c.key {
				continue // a later change of the same key decides
			}
			if edited.set(c.key, c.put) {
				dirty = true
			}
		}
		if !dirty {
			continue
		}
		changed = true
		next.replace(at, old, edited)
	}
	if !changed {
		return s
	}
	next.seal()
	return &next
}

// Diff returns what makes s out of old: old.With(Diff) equals s.
func (s *Set) Diff(old *Set) (puts []Entry, dels []string) {
	for i, b := range s.buckets {
		o := old.buckets[i]
		if b == o || s.BucketHash(i) == old.BucketHash(i) {
			continue
		}
		for e := range s.Bucket(i) {
			if j, ok := o.find(e.Key); !ok || o.entries[j].Hash != e.Hash {
				puts = append(puts, e)
			}
		}
		for e := range old.Bucket(i) {
			if _, ok := b.find(e.Key); !ok {
				dels = append(dels, e.Key)
			}
		}
	}
	return puts, dels
}

// replace puts a changed bucket in the place of old and keeps the sums.
func (s *Set) replace(at int, old, edited *bucket) {
	if old != nil {
		s.count -= len(old.entries)
		s.bytes -= old.size()
	}
	s.count += len(edited.entries)
	s.bytes += edited.size()
	if len(edited.entries) == 0 {
		s.buckets[at] = nil
		return
	}
	edited.seal()
	s.buckets[at] = edited
}

func (s *Set) seal() {
	s.root = rootOf("hansa set 1\x00", func(i int) Hash { return s.BucketHash(i) })
}

// rootOf is the digest over 4096 digests.
func rootOf(domain string, digest func(int) Hash) Hash {
	h := sha256.New()
	h.Write([]byte(domain))
	for i := range Buckets {
		d := digest(i)
		h.Write(d[:])
	}
	var root Hash
	h.Sum(root[:0])
	return root
}

func (b *bucket) find(key string) (int, bool) {
	if b == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(b.entries, key, func(e Entry, key string) int { return cmp.Compare(e.Key, key) })
}

func (b *bucket) clone() *bucket {
	if b == nil {
		return &bucket{}
	}
	return &bucket{entries: slices.Clone(b.entries)}
}

// set stores or deletes one entry and tells whether that changed anything.
func (b *bucket) set(key string, put *Entry) bool {
	i, ok := b.find(key)
	switch {
	case put == nil && !ok, put != nil && ok && b.entries[i].Hash == put.Hash:
		return false
	case put == nil:
		b.entries = slices.Delete(b.entries, i, i+1)
	case ok:
		b.entries[i] = *put
	default:
		b.entries = slices.Insert(b.entries, i, *put)
	}
	return true
}

func (b *bucket) size() (n uint64) {
	for i := range b.entries {
		n += b.entries[i].Size()
	}
	return n
}

func (b *bucket) seal() {
	if len(b.entries) < cap(b.entries) { // inserting left spare room, which would stay for the set's whole life
		b.entries = append(make([]Entry, 0, len(b.entries)), b.entries...)
	}
	h := sha256.New()
	h.Write([]byte("hansa bucket 1\x00"))
	for i := range b.entries {
		h.Write(b.entries[i].Hash[:])
	}
	h.Sum(b.digest[:0])
}
