package exchange

import "encoding/binary"

// RequestID names one request: 32 digits of lower-case hexadecimal, in logs, refusals and X-Request-Id. As the
// trace ids of W3C Trace Context it is never all zeros.
type RequestID [32]byte

// String copies id.
func (id *RequestID) String() string { return string(id[:]) }

// IDGenerator makes request ids for one connection, without locks. The ids of one generator never repeat, and the
// half that it was seeded with keeps those of different generators apart. They are not secrets.
type IDGenerator struct {
	prefix [16]byte // in hexadecimal
	state  uint64
}

// Seed begins anew from two random numbers.
func (g *IDGenerator) Seed(hi, lo uint64) {
	if hi == 0 {
		hi = 1
	}
	appendHex(g.prefix[:0], hi)
	g.state = lo
}

// Next writes the next id to id. It walks through the 64-bit numbers in an order that looks random (SplitMix64,
// Steele, Lea and Flood 2014, which is a bijection).
func (g *IDGenerator) Next(id *RequestID) {
	g.state += 0x9e3779b97f4a7c15
	z := g.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	copy(id[:16], g.prefix[:])
	appendHex(id[16:16], z)
}

func appendHex(dst []byte, v uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	for _, c := range b {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
}
