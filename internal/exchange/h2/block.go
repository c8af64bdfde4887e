package h2

// Block is a header block while it comes: in a HEADERS frame, and in the CONTINUATION frames after it if it is not whole
// (RFC 9113, section 4.3). Nothing else may come in between.
type Block struct {
	// Stream is the stream that the block belongs to; End tells that the stream ends with it. Dependency is the stream that
	// the HEADERS frame makes it depend on; 0: none.
	Stream     uint32
	End        bool
	Dependency uint32

	open  bool
	bytes []byte
}

// BlockFactor is how many times the limit of a head a header block may be large. What is over the limit is decoded and
// dropped, so that the message can be answered.
const BlockFactor = 4

// Open tells whether more of the block is to come.
func (b *Block) Open() bool { return b.open }

// Expects tells what is wrong with it if a frame comes now.
func (b *Block) Expects(h FrameHeader) error {
	switch {
	case b.open && (h.Type != Continuation || h.Stream != b.Stream):
		return errInterleaved
	case !b.open && h.Type == Continuation:
		return errNoBlock
	}
	return nil
}

// Take takes in a HEADERS or CONTINUATION frame that Expects lets pass. If the block is whole with that, it returns it; it
// is good until the next call. limit is the one for heads, in bytes.
func (b *Block) Take(h FrameHeader, content []byte, limit int) (block []byte, whole bool, err error) {
	if h.Type == Headers {
		fragment, dependency, err := h.Unpad(content)
		if err != nil {
			return nil, false, err
		}
		*b = Block{Stream: h.Stream, End: h.Has(FlagEndStream), Dependency: dependency, bytes: b.bytes[:0]}
		if h.Has(FlagEndHeaders) {
			return fragment, true, nil // in one piece, and so never copied
		}
		b.open = true
		content = fragment
	}
	if len(b.bytes)+len(content) > BlockFactor*limit {
		return nil, false, errBlockSize
	}
	b.bytes = append(b.bytes, content...)
	if !h.Has(FlagEndHeaders) {
		return nil, false, nil
	}
	b.open = false
	block = b.bytes
	if cap(b.bytes) > MaxFrame {
		b.bytes = nil
	}
	return block, true, nil
}

// Free gives back the memory of a block that is not open.
func (b *Block) Free() { b.bytes = nil }
