package ingress

import (
	"bytes"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/x/pathnorm"
)

var (
	errFragment = &exchange.Fault{Code: exchange.BadRequestTarget, Detail: "the request target holds a fragment"}
	slash       = []byte("/")
)

// SetAuthority makes authority, in lower case, the authority and the host of the exchange. It returns false if it is not
// a host with an optional port.
func SetAuthority(x *exchange.Exchange, authority []byte) bool {
	if !ValidAuthority(authority) {
		return false
	}
	x.Authority = lowerCase(x, authority)
	x.Host = hostOf(x.Authority)
	return true
}

// ValidTarget tells whether a request target consists of what a request line of HTTP/1 can hold: no space, no control character
// and nothing outside ASCII.
func ValidTarget[T ~string | ~[]byte](target T) bool {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// SetPath splits target, which is a path with an optional query of what ValidTarget allows, and makes the path canonical. What an absolute URI
// without a path leaves, the empty target, is "/". An error is an *exchange.Fault or one of pathnorm.
func SetPath(x *exchange.Exchange, target []byte) error {
	path := target
	if before, after, ok := bytes.Cut(target, []byte{'?'}); ok {
		path, x.Query, x.HasQuery = before, after, true
		if bytes.IndexByte(x.Query, '#') >= 0 {
			return errFragment
		}
	}
	if pathnorm.Canonical(path) {
		x.Path = path
		return nil
	}
	if len(path) == 0 {
		path = slash
	}
	if bytes.IndexByte(path, '#') >= 0 {
		return errFragment
	}
	// The canonical form may be longer than the path by what it encodes; rarely longer than this.
	var buf [512]byte
	canonical, err := pathnorm.Append(buf[:0], path)
	if err != nil {
		return err
	}
	x.Path = x.Scratch(canonical)
	return nil
}

// hostTable tells the characters of a host: names, IPv4 addresses, and in brackets IPv6 addresses.
var hostTable = func() (t [256]bool) {
	for c := range byte(0x80) {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '.', c == '_':
			t[c] = true
		}
	}
	return t
}()

// ValidAuthority tells whether b is a host with an optional port. Percent-encoding, user information and empty hosts are
// not taken.
func ValidAuthority(b []byte) bool {
	i := 0
	if len(b) > 0 && b[0] == '[' {
		i = bytes.IndexByte(b, ']')
		if i < 3 {
			return false
		}
		for _, c := range b[1:i] {
			if c != ':' && c != '.' && (!hostTable[c] || c == '-' || c == '_' || (c|0x20) > 'f') {
				return false
			}
		}
		i++
	} else {
		for i < len(b) && hostTable[b[i]] {
			i++
		}
		if i == 0 || i > 255 || b[0] == '.' {
			return false
		}
	}
	if i == len(b) {
		return true
	}
	port := b[i+1:]
	if b[i] != ':' || len(port) > 5 {
		return false
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// lowerCase returns b in lower case: itself, if it is.
func lowerCase(x *exchange.Exchange, b []byte) exchange.View {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			v := x.Scratch(b)
			for i, c := range v {
				if 'A' <= c && c <= 'Z' {
					v[i] = c + 'a' - 'A'
				}
			}
			return v
		}
	}
	return b
}

// hostOf cuts the port and one last dot off an authority.
func hostOf(a exchange.View) exchange.View {
	if i := bytes.LastIndexByte(a, ':'); i >= 0 && a[len(a)-1] != ']' {
		a = a[:i]
	}
	if n := len(a); n > 1 && a[n-1] == '.' {
		a = a[:n-1]
	}
	return a
}
