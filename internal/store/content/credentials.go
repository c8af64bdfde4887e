package content

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"hansa.dev/hansa/internal/snapshot"
)

const (
	// shardBits is how many of the first bits of a hash choose its shard.
	shardBits = 12
	// pageBits is how many of them choose the page of the shard, so that an organization with few credentials does
	// not pay for 4096 pointers.
	pageBits   = 6
	shardCount = 1 << shardBits
	pageCount  = 1 << pageBits
	pageSize   = shardCount / pageCount
)

// credentials are those of one organization. They never change.
type credentials struct {
	seq   uint64 // the last change set that changed one
	n     int
	bytes int64
	pages [pageCount]*page
}

type page [pageSize]*shard

// shard holds the records whose hashes begin with the same 12 bits, in order.
type shard struct {
	seq  uint64 // the last change set that changed it
	n    int
	data []byte
}

// shardOf returns the number of the shard that holds hash.
func shardOf(hash []byte) int { return int(hash[0])<<4 | int(hash[1])>>4 }

// shard returns the shard with number i; nil if it is empty and never held anything.
func (c *credentials) shard(i int) *shard {
	p := c.pages[i/pageSize]
	if p == nil {
		return nil
	}
	return p[i%pageSize]
}

// find returns the record with that hash.
func (c *credentials) find(hash snapshot.CredentialHash) (record, bool) {
	sh := c.shard(shardOf(hash[:]))
	if sh == nil {
		return nil, false
	}
	for data := sh.data; len(data) > 0; {
		r := firstRecord(data)
		switch bytes.Compare(r.hash(), hash[:]) {
		case 0:
			return r, true
		case 1:
			return nil, false
		}
		data = data[len(r):]
	}
	return nil, false
}

// all yields every record in order of hash.
func (c *credentials) all() iter.Seq[record] {
	return func(yield func(record) bool) {
		for i := range shardCount {
			sh := c.shard(i)
			if sh == nil {
				continue
			}
			for data := sh.data; len(data) > 0; {
				r := firstRecord(data)
				if !yield(r) {
					return
				}
				data = data[len(r):]
			}
		}
	}
}

// record is one encoded credential without its organization: the hash, the length of the rest, and the rest, which
// is slot, state, createdAt, expiresAt, id, subscription, application and product. Records in a State are whole:
// they were checked by parseRecord when they came in.
type record []byte

const hashSize = len(snapshot.CredentialHash{})

var errRecord = errors.New("credential record is malformed")

// firstRecord cuts the first record off data, which holds whole records.
func firstRecord(data []byte) record {
	rest, n := binary.Uvarint(data[hashSize:])
	return record(data[:hashSize+n+int(rest)])
}

func (r record) hash() []byte { return r[:hashSize] }

// appendRecord appends the record of c.
func appendRecord(dst []byte, c *snapshot.Credential) []byte {
	var scratch [128]byte
	rest := append(scratch[:0], byte(c.Slot), byte(c.State))
	rest = binary.AppendVarint(rest, c.CreatedAt)
	rest = binary.AppendVarint(rest, c.ExpiresAt)
	for _, s := range [...]string{c.ID, c.Subscription, c.Application, c.Product} {
		rest = appendString(rest, s)
	}
	dst = append(dst, c.Hash[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(rest)))
	return append(dst, rest...)
}

// parseRecord checks that data begins with a whole record and cuts it off.
func parseRecord(data []byte) (r record, rest []byte, err error) {
	if len(data) < hashSize {
		return nil, nil, errRecord
	}
	size, n := binary.Uvarint(data[hashSize:])
	if n <= 0 || size > uint64(len(data)-hashSize-n) {
		return nil, nil, errRecord
	}
	end := hashSize + n + int(size)
	r = record(data[:end])
	if c, ok := r.decode(); !ok || !bytes.Equal(appendRecord(nil, &c), r) {
		return nil, nil, errRecord
	}
	return r, data[end:], nil
}

// fields returns what follows the length.
func (r record) fields() []byte {
	_, n := binary.Uvarint(r[hashSize:])
	return r[hashSize+n:]
}

// subscription returns the name of the subscription without copying it.
func (r record) subscription() []byte {
	b := r.fields()[2:]
	_, n := binary.Varint(b)
	_, m := binary.Varint(b[n:])
	b = b[n+m:]
	_, b, _ = cutString(b)
	s, _, _ := cutString(b)
	return s
}

// credential decodes r, which is whole.
func (r record) credential(organization string) snapshot.Credential {
	c, ok := r.decode()
	if !ok {
		panic(fmt.Sprintf("credential record %x was not checked", r.hash()))
	}
	c.Organization = organization
	return c
}

func (r record) decode() (snapshot.Credential, bool) {
	var c snapshot.Credential
	copy(c.Hash[:], r)
	b := r.fields()
	if len(b) < 2 {
		return c, false
	}
	c.Slot, c.State = snapshot.Slot(b[0]), snapshot.State(b[1])
	b = b[2:]
	for _, v := range [...]*int64{&c.CreatedAt, &c.ExpiresAt} {
		n := 0
		if *v, n = binary.Varint(b); n <= 0 {
			return c, false
		}
		b = b[n:]
	}
	for _, s := range [...]*string{&c.ID, &c.Subscription, &c.Application, &c.Product} {
		var v []byte
		ok := false
		if v, b, ok = cutString(b); !ok {
			return c, false
		}
		*s = string(v)
	}
	return c, len(b) == 0
}

// appendString appends the length of s and s.
func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// cutString cuts off what appendString appended.
func cutString(b []byte) (s, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}
