// Package proxyproto reads and writes the header of the PROXY protocol, versions 1 and 2: what a load balancer in front
// says, at the begin of a connection, about whose connection it is (HAProxy, "The PROXY protocol", 2020/03/05).
//
// Parsing is strict. What the specification lets a receiver ignore, unknown kinds of addresses and of additions, is
// ignored; everything else that is not as it should be is an error, and the connection of no use.
//
// [Parse] and the Append methods are pure functions. [Read] reads no byte beyond the header, so that whatever comes after
// it (TLS, HTTP) can be read from the connection itself. Listeners use Read, connections to backends the other end.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
)

// MaxHeader bounds a header that is read, in bytes. Version 2 could have 64 KiB, most of it additions.
const MaxHeader = 4 << 10

// Header is what a PROXY header says.
type Header struct {
	// Source and Destination are the two ends of the connection that the load balancer took. They are invalid if there is
	// none (a health check of the load balancer itself), or if the addresses are not of the Internet.
	Source, Destination netip.AddrPort
	// Authority is the server name that the client gave in TLS, if the load balancer has told it. Version 2 only.
	Authority string
	// UniqueID names the connection, if the load balancer has named it: at most 128 bytes. Version 2 only.
	UniqueID []byte
}

// What is wrong with a header.
var (
	ErrSignature = errors.New("the connection does not begin with a header of the PROXY protocol")
	ErrVersion1  = errors.New("the PROXY header of version 1 is malformed")
	ErrVersion2  = errors.New("the PROXY header of version 2 is malformed")
	ErrTooLong   = errors.New("the PROXY header is longer than the limit")
	ErrChecksum  = errors.New("the checksum of the PROXY header is wrong")
)

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	fixed2     = 16  // signature, version and command, kind, length
	maxLine    = 107 // of version 1, with its end
	minLine    = len("PROXY UNKNOWN\r\n")
)

// The kinds of additions of version 2 that are read.
const (
	typeAuthority = 0x02
	typeCRC32C    = 0x03
	typeUniqueID  = 0x05
)

// Parse reads the header at the begin of b. It returns its length; 0 and no error means that b may be the begin of one
// and at least missing more bytes belong to it.
func Parse(b []byte) (h Header, n, missing int, err error) {
	switch {
	case begins(b, signature2):
		return parse2(b)
	case begins(b, signature1):
		return parse1(b)
	}
	return h, 0, 0, ErrSignature
}

// begins tells whether b and signature agree as far as both go.
func begins(b []byte, signature string) bool {
	n := min(len(b), len(signature))
	return string(b[:n]) == signature[:n]
}

// Read reads a header from r and nothing beyond it. The reader's deadline is up to the caller.
func Read(r io.Reader) (Header, error) {
	// Neither version has a header shorter than that.
	const first = min(minLine, fixed2)
	b := make([]byte, first, maxLine)
	if _, err := io.ReadFull(r, b); err != nil {
		return Header{}, err
	}
	for {
		h, n, missing, err := Parse(b)
		if n > 0 || err != nil {
			return h, err
		}
		b = append(b, make([]byte, missing)...)
		if _, err := io.ReadFull(r, b[len(b)-missing:]); err != nil {
			return Header{}, err
		}
	}
}

// parse1 reads "PROXY TCP4 source destination port port", with one space between and CR LF at the end.
func parse1(b []byte) (h Header, n, missing int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) >= maxLine {
			return h, 0, 0, ErrVersion1
		}
		return h, 0, missing1(b), nil
	}
	if end >= maxLine || end < minLine-1 || b[end-1] != '\r' {
		return h, 0, 0, ErrVersion1
	}
	line := b[len(signature1) : end-1]
	if kind, _, _ := bytes.Cut(line, space); string(kind) == "UNKNOWN" {
		return h, end + 1, 0, nil // what follows must be ignored
	}
	var part [5][]byte
	for i := range part {
		var more bool
		if part[i], line, more = bytes.Cut(line, space); more != (i < len(part)-1) {
			return h, 0, 0, ErrVersion1
		}
	}
	is4 := string(part[0]) == "TCP4"
	if !is4 && string(part[0]) != "TCP6" {
		return h, 0, 0, ErrVersion1
	}
	source, ok1 := address1(part[1], part[3], is4)
	destination, ok2 := address1(part[2], part[4], is4)
	if !ok1 || !ok2 {
		return h, 0, 0, ErrVersion1
	}
	h.Source, h.Destination = source, destination
	return h, end + 1, 0, nil
}

var space = []byte{' '}

// missing1 tells how many bytes a line of version 1 lacks at least, so that few reads suffice and none goes too far.
func missing1(b []byte) int {
	if len(b) < minLine {
		return minLine - len(b)
	}
	if b[len(b)-1] == '\r' || b[len(signature1)] == 'U' {
		return 1
	}
	// Every field that has not begun takes a space and a character, and the end takes two.
	return 2 + 2*max(0, 5-bytes.Count(b, space))
}

func address1(address, port []byte, is4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(address))
	if err != nil || a.Is4() != is4 || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	if len(port) == 0 || len(port) > 5 || port[0] == '0' && len(port) > 1 {
		return netip.AddrPort{}, false
	}
	n := 0
	for _, c := range port {
		if c < '0' || c > '9' {
			return netip.AddrPort{}, false
		}
		n = n*10 + int(c-'0')
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), n <= 0xffff
}

func parse2(b []byte) (h Header, n, missing int, err error) {
	if len(b) < fixed2 {
		return h, 0, fixed2 - len(b), nil
	}
	version, command := b[12]>>4, b[12]&15
	if version != 2 || command > 1 || b[13]>>4 > 3 || b[13]&15 > 2 {
		return h, 0, 0, ErrVersion2
	}
	n = fixed2 + int(binary.BigEndian.Uint16(b[14:]))
	if n > MaxHeader {
		return h, 0, 0, ErrTooLong
	}
	if len(b) < n {
		return h, 0, n - len(b), nil
	}
	rest := b[fixed2:n]
	var size int // of both addresses with their ports
	switch b[13] {
	case 0x11, 0x12: // TCP and UDP over IPv4
		size = 12
	case 0x21, 0x22: // over IPv6
		size = 36
	case 0x31, 0x32: // Unix sockets
		size = 216
	default: // unspecified
		if command == 1 && b[13] != 0 {
			return h, 0, 0, ErrVersion2
		}
	}
	if len(rest) < size {
		return h, 0, 0, ErrVersion2
	}
	if command == 1 && size <= 36 && size > 0 {
		h.Source, h.Destination = addresses2(rest[:size])
	}
	if command == 0 || b[13] == 0 {
		return h, n, 0, nil // a health check, or nothing known: what follows must be ignored
	}
	if err := h.additions(b[:n], fixed2+size); err != nil {
		return Header{}, 0, 0, err
	}
	return h, n, 0, nil
}

func addresses2(b []byte) (source, destination netip.AddrPort) {
	n := (len(b) - 4) / 2
	from, _ := netip.AddrFromSlice(b[:n])
	to, _ := netip.AddrFromSlice(b[n : 2*n])
	source = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(b[2*n:]))
	destination = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(b[2*n+2:]))
	return source, destination
}

// additions reads what follows the addresses, in b from at on: kind, length and value, one after the other.
func (h *Header) additions(b []byte, at int) error {
	for at < len(b) {
		if len(b)-at < 3 {
			return ErrVersion2
		}
		kind, size := b[at], int(binary.BigEndian.Uint16(b[at+1:]))
		at += 3
		if len(b)-at < size {
			return ErrVersion2
		}
		value := b[at : at+size]
		switch kind {
		case typeAuthority:
			h.Authority = string(value)
		case typeUniqueID:
			if size > 128 {
				return ErrVersion2
			}
			h.UniqueID = bytes.Clone(value)
		case typeCRC32C:
			if size != 4 {
				return ErrVersion2
			}
			// The sum is that of the header with zeros in place of the sum.
			sum := crc32.Update(crc32.Checksum(b[:at], castagnoli), castagnoli, make([]byte, 4))
			if crc32.Update(sum, castagnoli, b[at+4:]) != binary.BigEndian.Uint32(value) {
				return ErrChecksum
			}
		}
		at += size
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendV1 appends h as a header of version 1. If an address is invalid, or they are of two families, it says UNKNOWN.
func (h *Header) AppendV1(dst []byte) []byte {
	source, destination, is4 := h.ends()
	if !source.IsValid() {
		return append(dst, "PROXY UNKNOWN\r\n"...)
	}
	if is4 {
		dst = append(dst, "PROXY TCP4 "...)
	} else {
		dst = append(dst, "PROXY TCP6 "...)
	}
	dst = append(source.Addr().AppendTo(dst), ' ')
	dst = append(destination.Addr().AppendTo(dst), ' ')
	dst = append(strconv.AppendUint(dst, uint64(source.Port()), 10), ' ')
	return append(strconv.AppendUint(dst, uint64(destination.Port()), 10), '\r', '\n')
}

// AppendV2 appends h as a header of version 2. If an address is invalid it says that the connection is the gateway's own
// (LOCAL). An Authority or UniqueID that is too long is left out.
func (h *Header) AppendV2(dst []byte) []byte {
	source, destination, is4 := h.ends()
	at := len(dst)
	dst = append(dst, signature2...)
	switch {
	case !source.IsValid():
		return append(dst, 0x20, 0, 0, 0)
	case is4:
		dst = append(dst, 0x21, 0x11, 0, 0)
		from, to := source.Addr().As4(), destination.Addr().As4()
		dst = append(append(dst, from[:]...), to[:]...)
	default:
		dst = append(dst, 0x21, 0x21, 0, 0)
		from, to := source.Addr().As16(), destination.Addr().As16()
		dst = append(append(dst, from[:]...), to[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, source.Port())
	dst = binary.BigEndian.AppendUint16(dst, destination.Port())
	if n := len(h.Authority); n > 0 && n <= 255 {
		dst = append(dst, typeAuthority, 0, byte(n))
		dst = append(dst, h.Authority...)
	}
	if n := len(h.UniqueID); n > 0 && n <= 128 {
		dst = append(dst, typeUniqueID, 0, byte(n))
		dst = append(dst, h.UniqueID...)
	}
	binary.BigEndian.PutUint16(dst[at+14:], uint16(len(dst)-at-fixed2))
	return dst
}

// ends returns both addresses in one family: an IPv4 address beside an IPv6 one is written as such (::ffff:a.b.c.d). If
// one is invalid both are.
func (h *Header) ends() (source, destination netip.AddrPort, is4 bool) {
	s, d := h.Source.Addr().Unmap().WithZone(""), h.Destination.Addr().Unmap().WithZone("")
	if !s.IsValid() || !d.IsValid() {
		return netip.AddrPort{}, netip.AddrPort{}, false
	}
	if is4 = s.Is4() && d.Is4(); !is4 {
		s, d = netip.AddrFrom16(s.As16()), netip.AddrFrom16(d.As16())
	}
	return netip.AddrPortFrom(s, h.Source.Port()), netip.AddrPortFrom(d, h.Destination.Port()), is4
}
