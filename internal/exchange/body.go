package exchange

import (
	"io"

	"hansa.dev/hansa/internal/x/sweep"
)

// Chunk is a piece of a body. End says that it is the last one; only then Data may be empty.
type Chunk struct {
	Data View
	End  bool
}

// Source is the body of a message, pulled piece by piece.
type Source interface {
	// Next waits for the next piece. The piece is valid until the next call of Next or Close. An error means that
	// the body is broken off: what was passed on so far must not look complete to whom it was passed on. After
	// the End and after an error it must not be called again.
	Next() (Chunk, error)
	// Ready tells whether Next has something at hand, so that it will not wait.
	Ready() bool
	// Len returns the length of the whole body in bytes, or -1 if only the end will tell.
	Len() int64
	// Trailers returns the fields after the body, once the End was seen; nil if there are none.
	Trailers() *Head
	// Close lets go of the source. A body that has not come to its end costs the connection it comes on, or, if
	// little is left, the reading of the rest.
	Close()
}

// PipeSource is a Source whose pieces may also pass through a pipe of the system, without being copied to memory. What
// changes bodies hides that it is one.
type PipeSource interface {
	Source
	// Piped tells how much of the body can be had by NextPipe from now on: all the rest, or nothing.
	Piped() int64
	// NextPipe waits for the next piece, as Next does, and puts it into p, which must be empty. The piece before must have
	// been taken out. After the last piece, when Piped is 0, the body has ended.
	NextPipe(p *sweep.Pipe) (n int, err error)
}

// Bytes is a Source of what is in memory. Set it anew with Reset.
type Bytes struct{ rest []byte }

// Reset makes b the body of s.
func (s *Bytes) Reset(b []byte) { s.rest = b }

// Next implements Source.
func (s *Bytes) Next() (Chunk, error) {
	c := Chunk{Data: View(s.rest), End: true}
	s.rest = nil
	return c, nil
}

// Ready implements Source.
func (s *Bytes) Ready() bool { return true }

// Len implements Source.
func (s *Bytes) Len() int64 { return int64(len(s.rest)) }

// Trailers implements Source.
func (s *Bytes) Trailers() *Head { return nil }

// Close implements Source.
func (s *Bytes) Close() { s.rest = nil }

// ReadAll appends the whole of src to dst, up to limit bytes; beyond them it fails with io.ErrShortBuffer.
func ReadAll(dst []byte, src Source, limit int) ([]byte, error) {
	for {
		c, err := src.Next()
		if err != nil {
			return dst, err
		}
		if len(dst)+len(c.Data) > limit {
			return dst, io.ErrShortBuffer
		}
		dst = append(dst, c.Data...)
		if c.End {
			return dst, nil
		}
	}
}
