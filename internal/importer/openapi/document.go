package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"hansa.dev/hansa/internal/resource"

	"go.yaml.in/yaml/v3"
)

// The skeleton of an OpenAPI document: the parts that say which requests there are and where they go. Schemas, examples
// and responses are most of a document and are never decoded, so that a broken one does not matter.

type document struct {
	OpenAPI    string          `json:"openapi" yaml:"openapi"`
	Swagger    string          `json:"swagger" yaml:"swagger"`
	Info       lazy            `json:"info" yaml:"info"`
	Servers    []server        `json:"servers" yaml:"servers"`
	Paths      map[string]lazy `json:"paths" yaml:"paths"`
	Webhooks   map[string]lazy `json:"webhooks" yaml:"webhooks"`
	Security   []requirement   `json:"security" yaml:"security"`
	Components components      `json:"components" yaml:"components"`
}

type info struct {
	Title       string `json:"title" yaml:"title"`
	Description string `json:"description" yaml:"description"`
}

type server struct {
	URL       string                    `json:"url" yaml:"url"`
	Variables map[string]serverVariable `json:"variables" yaml:"variables"`
}

type serverVariable struct {
	Default any `json:"default" yaml:"default"` // text, but numbers are written as well
}

type components struct {
	SecuritySchemes map[string]lazy `json:"securitySchemes" yaml:"securitySchemes"`
	PathItems       map[string]lazy `json:"pathItems" yaml:"pathItems"`
	Parameters      map[string]lazy `json:"parameters" yaml:"parameters"`
}

// requirement is one alternative of what a call needs, by the names of schemes. An empty one needs nothing.
type requirement map[string]lazy

type scheme struct {
	Ref  string `json:"$ref" yaml:"$ref"`
	Type string `json:"type" yaml:"type"`
	Name string `json:"name" yaml:"name"`
	In   string `json:"in" yaml:"in"`
}

type pathItem struct {
	Ref        string          `json:"$ref" yaml:"$ref"`
	Servers    []server        `json:"servers" yaml:"servers"`
	Parameters []lazy          `json:"parameters" yaml:"parameters"`
	Get        *lazy           `json:"get" yaml:"get"`
	Put        *lazy           `json:"put" yaml:"put"`
	Post       *lazy           `json:"post" yaml:"post"`
	Delete     *lazy           `json:"delete" yaml:"delete"`
	Options    *lazy           `json:"options" yaml:"options"`
	Head       *lazy           `json:"head" yaml:"head"`
	Patch      *lazy           `json:"patch" yaml:"patch"`
	Trace      *lazy           `json:"trace" yaml:"trace"`
	Query      *lazy           `json:"query" yaml:"query"`                               // OpenAPI 3.2
	Additional map[string]lazy `json:"additionalOperations" yaml:"additionalOperations"` // OpenAPI 3.2
}

type operation struct {
	OperationID string          `json:"operationId" yaml:"operationId"`
	Servers     []server        `json:"servers" yaml:"servers"`
	Parameters  []lazy          `json:"parameters" yaml:"parameters"`
	Security    []requirement   `json:"security" yaml:"security"` // nil: that of the document; empty: none
	Callbacks   map[string]lazy `json:"callbacks" yaml:"callbacks"`
}

// parameter is a parameter of a path.
type parameter struct {
	Ref  string `json:"$ref" yaml:"$ref"`
	Name string `json:"name" yaml:"name"`
	In   string `json:"in" yaml:"in"`
	// MultiSegment is how GitHub marks parameters whose values may hold slashes.
	MultiSegment bool `json:"x-multi-segment" yaml:"x-multi-segment"`
}

// lazy is a part of a document that is decoded when it is looked at, if ever.
type lazy struct {
	raw  []byte
	node *yaml.Node
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *lazy) UnmarshalJSON(b []byte) error {
	l.raw = bytes.Clone(b)
	return nil
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *lazy) UnmarshalYAML(n *yaml.Node) error {
	l.node = n
	return nil
}

func (l *lazy) decode(into any) error {
	switch {
	case l.node != nil:
		return l.node.Decode(into)
	case l.raw != nil:
		return json.Unmarshal(l.raw, into)
	}
	return errors.New("it is empty")
}

// Bounds of a document. The largest public ones in use, of clouds and code forges, have 10 to 20 MB.
const (
	defaultMaxBytes = 32 << 20
	maxDefinition   = 20 << 20  // of what an API keeps
	maxIndicators   = 4_000_000 // of YAML, which bounds the memory that its tree takes
)

// read decodes the skeleton of a document.
func read(doc []byte, maxBytes int) (*document, error) {
	doc = bytes.TrimPrefix(doc, []byte("\xef\xbb\xbf"))
	switch {
	case len(doc) > maxBytes:
		return nil, fmt.Errorf("the document has %d bytes and may have %d", len(doc), maxBytes)
	case !utf8.Valid(doc):
		return nil, errors.New("the document is not valid UTF-8: save it as UTF-8")
	}
	d := new(document)
	if trimmed := bytes.TrimSpace(doc); len(trimmed) > 0 && trimmed[0] == '{' {
		if err := json.Unmarshal(doc, d); err != nil {
			return nil, fmt.Errorf("the document cannot be read as JSON: %w", jsonPlace(doc, err))
		}
	} else {
		if resource.Indicators(doc) > maxIndicators {
			return nil, fmt.Errorf("the document holds more than %d marks of YAML: convert it to JSON", maxIndicators)
		}
		if err := yaml.Unmarshal(doc, d); err != nil {
			return nil, fmt.Errorf("the document cannot be read as YAML: %w", err)
		}
	}
	switch {
	case d.Swagger != "":
		return nil, fmt.Errorf("the document is of version %s (Swagger): convert it to OpenAPI 3 first", d.Swagger)
	case d.OpenAPI == "":
		return nil, errors.New("the document has no field openapi: it is not an OpenAPI document")
	case !strings.HasPrefix(d.OpenAPI, "3."):
		return nil, fmt.Errorf("the document is of OpenAPI version %q: 3.0 and 3.1 can be imported", d.OpenAPI)
	}
	return d, nil
}

// jsonPlace adds the line to an error of encoding/json.
func jsonPlace(doc []byte, err error) error {
	offset := int64(-1)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = e.Offset
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = e.Offset
	}
	if offset < 0 || offset > int64(len(doc)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(doc[:offset], []byte{'\n'}), err)
}

// item decodes a path item, and follows its reference if it is one.
func (d *document) item(l lazy) (pathItem, error) {
	var it pathItem
	if err := l.decode(&it); err != nil {
		return it, err
	}
	if it.Ref == "" {
		return it, nil
	}
	target, ok := d.Components.PathItems[pointerTail(it.Ref, "#/components/pathItems/")]
	if !ok {
		target, ok = d.Paths[pointerTail(it.Ref, "#/paths/")]
	}
	if !ok {
		return it, fmt.Errorf("it refers to %q, which is not in the document", it.Ref)
	}
	var resolved pathItem
	if err := target.decode(&resolved); err != nil {
		return it, err
	}
	if resolved.Ref != "" {
		return it, fmt.Errorf("it refers to %q, which is a reference again", it.Ref)
	}
	return resolved, nil
}

// multiSegment adds the names of the path parameters whose values may hold slashes. What cannot be read is passed over:
// such a parameter is like any other.
func (d *document) multiSegment(params []lazy, names map[string]bool) {
	for _, l := range params {
		var p parameter
		if l.decode(&p) == nil && p.Ref != "" {
			target := d.Components.Parameters[pointerTail(p.Ref, "#/components/parameters/")]
			p = parameter{}
			if target.decode(&p) != nil {
				continue
			}
		}
		if p.In == "path" && p.MultiSegment {
			names[p.Name] = true
		}
	}
}

// scheme returns a security scheme by its name.
func (d *document) scheme(name string) (scheme, error) {
	var s scheme
	for range 2 { // a scheme, or a reference to one
		l, ok := d.Components.SecuritySchemes[name]
		if !ok {
			return s, fmt.Errorf("there is no security scheme %q", name)
		}
		s = scheme{}
		if err := l.decode(&s); err != nil {
			return s, fmt.Errorf("security scheme %q: %w", name, err)
		}
		if s.Ref == "" {
			return s, nil
		}
		name = pointerTail(s.Ref, "#/components/securitySchemes/")
	}
	return s, fmt.Errorf("security scheme %q is a reference to a reference", name)
}

// pointerTail returns the last step of a JSON pointer (RFC 6901) below a prefix, or "".
func pointerTail(ref, prefix string) string {
	step, ok := strings.CutPrefix(ref, prefix)
	if !ok {
		return ""
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
}
