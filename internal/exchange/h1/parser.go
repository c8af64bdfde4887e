package h1

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"hansa.dev/hansa/internal/exchange"
)

// Limits bound the head of a message.
type Limits struct {
	// Target bounds the request target, in bytes.
	Target int
	// Head bounds the whole head: first line and fields, in bytes.
	Head int
	// Fields bounds the number of fields; at most exchange.MaxFields.
	Fields int
}

// DefaultLimits are what the gateway takes from clients and from backends unless told otherwise.
var DefaultLimits = Limits{Target: 8 << 10, Head: 32 << 10, Fields: 100}

const (
	maxMethod = 32
	maxName   = 1 << 10
)

// Parser reads the head of one message after the other. Its zero value is not ready: Reset it first.
type Parser struct {
	limits Limits
	at     int // begin of the line that comes next
	seen   int // no line ends between at and seen
	fields bool

	// Method and Target are what the request line says, after Request. They lie in the buffer.
	Method, Target []byte
	// Minor is the minor version of HTTP: 0 or 1; what says a higher one is read as 1 (RFC 9110, section 2.5).
	Minor int
	// Status is what the status line says, after Response.
	Status int
	// Underscore tells that a name holds an underscore: some backends take that for a hyphen.
	Underscore bool

	method, target span
}

type span struct{ from, to int }

// Reset makes p ready for the next message.
func (p *Parser) Reset(limits Limits) { *p = Parser{limits: limits} }

// Request reads on in buf, which holds everything since the begin of the request. It returns the length of the head, or
// 0 if there is more to come. The fields are put into h, which is left borrowing buf. An empty line before the request
// is skipped (RFC 9112, section 2.2). Every error is a *exchange.Fault.
func (p *Parser) Request(buf []byte, h *exchange.Head) (int, error) {
	if !p.fields {
		if p.at == 0 && len(buf) >= 2 && buf[0] == '\r' && buf[1] == '\n' {
			p.at = 2
		}
		if ok, err := p.whole(buf, errTargetTooLong); !ok {
			if err == nil {
				err = p.requestPrefix(buf[p.at:])
			}
			return 0, err
		}
		if err := p.requestLine(buf); err != nil {
			return 0, err
		}
		p.fields = true
	}
	n, err := p.header(buf, h, false)
	if n > 0 {
		p.Method, p.Target = buf[p.method.from:p.method.to], buf[p.target.from:p.target.to]
	}
	return n, err
}

// Response is Request for responses.
func (p *Parser) Response(buf []byte, h *exchange.Head) (int, error) {
	if !p.fields {
		if ok, err := p.whole(buf, errHeadTooLarge); !ok {
			if err == nil && !statusPrefix(buf) {
				err = errStatusLine
			}
			return 0, err
		}
		if err := p.statusLine(buf); err != nil {
			return 0, err
		}
		p.fields = true
	}
	return p.header(buf, h, true)
}

// Trailers reads on in buf, which holds everything since the end of the last chunk, and returns the length of the
// trailers with the empty line that ends them, or 0 if there is more to come.
func (p *Parser) Trailers(buf []byte, h *exchange.Head) (int, error) {
	n, err := p.header(buf, h, false)
	if err == errHeadTooLarge || err == errTooMany {
		err = errTrailers
	}
	return n, err
}

// whole tells whether the line at p.at is there to its end. If it is not, and cannot come to be within the limit, that
// is tooLong. An incomplete line is looked through only once, however slowly it arrives.
func (p *Parser) whole(buf []byte, tooLong error) (bool, error) {
	if bytes.IndexByte(buf[max(p.at, p.seen):], '\n') >= 0 {
		return true, nil
	}
	p.seen = len(buf)
	if len(buf) >= p.limits.Head {
		return false, tooLong
	}
	return false, nil
}

// requestPrefix refuses early what cannot become a request line, so that a client that speaks another protocol is
// not waited for.
func (p *Parser) requestPrefix(line []byte) error {
	n := 0
	for n < len(line) && tokenTable[line[n]] {
		n++
	}
	switch {
	case n > maxMethod, n == 0 && len(line) > 0 && line[0] != '\r':
		return errMethod
	case n == len(line) || n == 0:
		return nil
	case line[n] != ' ':
		return errMethod
	case len(line)-n-1 > p.limits.Target+len(" HTTP/1.1\r"):
		return errTargetTooLong
	}
	return nil
}

func (p *Parser) requestLine(buf []byte) error {
	i := p.at
	for i < len(buf) && tokenTable[buf[i]] {
		i++
	}
	p.method = span{p.at, i}
	if i == p.at || i-p.at > maxMethod {
		return errMethod
	}
	switch buf[i] { // in bounds: there is a line end
	case ' ':
	case '\r', '\n':
		return errRequestLine
	default:
		return errMethod
	}
	i++
	from := i
	for buf[i]-0x21 < 0x7f-0x21 {
		i++
	}
	p.target = span{from, i}
	switch {
	case i-from > p.limits.Target:
		return errTargetTooLong
	case buf[i] == ' ' && i > from:
	case buf[i] == '\r' || buf[i] == '\n' || i == from:
		return errRequestLine // among them HTTP/0.9
	default:
		return errTarget
	}
	i++
	rest := buf[i:]
	if !bytes.HasPrefix(rest, []byte("HTTP/")) && foreign(buf[p.target.from:p.target.to]) {
		return ErrForeign
	}
	if len(rest) < len("HTTP/1.1\r\n") || string(rest[:5]) != "HTTP/" || rest[6] != '.' || !digit(rest[5]) || !digit(rest[7]) {
		return errRequestLine
	}
	switch {
	case rest[8] == '\n':
		return errBareLF
	case rest[8] != '\r' || rest[9] != '\n':
		return errRequestLine
	case rest[5] != '1':
		return errVersion
	}
	p.Minor = int(min(rest[7], '1') - '0')
	p.at = i + 10
	return nil
}

// foreign tells whether no form of a request target (RFC 9112, section 3.2) but that of CONNECT begins like target.
func foreign(target []byte) bool {
	return target[0] != '/' && target[0] != '*' && !bytes.Contains(target, []byte("://"))
}

// statusPrefix tells whether b can be the begin of a response.
func statusPrefix(b []byte) bool {
	const begin = "HTTP/1."
	n := min(len(b), len(begin))
	return string(b[:n]) == begin[:n]
}

func (p *Parser) statusLine(buf []byte) error {
	line := buf[p.at:]
	if len(line) < len("HTTP/1.1 200\r\n") || !statusPrefix(line) || !digit(line[7]) || line[8] != ' ' ||
		!digit(line[9]) || !digit(line[10]) || !digit(line[11]) || line[9] == '0' {
		return errStatusLine
	}
	p.Minor = int(min(line[7], '1') - '0')
	p.Status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	// Many servers leave out the space before an empty reason.
	if line[12] != ' ' && line[12] != '\r' {
		return errStatusLine
	}
	end := valueEnd(buf, p.at+12)
	if end+1 >= len(buf) || buf[end] != '\r' || buf[end+1] != '\n' {
		return errStatusLine
	}
	p.at = end + 2
	return nil
}

// header reads field lines up to the empty one. It returns the offset behind that, or 0.
func (p *Parser) header(buf []byte, h *exchange.Head, response bool) (int, error) {
	h.Borrow(buf)
	if p.seen > p.at {
		if ok, err := p.whole(buf, errHeadTooLarge); !ok {
			return 0, err
		}
	}
	for p.at < len(buf) {
		i := p.at
		for i < len(buf) && tokenTable[buf[i]] {
			if buf[i] == '_' {
				p.Underscore = true
			}
			i++
		}
		if i == len(buf) {
			break
		}
		nameEnd, plain := i, true
		if buf[i] != ':' {
			end, err := p.oddName(buf, i, response)
			switch {
			case err != nil:
				return 0, err
			case end == 0:
				return 0, p.more(buf)
			case end < 0: // the empty line
				if -end > p.limits.Head {
					return 0, errHeadTooLarge
				}
				return -end, nil
			}
			i, plain = end, false
		} else if i == p.at || i-p.at > maxName {
			return 0, errFieldName
		}
		i++
		from := i
		for i < len(buf) && (buf[i] == ' ' || buf[i] == '\t') {
			i++
		}
		value := i
		i = valueEnd(buf, i)
		if i+1 >= len(buf) {
			if i < len(buf) && buf[i] != '\r' {
				return 0, badValue(buf[i])
			}
			break
		}
		if buf[i] != '\r' {
			return 0, badValue(buf[i])
		}
		if buf[i+1] != '\n' {
			return 0, errBareCR
		}
		end := i
		for end > value && (buf[end-1] == ' ' || buf[end-1] == '\t') {
			end--
		}
		plain = plain && value == from+1 && buf[from] == ' ' && end == i
		if h.Len() >= p.limits.Fields {
			return 0, errTooMany
		}
		if _, ok := h.Index(p.at, nameEnd-p.at, value, end-value, plain); !ok {
			return 0, errTooMany
		}
		p.at = i + 2
	}
	return 0, p.more(buf)
}

// more notes that the line at p.at is not complete.
func (p *Parser) more(buf []byte) error {
	p.seen = len(buf)
	if len(buf) >= p.limits.Head {
		return errHeadTooLarge
	}
	return nil
}

// oddName looks at a line whose name, up to i, is not followed by a colon: it returns the offset of the colon, 0 if more
// must be read, or, negative, the offset behind the empty line.
func (p *Parser) oddName(buf []byte, i int, response bool) (int, error) {
	switch c := buf[i]; {
	case c == '\r' && i == p.at:
		if i+1 == len(buf) {
			return 0, nil
		}
		if buf[i+1] != '\n' {
			return 0, errBareCR
		}
		return -(i + 2), nil
	case c == '\n':
		return 0, errBareLF
	case c == '\r':
		return 0, errNoColon
	case (c == ' ' || c == '\t') && i == p.at:
		return 0, errFolded
	case (c == ' ' || c == '\t') && !response:
		return 0, errSpaceColon
	case c == ' ' || c == '\t':
		// Of a response the space is dropped (RFC 9112, section 5.1).
		for i < len(buf) && (buf[i] == ' ' || buf[i] == '\t') {
			i++
		}
		if i == len(buf) {
			return 0, nil
		}
		if buf[i] != ':' {
			return 0, errFieldName
		}
		return i, nil
	}
	return 0, errFieldName
}

func badValue(c byte) error {
	if c == '\n' {
		return errBareLF
	}
	return errFieldValue
}

// valueEnd returns the offset of the first byte at or after i that cannot stand in a field value: a control character
// other than a tab. It looks at eight bytes at once: of those that the subtractions mark, the lowest is always right.
func valueEnd(b []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for {
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			del := w ^ 0x7f*ones
			m := ((w - 0x20*ones) &^ w & highs) | ((del - ones) &^ del & highs)
			if m == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(m) >> 3
			break
		}
		for i < len(b) && b[i] >= 0x20 && b[i] != 0x7f {
			i++
		}
		if i == len(b) || b[i] != '\t' {
			return i
		}
		i++
	}
}

func digit(c byte) bool { return c-'0' < 10 }

// tokenTable tells the characters of a token (RFC 9110, section 5.6.2).
var tokenTable = func() (t [256]bool) {
	for c := range byte(0x80) {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			t[c] = true
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = true
	}
	return t
}()

// Token tells whether b is a token (RFC 9110, section 5.6.2).
func Token[T ~string | ~[]byte](b T) bool {
	for i := range len(b) {
		if !tokenTable[b[i]] {
			return false
		}
	}
	return len(b) > 0
}
