package localstore

import (
	"bytes"
	"testing"
)

// FuzzDecodeIndex feeds the decoder what no box has vouched for. What it accepts must lie within the file and encode
// to the same bytes again.
func FuzzDecodeIndex(f *testing.F) {
	w := &segmentWriter{
		logFloor: 3, alive: func(map[uint16]bool) []uint64 { return []uint64{1, 2} },
		entries: []entry{{shard: 1, size: 70, offset: 0}, {shard: 9, size: 0, offset: 70}},
	}
	f.Add(w.index(), uint64(70))
	f.Add(w.index()[:20], uint64(70))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, limit uint64) {
		var s segment
		if err := s.decodeIndex(b, limit); err != nil {
			return
		}
		for _, e := range s.entries {
			if e.offset > limit || e.offset+uint64(e.size) > limit {
				t.Errorf("entry %+v lies outside %d bytes", e, limit)
			}
		}
		again := &segmentWriter{logFloor: s.logFloor, alive: func(map[uint16]bool) []uint64 { return s.alive }, entries: s.entries}
		if got := again.index(); !bytes.Equal(got, b) {
			t.Errorf("index %x encodes to %x", b, got)
		}
	})
}
