package etcd

import (
	"bytes"
	"errors"
	"strings"

	"hansa.dev/hansa/internal/store"
)

// backupVerifier checks the entries of a backup one after the other. It remembers the names of the pieces, not their
// content, except for the list of the image's parts.
type backupVerifier struct {
	codec *codec
	info  BackupInfo

	origin  headRecord // of an empty record
	head    headRecord
	image   *imageRecord
	last    *change             // the record before the one that comes next
	needed  []digest            // by records after the image
	present map[digest]struct{} // pieces
	lists   map[digest][]byte   // those of the image's list
	rank    int                 // of the kind of key that came last
}

// ranks is the order of the keys in a backup.
const (
	rankNone = iota
	rankMeta
	rankHead
	rankImage
	rankChange
	rankPiece
)

func rankOf(key string) int {
	switch {
	case key == keyMeta:
		return rankMeta
	case key == keyHead:
		return rankHead
	case key == keyImage:
		return rankImage
	case strings.HasPrefix(key, prefixChange):
		return rankChange
	case strings.HasPrefix(key, prefixPiece):
		return rankPiece
	}
	return rankNone
}

// entry checks one entry.
func (v *backupVerifier) entry(key string, value []byte) error {
	rank := rankOf(key)
	if rank < v.rank || rank == rankNone || rank == v.rank && rank < rankChange || rank > rankMeta && v.rank < min(rank-1, rankHead) {
		return corrupt("the backup has %q where it does not belong", key)
	}
	v.rank = rank
	switch rank {
	case rankMeta:
		var meta metaRecord
		if err := decode(key, value, &meta); err != nil {
			return err
		}
		if err := meta.check(); err != nil {
			return err
		}
		v.info.Cluster, v.origin = meta.Cluster, originOf(value)
		return nil
	case rankHead:
		err := decode(key, value, &v.head)
		v.info.Version = v.head.Version
		return err
	case rankImage:
		v.image = new(imageRecord)
		if err := decode(key, value, v.image); err != nil {
			return err
		}
		for _, d := range v.image.List {
			v.lists[d] = nil
		}
		return nil
	case rankChange:
		return v.record(key, value)
	}
	return v.piece(key, value)
}

// record checks that a record continues the chain. The first one may be of any seq; start says whether that is fine.
func (v *backupVerifier) record(key string, value []byte) error {
	var c changeRecord
	if err := decode(key, value, &c); err != nil {
		return err
	}
	after := headRecord{Version: store.Version{Epoch: c.Epoch, Seq: c.Seq - 1}, Hash: c.Previous}
	switch {
	case v.last != nil:
		after = headRecord{Version: v.last.Version, Hash: v.last.hash}
	case c.Seq == 1:
		after = v.origin
	}
	parsed, err := parseChange(key, value, after)
	if err != nil {
		if errors.Is(err, store.ErrCompacted) {
			return corrupt("records are missing: %w", err)
		}
		return err
	}
	if v.last == nil {
		if err := v.start(parsed); err != nil {
			return err
		}
	}
	if v.image != nil && parsed.Seq == v.image.Seq && parsed.hash != v.image.Hash {
		return corrupt("the image is not that of change set %d", parsed.Seq)
	}
	if v.image == nil || parsed.Seq > v.image.Seq {
		v.needed = append(v.needed, parsed.Pieces...)
	}
	v.last = &parsed
	v.info.Records++
	return nil
}

// start checks that the log begins early enough for the image.
func (v *backupVerifier) start(c change) error {
	switch {
	case v.image == nil && c.Seq > 1:
		return corrupt("the log begins at change set %d, and there is no image", c.Seq)
	case v.image != nil && c.Seq > v.image.Seq+1:
		return corrupt("the log begins at change set %d, the image is of %d", c.Seq, v.image.Seq)
	case v.image != nil && c.Seq == v.image.Seq+1 && c.Previous != v.image.Hash:
		return corrupt("change set %d does not continue the image", c.Seq)
	}
	return nil
}

func (v *backupVerifier) piece(key string, value []byte) error {
	d, err := parsePieceKey(key)
	if err != nil {
		return corrupt("%w", err)
	}
	raw, err := v.codec.decode(nil, d, value)
	if err != nil {
		return err
	}
	if _, ok := v.lists[d]; ok {
		v.lists[d] = raw
	}
	v.present[d] = struct{}{}
	v.info.Pieces++
	return nil
}

// finish checks what can be known only at the end.
func (v *backupVerifier) finish() error {
	end := v.origin
	switch {
	case v.rank < rankHead:
		return corrupt("the backup has no head")
	case v.last != nil:
		end = headRecord{Version: v.last.Version, Hash: v.last.hash}
	case v.image != nil:
		end = v.image.headRecord
	}
	if end != v.head {
		return corrupt("the log ends at %d.%d, the head is %d.%d", end.Epoch, end.Seq, v.head.Epoch, v.head.Seq)
	}
	needed := v.needed
	if v.image != nil {
		var list bytes.Buffer
		for _, d := range v.image.List {
			list.Write(v.lists[d])
		}
		parts, err := parseList(&list)
		if err != nil {
			return err
		}
		needed = append(needed, v.image.List...)
		for _, p := range parts {
			needed = append(needed, p.Pieces...)
		}
	}
	for _, d := range needed {
		if _, ok := v.present[d]; !ok {
			return corrupt("%w", errMissing{d})
		}
	}
	return nil
}
