package exchange

import (
	"iter"
	"strconv"
)

// MaxFields is the highest number of fields that a Head holds.
const MaxFields = 250

// View is a piece of text or of a body in memory that belongs to the exchange. It must not be changed, and it is
// void when the exchange (or, for a Chunk, the next call on its Source) ends. Clone it to keep it.
type View []byte

// String copies v.
func (v View) String() string { return string(v) }

// Head is the fields of a message, in order. What was parsed stays where it was read, in a block that the Head
// borrows; what is set later lies in memory of its own. The zero value is an empty Head.
//
// Names are compared without regard to case. The bytes of names and values given to Set and Add are copied; it is
// up to the caller that they are a token and a field value (RFC 9110, section 5): see ValidName and ValidValue.
type Head struct {
	block  []byte // borrowed, as received
	own    []byte // lines made by Set and Add
	fields []field
	first  [numIDs]uint8 // index + 1 of the first field with that ID
	live   int
	ids    IDSet // that may be present
}

// field is one line. Offsets are into own if flagOwn is set, else into block.
type field struct {
	name, value, size uint32 // size is of the value
	nameSize          uint16
	id                ID
	flags             uint8
}

const (
	flagGone  uint8 = 1 << iota // deleted
	flagOwn                     // lies in own
	flagPlain                   // stands in memory as "name: value\r\n"
)

// Reset empties h and lets go of the borrowed block.
func (h *Head) Reset() {
	h.block = nil
	h.own = h.own[:0]
	h.fields = h.fields[:0]
	if h.ids != 0 {
		h.first = [numIDs]uint8{}
	}
	h.live = 0
	h.ids = 0
}

// Borrow makes block the memory that Index speaks of. A parser may call it again when its buffer has moved.
func (h *Head) Borrow(block []byte) { h.block = block }

// Index adds a field that stands in the borrowed block: offsets and sizes of name and value. plain claims that it
// stands there as "name: value\r\n". It returns the ID of the name, and false if h is full.
func (h *Head) Index(name, nameSize, value, valueSize int, plain bool) (ID, bool) {
	if len(h.fields) >= MaxFields {
		return IDOther, false
	}
	id := IDOf(h.block[name : name+nameSize])
	f := field{uint32(name), uint32(value), uint32(valueSize), uint16(nameSize), id, 0}
	if plain {
		f.flags = flagPlain
	}
	h.push(f)
	return id, true
}

func (h *Head) push(f field) {
	h.fields = append(h.fields, f)
	h.live++
	h.ids |= 1 << f.id
	if h.first[f.id] == 0 {
		h.first[f.id] = uint8(len(h.fields))
	}
}

// Len returns the number of fields.
func (h *Head) Len() int { return h.live }

// Has tells whether there is a field with that well-known name.
func (h *Head) Has(id ID) bool { return h.ids.Has(id) && h.first[id] != 0 }

// IDs returns a set that holds every well-known name that is present (and IDOther if any other name is), and
// perhaps some that have been deleted.
func (h *Head) IDs() IDSet { return h.ids }

// Known returns the value of the first field with that well-known name, or nil.
func (h *Head) Known(id ID) View {
	if i := h.first[id]; i != 0 && id != IDOther {
		return h.valueOf(&h.fields[i-1])
	}
	return nil
}

// Get returns the value of the first field of that name, or nil if there is none. A field with an empty value
// gives an empty View that is not nil.
func (h *Head) Get(n Name) View {
	if n.id != IDOther {
		return h.Known(n.id)
	}
	if i := h.find(n, 0); i >= 0 {
		return h.valueOf(&h.fields[i])
	}
	return nil
}

// Values yields the values of all fields of that name, in order.
func (h *Head) Values(n Name) iter.Seq[View] {
	return func(yield func(View) bool) {
		for i := h.find(n, 0); i >= 0; i = h.find(n, i+1) {
			if !yield(h.valueOf(&h.fields[i])) {
				return
			}
		}
	}
}

// Count returns the number of fields with that well-known name.
func (h *Head) Count(id ID) int {
	n := 0
	if h.first[id] == 0 {
		return 0
	}
	for i := int(h.first[id]) - 1; i < len(h.fields); i++ {
		if h.fields[i].id == id && h.fields[i].flags&flagGone == 0 {
			n++
		}
	}
	return n
}

// All yields names, as they were written, and values of all fields, in order.
func (h *Head) All() iter.Seq2[View, View] {
	return func(yield func(name, value View) bool) {
		for i := range h.fields {
			f := &h.fields[i]
			if f.flags&flagGone == 0 && !yield(h.nameOf(f), h.valueOf(f)) {
				return
			}
		}
	}
}

// Size is one more than the highest number that At knows.
func (h *Head) Size() int { return len(h.fields) }

// At returns field i, counted from 0 in order, deleted ones included: those have the name nil.
func (h *Head) At(i int) (id ID, name, value View) {
	f := &h.fields[i]
	if f.flags&flagGone != 0 {
		return IDOther, nil, nil
	}
	return f.id, h.nameOf(f), h.valueOf(f)
}

// Set replaces all fields of that name by one. It reports false if h is full.
func (h *Head) Set(n Name, value []byte) bool {
	h.Del(n)
	return h.Add(n, value)
}

// SetString is Set for text.
func (h *Head) SetString(n Name, value string) bool {
	h.Del(n)
	return h.AddString(n, value)
}

// SetUint is Set for a number.
func (h *Head) SetUint(n Name, value uint64) bool {
	var b [20]byte
	return h.Set(n, strconv.AppendUint(b[:0], value, 10))
}

// Add adds a field after all others. It reports false if h is full.
func (h *Head) Add(n Name, value []byte) bool {
	// Not shared with AddString through a type parameter: the compiler then takes value for escaping, and callers
	// would have to allocate what they make up on the stack.
	h.own = append(append(append(h.own, n.text...), ": "...), value...)
	return h.endOwn(n.id, len(n.text), len(value))
}

// AddString is Add for text.
func (h *Head) AddString(n Name, value string) bool {
	h.own = append(append(append(h.own, n.text...), ": "...), value...)
	return h.endOwn(n.id, len(n.text), len(value))
}

// endOwn makes a field of what was just appended to own, "name: value". If h is full it takes that back.
func (h *Head) endOwn(id ID, name, value int) bool {
	at := len(h.own) - name - 2 - value
	if len(h.fields) >= MaxFields {
		h.own = h.own[:at]
		return false
	}
	h.own = append(h.own, "\r\n"...)
	h.push(field{
		name: uint32(at), value: uint32(at + name + 2), size: uint32(value),
		nameSize: uint16(name), id: id, flags: flagOwn | flagPlain,
	})
	return true
}

// Del takes away all fields of that name.
func (h *Head) Del(n Name) {
	if n.id != IDOther {
		h.DelKnown(n.id)
		return
	}
	for i := h.find(n, 0); i >= 0; i = h.find(n, i+1) {
		h.fields[i].flags |= flagGone
		h.live--
	}
}

// DelKnown takes away all fields with that well-known name.
func (h *Head) DelKnown(id ID) {
	i := int(h.first[id])
	if i == 0 || id == IDOther {
		return
	}
	h.first[id] = 0
	for i--; i < len(h.fields); i++ {
		if f := &h.fields[i]; f.id == id && f.flags&flagGone == 0 {
			f.flags |= flagGone
			h.live--
		}
	}
}

// DelNamed takes away all fields of the name that a message itself gave, such as one listed in Connection.
func (h *Head) DelNamed(name []byte) {
	if id := IDOf(name); id != IDOther {
		h.DelKnown(id)
		return
	}
	for i := range h.fields {
		f := &h.fields[i]
		if f.id == IDOther && f.flags&flagGone == 0 && EqualFold(h.nameOf(f), name) {
			f.flags |= flagGone
			h.live--
		}
	}
}

// AddAll adds the fields of g to h, each name replacing what h has of it. It reports false if h is full.
func (h *Head) AddAll(g *Head) bool {
	h.DelAll(g)
	for i := range g.fields {
		f := &g.fields[i]
		if f.flags&flagGone != 0 {
			continue
		}
		name, value := g.nameOf(f), g.valueOf(f)
		h.own = append(append(append(h.own, name...), ": "...), value...)
		if !h.endOwn(f.id, len(name), len(value)) {
			return false
		}
	}
	return true
}

// DelAll takes away all fields whose names are among those of g.
func (h *Head) DelAll(g *Head) {
	for i := range g.fields {
		switch f := &g.fields[i]; {
		case f.flags&flagGone != 0:
		case f.id != IDOther:
			h.DelKnown(f.id)
		default:
			h.DelNamed(g.nameOf(f))
		}
	}
}

// AppendLines appends the fields as lines of HTTP/1, without those whose name is in except. Neighbours that are
// still as they were received are copied in one piece.
func (h *Head) AppendLines(dst []byte, except IDSet) []byte {
	except &^= 1 << IDOther
	var run []byte // the memory that the present run lies in
	from, to := 0, 0
	for i := range h.fields {
		f := &h.fields[i]
		if f.flags&flagGone != 0 || except.Has(f.id) {
			continue
		}
		mem := h.block
		if f.flags&flagOwn != 0 {
			mem = h.own
		}
		if f.flags&flagPlain == 0 {
			dst = append(dst, run[from:to]...)
			run, from, to = nil, 0, 0
			dst = append(dst, mem[f.name:f.name+uint32(f.nameSize)]...)
			dst = append(dst, ": "...)
			dst = append(dst, mem[f.value:f.value+f.size]...)
			dst = append(dst, "\r\n"...)
			continue
		}
		if int(f.name) != to || len(run) == 0 || &run[0] != &mem[0] {
			dst = append(dst, run[from:to]...)
			run, from = mem, int(f.name)
		}
		to = int(f.value+f.size) + 2
	}
	return append(dst, run[from:to]...)
}

// find returns the index of the first field of that name at or after from, or -1.
func (h *Head) find(n Name, from int) int {
	if n.id != IDOther {
		if h.first[n.id] == 0 {
			return -1
		}
		from = max(from, int(h.first[n.id])-1)
	}
	for i := from; i < len(h.fields); i++ {
		f := &h.fields[i]
		if f.id == n.id && f.flags&flagGone == 0 &&
			(n.id != IDOther || int(f.nameSize) == len(n.text) && EqualFold(h.nameOf(f), n.text)) {
			return i
		}
	}
	return -1
}

func (h *Head) nameOf(f *field) View {
	mem := h.block
	if f.flags&flagOwn != 0 {
		mem = h.own
	}
	return View(mem[f.name : f.name+uint32(f.nameSize)])
}

func (h *Head) valueOf(f *field) View {
	mem := h.block
	if f.flags&flagOwn != 0 {
		mem = h.own
	}
	return View(mem[f.value : f.value+f.size])
}
