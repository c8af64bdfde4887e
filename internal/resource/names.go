package resource

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// validName tells whether s is a name of a resource.
func validName(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case (c == '-' || c == '.') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}

// validLabel tells whether s is a key of a label, or a value that is not empty.
func validLabel(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-_./", c) >= 0 && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}

// hostFault says what keeps s from being a host name of letters, digits, "-" and "_", or returns "". Letters may be of
// either case.
func hostFault(s string) string {
	if s == "" {
		return "it is empty"
	}
	if len(s) > 253 {
		return "it is longer than 253 bytes"
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return "it has an empty label"
		case len(label) > 63:
			return "a label is longer than 63 bytes"
		case label[0] == '-' || label[len(label)-1] == '-':
			return `a label begins or ends with "-"`
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			case c >= 0x80:
				return "it is not in ASCII"
			default:
				return "it holds the character " + strconv.QuoteRune(rune(c))
			}
		}
	}
	return ""
}

// hostnameFault says what keeps s from being a hostname of an environment group, and how to mend it.
func hostnameFault(s string) (fault, remedy string) {
	if s == "*" {
		return "", ""
	}
	name := strings.TrimPrefix(s, "*.")
	switch {
	case strings.Contains(name, "*"):
		return `"*" stands for the whole first label only`, `write "*.example.com", or "*" alone for every host`
	case strings.Contains(name, "://"):
		return "it is a URL", "write the host alone"
	case strings.Contains(name, ":"):
		return "it has a port", "write the host alone; gateways listen on what they are started with"
	case strings.HasSuffix(name, "."):
		return "it ends with a dot", "leave the dot out"
	}
	if fault := hostFault(name); fault != "" {
		return fault, `write a DNS name such as api.example.com, in ASCII ("xn--...") where it has other letters`
	}
	return "", ""
}

// addressFault says what keeps s from being host:port, or returns "".
func addressFault(s string) string {
	host, port, ok := splitHostPort(s)
	if !ok {
		return "it is not host:port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return "the port is not a number from 1 to 65535"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Is6() != (s[0] == '[') {
			return "an IPv6 address stands in brackets, any other host does not"
		}
		return ""
	}
	if s[0] == '[' {
		return "what stands in brackets is not an IPv6 address"
	}
	if fault := hostFault(host); fault != "" {
		return "the host is wrong: " + fault
	}
	return ""
}

// splitHostPort splits host:port and [host]:port without a look at either.
func splitHostPort(s string) (host, port string, ok bool) {
	if strings.HasPrefix(s, "[") {
		host, rest, ok := strings.Cut(s[1:], "]")
		if !ok || !strings.HasPrefix(rest, ":") {
			return "", "", false
		}
		return host, rest[1:], rest != ":"
	}
	host, port, ok = strings.Cut(s, ":")
	return host, port, ok && host != "" && port != "" && !strings.Contains(port, ":")
}

// validToken tells whether s is a token of RFC 9110, such as the name of a header field.
func validToken(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= 256
}

// validFieldValue tells whether s can be the value of a header field: RFC 9110 field-content, nothing at either end
// that a parser would strip.
func validFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == strings.Trim(s, " \t") && len(s) <= maxHeaderValue
}

// sortedKeys returns the keys of m in order, so that faults come in the same order each time.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
