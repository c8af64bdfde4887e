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
	return append(append(dst, s[from:]...), '"')
}
