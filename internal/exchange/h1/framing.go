package h1

import "hansa.dev/hansa/internal/exchange"

// Framing is how the end of a body is told.
type Framing uint8

// The framings.
const (
	NoBody     Framing = iota
	Length             // by Content-Length
	Chunked            // by the last chunk
	UntilClose         // by the end of the connection; responses only
)

// framingFields are the fields that decide the framing.
const framingFields = exchange.IDSet(1<<exchange.IDContentLength | 1<<exchange.IDTransferEncoding)

// RequestFraming tells how the body of a request with these fields is framed (RFC 9112, section 6.3), strictly.
func RequestFraming(h *exchange.Head, minor int) (Framing, int64, error) {
	f, n, err := framing(h, minor)
	if f == UntilClose {
		f = NoBody
	}
	return f, n, err
}

// ResponseFraming tells how the body of a response with these fields is framed. head tells that the request's method
// was HEAD.
func ResponseFraming(h *exchange.Head, minor, status int, head bool) (Framing, int64, error) {
	f, n, err := framing(h, minor)
	if err != nil {
		return f, n, err
	}
	if head || status == 204 || status == 304 || status < 200 {
		return NoBody, 0, nil
	}
	return f, n, nil
}

func framing(h *exchange.Head, minor int) (Framing, int64, error) {
	if h.IDs()&framingFields == 0 {
		return UntilClose, 0, nil
	}
	if coding := h.Known(exchange.IDTransferEncoding); coding != nil {
		switch {
		case h.Has(exchange.IDContentLength):
			return 0, 0, errBoth
		case minor == 0:
			return 0, 0, errCodingHTTP10
		case h.Count(exchange.IDTransferEncoding) > 1:
			return 0, 0, errCodingTwice
		case !exchange.EqualFold(coding, "chunked"):
			return 0, 0, badCoding(coding)
		}
		return Chunked, -1, nil
	}
	if h.Count(exchange.IDContentLength) > 1 {
		return 0, 0, errLengthTwice
	}
	n, ok := ParseLength(h.Known(exchange.IDContentLength))
	if !ok {
		return 0, 0, errLength
	}
	return Length, n, nil
}

// badCoding tells codings that are unknown from those that leave the end of the body open.
func badCoding(coding []byte) error {
	last := coding
	for i := len(coding) - 1; i >= 0; i-- {
		if coding[i] == ',' {
			last = coding[i+1:]
			break
		}
	}
	for len(last) > 0 && (last[0] == ' ' || last[0] == '\t') {
		last = last[1:]
	}
	if len(last) < len(coding) && exchange.EqualFold(last, "chunked") || Token(coding) {
		return errCodingUnknown
	}
	return errCoding
}

// ParseLength reads a Content-Length: 1 to 18 digits and nothing else.
func ParseLength(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if !digit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// Elements calls f for every non-empty element of a comma-separated list, without the white space around it, until f
// returns false.
func Elements(list []byte, f func([]byte) bool) {
	for len(list) > 0 {
		i := 0
		for i < len(list) && list[i] != ',' {
			i++
		}
		from, to := 0, i
		for from < to && (list[from] == ' ' || list[from] == '\t') {
			from++
		}
		for to > from && (list[to-1] == ' ' || list[to-1] == '\t') {
			to--
		}
		if to > from && !f(list[from:to]) {
			return
		}
		list = list[min(i+1, len(list)):]
	}
}
