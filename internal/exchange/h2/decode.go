package h2

import (
	"golang.org/x/net/http2/hpack"
)

// TableSize is how large the table of a peer's encoder may become: the default, and what memory of a connection it costs.
const TableSize = 4096

// Decoder reads header blocks of one connection, all of them in the order in which they came. Make it with NewDecoder.
type Decoder struct {
	table dynamicTable
	// name and value hold strings that were not plain, until they are passed on; name also what the table is about to
	// forget.
	name, value text
}

// text is memory to decode a string to.
type text []byte

// Write implements io.Writer.
func (t *text) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	return len(p), nil
}

// NewDecoder returns a Decoder with an empty table.
func NewDecoder() *Decoder {
	return &Decoder{table: dynamicTable{max: TableSize}}
}

// maxKept bounds the memory for strings that is kept from one block to the next.
const maxKept = 4 << 10

// Decode decodes a complete header block to m. An error means that the connection cannot go on; what is wrong with the
// message itself is found in m.
func (d *Decoder) Decode(block []byte, m *Message) error {
	begun := false
	for len(block) > 0 {
		c := block[0]
		if c&0xe0 == 0x20 {
			size, rest, ok := readInt(block, 5)
			if !ok || begun || size > TableSize {
				return errCompression
			}
			d.table.resize(size)
			block = rest
			continue
		}
		begun = true
		var ok bool
		if block, ok = d.field(block, m); !ok {
			return errCompression
		}
	}
	if cap(d.name) > maxKept {
		d.name = nil
	}
	if cap(d.value) > maxKept {
		d.value = nil
	}
	return nil
}

// field decodes one field and returns what follows it.
func (d *Decoder) field(block []byte, m *Message) ([]byte, bool) {
	c := block[0]
	bits := uint(4)
	switch {
	case c&0x80 != 0:
		i, rest, ok := readInt(block, 7)
		if !ok || !d.has(i) {
			return nil, false
		}
		if i <= len(staticTable) {
			e := &staticTable[i-1]
			add(m, e.name, e.value)
		} else {
			name, value := d.table.at(i - len(staticTable) - 1)
			add(m, name, value)
		}
		return rest, true
	case c&0xc0 == 0x40:
		bits = 6
	}
	i, rest, ok := readInt(block, bits)
	if !ok {
		return nil, false
	}
	var name, value []byte
	switch {
	case i == 0:
		name, rest, ok = readString(rest, &d.name)
	case !d.has(i):
		return nil, false
	default:
		d.name = d.name[:0]
		if i <= len(staticTable) {
			d.name = append(d.name, staticTable[i-1].name...)
		} else {
			known, _ := d.table.at(i - len(staticTable) - 1)
			d.name = append(d.name, known...)
		}
		name = d.name
	}
	if ok {
		value, rest, ok = readString(rest, &d.value)
	}
	if !ok {
		return nil, false
	}
	add(m, name, value)
	if bits == 6 {
		d.table.add(name, value)
	}
	return rest, true
}

func (d *Decoder) has(i int) bool { return 0 < i && i <= len(staticTable)+len(d.table.entries) }

// readInt reads an integer whose first bits stand in the low ones of the first byte (RFC 7541, section 5.1). More than
// anything here can mean is refused.
func readInt(b []byte, bits uint) (int, []byte, bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	most := 1<<bits - 1
	n := int(b[0]) & most
	b = b[1:]
	if n < most {
		return n, b, true
	}
	for shift := uint(0); shift < 28; shift += 7 {
		if len(b) == 0 {
			return 0, nil, false
		}
		c := b[0]
		b = b[1:]
		n += int(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}

// readString reads a string (RFC 7541, section 5.2). It is returned where it stands, or decoded to mem.
func readString(b []byte, mem *text) (s, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	coded := b[0]&0x80 != 0
	n, b, ok := readInt(b, 7)
	if !ok || n > len(b) {
		return nil, nil, false
	}
	s, rest = b[:n], b[n:]
	if !coded {
		return s, rest, true
	}
	*mem = (*mem)[:0]
	if _, err := hpack.HuffmanDecode(mem, s); err != nil {
		return nil, nil, false
	}
	return *mem, rest, true
}
