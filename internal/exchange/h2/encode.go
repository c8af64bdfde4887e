package h2

import (
	"strconv"

	"hansa.dev/hansa/internal/exchange"
)

// The encoder keeps its dynamic table empty. TableUpdate says so, at the begin of the first header block and of the first
// one after the peer has changed HeaderTableSize (RFC 7541, section 4.2).
const TableUpdate = 0x20

// How a literal field begins, without and with the wish that nobody on the way ever keeps it in a table.
const (
	literal      = 0x00
	neverIndexed = 0x10
	indexed      = 0x80
)

// secret are the fields whose values must not be guessed from the size of compressed blocks (RFC 7541, section 7.1).
const secret exchange.IDSet = 1<<exchange.IDAuthorization | 1<<exchange.IDCookie | 1<<exchange.IDSetCookie |
	1<<exchange.IDXAPIKey | 1<<exchange.IDProxyAuthorization

// AppendStatus appends the :status field.
func AppendStatus(dst []byte, status int) []byte {
	i := byte(0)
	switch status {
	case 200:
		i = index200
	case 204:
		i = index204
	case 206:
		i = index206
	case 304:
		i = index304
	case 400:
		i = index400
	case 404:
		i = index404
	case 500:
		i = index500
	default:
		return append(dst, literal|index200, 3, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
	}
	return append(dst, indexed|i)
}

// AppendRequestLine appends the pseudo-header fields of a request, in the order that most implementations use. protocol is
// that of an extended CONNECT; nil: none. The path is pre, target and, if query is not nil, "?" and query.
func AppendRequestLine(dst, method []byte, https bool, authority []byte, pre string, target, query, protocol []byte) []byte {
	switch string(method) {
	case "GET":
		dst = append(dst, indexed|indexGET)
	case "POST":
		dst = append(dst, indexed|indexPOST)
	default:
		dst = appendString(append(dst, literal|indexGET), method)
	}
	if https {
		dst = append(dst, indexed|indexHTTPS)
	} else {
		dst = append(dst, indexed|indexHTTP)
	}
	n := len(pre) + len(target)
	if query != nil {
		n += 1 + len(query)
	}
	dst = appendInt(append(dst, literal|indexPath), 0, 7, n)
	dst = append(append(dst, pre...), target...)
	if query != nil {
		dst = append(append(dst, '?'), query...)
	}
	if len(authority) > 0 {
		dst = appendString(append(dst, literal|indexAuthority), authority)
	}
	if protocol != nil {
		dst = appendString(append(append(dst, literal, byte(len(":protocol"))), ":protocol"...), protocol)
	}
	return dst
}

// AppendField appends a field. id must be that of its name, which is written in lower case.
func AppendField[N, V ~string | ~[]byte](dst []byte, id exchange.ID, name N, value V) []byte {
	form := byte(literal)
	if id != exchange.IDOther && secret.Has(id) {
		form = neverIndexed
	}
	if i := staticIndex[id]; i != 0 {
		dst = appendInt(dst, form, 4, int(i))
	} else {
		dst = appendInt(append(dst, form), 0, 7, len(name))
		at := len(dst)
		dst = append(dst, name...)
		for i, c := range dst[at:] {
			if 'A' <= c && c <= 'Z' {
				dst[at+i] = c + 'a' - 'A'
			}
		}
	}
	return appendString(dst, value)
}

// AppendUint appends a field whose value is a number.
func AppendUint(dst []byte, id exchange.ID, n int64) []byte {
	var b [20]byte
	return AppendField(dst, id, id.String(), strconv.AppendInt(b[:0], n, 10))
}

// AppendHead appends the fields of h, without those whose name is in except.
func AppendHead(dst []byte, h *exchange.Head, except exchange.IDSet) []byte {
	except &^= 1 << exchange.IDOther
	for i := range h.Size() {
		if id, name, value := h.At(i); name != nil && !except.Has(id) {
			dst = AppendField(dst, id, name, value)
		}
	}
	return dst
}

func appendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	if len(s) < 0x7f {
		dst = append(dst, byte(len(s)))
	} else {
		dst = appendInt(dst, 0, 7, len(s))
	}
	return append(dst, s...)
}

// appendInt appends an integer whose first bits stand in the low ones of the first byte, whose others are those of first.
func appendInt(dst []byte, first byte, bits uint, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
