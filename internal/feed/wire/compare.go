package wire

import (
	"encoding/binary"
	"fmt"

	"hansa.dev/hansa/internal/snapshot"
)

// digestBytes is how much of a digest is sent to find the buckets that differ. Two different buckets with the same 8
// bytes would go unnoticed here, but not at the root, which is compared in full.
const digestBytes = 8

// Digests are the short digests of all buckets or shards of a content.
type Digests [snapshot.Buckets][digestBytes]byte

// DigestsOf collects the digests of a content.
func DigestsOf(digest func(i int) snapshot.Hash) *Digests {
	d := new(Digests)
	for i := range d {
		h := digest(i)
		copy(d[i][:], h[:])
	}
	return d
}

// Encoded returns the form of digests in a message.
func (d *Digests) Encoded() []byte {
	b := make([]byte, 0, len(d)*digestBytes)
	for i := range d {
		b = append(b, d[i][:]...)
	}
	return b
}

// ParseDigests reads digests.
func ParseDigests(b []byte) (*Digests, error) {
	d := new(Digests)
	if len(b) != len(d)*digestBytes {
		return nil, fmt.Errorf("%w digests: %d bytes instead of %d", snapshot.ErrMalformed, len(b), len(d)*digestBytes)
	}
	for i := range d {
		copy(d[i][:], b[i*digestBytes:])
	}
	return d, nil
}

// Empty tells whether bucket i is empty.
func (d *Digests) Empty(i int) bool { return d[i] == [digestBytes]byte{} }

// Equal tells whether bucket i has the digest h, as far as can be told.
func (d *Digests) Equal(i int, h snapshot.Hash) bool {
	return d[i] == [digestBytes]byte(h[:digestBytes])
}

// ItemHash is the part of an entry's hash that a listing holds.
type ItemHash [16]byte

// ListingOf is what one bucket of a set holds.
type ListingOf struct {
	Bucket int
	Items  []Item
}

// Item is one entry of a listing.
type Item struct {
	Key  string
	Hash ItemHash
}

// ItemOf returns the item of an entry.
func ItemOf(e snapshot.Entry) Item { return Item{Key: e.Key, Hash: ItemHash(e.Hash[:16])} }

// AppendListing appends the listing of one bucket.
func AppendListing(dst []byte, set *snapshot.Set, bucket int) []byte {
	dst = binary.AppendUvarint(dst, uint64(bucket))
	n := 0
	for range set.Bucket(bucket) {
		n++
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for e := range set.Bucket(bucket) {
		dst = binary.AppendUvarint(dst, uint64(len(e.Key)))
		dst = append(dst, e.Key...)
		dst = append(dst, e.Hash[:len(ItemHash{})]...)
	}
	return dst
}

// ParseListing reads the listings of any number of buckets.
func ParseListing(raw []byte) ([]ListingOf, error) {
	var all []ListingOf
	for len(raw) > 0 {
		bucket, rest, err := takeUvarint(raw, snapshot.Buckets-1)
		if err != nil {
			return nil, err
		}
		n, rest, err := takeUvarint(rest, uint64(len(rest))) // an item has more than one byte
		if err != nil {
			return nil, err
		}
		l := ListingOf{Bucket: int(bucket)}
		for range n {
			var key []byte
			if key, rest, err = takeBytes(rest, snapshot.MaxKeyBytes); err != nil {
				return nil, err
			}
			item := Item{Key: string(key)}
			if len(rest) < len(item.Hash) || snapshot.BucketOf(item.Key) != l.Bucket {
				return nil, fmt.Errorf("%w listing of bucket %d at key %q", snapshot.ErrMalformed, bucket, item.Key)
			}
			rest = rest[copy(item.Hash[:], rest):]
			l.Items = append(l.Items, item)
		}
		all = append(all, l)
		raw = rest
	}
	return all, nil
}
