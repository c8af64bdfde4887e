package ingress

import "hansa.dev/hansa/internal/exchange"

// maxNodes bounds the proxies in Forwarded.
const maxNodes = 32

// nodes are the elements of Forwarded (RFC 7239), in order.
type nodes struct {
	of [maxNodes]node
	n  int
}

// node is what an element says of whom a proxy was asked by, and how. What it does not say is empty.
type node struct{ by, proto, host []byte }

// read reads the Forwarded fields. It returns false if they are malformed, or too many.
func (ns *nodes) read(h *exchange.Head) bool {
	for v := range h.Values(exchange.IDForwarded.Name()) {
		if !ns.field(v) {
			return false
		}
	}
	return true
}

// backward yields who asked, from the last node to the first.
func (ns *nodes) backward(yield func([]byte) bool) {
	for i := ns.n - 1; i >= 0; i-- {
		if !yield(ns.of[i].by) {
			return
		}
	}
}

// field reads one field: elements separated by commas, each of pairs separated by semicolons.
func (ns *nodes) field(b []byte) bool {
	for i := 0; i <= len(b); i++ {
		var element node
		filled := false
		for {
			i = skipSpace(b, i)
			if i < len(b) && b[i] != ',' && b[i] != ';' {
				name, value, next := pair(b, i)
				if next < 0 {
					return false
				}
				if !element.set(name, value) {
					return false
				}
				filled, i = true, skipSpace(b, next)
			}
			if i >= len(b) || b[i] == ',' {
				break
			}
			if b[i] != ';' {
				return false
			}
			i++
		}
		if !filled { // lists may have empty elements (RFC 9110, section 5.6.1.2)
			continue
		}
		if ns.n == maxNodes {
			return false
		}
		ns.of[ns.n] = element
		ns.n++
	}
	return true
}

// set takes a pair. It returns false if there was one of that name.
func (n *node) set(name, value []byte) bool {
	var to *[]byte
	switch {
	case exchange.EqualFold(name, "for"):
		to = &n.by
	case exchange.EqualFold(name, "proto"):
		to = &n.proto
	case exchange.EqualFold(name, "host"):
		to = &n.host
	default:
		return true
	}
	if *to != nil {
		return false
	}
	*to = value
	return true
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	return i
}

// pair reads token=value at i, where value is a token or a quoted string without backslashes, which no node needs. It
// returns the offset behind the pair, or -1.
func pair(b []byte, i int) (name, value []byte, next int) {
	from := i
	for i < len(b) && token(b[i]) {
		i++
	}
	name = b[from:i]
	if len(name) == 0 || i+1 >= len(b) || b[i] != '=' {
		return nil, nil, -1
	}
	i++
	if b[i] == '"' {
		i++
		from = i
		for i < len(b) && b[i] != '"' {
			if b[i] == '\\' {
				return nil, nil, -1
			}
			i++
		}
		if i == len(b) {
			return nil, nil, -1
		}
		return name, b[from:i], i + 1
	}
	from = i
	// Colons and brackets must be quoted, and are often not.
	for i < len(b) && (token(b[i]) || b[i] == ':' || b[i] == '[' || b[i] == ']') {
		i++
	}
	if i == from {
		return nil, nil, -1
	}
	return name, b[from:i], i
}

// token tells the characters of a token (RFC 9110, section 5.6.2).
func token(c byte) bool {
	switch {
	case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}
