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
	restored, err := parseCounts(b)
	if err != nil {
		return err
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

// parseCounts reads what AppendTo wrote: the counters by subject.
func parseCounts(b []byte) (map[ID]*counter, error) {
	body := len(b) - crc32.Size
	if body < len(countsMagic) || string(b[:len(countsMagic)]) != countsMagic ||
		binary.LittleEndian.Uint32(b[body:]) != crc32.ChecksumIEEE(b[:body]) {
		return nil, ErrMalformed
	}
	all := make(map[ID]*counter)
	for b = b[len(countsMagic):body]; len(b) > 0; {
		id, head, rest, ok := parseSubject(b)
		if !ok {
			return nil, ErrMalformed
		}
		all[id], b = head, rest
	}
	return all, nil
}

// Since returns what was counted since the counts were as before says, which is of AppendTo, for [Subjects.Add]; nil if
// nothing was.
func Since(before, now []byte) ([]byte, error) {
	old, err := parseCounts(before)
	if err != nil {
		return nil, err
	}
	fresh, err := parseCounts(now)
	if err != nil {
		return nil, err
	}
	more := NewSubjects()
	some := false
	for id, head := range fresh {
		for c := head; c != nil; c = c.next {
			window, count := unpack(c.cells[0].word.Load())
			for o := old[id]; o != nil; o = o.next {
				if was, n := unpack(o.cells[0].word.Load()); o.key == c.key && was == window {
					count -= min(n, count)
				}
			}
			if count > 0 {
				some = true
				more.hold(id).counter(c.key).add(window, count)
			}
		}
	}
	if !some {
		return nil, nil
	}
	return more.AppendTo(nil), nil
}

// hold returns the subject with that identity without acquiring it. It is for subjects that nobody else uses.
func (s *Subjects) hold(id ID) *Subject {
	sh := &s.shards[id[0]%subjectShards]
	if sh.m[id] == nil {
		sh.m[id] = new(Subject)
	}
	return sh.m[id]
}

// Add adds to the counts what was counted elsewhere, at the time now: another process that is ending its part of the work.
// What belongs to a window that is over is passed over. What is malformed is not added in any part.
func (s *Subjects) Add(b []byte, now int64) error {
	more, err := parseCounts(b)
	if err != nil {
		return err
	}
	for id, head := range more {
		sh := &s.shards[id[0]%subjectShards]
		sh.mu.Lock()
		sub := sh.m[id]
		if sub == nil {
			sub = &Subject{idle: now}
			sh.m[id] = sub
		}
		sh.mu.Unlock()
		for c := head; c != nil; c = c.next {
			sub.counter(c.key).add(unpack(c.cells[0].word.Load()))
		}
	}
	return nil
}

// add counts in a fixed window, whatever the limit.
func (c *counter) add(window, count uint64) {
	for {
		old := c.cells[0].word.Load()
		have, n := unpack(old)
		switch ahead := (window - have) & windowMask; {
		case ahead == 0:
		case ahead < 1<<(windowBits-1): // a later window
			n = 0
		default:
			return
		}
		if c.cells[0].word.CompareAndSwap(old, pack(window, min(n+count, countMask))) {
			return
		}
	}
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
