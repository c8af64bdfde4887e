package snapshot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// setMagic stands in front of an encoded set; its last byte is the version of the form.
const setMagic = "hset\x01"

// maxWindowBytes bounds the memory that a zstd frame of a stranger can make the reader use.
const maxWindowBytes = 8 << 20

// EncodeSet writes a set so that DecodeSet can read it: for disks and bundles. It holds no more than one entry at
// a time in memory.
func EncodeSet(w io.Writer, s *Set) error {
	if _, err := io.WriteString(w, setMagic); err != nil {
		return fmt.Errorf("encode set: %w", err)
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return fmt.Errorf("encode set: %w", err)
	}
	var buf []byte
	for e := range s.All() {
		buf = AppendEntry(buf[:0], e)
		framed := binary.AppendUvarint(nil, uint64(len(buf)))
		if _, err = z.Write(framed); err == nil {
			_, err = z.Write(buf)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("encode set: %w", err), z.Close())
		}
	}
	// A frame of length 0 ends the entries, so that a file that was cut short is told from a whole one; the root
	// tells a damaged one.
	_, err = z.Write([]byte{0})
	if err == nil {
		_, err = z.Write(s.root[:])
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("encode set: %w", err)
	}
	return nil
}

// DecodeSet reads what EncodeSet wrote, up to maxBytes as Set.Bytes counts them. What it returns is whole and
// undamaged, but not necessarily genuine: that is for Checkpoint.Matches to say.
func DecodeSet(r io.Reader, maxBytes uint64) (*Set, error) {
	s, err := decodeSet(r, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("decode set: %w", err)
	}
	return s, nil
}

func decodeSet(r io.Reader, maxBytes uint64) (*Set, error) {
	magic := make([]byte, len(setMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, truncated(err)
	}
	if string(magic) != setMagic {
		return nil, fmt.Errorf("%w: it begins with %q", ErrMalformed, magic)
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindowBytes))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	br := bufio.NewReaderSize(z, 64<<10)

	// The entries of a bucket follow each other, so that every bucket is made once.
	s := NewSet()
	var total uint64
	var pending []Entry
	var frame []byte
	for at := 0; ; {
		n, err := binary.ReadUvarint(br)
		if err != nil {
			return nil, truncated(err)
		}
		if n == 0 {
			s.fill(at, pending)
			break
		}
		if n > MaxEntryBytes+2*MaxKeyBytes {
			return nil, fmt.Errorf("%w: an entry of %d bytes", ErrMalformed, n)
		}
		frame = grow(frame, int(n))
		if _, err := io.ReadFull(br, frame); err != nil {
			return nil, truncated(err)
		}
		e, rest, err := ParseEntry(frame)
		if err != nil {
			return nil, err
		}
		total += e.Size()
		bucket := BucketOf(e.Key)
		switch {
		case len(rest) > 0:
			return nil, fmt.Errorf("%w: entry %q has a tail", ErrMalformed, e.Key)
		case total > maxBytes:
			return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, maxBytes)
		case bucket < at || bucket == at && len(pending) > 0 && pending[len(pending)-1].Key >= e.Key:
			return nil, fmt.Errorf("%w: entry %q is out of order", ErrMalformed, e.Key)
		case bucket > at:
			s.fill(at, pending)
			at, pending = bucket, pending[:0]
		}
		pending = append(pending, e)
	}
	s.seal()
	var root Hash
	if _, err := io.ReadFull(br, root[:]); err != nil {
		return nil, truncated(err)
	}
	if root != s.root {
		return nil, fmt.Errorf("%w: root %.8s, computed %.8s", ErrMalformed, root, s.root)
	}
	return s, nil
}

// fill makes a bucket of a set that nobody else has seen yet.
func (s *Set) fill(at int, entries []Entry) {
	if len(entries) > 0 {
		s.replace(at, nil, &bucket{entries: append(make([]Entry, 0, len(entries)), entries...)})
	}
}

func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends early", ErrMalformed)
	}
	return err
}
