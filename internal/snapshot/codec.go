package snapshot

import (
	"encoding/binary"
	"fmt"
)

// appendString appends a length and the bytes of s.
func appendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// reader takes values off the front of b. After the first fault it gives only zero values and keeps err. Over a
// string, the texts that it gives share the string's memory; over bytes they are copies.
type reader[T ~string | ~[]byte] struct {
	b   T
	err error
}

func (r *reader[T]) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w input, %d bytes before its end", ErrMalformed, len(r.b))
	}
	r.b = r.b[len(r.b):]
}

// uvarint takes a number in the form of encoding/binary, refusing forms longer than needed, so that equal values
// have equal bytes.
func (r *reader[T]) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(r.b) && i < binary.MaxVarintLen64; i++ {
		c := r.b[i]
		if c >= 0x80 {
			v |= uint64(c&0x7f) << (7 * i)
			continue
		}
		if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
			break
		}
		r.b = r.b[i+1:]
		return v | uint64(c)<<(7*i)
	}
	r.fail()
	return 0
}

// bytes takes a length of at most limit and that many bytes, which share the reader's memory.
func (r *reader[T]) bytes(limit int) T {
	n := r.uvarint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.fail()
		return r.b
	}
	return r.take(int(n))
}

func (r *reader[T]) text(limit int) string { return string(r.bytes(limit)) }

func (r *reader[T]) take(n int) T {
	if n < 0 || n > len(r.b) {
		r.fail()
		return r.b
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader[T]) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader[T]) uint64() uint64 {
	var v uint64
	s := r.take(8)
	for i := range len(s) {
		v = v<<8 | uint64(s[i])
	}
	return v
}

// hash takes a digest.
func (r *reader[T]) hash() (h [32]byte) {
	copy(h[:], r.take(len(h)))
	return h
}
