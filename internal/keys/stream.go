package keys

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// chunkSize is how much plaintext one box of a stream holds; all but the last are full. 64 kB keep the buffers small
// and make the cost of a box negligible.
const chunkSize = 64 << 10

// nonceOf makes the nonce of a box in a stream: its number and whether it is the last. As the key is used for one
// stream only, numbers are enough; the mark of the last makes a stream that was cut at a box's end fail (the STREAM
// construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015).
func nonceOf(counter uint64, last bool) []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint64(nonce[3:], counter)
	if last {
		nonce[11] = 1
	}
	return nonce
}

type streamWriter struct {
	w       io.Writer
	aead    cipher.AEAD
	counter uint64
	buf     []byte // plaintext of the box under way
	box     []byte // scratch
	err     error
}

func newStreamWriter(w io.Writer, aead cipher.AEAD) *streamWriter {
	return &streamWriter{w: w, aead: aead, buf: make([]byte, 0, chunkSize), box: make([]byte, 0, chunkSize+gcmTagSize)}
}

func (s *streamWriter) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	total := len(p)
	for len(p) > 0 {
		// A full box is written only when more follows, because the last one is marked.
		if len(s.buf) == chunkSize {
			if err := s.flush(false); err != nil {
				return total - len(p), err
			}
		}
		n := min(chunkSize-len(s.buf), len(p))
		s.buf = append(s.buf, p[:n]...)
		p = p[n:]
	}
	return total, nil
}

func (s *streamWriter) Close() error {
	if s.err != nil {
		return s.err
	}
	if err := s.flush(true); err != nil {
		return err
	}
	s.err = errors.New("write to a closed sealed stream")
	return nil
}

func (s *streamWriter) flush(last bool) error {
	s.box = s.aead.Seal(s.box[:0], nonceOf(s.counter, last), s.buf, nil)
	s.counter++
	s.buf = s.buf[:0]
	_, s.err = s.w.Write(s.box)
	return s.err
}

type streamReader struct {
	r       io.Reader
	aead    cipher.AEAD
	context string
	counter uint64
	box     []byte // sealed bytes read ahead; one more than a box, to know whether another follows
	ahead   int    // how many bytes of box are filled
	plain   []byte // opened and not yet returned
	out     []byte // scratch
	last    bool
	err     error
}

func newStreamReader(r io.Reader, aead cipher.AEAD, context string) *streamReader {
	return &streamReader{r: r, aead: aead, context: context, box: make([]byte, chunkSize+gcmTagSize+1), out: make([]byte, 0, chunkSize)}
}

func (s *streamReader) Read(p []byte) (int, error) {
	for len(s.plain) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.last {
			s.err = io.EOF
			return 0, s.err
		}
		if s.err = s.next(); s.err != nil {
			return 0, s.err
		}
	}
	n := copy(p, s.plain)
	s.plain = s.plain[n:]
	return n, nil
}

// next opens one box.
func (s *streamReader) next() error {
	n, err := io.ReadFull(s.r, s.box[s.ahead:])
	have := s.ahead + n
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.last = true
	case err != nil:
		return fmt.Errorf("open %s: %w", s.context, err)
	}
	size := min(have, chunkSize+gcmTagSize)
	s.last = s.last && have == size
	s.plain, err = s.aead.Open(s.out[:0], nonceOf(s.counter, s.last), s.box[:size], nil)
	if err != nil {
		return fmt.Errorf("open %s at byte %d: %w", s.context, s.counter*chunkSize, ErrUnseal)
	}
	s.counter++
	s.ahead = copy(s.box, s.box[size:have])
	return nil
}
