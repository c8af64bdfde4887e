package policy

import (
	"fmt"
	"slices"
	"strings"

	"hansa.dev/hansa/internal/exchange"
)

// Field is a header field that a policy sets.
type Field struct {
	Name  exchange.Name
	Value string
}

// ReadFields checks header fields and returns them in order of name.
func ReadFields(fields map[string]string) ([]Field, error) {
	out := make([]Field, 0, len(fields))
	for name, value := range fields {
		n, err := ReadFieldName(name)
		if err != nil {
			return nil, err
		}
		if !validValue(value) {
			return nil, fmt.Errorf("header field %s: its value is not one line of text without blanks at either end", name)
		}
		out = append(out, Field{n, value})
	}
	slices.SortFunc(out, func(a, b Field) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	return out, nil
}

// ReadFieldName checks the name of a header field that a policy changes. Fields that speak of the connection or of
// the length of the body belong to the gateway.
func ReadFieldName(name string) (exchange.Name, error) {
	if !validToken(name) {
		return exchange.Name{}, fmt.Errorf("%q is not the name of a header field", name)
	}
	n := exchange.NameOf(name)
	id := n.ID()
	if exchange.HopByHop.Has(id) || id == exchange.IDContentLength || id == exchange.IDHost || id == exchange.IDXRequestID {
		return exchange.Name{}, fmt.Errorf("header field %s: the gateway itself decides about it", name)
	}
	return n, nil
}

// validToken follows RFC 9110, section 5.6.2.
func validToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// validValue follows RFC 9110, section 5.5.
func validValue(s string) bool {
	if strings.Trim(s, " \t") != s {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// ResponseHead returns the header fields of the response that a response policy changes: those of the backend's, or of
// the gateway's own answer.
func ResponseHead(x *exchange.Exchange) *exchange.Head {
	if _, own := x.LocalAnswer(); own {
		return &x.Own
	}
	return &x.Resp
}
