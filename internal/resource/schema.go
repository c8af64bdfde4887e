package resource

import (
	_ "embed"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
)

// docs.json holds the doc comments of api/v1.
//
//go:embed docs.json
var docsJSON []byte

// typeDoc is the documentation of one struct type.
type typeDoc struct {
	Doc    string            `json:"doc"`
	Fields map[string]string `json:"fields"` // by the name in JSON
}

// JSONSchema is a schema of JSON Schema, draft 2020-12, as far as resources need it.
type JSONSchema struct {
	Schema        string                 `json:"$schema,omitempty"`
	ID            string                 `json:"$id,omitempty"`
	Title         string                 `json:"title,omitempty"`
	Description   string                 `json:"description,omitempty"`
	Type          string                 `json:"type,omitempty"`
	Const         string                 `json:"const,omitempty"`
	Enum          []string               `json:"enum,omitempty"`
	Default       any                    `json:"default,omitempty"`
	Format        string                 `json:"format,omitempty"`
	Pattern       string                 `json:"pattern,omitempty"`
	Minimum       *int                   `json:"minimum,omitempty"`
	MaxLength     int                    `json:"maxLength,omitempty"`
	MinProperties int                    `json:"minProperties,omitempty"`
	MaxProperties int                    `json:"maxProperties,omitempty"`
	Properties    map[string]*JSONSchema `json:"properties,omitempty"`
	Required      []string               `json:"required,omitempty"`
	Items         *JSONSchema            `json:"items,omitempty"`
	// Additional is false for structs, the schema of the values for maps, and absent otherwise.
	Additional any `json:"additionalProperties,omitempty"`

	order []string     // of Properties, as in api/v1
	typ   reflect.Type // that it was made from
}

// Patterns of texts.
const (
	namePattern     = `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`
	durationPattern = `^([0-9]+d|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
)

// Schema returns the JSON Schema of a kind. What it admits Decode reads, apart from rules that a schema cannot say.
func Schema(info v1.KindInfo) (*JSONSchema, error) {
	b := schemaBuilder{types: newTypes(), docs: map[string]typeDoc{}}
	if err := json.Unmarshal(docsJSON, &b.docs); err != nil {
		return nil, fmt.Errorf("read the documentation of api/v1: %w", err)
	}
	root := b.of(reflect.TypeFor[v1.Object]())
	spec := info.NewSpec()
	root.Schema = "https://json-schema.org/draft/2020-12/schema"
	root.ID = "https://hansa.dev/schema/v1/" + string(info.Kind) + ".json"
	root.Title = string(info.Kind)
	root.Description = b.docs[reflect.TypeOf(spec).Elem().Name()].Doc
	root.Required = []string{"kind", "metadata"}
	root.Properties["apiVersion"].Const = v1.APIVersion
	root.Properties["kind"].Const = string(info.Kind)
	name := root.Properties["metadata"].Properties["name"]
	name.Pattern, name.MaxLength = namePattern, 63
	if info.Kind == v1.KindAPIRevision {
		name.MaxLength = 84
	}
	defaulted := &v1.Object{Kind: info.Kind, Spec: spec}
	Default(defaulted)
	specSchema := b.of(reflect.TypeOf(spec).Elem())
	specSchema.Description = root.Properties["spec"].Description
	b.defaults(specSchema, reflect.ValueOf(defaulted.Spec).Elem())
	root.Properties["spec"] = specSchema
	if len(specSchema.Required) > 0 {
		root.Required = append(root.Required, "spec")
	}
	root.Properties["status"] = &JSONSchema{Description: root.Properties["status"].Description, Type: "object"}
	return root, nil
}

// schemaBuilder makes schemas of types.
type schemaBuilder struct {
	types types
	docs  map[string]typeDoc
}

func (b schemaBuilder) of(t reflect.Type) *JSONSchema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	zero := 0
	switch {
	case t == reflect.TypeFor[v1.Duration]():
		return &JSONSchema{Type: "string", Pattern: durationPattern, typ: t}
	case t == reflect.TypeFor[time.Time]():
		return &JSONSchema{Type: "string", Format: "date-time", typ: t}
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return &JSONSchema{Type: "string", typ: t}
	}
	switch t.Kind() {
	case reflect.String:
		return &JSONSchema{Type: "string", typ: t}
	case reflect.Bool:
		return &JSONSchema{Type: "boolean", typ: t}
	case reflect.Uint64:
		return &JSONSchema{Type: "integer", Minimum: &zero, typ: t}
	case reflect.Int, reflect.Int64:
		return &JSONSchema{Type: "integer", typ: t}
	case reflect.Slice:
		return &JSONSchema{Type: "array", Items: b.of(t.Elem()), typ: t}
	case reflect.Map:
		return &JSONSchema{Type: "object", Additional: b.of(t.Elem()), typ: t}
	case reflect.Struct:
		return b.structure(t)
	}
	return &JSONSchema{typ: t} // an interface: the spec, which Schema fills in
}

func (b schemaBuilder) structure(t reflect.Type) *JSONSchema {
	s := &JSONSchema{Type: "object", Properties: map[string]*JSONSchema{}, Additional: false, typ: t}
	for _, f := range b.types.of(t) {
		p := b.of(t.Field(f.index).Type)
		p.Description = b.docs[t.Name()].Fields[f.name]
		p.Enum = enums()[t.Name()+"."+f.name]
		s.Properties[f.name] = p
		s.order = append(s.order, f.name)
		if f.required {
			s.Required = append(s.Required, f.name)
		}
	}
	if t == reflect.TypeFor[v1.Policy]() {
		s.MinProperties, s.MaxProperties = 1, 1
	}
	return s
}

// defaults takes the defaults over from a value that they are filled into.
func (b schemaBuilder) defaults(s *JSONSchema, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return
	}
	for _, f := range b.types.of(v.Type()) {
		p, fv := s.Properties[f.name], v.Field(f.index)
		switch {
		case p.Properties != nil:
			b.defaults(p, fv)
		case p.Items == nil && p.Additional == nil && !fv.IsZero():
			p.Default = fv.Interface()
		}
	}
}

// KindOf finds a kind by its name or its plural, in upper or lower case: "API", "apis", "environmentgroup".
func KindOf(word string) (v1.KindInfo, error) {
	var names []string
	for _, info := range v1.Kinds() {
		if strings.EqualFold(word, string(info.Kind)) || strings.EqualFold(word, info.Plural) {
			return info, nil
		}
		if !info.Private {
			names = append(names, string(info.Kind))
		}
	}
	slices.Sort(names)
	return v1.KindInfo{}, fmt.Errorf("there is no kind %q; %s", shorten(word), didYouMean(word, names, "the kinds are: "+joinWords(names)))
}
