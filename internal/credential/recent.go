package credential

import (
	"encoding/binary"
	"sync/atomic"

	"hansa.dev/hansa/internal/snapshot"
)

// recent holds records that were looked up lately. Finding one in its segment takes seven reads of memory far apart, here it
// takes two: a bucket and the record.
type recent [recentBuckets]bucket

const (
	recentBuckets = 1 << 13 // a power of two
	bucketRecords = 5
)

// bucket is the place of all records whose hashes end alike. It takes one line of the processor's cache. What is written
// by two at once may come apart, and a tag then does not belong to its record: it only tells where to look first.
type bucket struct {
	tags    [bucketRecords]atomic.Uint32
	records [bucketRecords]atomic.Pointer[Record]
}

// of returns the bucket of a hash and its tag. It is not the begin of the hash that decides: that is the shard's.
func (t *recent) of(hash *snapshot.CredentialHash) (*bucket, uint32) {
	end := binary.LittleEndian.Uint64(hash[len(hash)-8:])
	return &t[end%recentBuckets], uint32(end >> 32)
}

// find returns the record with that hash, or nil.
func (t *recent) find(hash *snapshot.CredentialHash) *Record {
	b, tag := t.of(hash)
	for i := range b.tags {
		if b.tags[i].Load() != tag {
			continue
		}
		if r := b.records[i].Load(); r != nil && sameHash(&r.hash, hash) && !r.gone.Load() {
			return r
		}
	}
	return nil
}

// keep puts a record in a place that is free, or in that of another.
func (t *recent) keep(r *Record) {
	b, tag := t.of(&r.hash)
	at := int(tag % bucketRecords)
	for i := range b.records {
		if old := b.records[i].Load(); old == nil || old.gone.Load() {
			at = i
			break
		}
	}
	b.records[at].Store(r)
	b.tags[at].Store(tag)
}

// forget takes a record out, which is gone.
func (t *recent) forget(r *Record) {
	b, _ := t.of(&r.hash)
	for i := range b.records {
		b.records[i].CompareAndSwap(r, nil)
	}
}

// sameHash compares in constant time.
func sameHash(a, b *snapshot.CredentialHash) bool {
	differ := uint64(0)
	for i := 0; i < len(a); i += 8 {
		differ |= binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:])
	}
	return differ == 0
}
