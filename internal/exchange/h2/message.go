package h2

import (
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/exchange/h1"
)

// Kind is what a header block is.
type Kind uint8

// The kinds.
const (
	Request Kind = iota
	Response
	Trailers
)

// pseudo is the number of a pseudo-header field.
type pseudo uint8

const (
	method pseudo = iota
	scheme
	authority
	path
	protocol
	status
	numPseudo
)

// Message is what a header block says. Reset it for each. Its views lie in memory of its own, which it uses again.
type Message struct {
	// Method, Scheme, Authority, Path, Protocol and Status are the pseudo-header fields, nil where there is none.
	// They are set by End.
	Method, Scheme, Authority, Path, Protocol, Status exchange.View
	// Large tells that the block is larger than the limits, so that fields are missing.
	Large bool
	// Underscore tells that a name holds an underscore: some backends take that for a hyphen.
	Underscore bool

	kind    Kind
	head    *exchange.Head
	limits  h1.Limits
	lines   []byte // fields as lines of HTTP/1; head borrows it
	size    int
	regular bool // a field was seen that is not a pseudo-header field
	fault   *Fault
	given   [numPseudo]bool
	spans   [numPseudo]struct{ from, to int }
}

// keepLines bounds the memory that a Message keeps.
const keepLines = 8 << 10

// Reset prepares m for a block whose fields are to be put into head, which borrows memory of m.
func (m *Message) Reset(kind Kind, head *exchange.Head, limits h1.Limits) {
	lines := m.lines[:0]
	if cap(lines) > keepLines {
		lines = nil
	}
	*m = Message{kind: kind, head: head, limits: limits, lines: lines}
	head.Reset()
}

// add takes in one field, copying it.
func add[T ~string | ~[]byte](m *Message, name, value T) {
	m.size += len(name) + len(value) + tableEntryExtra
	switch {
	case m.fault != nil || m.Large:
		return
	case m.size > m.limits.Head+tableEntryExtra*m.limits.Fields:
		m.Large = true
		return
	case len(name) > 0 && name[0] == ':':
		addPseudo(m, name, value)
		return
	}
	m.regular = true
	if f := checkName(m, name); f != nil {
		m.fault = f
		return
	}
	if !validValue(value) {
		m.fault = errValue
		return
	}
	if m.head.Len() >= m.limits.Fields {
		m.Large = true
		return
	}
	at := len(m.lines)
	m.lines = append(append(m.lines, name...), ": "...)
	from := len(m.lines)
	m.lines = append(append(m.lines, value...), "\r\n"...)
	m.head.Borrow(m.lines)
	id, ok := m.head.Index(at, len(name), from, len(value), true)
	switch {
	case !ok:
		m.Large = true
	case connectionFields.Has(id) && id != exchange.IDOther:
		m.fault = errConnection
	case id == exchange.IDTE && !exchange.EqualFold(m.lines[from:from+len(value)], "trailers"):
		m.fault = errTE
	}
}

// connectionFields are those that HTTP/2 has no place for (RFC 9113, section 8.2.2).
const connectionFields exchange.IDSet = 1<<exchange.IDConnection | 1<<exchange.IDKeepAlive | 1<<exchange.IDProxyConnection |
	1<<exchange.IDTransferEncoding | 1<<exchange.IDUpgrade

// addPseudo takes in a pseudo-header field. They come before all others, once each (RFC 9113, section 8.3).
func addPseudo[T ~string | ~[]byte](m *Message, name, value T) {
	p := numPseudo
	if m.kind == Request {
		switch string(name) {
		case ":method":
			p = method
		case ":scheme":
			p = scheme
		case ":authority":
			p = authority
		case ":path":
			p = path
		case ":protocol":
			p = protocol
		}
	} else if m.kind == Response && string(name) == ":status" {
		p = status
	}
	if p == numPseudo || m.given[p] || m.regular {
		m.fault = errPseudo
		return
	}
	if !validValue(value) {
		m.fault = errValue
		return
	}
	m.given[p] = true
	m.spans[p].from = len(m.lines)
	m.lines = append(m.lines, value...)
	m.spans[p].to = len(m.lines)
}

// nameTable tells the characters of a field name in HTTP/2: those of a token without capital letters.
var nameTable = func() (t [256]bool) {
	for c := range 0x80 {
		t[c] = h1.Token([]byte{byte(c)}) && (c < 'A' || c > 'Z')
	}
	return t
}()

const maxName = 1 << 10

func checkName[T ~string | ~[]byte](m *Message, name T) *Fault {
	if len(name) == 0 || len(name) > maxName {
		return errName
	}
	for i := range len(name) {
		if !nameTable[name[i]] {
			return errName
		}
		if name[i] == '_' {
			m.Underscore = true
		}
	}
	return nil
}

// validValue tells whether v may be the value of a field: no control character but tab, no white space around it.
func validValue[T ~string | ~[]byte](v T) bool {
	for i := range len(v) {
		if c := v[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	n := len(v)
	return n == 0 || v[0] != ' ' && v[0] != '\t' && v[n-1] != ' ' && v[n-1] != '\t'
}

// End is called when the block is decoded. It returns the *Fault that makes the message malformed, or nil.
func (m *Message) End() error {
	for p, view := range [numPseudo]*exchange.View{
		method: &m.Method, scheme: &m.Scheme, authority: &m.Authority, path: &m.Path, protocol: &m.Protocol, status: &m.Status,
	} {
		if s := m.spans[p]; m.given[p] {
			*view = m.lines[s.from:s.to:s.to]
		}
	}
	if m.fault == nil && !m.Large {
		m.fault = m.check()
	}
	if m.fault != nil {
		return m.fault
	}
	return nil
}

// check holds the message against RFC 9113, section 8.3, and RFC 8441, section 4.
func (m *Message) check() *Fault {
	switch m.kind {
	case Response:
		if s := m.Status; len(s) != 3 || s[0] < '1' || s[0] > '9' || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' {
			return errStatus
		}
	case Request:
		connect := string(m.Method) == "CONNECT"
		switch {
		case len(m.Method) == 0, m.given[protocol] && (!connect || len(m.Protocol) == 0):
			return errPseudo
		case connect && !m.given[protocol]:
			if m.given[scheme] || m.given[path] || len(m.Authority) == 0 {
				return errPseudo
			}
		case len(m.Scheme) == 0 || len(m.Path) == 0:
			return errPseudo
		}
	}
	return nil
}

// StatusCode returns the status of a response that End found well-formed.
func (m *Message) StatusCode() int {
	return int(m.Status[0]-'0')*100 + int(m.Status[1]-'0')*10 + int(m.Status[2]-'0')
}
