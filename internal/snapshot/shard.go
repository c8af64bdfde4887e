package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
)

// Shard is one of the 4096 parts of a table of credentials: an immutable segment of bytes, the same on every node
// that holds the same credentials, which is looked up as it stands. A nil Shard is the empty one.
//
// The segment, with all fixed-size numbers in little-endian order:
//
//	version  1 byte, 1
//	n, d, t  3 × 4 bytes: credentials, texts, bytes of texts
//	ends     d × 4 bytes: where each text ends
//	texts    t bytes, in ascending order and without repetition
//	hashes   n × 32 bytes, in ascending order
//	ends     n × 4 bytes: where each record ends
//	records  ID, numbers of the four names among the texts, slot and state, times
type Shard struct {
	data   string // a string, so that the texts of a credential can point into it
	n, d   int
	texts  int // offset of texts
	hashes int
	ends   int // of records
	recs   int
	digest Hash
}

const (
	shardVersion = 1
	shardHeader  = 1 + 3*4
)

// ParseShard reads the segment of shard number at. It checks everything that look-ups rely on; what it returns
// is usable whatever the bytes were.
func ParseShard(at int, segment []byte) (*Shard, error) {
	if len(segment) == 0 {
		return nil, nil
	}
	s, err := layout(segment)
	if err == nil {
		err = s.check(at)
	}
	if err != nil {
		return nil, fmt.Errorf("parse credential shard %d: %w", at, err)
	}
	return s, nil
}

// layout finds the parts of a segment, of which it makes a copy.
func layout(segment []byte) (*Shard, error) {
	data := string(segment)
	bad := func() error { return fmt.Errorf("%w segment of %d bytes", ErrMalformed, len(data)) }
	if len(data) < shardHeader || data[0] != shardVersion {
		return nil, bad()
	}
	n, d, t := uint64(le32(data, 1)), uint64(le32(data, 5)), uint64(le32(data, 9))
	recs := shardHeader + d*4 + t + n*(sha256.Size+4)
	if n == 0 || recs > uint64(len(data)) {
		return nil, bad()
	}
	s := &Shard{data: data, n: int(n), d: int(d), texts: shardHeader + 4*int(d)}
	s.hashes = s.texts + int(t)
	s.ends = s.hashes + s.n*sha256.Size
	s.recs = int(recs)
	h := sha256.New()
	h.Write([]byte("hansa shard 1\x00"))
	h.Write(segment)
	h.Sum(s.digest[:0])
	return s, nil
}

// check walks a segment that came from outside.
func (s *Shard) check(at int) error {
	bad := func(what string, i int) error { return fmt.Errorf("%w %s %d", ErrMalformed, what, i) }
	last, text := 0, ""
	for i := range s.d {
		end := int(le32(s.data, shardHeader+4*i))
		if end < last || end > s.hashes-s.texts || end-last > maxCredentialText {
			return bad("text", i)
		}
		if t := s.data[s.texts+last : s.texts+end]; i > 0 && t <= text {
			return bad("text", i)
		}
		text, last = s.data[s.texts+last:s.texts+end], end
	}
	if last != s.hashes-s.texts {
		return bad("text", s.d)
	}
	last = 0
	for i := range s.n {
		h := s.hash(i)
		if h.Shard() != at || i > 0 && s.data[s.hashes+(i-1)*len(h):s.hashes+i*len(h)] >= string(h[:]) {
			return bad("hash", i)
		}
		end := int(le32(s.data, s.ends+4*i))
		if end < last || end > len(s.data)-s.recs {
			return bad("record", i)
		}
		r := reader[string]{b: s.data[s.recs+last : s.recs+end]}
		s.read(&r, h)
		if r.err != nil || r.b != "" {
			return bad("record", i)
		}
		last = end
	}
	if last != len(s.data)-s.recs {
		return bad("record", s.n)
	}
	return nil
}

// Digest is the digest of the segment; zero for the empty shard.
func (s *Shard) Digest() Hash {
	if s == nil {
		return Hash{}
	}
	return s.digest
}

// Len is the number of credentials.
func (s *Shard) Len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// Size is the number of bytes of the segment.
func (s *Shard) Size() int {
	if s == nil {
		return 0
	}
	return len(s.data)
}

// AppendTo appends the segment.
func (s *Shard) AppendTo(dst []byte) []byte {
	if s == nil {
		return dst
	}
	return append(dst, s.data...)
}

// Lookup returns the credential with that hash. It does not allocate; the texts of the credential keep the shard
// in memory.
func (s *Shard) Lookup(hash CredentialHash) (Credential, bool) {
	i, ok := s.Find(hash)
	if !ok {
		return Credential{}, false
	}
	return s.at(i), true
}

// Find returns the place of the credential with that hash among the Len credentials of the shard.
func (s *Shard) Find(hash CredentialHash) (int, bool) {
	if s == nil {
		return 0, false
	}
	lo, hi := 0, s.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.data[s.hashes+mid*len(hash):s.hashes+(mid+1)*len(hash)] < string(hash[:]) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < s.n && s.hash(lo) == hash
}

// At returns the credential at a place below Len. The texts of the credential keep the shard in memory.
func (s *Shard) At(i int) Credential { return s.at(i) }

// All yields the credentials in order of hash.
func (s *Shard) All() iter.Seq[Credential] {
	return func(yield func(Credential) bool) {
		for i := range s.Len() {
			if !yield(s.at(i)) {
				return
			}
		}
	}
}

// With returns the shard that results from the changes. All of them must belong to this shard; of two with one
// hash the last counts.
func (s *Shard) With(changes []CredentialChange) *Shard {
	return new(shardMaker).with(s, slices.Clone(changes))
}

// shardMaker makes shards, one after the other in the same memory, so that a change of a whole table leaves little
// behind.
type shardMaker struct {
	merged []Credential
	texts  []string
	buf    []byte
}

// with is Shard.With. It brings the changes into another order.
func (m *shardMaker) with(s *Shard, changes []CredentialChange) *Shard {
	slices.SortStableFunc(changes, func(a, b CredentialChange) int { return a.Credential.Hash.Compare(b.Credential.Hash) })
	merged := slices.Grow(m.merged[:0], s.Len()+len(changes))
	i, dirty := 0, false
	for len(changes) > 0 {
		c := &changes[0]
		changes = changes[1:]
		if len(changes) > 0 && changes[0].Credential.Hash == c.Credential.Hash {
			continue
		}
		for ; i < s.Len() && s.hash(i).Compare(c.Credential.Hash) < 0; i++ {
			merged = append(merged, s.at(i))
		}
		found := i < s.Len() && s.hash(i) == c.Credential.Hash
		if c.Remove {
			dirty = dirty || found
		} else {
			dirty = dirty || !found || s.at(i) != c.Credential
			merged = append(merged, c.Credential)
		}
		if found {
			i++
		}
	}
	m.merged = merged
	if !dirty {
		return s
	}
	for ; i < s.Len(); i++ {
		merged = append(merged, s.at(i))
	}
	m.merged = merged
	return m.encode(merged)
}

// encode makes a shard of credentials that are in order of hash.
func (m *shardMaker) encode(credentials []Credential) *Shard {
	if len(credentials) == 0 {
		return nil
	}
	texts := slices.Grow(m.texts[:0], 4*len(credentials))
	for i := range credentials {
		c := &credentials[i]
		texts = append(texts, c.Organization, c.Subscription, c.Application, c.Product)
	}
	m.texts = texts
	slices.Sort(texts)
	texts = slices.Compact(texts)
	size := 0
	for _, t := range texts {
		size += len(t)
	}
	b := append(m.buf[:0], shardVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(credentials)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(texts)))
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	end := uint32(0)
	for _, t := range texts {
		end += uint32(len(t))
		b = binary.LittleEndian.AppendUint32(b, end)
	}
	for _, t := range texts {
		b = append(b, t...)
	}
	for i := range credentials {
		b = append(b, credentials[i].Hash[:]...)
	}
	ends := len(b)
	b = append(b, make([]byte, 4*len(credentials))...)
	recs := len(b)
	for i := range credentials {
		c := &credentials[i]
		b = appendString(b, c.ID)
		for _, t := range [...]string{c.Organization, c.Subscription, c.Application, c.Product} {
			at, _ := slices.BinarySearch(texts, t)
			b = binary.AppendUvarint(b, uint64(at))
		}
		b = append(b, byte(c.Slot)<<4|byte(c.State))
		b = binary.AppendUvarint(b, uint64(c.CreatedAt))
		b = binary.AppendUvarint(b, uint64(c.ExpiresAt))
		binary.LittleEndian.PutUint32(b[ends+4*i:], uint32(len(b)-recs))
	}
	m.buf = b
	s, err := layout(b) // which copies b
	if err != nil {
		panic(fmt.Sprintf("snapshot: own shard: %v", err)) // unreachable: the parts add up by construction
	}
	return s
}

func (s *Shard) hash(i int) (h CredentialHash) {
	copy(h[:], s.data[s.hashes+i*len(h):])
	return h
}

// at decodes one credential of a segment that is known to be sound.
func (s *Shard) at(i int) Credential {
	begin := 0
	if i > 0 {
		begin = int(le32(s.data, s.ends+4*(i-1)))
	}
	r := reader[string]{b: s.data[s.recs+begin : s.recs+int(le32(s.data, s.ends+4*i))]}
	return s.read(&r, s.hash(i))
}

func (s *Shard) read(r *reader[string], hash CredentialHash) (c Credential) {
	c.Hash = hash
	c.ID = r.text(maxCredentialText)
	c.Organization = s.text(r)
	c.Subscription = s.text(r)
	c.Application = s.text(r)
	c.Product = s.text(r)
	readTail(r, &c)
	return c
}

// text takes the number of a text and returns the text.
func (s *Shard) text(r *reader[string]) string {
	i := r.uvarint()
	if i >= uint64(s.d) {
		r.fail()
		return ""
	}
	begin := uint32(0)
	if i > 0 {
		begin = le32(s.data, shardHeader+4*(int(i)-1))
	}
	end := le32(s.data, shardHeader+4*int(i))
	return s.data[s.texts+int(begin) : s.texts+int(end)]
}

func le32(s string, at int) uint32 {
	_ = s[at+3]
	return uint32(s[at]) | uint32(s[at+1])<<8 | uint32(s[at+2])<<16 | uint32(s[at+3])<<24
}

// CredentialChange is one change of a credential: a new value, or its removal.
type CredentialChange struct {
	Credential Credential
	Remove     bool // only Hash counts
}
