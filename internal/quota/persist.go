package quota

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
)

// countsMagic begins what AppendTo writes.
const countsMagic = "hansa counts 1\n"

// ErrMalformed is what Restore returns for bytes that AppendTo did not write.
var ErrMalformed = errors.New("the counts are malformed")

// AppendTo appends the counts of all fixed windows, for [Subjects.Restore]. Sliding windows are short and are left out.
// Requests that are admitted meanwhile may be missing. The same counts give the same bytes.
//
// After the magic come, for each subject: its identity, the number of its counters as uvarint, and for each of them
// the key and the word that holds window and count, 8 bytes each in little-endian order. The CRC-32 (IEEE) of all
// that ends it.
func (s *Subjects) AppendTo(dst []byte) []byte {
	from := len(dst)
	dst = append(dst, countsMagic...)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, id := range slices.SortedFunc(maps.Keys(sh.m), func(a, b ID) int { return bytes.Compare(a[:], b[:]) }) {
			dst = sh.m[id].appendTo(dst, id)
		}
		sh.mu.Unlock()
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[from:]))
}

func (s *Subject) appendTo(dst []byte, id ID) []byte {
	n := uint64(0)
	head := s.counters.Load()
	for c := head; c != nil; c = c.next {
		if c.key.fixed() {
			n++
		}
	}
	if n == 0 {
		return dst
	}
	dst = append(dst, id[:]...)
	dst = binary.AppendUvarint(dst, n)
	for c := head; c != nil; c = c.next {
		if c.key.fixed() {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(c.key))
			dst = binary.LittleEndian.AppendUint64(dst, c.cells[0].word.Load())
		}
	}
	return dst
}

// Restore takes counts over from before a restart, at the time now. Counts that were begun anew meanwhile stay as they
// are. Subjects that nobody acquires are forgotten by [Subjects.Sweep]. What is malformed is not taken over in any
// part.
func (s *Subjects) Restore(b []byte, now int64) error {
	body := len(b) - crc32.Size
	if body < len(countsMagic) || string(b[:len(countsMagic)]) != countsMagic ||
		binary.LittleEndian.Uint32(b[body:]) != crc32.ChecksumIEEE(b[:body]) {
		return ErrMalformed
	}
	restored := make(map[ID]*counter)
	for b = b[len(countsMagic):body]; len(b) > 0; {
		id, head, rest, ok := parseSubject(b)
		if !ok {
			return ErrMalformed
		}
		restored[id], b = head, rest
	}
	for id, head := range restored {
		sh := &s.shards[id[0]%subjectShards]
		sh.mu.Lock()
		if sh.m[id] == nil {
			sub := &Subject{idle: now}
			sub.counters.Store(head)
			sh.m[id] = sub
		}
		sh.mu.Unlock()
	}
	return nil
}

// parseSubject reads one subject from the front of b and returns its counters and what follows.
func parseSubject(b []byte) (id ID, head *counter, rest []byte, ok bool) {
	const entry = 16
	if len(b) < len(id) {
		return id, nil, nil, false
	}
	b = b[copy(id[:], b):]
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size)/entry {
		return id, nil, nil, false
	}
	b = b[size:]
	for range n {
		c := &counter{key: Key(binary.LittleEndian.Uint64(b)), next: head}
		if !c.key.fixed() {
			return id, nil, nil, false
		}
		c.cells[0].word.Store(binary.LittleEndian.Uint64(b[8:]))
		head, b = c, b[entry:]
	}
	return id, head, b, true
}
