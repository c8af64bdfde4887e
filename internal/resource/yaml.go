package resource

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The YAML parser makes up to 100 bytes of tree of each byte of text, and nothing can stop it halfway. So the size of the
// tree is bounded before: by the number of indicators in the text, without which there are no nodes. Long texts, such as
// the definition of an API, hold many that mean nothing; where they matter such texts are set aside first.

// Indicators counts the bytes that can begin or separate nodes of a YAML document. It has at most three nodes for each.
func Indicators(data []byte) int {
	n := 1
	for _, c := range data {
		switch c {
		case ',', '[', '{', ':', '-', '?':
			n++
		}
	}
	return n
}

func parseYAML(data []byte, limits Limits, each func(*yaml.Node)) *syntaxError {
	if Indicators(data) <= limits.Nodes {
		return unmarshalYAML(data, each)
	}
	const least = 1 << 10
	a := newAside(data, least)
	reduced := a.reduce(data)
	if Indicators(reduced) > limits.Nodes {
		return tooManyNodes(limits)
	}
	var fault *syntaxError
	if f := unmarshalYAML(reduced, func(root *yaml.Node) {
		if fault = a.restore(root); fault == nil {
			each(root)
		}
	}); f != nil {
		return f
	}
	return fault
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func unmarshalYAML(data []byte, each func(*yaml.Node)) *syntaxError {
	// A line may also end in ways that split does not look for (a lone CR, U+2028), so there may be several documents.
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return yamlFault(err)
		}
		for _, root := range doc.Content {
			each(root)
		}
	}
}

func yamlFault(err error) *syntaxError {
	fault := &syntaxError{Code: CodeSyntax, Message: err.Error(), Remedy: "correct the YAML; a text that holds \": \", \" #\" or begins with one of {[*&!|>'\"%@` must stand in quotes"}
	if m := yamlErrorLine.FindStringSubmatch(strings.TrimSpace(err.Error())); m != nil {
		fault.Line, _ = strconv.Atoi(m[1])
		fault.Message = m[2]
	}
	fault.Message = "this is not YAML: " + fault.Message
	return fault
}

// aside holds the long texts of a document while the rest is parsed. A text is a block scalar ("key: |") or a
// double-quoted string that fills a line; a word that nobody can foresee stands in its place, and empty lines keep the
// numbers of the lines. Should a line only look like the beginning of a text, then its word is not found where a text
// can be, or the document no longer parses: either is a fault, never another meaning.
type aside struct {
	least int // how long a text must be
	word  string
	texts [][]byte // "|" with its lines, or a quoted string
	found int
}

func newAside(data []byte, least int) *aside {
	sum := sha256.Sum256(data)
	return &aside{least: least, word: fmt.Sprintf("text-%x-", sum[:16])}
}

// opening matches the beginning of a line of block style that may have a text as its value: indentation and dashes, and
// a plain key.
var opening = regexp.MustCompile(`^((?: |- )*)[A-Za-z][A-Za-z0-9_-]*: `)

// longestKey bounds where a line is searched for its key; the line itself may have megabytes.
const longestKey = 512

// reduce returns data without its long texts, or all of it if lines end there in other ways than they do here.
func (a *aside) reduce(data []byte) []byte {
	if oddBreaks(data) {
		return data
	}
	var out bytes.Buffer
	for len(data) > 0 {
		line, rest := cutLine(data)
		m := opening.FindSubmatchIndex(line[:min(len(line), longestKey)])
		if m == nil {
			out.Write(line)
			data = rest
			continue
		}
		text, after := textOf(bytes.TrimRight(line[m[1]:], " \r\n"), rest, m[3])
		if len(text) < a.least {
			out.Write(line)
			data = rest
			continue
		}
		out.Write(line[:m[1]])
		fmt.Fprintf(&out, "%s%d", a.word, len(a.texts))
		for range bytes.Count(data[:len(data)-len(after)], []byte{'\n'}) {
			out.WriteByte('\n')
		}
		a.texts = append(a.texts, text)
		data = after
	}
	return out.Bytes()
}

// textOf returns the text that begins with value, as YAML that stands for itself, and what follows it; nil if value is no
// text. rest are the lines after it, and the lines of a block are those that are indented by more than indent.
func textOf(value, rest []byte, indent int) (text, after []byte) {
	if len(value) > 1 && value[0] == '"' && lastQuote(value[1:]) {
		return value, rest
	}
	if mark := bytes.TrimRight(value, "+-"); string(mark) != "|" && string(mark) != ">" {
		return nil, rest
	}
	text = append(bytes.Clone(value), '\n')
	for len(rest) > 0 {
		line, next := cutLine(rest)
		body := bytes.TrimLeft(line, " ")
		if len(line)-len(body) <= indent && len(bytes.Trim(body, "\r\n")) > 0 {
			break
		}
		text = append(text, line[min(indent, len(line)-len(body)):]...)
		rest = next
	}
	return text, rest
}

// oddBreaks tells whether YAML sees line breaks other than LF and CR LF: a lone CR, NEL, U+2028 or U+2029.
func oddBreaks(data []byte) bool {
	return bytes.Count(data, []byte{'\r'}) != bytes.Count(data, []byte("\r\n")) || bytes.Contains(data, []byte("\u0085")) ||
		bytes.Contains(data, []byte("\u2028")) || bytes.Contains(data, []byte("\u2029"))
}

// cutLine cuts data after the first line break.
func cutLine(data []byte) (line, rest []byte) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return data[:i+1], data[i+1:]
	}
	return data, nil
}

// lastQuote tells whether the double-quoted string that v begins within ends at the end of v.
func lastQuote(v []byte) bool {
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i == len(v)-1
		}
	}
	return false
}

// restore puts the texts back into the tree.
func (a *aside) restore(root *yaml.Node) *syntaxError {
	if fault := a.visit(root); fault != nil {
		return fault
	}
	if a.found != len(a.texts) {
		return &syntaxError{Code: CodeSyntax, Message: "a long text of the document is not where one can be", Remedy: "write long texts as one block (\"|\"), or the document as JSON"}
	}
	return nil
}

func (a *aside) visit(n *yaml.Node) *syntaxError {
	if number, ok := strings.CutPrefix(n.Value, a.word); ok && n.Kind == yaml.ScalarNode {
		i, err := strconv.Atoi(number)
		if err == nil && i < len(a.texts) {
			a.found++
			return a.replace(n, a.texts[i])
		}
	}
	for _, c := range n.Content {
		if fault := a.visit(c); fault != nil {
			return fault
		}
	}
	return nil
}

// replace parses a text on its own, which gives one scalar or a fault, and lets n be that.
func (a *aside) replace(n *yaml.Node, text []byte) *syntaxError {
	var value *yaml.Node
	fault := unmarshalYAML(text, func(root *yaml.Node) { value = root })
	switch {
	case fault != nil:
		fault.Line += n.Line - 1
		return fault
	case value == nil || value.Kind != yaml.ScalarNode:
		return &syntaxError{Line: n.Line, Column: n.Column, Code: CodeSyntax, Message: "the long text here cannot be read", Remedy: "write it as one block (\"|\") or one string"}
	}
	n.Tag, n.Value, n.Style = value.Tag, value.Value, value.Style
	return nil
}
