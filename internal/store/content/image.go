package content

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
)

// An image of a State is a number of parts, each a run of changes that make that part out of nothing. Resources are
// spread over parts by the hash of their key, credentials by their shard, so that a change touches one part and the
// next image writes only that one anew.

// partBytes is how large a part becomes at least, if there is more than one. A change of a few bytes costs the next
// image a part, and every part costs some 100 bytes in the list of parts.
const partBytes = 64 << 10

// maxParts is how many parts the resources, or the credentials of one organization, have at most.
const maxParts = snapshot.CredentialShards

// PartID says what a part holds: one share in Of of the resources or of the credentials of an organization.
type PartID struct {
	Credentials  bool   `json:"credentials,omitempty"`
	Organization string `json:"organization,omitempty"` // only of credentials
	Index        int    `json:"index"`
	Of           int    `json:"of"` // a power of two
}

// group is the PartID without the index.
func (id PartID) group() PartID {
	id.Index = 0
	id.Of = 0
	return id
}

// Validate tells whether id can be that of a part.
func (id PartID) Validate() error {
	if id.Of < 1 || id.Of > maxParts || bits.OnesCount(uint(id.Of)) != 1 || id.Index < 0 || id.Index >= id.Of || !id.Credentials && id.Organization != "" {
		return fmt.Errorf("no image has a part %+v", id)
	}
	return nil
}

// Part is one part of an image.
type Part struct {
	ID PartID
	// Changed says that the part is not as it was in the image before.
	Changed bool

	seq       uint64
	resources []resource
	table     *snapshot.Credentials
}

// Append appends the changes that make the part.
func (p *Part) Append(dst []byte) ([]byte, error) {
	if !p.ID.Credentials {
		for _, r := range p.resources {
			var err error
			if dst, err = AppendPut(dst, r.object); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}
	size := snapshot.CredentialShards / p.ID.Of
	empty := true
	for i := p.ID.Index * size; i < (p.ID.Index+1)*size; i++ {
		if s := p.table.Shard(i); s != nil {
			dst = appendShard(dst, p.ID.Organization, p.seq, i, s)
			empty = false
		}
	}
	if empty { // it still says when the organization's credentials last changed
		dst = appendShard(dst, p.ID.Organization, p.seq, p.ID.Index*size, nil)
	}
	return dst, nil
}

// Image is what has to be known of an image to tell what changed since. It keeps nothing of the content in memory.
type Image struct {
	seq     uint64
	of      map[PartID]int           // the number of parts of each group
	counts  map[PartID]int           // the resources in each part
	digests map[PartID]snapshot.Hash // of the credentials in each part
	seqs    map[string]uint64        // when the credentials of each organization last changed
}

func newImage(seq uint64) *Image {
	return &Image{
		seq: seq, of: make(map[PartID]int), counts: make(map[PartID]int),
		digests: make(map[PartID]snapshot.Hash), seqs: make(map[string]uint64),
	}
}

// Parts lays out the image of s, given the one before it, which may be nil. It returns all parts and what the next
// call is to be given.
func (s *State) Parts(old *Image) ([]Part, *Image) {
	if old == nil {
		old = &Image{}
	}
	next := newImage(s.version.Seq)
	parts := s.resourceParts(old, next)
	for _, org := range s.credentialOrganizations("") {
		c := s.organizations[org]
		group := PartID{Credentials: true, Organization: org}
		of := chooseOf(int64(c.table.Bytes()), old.of[group])
		next.of[group], next.seqs[org] = of, c.seq
		first, changed := len(parts), false
		for i := range of {
			p := Part{ID: group, seq: c.seq, table: c.table}
			p.ID.Index, p.ID.Of = i, of
			digest := digestOf(c.table, p.ID)
			was, ok := old.digests[p.ID]
			p.Changed = !ok || was != digest
			changed = changed || p.Changed
			next.digests[p.ID] = digest
			parts = append(parts, p)
		}
		// What changed there and back is in no part, but one has to say when.
		parts[first].Changed = parts[first].Changed || !changed && c.seq != old.seqs[org]
	}
	return parts, next
}

// resourceParts are the parts that hold the resources.
func (s *State) resourceParts(old, next *Image) []Part {
	group := PartID{}
	of := chooseOf(s.bytes, old.of[group])
	next.of[group] = of
	parts := make([]Part, of)
	for i := range parts {
		parts[i].ID = PartID{Index: i, Of: of}
	}
	s.resources.Ascend(func(r resource) bool {
		p := &parts[bucketOf(r.object.Key(), of)]
		p.resources = append(p.resources, r)
		p.Changed = p.Changed || r.object.Metadata.Seq > old.seq
		return true
	})
	for i := range parts {
		p := &parts[i]
		next.counts[p.ID] = len(p.resources)
		// Without a newer resource a part can only have lost some.
		was, ok := old.counts[p.ID]
		p.Changed = p.Changed || !ok || was != len(p.resources)
	}
	return parts
}

// Loaded returns what Parts is to be given for the image with these parts, after s was made from it.
func (s *State) Loaded(ids []PartID) *Image {
	im := newImage(s.version.Seq)
	for _, id := range ids {
		im.of[id.group()] = id.Of
		if id.Credentials {
			im.digests[id] = digestOf(s.CredentialTable(id.Organization), id)
			im.seqs[id.Organization] = s.CredentialSeq(id.Organization)
		} else {
			im.counts[id] = 0
		}
	}
	if of := im.of[PartID{}]; of > 0 {
		s.resources.Ascend(func(r resource) bool {
			im.counts[PartID{Index: bucketOf(r.object.Key(), of), Of: of}]++
			return true
		})
	}
	return im
}

// chooseOf returns the number of parts for so many bytes. It stays with what it was unless that is off by more than
// four, because another number means writing every part.
func chooseOf(size int64, was int) int {
	of := 1
	for of < maxParts && size/int64(2*of) >= partBytes {
		of *= 2
	}
	if was > 0 && of <= 4*was && was <= 4*of {
		return was
	}
	return of
}

// bucketOf returns the part of a resource.
func bucketOf(k v1.Key, of int) int {
	h := fnv.New64a()
	h.Write(appendKey(nil, k)) // never fails
	sum := h.Sum64()
	return int((sum ^ sum>>32) & uint64(of-1))
}

// digestOf returns the digest of the part of a table of credentials that id names.
func digestOf(t *snapshot.Credentials, id PartID) (d snapshot.Hash) {
	size := snapshot.CredentialShards / id.Of
	h := sha256.New()
	for i := id.Index * size; i < (id.Index+1)*size; i++ {
		if shard := t.Shard(i); shard != nil { // its digest covers its hashes, and with them its number
			digest := shard.Digest()
			h.Write(digest[:])
		}
	}
	h.Sum(d[:0])
	return d
}

// appendShard appends the change that sets one shard of an organization's credentials.
func appendShard(dst []byte, org string, seq uint64, index int, s *snapshot.Shard) []byte {
	b := appendString(make([]byte, 0, len(org)+s.Size()+16), org)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, uint64(index))
	return appendOp(dst, codeShard, s.AppendTo(b))
}

// shard decodes what appendShard appended.
func (op Op) shard() (org string, seq uint64, index int, s *snapshot.Shard, err error) {
	bad := errors.New("decode shard of credentials: it is malformed")
	name, b, ok := cutString(op.payload)
	if !ok {
		return "", 0, 0, nil, bad
	}
	seq, n := binary.Uvarint(b)
	if n <= 0 {
		return "", 0, 0, nil, bad
	}
	i, m := binary.Uvarint(b[n:])
	if m <= 0 || i >= snapshot.CredentialShards {
		return "", 0, 0, nil, bad
	}
	s, err = snapshot.ParseShard(int(i), b[n+m:])
	return string(name), seq, int(i), s, err
}

// Loader makes a State out of the parts of its image. It is for one goroutine and one State.
type Loader struct {
	state  *State
	shards map[string]map[int]*snapshot.Shard // by organization and number
	seqs   map[string]uint64
}

// Load begins the State that s, which is empty, becomes by an image.
func (s *State) Load() *Loader {
	return &Loader{state: s, shards: make(map[string]map[int]*snapshot.Shard), seqs: make(map[string]uint64)}
}

// Apply takes one change of a part.
func (l *Loader) Apply(op Op) error {
	switch op.Code {
	case CodePut:
		c, err := op.Change()
		if err != nil {
			return err
		}
		l.state.resources.ReplaceOrInsert(resource{object: c.Object, size: len(op.payload)})
		l.state.bytes += int64(len(op.payload))
		return nil
	case codeShard:
		org, seq, i, s, err := op.shard()
		if err != nil {
			return err
		}
		if l.shards[org] == nil {
			l.shards[org] = make(map[int]*snapshot.Shard)
		}
		l.shards[org][i] = s
		l.seqs[org] = max(l.seqs[org], seq)
		return nil
	}
	return fmt.Errorf("an image does not hold changes with the code %d", op.Code)
}

// State returns the finished State. The Loader must not be used any more.
func (l *Loader) State() *State {
	l.state.organizations = make(map[string]credentials, len(l.shards))
	for org, shards := range l.shards {
		l.state.organizations[org] = credentials{
			table: snapshot.NewCredentials().WithShards(shards), seq: l.seqs[org],
		}
	}
	return l.state
}
