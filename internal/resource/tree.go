package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A document of either format becomes a tree of yaml.Node, so that there is one strict walk. JSON is not left to the
// YAML parser: YAML reads neither surrogate pairs nor every white space of JSON.

// syntaxError is a fault of the text itself. Line and Column are within the document, 0 if unknown.
type syntaxError struct {
	Line, Column int
	Code         string
	Message      string
	Remedy       string
}

// parse reads one document and calls each with every value of its top level: one, none if nothing is written there, or
// several JSON values in a row.
func parse(data []byte, limits Limits, each func(*yaml.Node)) *syntaxError {
	if blank(data) {
		return nil
	}
	if !looksLikeJSON(data) {
		return parseYAML(data, limits, each)
	}
	some := false
	fault := parseJSON(data, limits, func(n *yaml.Node) {
		some = true
		each(n)
	})
	if fault == nil || fault.Code != CodeSyntax || some {
		return fault
	}
	// YAML in flow style begins with a brace as well. If it is not that either, the reason that JSON gives is the
	// better one unless YAML got further.
	yfault := parseYAML(data, limits, each)
	if yfault != nil && yfault.Code == CodeSyntax && yfault.Line <= fault.Line {
		return fault
	}
	return yfault
}

func looksLikeJSON(data []byte) bool {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("---")))
	return len(data) > 0 && data[0] == '{'
}

func tooManyNodes(limits Limits) *syntaxError {
	return &syntaxError{Code: CodeTooManyNodes, Message: fmt.Sprintf("the document holds more than %d values", limits.Nodes), Remedy: "split it into several documents, and write long texts as one block (\"|\") or one string"}
}

// jsonParser builds nodes from the tokens of encoding/json, which checks the grammar.
type jsonParser struct {
	data   []byte
	dec    *json.Decoder
	limits Limits
	nodes  int

	// The place that mark last found.
	offset, line, column int
}

func parseJSON(data []byte, limits Limits, each func(*yaml.Node)) *syntaxError {
	body := bytes.TrimPrefix(data, []byte("---"))
	p := &jsonParser{data: body, dec: json.NewDecoder(bytes.NewReader(body)), limits: limits, line: 1, column: 1 + len(data) - len(body)}
	p.dec.UseNumber()
	for {
		p.nodes = 0
		n, err := p.value(0)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return p.fault(err)
		}
		each(n)
	}
}

// fault turns an error of value into a syntaxError.
func (p *jsonParser) fault(err error) *syntaxError {
	if fault, ok := errors.AsType[*syntaxError](err); ok {
		return fault
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		p.mark(len(p.data))
		return &syntaxError{Line: p.line, Column: p.column, Code: CodeSyntax, Message: "this is not JSON: it ends too early", Remedy: "close what is open"}
	}
	if se, ok := errors.AsType[*json.SyntaxError](err); ok {
		p.mark(max(p.offset, min(len(p.data), int(se.Offset))))
	}
	return &syntaxError{Line: p.line, Column: p.column, Code: CodeSyntax, Message: "this is not JSON: " + err.Error(), Remedy: "correct the JSON"}
}

// Error implements error, so that value can return it.
func (e *syntaxError) Error() string { return e.Message }

// value reads the next value. io.EOF: there is none.
func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	p.mark(p.next(int(p.dec.InputOffset())))
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line, Column: p.column}
	tok, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	if p.nodes++; p.nodes > p.limits.Nodes {
		return nil, tooManyNodes(p.limits)
	}
	switch tok := tok.(type) {
	case json.Delim:
		if depth >= p.limits.Depth {
			return nil, tooDeep(n, p.limits)
		}
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if tok == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for p.dec.More() {
			child, err := p.value(depth + 1)
			if err != nil {
				return nil, noEOF(err)
			}
			n.Content = append(n.Content, child)
		}
		if _, err := p.dec.Token(); err != nil {
			return nil, noEOF(err)
		}
	case string:
		n.Tag, n.Value, n.Style = "!!str", tok, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!int", tok.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(tok)
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func tooDeep(n *yaml.Node, limits Limits) *syntaxError {
	return &syntaxError{Line: n.Line, Column: n.Column, Code: CodeTooDeep, Message: fmt.Sprintf("the document is nested more than %d deep", limits.Depth), Remedy: "no resource needs such depth; remove the surplus brackets or indentation"}
}

// next returns the offset of the token at or after from.
func (p *jsonParser) next(from int) int {
	for from < len(p.data) && bytes.IndexByte([]byte(" \t\r\n,:"), p.data[from]) >= 0 {
		from++
	}
	return from
}

// mark moves the place to offset, which is never before the last one. Columns count characters, as in YAML.
func (p *jsonParser) mark(offset int) {
	seg := p.data[p.offset:offset]
	if i := bytes.LastIndexByte(seg, '\n'); i >= 0 {
		p.line += bytes.Count(seg, []byte{'\n'})
		p.column = 1
		seg = seg[i+1:]
	}
	p.column += utf8.RuneCount(seg)
	p.offset = offset
}
