package h1

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"hansa.dev/hansa/internal/exchange"
)

const (
	// LargeBuffer is the size of the buffers of a Pool: what bodies pass through that do not fit behind the head.
	LargeBuffer = 32 << 10
	// smallRoom is how much room behind the head is too little to read a body into.
	smallRoom = 2 << 10
	// maxExcess bounds what the chunks of one body may hold besides data: extensions, and the size lines of chunks
	// that are smaller than those.
	maxExcess = 16 << 10
	// maxSizeLine bounds the line with the size of a chunk.
	maxSizeLine = 4 << 10
	// maxTrailers bounds the trailers of a body.
	maxTrailers = 8 << 10
)

// Pool is large buffers for bodies. The zero value is ready.
type Pool struct{ p sync.Pool }

// Get takes a buffer out of the pool.
func (p *Pool) Get() *[LargeBuffer]byte {
	if b, ok := p.p.Get().(*[LargeBuffer]byte); ok {
		return b
	}
	return new([LargeBuffer]byte)
}

// Put gives a buffer back.
func (p *Pool) Put(b *[LargeBuffer]byte) { p.p.Put(b) }

// Body reads the body of one message after the other: Reset it for each. It implements exchange.Source but for the
// errors, which are those of the reader, or a *exchange.Fault.
type Body struct {
	// Greedy has a body of known length read beyond its end, if more is there, so that Buffered tells of it: for responses,
	// which nothing may follow. It is kept by Reset.
	Greedy bool

	in   io.Reader
	pool *Pool

	buf    []byte // buf[lo:hi] has been read and not been passed on
	lo, hi int
	room   int                // where in buf reading begins anew: behind the head
	large  *[LargeBuffer]byte // the buffer, if it came from the pool
	given  []byte             // the buffer that Reset was given
	behind int                // room in it
	much   bool               // the last read was a large one, or had not enough room

	framing Framing
	ended   bool
	left    int64 // of the body, or of the chunk
	length  int64 // as announced
	state   chunkState
	excess  int // bytes that were not data, less those forgiven
	trailer Parser
	fields  exchange.Head
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd
	chunkTrailers
)

// Reset begins a body. buf[used:filled] is what has been read of it already, and perhaps of what follows it; the rest
// of buf, from used on, may be used for reading.
func (b *Body) Reset(in io.Reader, pool *Pool, framing Framing, length int64, buf []byte, used, filled int) {
	b.in, b.pool = in, pool
	b.buf, b.lo, b.hi, b.room = buf, used, filled, used
	b.given, b.behind, b.much = buf, used, false
	b.framing, b.length = framing, length
	b.left, b.state, b.excess = 0, chunkSize, 0
	b.ended = framing == NoBody || framing == Length && length == 0
	if framing == Length {
		b.left = length
	}
	if b.ended {
		b.length = 0
	}
}

// Ended tells whether the whole body has been passed on.
func (b *Body) Ended() bool { return b.ended }

// Buffered returns what has been read beyond the body, once it has ended. It lies in the buffer given to Reset or in one
// that Release takes back.
func (b *Body) Buffered() []byte { return b.buf[b.lo:b.hi] }

// Full tells whether the buffer is full, so that there may be more than Buffered tells of.
func (b *Body) Full() bool { return b.hi == len(b.buf) }

// Remaining returns how much of the body is to come, or -1 if that is not known.
func (b *Body) Remaining() int64 {
	switch {
	case b.ended:
		return 0
	case b.framing == Length:
		return b.left
	}
	return -1
}

// Piped returns how much of the body is to be read from the connection as it is, if nothing of it has been read ahead.
func (b *Body) Piped() int64 {
	if b.framing != Length || b.lo != b.hi {
		return 0
	}
	return b.left
}

// Skip notes that n bytes, of those that Piped speaks of, have been read by somebody else.
func (b *Body) Skip(n int) {
	b.left -= int64(n)
	b.ended = b.left == 0
}

// Ready implements exchange.Source.
func (b *Body) Ready() bool {
	if b.ended || b.framing == NoBody {
		return true
	}
	rest := b.buf[b.lo:b.hi]
	if b.framing == Chunked && b.state == chunkSize {
		end := bytes.IndexByte(rest, '\n')
		return end >= 0 && end+1 < len(rest)
	}
	return len(rest) > 0
}

// Len implements exchange.Source.
func (b *Body) Len() int64 {
	if b.framing == Chunked || b.framing == UntilClose {
		return -1
	}
	return b.length
}

// Underscore tells whether the name of a trailer holds an underscore: some backends take that for a hyphen.
func (b *Body) Underscore() bool { return b.trailer.Underscore }

// Trailers implements exchange.Source.
func (b *Body) Trailers() *exchange.Head {
	if b.framing != Chunked || b.fields.Len() == 0 {
		return nil
	}
	return &b.fields
}

// Release gives the buffer back that the body came to need.
func (b *Body) Release() {
	if b.large != nil {
		b.pool.Put(b.large)
		b.large, b.buf, b.lo, b.hi = nil, nil, 0, 0
	}
	b.in, b.given = nil, nil
}

// Next implements exchange.Source.
func (b *Body) Next() (exchange.Chunk, error) {
	switch b.framing {
	case Length:
		return b.nextOfLength()
	case Chunked:
		return b.nextChunked()
	case UntilClose:
		return b.nextUntilClose()
	}
	b.ended = true
	return exchange.Chunk{End: true}, nil
}

func (b *Body) nextOfLength() (exchange.Chunk, error) {
	if b.left == 0 {
		b.ended = true
		return exchange.Chunk{End: true}, nil
	}
	if b.lo == b.hi {
		want := b.left // and not what follows the body: that is not ours
		if b.Greedy {
			want++
		}
		b.makeRoom(want)
		if err := b.fill(int(min(want, int64(len(b.buf)-b.hi)))); err != nil {
			return exchange.Chunk{}, incomplete(err)
		}
	}
	n := int(min(b.left, int64(b.hi-b.lo)))
	data := b.buf[b.lo : b.lo+n]
	b.lo += n
	b.left -= int64(n)
	b.ended = b.left == 0
	return exchange.Chunk{Data: data, End: b.ended}, nil
}

func (b *Body) nextUntilClose() (exchange.Chunk, error) {
	if b.lo == b.hi {
		b.makeRoom(b.wanted())
		if err := b.fill(len(b.buf) - b.hi); err != nil {
			if errors.Is(err, io.EOF) {
				b.ended = true
				return exchange.Chunk{End: true}, nil
			}
			return exchange.Chunk{}, err
		}
	}
	data := b.buf[b.lo:b.hi]
	b.lo = b.hi
	return exchange.Chunk{Data: data}, nil
}

// nextChunked passes on as much data as has been read, of however many chunks: it is moved together.
func (b *Body) nextChunked() (exchange.Chunk, error) {
	var from, to int // of the data that has been moved together
	for {
		n, err := b.decode(&from, &to)
		switch {
		case err != nil:
			return exchange.Chunk{}, err
		case n: // the end
			b.ended = true
			return exchange.Chunk{Data: b.buf[from:to], End: true}, nil
		case to > from:
			return exchange.Chunk{Data: b.buf[from:to]}, nil
		}
		if err := b.readMore(); err != nil {
			return exchange.Chunk{}, incomplete(err)
		}
	}
}

// readMore reads behind what is there, which is an incomplete line or nothing.
func (b *Body) readMore() error {
	if b.lo == b.hi {
		b.makeRoom(b.wanted())
	} else if b.hi == len(b.buf) || b.lo > b.room+smallRoom {
		if b.room+b.hi-b.lo+smallRoom > len(b.buf) && b.large == nil {
			old := b.buf[b.lo:b.hi]
			b.large = b.pool.Get()
			b.buf, b.room, b.lo = b.large[:], 0, 0
			b.hi = copy(b.buf, old)
		} else {
			b.hi = b.room + copy(b.buf[b.room:], b.buf[b.lo:b.hi])
			b.lo = b.room
		}
	}
	return b.fill(len(b.buf) - b.hi)
}

// wanted tells how much room is good for a body whose length is not known. Streams of events and tunnels send little at a
// time and wait for long; they must not hold a large buffer meanwhile.
func (b *Body) wanted() int64 {
	if b.much {
		return LargeBuffer
	}
	return smallRoom
}

// makeRoom prepares for reading when nothing is left in the buffer. want is how much may come.
func (b *Body) makeRoom(want int64) {
	switch room := int64(len(b.buf) - b.room); {
	case b.large == nil && room < want && room < LargeBuffer/2:
		b.large = b.pool.Get()
		b.buf, b.room = b.large[:], 0
	case b.large != nil && int64(len(b.given)-b.behind) >= want:
		b.pool.Put(b.large)
		b.large, b.buf, b.room = nil, b.given, b.behind
	}
	b.lo, b.hi = b.room, b.room
}

func (b *Body) fill(most int) error {
	n, err := b.in.Read(b.buf[b.hi : b.hi+most])
	b.hi += n
	if n > 0 {
		b.much = n == most || n > smallRoom
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

func incomplete(err error) error {
	if errors.Is(err, io.EOF) {
		return errIncomplete
	}
	return err
}

// decode takes in what is in the buffer. It returns true at the end of the body.
func (b *Body) decode(from, to *int) (bool, error) {
	for {
		switch b.state {
		case chunkSize:
			n, err := b.sizeLine()
			if n == 0 || err != nil {
				return false, err
			}
			b.lo += n
			if b.state = chunkData; b.left == 0 {
				b.state = chunkTrailers
				b.trailer.Reset(Limits{Head: maxTrailers, Fields: 32})
				b.fields.Reset()
			}
		case chunkData:
			n := int(min(b.left, int64(b.hi-b.lo)))
			if n == 0 {
				return false, nil
			}
			if *to == *from {
				*from, *to = b.lo, b.lo
			}
			if *to != b.lo {
				copy(b.buf[*to:], b.buf[b.lo:b.lo+n])
			}
			*to += n
			b.lo += n
			if b.left -= int64(n); b.left == 0 {
				b.state = chunkEnd
			}
		case chunkEnd:
			switch rest := b.buf[b.lo:b.hi]; {
			case len(rest) > 0 && rest[0] != '\r', len(rest) > 1 && rest[1] != '\n':
				return false, errChunkEnd
			case len(rest) < 2:
				return false, nil
			}
			b.lo += 2
			b.state = chunkSize
		case chunkTrailers:
			n, err := b.trailer.Trailers(b.buf[b.lo:b.hi], &b.fields)
			if n == 0 || err != nil {
				return false, err
			}
			b.lo += n
			return true, nil
		}
	}
}

// sizeLine reads the line with the size of a chunk and returns its length, or 0 if it is not complete.
func (b *Body) sizeLine() (int, error) {
	line := b.buf[b.lo:b.hi]
	var size int64
	i := 0
	for ; i < len(line); i++ {
		d := unhex(line[i])
		if d > 15 {
			break
		}
		if i == 15 {
			return 0, errChunkSize
		}
		size = size<<4 | int64(d)
	}
	if i == len(line) {
		return 0, nil
	}
	if i == 0 {
		return 0, errChunkSize
	}
	end, err := extension(line, i)
	if end == 0 || err != nil {
		if err == nil && len(line) > maxSizeLine {
			err = errChunkExcess
		}
		return 0, err
	}
	// A line of 16 bytes is forgiven, and so is one that is shorter than its data.
	if b.excess = max(0, b.excess+end-16-int(min(size, 1<<20))); b.excess > maxExcess || end > maxSizeLine {
		return 0, errChunkExcess
	}
	b.left = size
	return end, nil
}

// extension passes over the extensions of a chunk (RFC 9112, section 7.1.1) and the end of the line, which begin at i. It
// returns the length of the line, or 0 if it is not complete. Extensions are not passed on.
func extension(line []byte, i int) (int, error) {
	space := i
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	if i < len(line) && line[i] == '\r' && i == space || i < len(line) && line[i] == ';' {
		quoted := false
		for ; i < len(line); i++ {
			switch c := line[i]; {
			case c == '\r' && !quoted:
				if i+1 == len(line) {
					return 0, nil
				}
				if line[i+1] != '\n' {
					return 0, errChunkExtension
				}
				return i + 2, nil
			case c == '"':
				quoted = !quoted
			case c == '\\' && quoted && i+1 < len(line) && line[i+1] >= 0x20 && line[i+1] != 0x7f:
				i++
			case c < 0x20 && c != '\t' || c == 0x7f:
				return 0, errChunkExtension
			}
		}
		return 0, nil
	}
	if i == len(line) {
		return 0, nil
	}
	if i == space && line[i] != '\n' {
		return 0, errChunkSize
	}
	return 0, errChunkExtension
}

func unhex(c byte) byte {
	switch {
	case digit(c):
		return c - '0'
	case (c|0x20)-'a' < 6:
		return (c | 0x20) - 'a' + 10
	}
	return 16
}
