package localstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"hansa.dev/hansa/internal/keys"
)

// A segment is a file of shards: one box per shard, then the index in a box, then where the index begins (eight
// bytes) and a magic. The context of each box names the segment and the shard. The index says besides which other
// segments were in use and which logs no longer count, so that writing one file changes all of that at once.
const (
	segmentMagic  = "HSEG1\x00\x00\x00"
	segmentFooter = 8 + len(segmentMagic)
	// maxIndex bounds the index: 65,536 shards and some segments.
	maxIndex = 2 << 20
)

// entry is where the box of a shard begins in a segment and how long it is; 0: the shard was taken away.
type entry struct {
	shard  uint16
	size   uint32
	offset uint64
}

const entrySize = 2 + 4 + 8

type segment struct {
	number   uint64
	f        *os.File
	size     int64
	logFloor uint64
	alive    []uint64 // numbers of the older segments in use when this one was made
	entries  []entry
}

func boxContext(context string, segment uint64, shard uint16) string {
	return fmt.Sprintf("%s segment %d shard %d", context, segment, shard)
}

func indexContext(context string, segment uint64) string {
	return fmt.Sprintf("%s segment %d index", context, segment)
}

func openSegment(sealer *keys.Sealer, context, path string, number uint64) (_ *segment, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &segment{number: number, f: f, size: info.Size()}
	footer := make([]byte, segmentFooter)
	if s.size < int64(segmentFooter) {
		return nil, errors.New("segment is cut short")
	}
	if _, err := f.ReadAt(footer, s.size-int64(segmentFooter)); err != nil {
		return nil, err
	}
	begin, end := binary.BigEndian.Uint64(footer), uint64(s.size)-uint64(segmentFooter)
	if !bytes.HasSuffix(footer, []byte(segmentMagic)) || begin > end || end-begin > maxIndex {
		return nil, errors.New("segment has no index")
	}
	box := make([]byte, end-begin)
	if _, err := f.ReadAt(box, int64(begin)); err != nil {
		return nil, err
	}
	index, err := sealer.Open(indexContext(context, number), box)
	if err != nil {
		return nil, err
	}
	return s, s.decodeIndex(index, begin)
}

// decodeIndex reads what segmentWriter.index wrote. The box vouches for it, so that only a fault in this program can
// make it fail.
func (s *segment) decodeIndex(b []byte, limit uint64) error {
	if len(b) < 16 {
		return errors.New("segment index is cut short")
	}
	s.logFloor = binary.BigEndian.Uint64(b)
	alive := binary.BigEndian.Uint64(b[8:])
	b = b[16:]
	if alive > uint64(len(b)/8) || (len(b)-int(alive)*8)%entrySize != 0 {
		return errors.New("segment index has a wrong length")
	}
	for range alive {
		s.alive = append(s.alive, binary.BigEndian.Uint64(b))
		b = b[8:]
	}
	s.entries = make([]entry, 0, len(b)/entrySize)
	for ; len(b) > 0; b = b[entrySize:] {
		e := entry{shard: binary.BigEndian.Uint16(b), size: binary.BigEndian.Uint32(b[2:]), offset: binary.BigEndian.Uint64(b[6:])}
		if e.offset > limit || uint64(e.size) > limit-e.offset {
			return fmt.Errorf("segment index: shard %d lies outside the file", e.shard)
		}
		s.entries = append(s.entries, e)
	}
	return nil
}

// read returns the content of a shard.
func (s *segment) read(sealer *keys.Sealer, context string, e entry) ([]byte, error) {
	box := make([]byte, e.size)
	if _, err := s.f.ReadAt(box, int64(e.offset)); err != nil {
		return nil, err
	}
	return sealer.Open(boxContext(context, s.number, e.shard), box)
}

// segmentWriter writes one segment.
type segmentWriter struct {
	sealer   *keys.Sealer
	context  string
	number   uint64
	logFloor uint64
	alive    func(replaced map[uint16]bool) []uint64

	entries []entry
	seen    map[uint16]bool
	offset  uint64
}

func (w *segmentWriter) write(f io.Writer, fill func(put func(uint16, []byte) error) error) error {
	w.seen = make(map[uint16]bool)
	put := func(shard uint16, content []byte) error {
		if w.seen[shard] {
			return fmt.Errorf("shard %d is put twice", shard)
		}
		w.seen[shard] = true
		e := entry{shard: shard, offset: w.offset}
		if len(content) > 0 {
			if len(content) > maxRecord {
				return fmt.Errorf("shard %d: %d bytes are more than %d", shard, len(content), maxRecord)
			}
			box := w.sealer.Seal(boxContext(w.context, w.number, shard), content)
			if _, err := f.Write(box); err != nil {
				return err
			}
			e.size = uint32(len(box))
		}
		w.offset += uint64(e.size)
		w.entries = append(w.entries, e)
		return nil
	}
	if err := fill(put); err != nil {
		return err
	}
	tail := w.sealer.Seal(indexContext(w.context, w.number), w.index())
	tail = binary.BigEndian.AppendUint64(tail, w.offset)
	_, err := f.Write(append(tail, segmentMagic...))
	return err
}

func (w *segmentWriter) index() []byte {
	alive := w.alive(w.seen)
	b := make([]byte, 0, 16+8*len(alive)+entrySize*len(w.entries))
	b = binary.BigEndian.AppendUint64(b, w.logFloor)
	b = binary.BigEndian.AppendUint64(b, uint64(len(alive)))
	for _, number := range alive {
		b = binary.BigEndian.AppendUint64(b, number)
	}
	for _, e := range w.entries {
		b = binary.BigEndian.AppendUint16(b, e.shard)
		b = binary.BigEndian.AppendUint32(b, e.size)
		b = binary.BigEndian.AppendUint64(b, e.offset)
	}
	return b
}
