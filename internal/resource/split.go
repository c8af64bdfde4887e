package resource

import (
	"bytes"
	"unicode/utf8"
)

// chunk is one document of a stream and the line it begins in.
type chunk struct {
	data []byte
	line int // of the first byte, counted from 1
}

// split cuts a stream at the markers "---" and "...". The YAML specification forbids both at the beginning of a line
// within any scalar (rule c-forbidden), and JSON strings hold no line breaks, so that this never cuts a document in
// two. Cutting first makes a syntax error cost its own document only. Directives ("%YAML 1.2") end up in a document of
// their own, which is passed over: none of them changes what a resource means.
func split(data []byte) []chunk {
	var chunks []chunk
	cur := chunk{line: 1}
	start, line := 0, 1
	for at := 0; at < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		text := data[at:end]
		switch {
		case marker(text, "---"):
			cur.data = data[start:at]
			chunks = append(chunks, cur)
			cur, start = chunk{line: line}, at
		case marker(text, "..."):
			cur.data = data[start:at]
			chunks = append(chunks, cur)
			cur, start = chunk{line: line + 1}, end
		}
		line++
		at = end
	}
	cur.data = data[start:]
	return append(chunks, cur)
}

func marker(line []byte, m string) bool {
	return bytes.HasPrefix(line, []byte(m)) && (len(line) == len(m) || bytes.IndexByte([]byte(" \t\r\n"), line[len(m)]) >= 0)
}

// blank tells whether YAML sees nothing in data but comments, directives and document markers.
func blank(data []byte) bool {
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("---")) {
			line = bytes.TrimSpace(line[3:])
		}
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// unreadable returns the line and the column of the first character that no document can hold: a byte that is not UTF-8
// (r is utf8.RuneError), or a control character (YAML 1.2, section 5.1). Line 0: there is none.
func unreadable(data []byte) (line, column int, r rune) {
	for l := range bytes.Lines(data) {
		line++
		for at, column := 0, 1; at < len(l); column++ {
			if c := l[at]; c >= ' ' && c < 0x7f || c == '\t' || c == '\n' || c == '\r' {
				at++
				continue
			}
			r, n := utf8.DecodeRune(l[at:])
			if r == utf8.RuneError && n == 1 {
				return line, column, utf8.RuneError
			}
			if r < 0xa0 && r != 0x85 || r == 0xfffe || r == 0xffff {
				return line, column, r
			}
			at += n
		}
	}
	return 0, 0, 0
}
