package exchange

import (
	"strconv"
	"unicode/utf8"
)

// ProblemType is the media type of refusals (RFC 9457).
const ProblemType = "application/problem+json"

// problemBase is what the type member of a refusal begins with; the code follows.
const problemBase = "https://hansa.dev/errors/"

// AppendProblem appends the body of the refusal that x carries: type, title, status, code, detail (the advice of
// the code if x has none) and requestId.
func (x *Exchange) AppendProblem(dst []byte) []byte {
	info := &codes[x.Code]
	dst = append(dst, `{"type":"`+problemBase...)
	dst = append(dst, info.name...)
	dst = append(dst, `","title":"`...)
	dst = append(dst, info.title...)
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(x.Status), 10)
	dst = append(dst, `,"code":"`...)
	dst = append(dst, info.name...)
	dst = append(dst, `","detail":`...)
	if x.Detail != "" {
		dst = AppendJSONString(dst, x.Detail)
	} else {
		dst = AppendJSONString(dst, advice[x.Code])
	}
	dst = append(dst, `,"requestId":"`...)
	dst = append(dst, x.ID[:]...)
	return append(dst, "\"}\n"...)
}

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func AppendJSONString[S ~string | ~[]byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	if unescaped(s) {
		dst = append(dst, s...)
	} else {
		dst = appendEscaped(dst, s)
	}
	return append(dst, '"')
}

// unescaped tells whether s stands in JSON as it is, being ASCII. It looks at eight bytes at once. Those that must be escaped set
// their highest bit in one of the terms, and that of bytes above them perhaps, too.
func unescaped[S ~string | ~[]byte](s S) bool {
	const ones, spaces = 0x0101010101010101, 0x2020202020202020
	bad := uint64(0)
	for i := 0; i < len(s); i += 8 {
		v := uint64(spaces)
		if i+8 <= len(s) {
			v = uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
				uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		} else {
			for j := i; j < len(s); j++ {
				v = v<<8 | uint64(s[j])
			}
		}
		bad |= v | (v - spaces) | ((v ^ '"'*ones) - ones) | ((v ^ '\\'*ones) - ones) | (v + ones)
	}
	return bad&(0x80*ones) == 0
}

func appendEscaped[S ~string | ~[]byte](dst []byte, s S) []byte {
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRune([]byte(s[i:min(i+utf8.UTFMax, len(s))])); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			dst = append(append(dst, s[from:i]...), `\ufffd`...)
		} else {
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		i++
		from = i
	}
	return append(dst, s[from:]...)
}
