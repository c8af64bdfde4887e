package resource

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	v1 "hansa.dev/hansa/api/v1"

	"go.yaml.in/yaml/v3"
)

// opaque is a field that is not looked at.
type opaque struct{}

// fieldInfo is one field of a struct as it is written.
type fieldInfo struct {
	name     string
	index    int
	required bool
}

// types remembers the fields of the struct types that one call meets.
type types struct {
	fields map[reflect.Type][]fieldInfo
}

func newTypes() types { return types{fields: map[reflect.Type][]fieldInfo{}} }

// of returns the fields of a struct type in the order of its declaration. A field is required unless its tag lets it
// be left out of what is written.
func (t types) of(typ reflect.Type) []fieldInfo {
	if fields, ok := t.fields[typ]; ok {
		return fields
	}
	var fields []fieldInfo
	for i := range typ.NumField() {
		name, opts, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		optional := strings.Contains(opts, "omitempty") || strings.Contains(opts, "omitzero")
		fields = append(fields, fieldInfo{name: name, index: i, required: !optional})
	}
	t.fields[typ] = fields
	return fields
}

// walk decodes n into what into points to, strictly, and records every fault on the way.
func walk(d *decoder, n *yaml.Node, path string, into any) {
	d.value(n, path, reflect.ValueOf(into).Elem())
}

func (d *decoder) value(n *yaml.Node, path string, v reflect.Value) {
	if v.Type() == reflect.TypeFor[opaque]() {
		return
	}
	if n.Kind != yaml.ScalarNode && n.Tag != "!!map" && n.Tag != "!!seq" || n.Kind == yaml.ScalarNode && !knownTag(n.ShortTag()) {
		d.fault(n, path, CodeWrongType, n.Tag, fmt.Sprintf("the tag %s means nothing here", shorten(n.Tag)), "remove the tag")
		return
	}
	if isNull(n) {
		return // null is the same as leaving the field out
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(n, path, u)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, path, v)
	case reflect.Slice:
		d.slice(n, path, v)
	case reflect.Map:
		d.stringMap(n, path, v)
	case reflect.String:
		if s, ok := d.str(n, path); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			d.wrongType(n, path, "a truth value", "write true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int64, reflect.Uint64:
		d.integer(n, path, v)
	default:
		panic(fmt.Sprintf("api/v1 has a field of type %s, which resource cannot decode", v.Type()))
	}
}

func knownTag(tag string) bool {
	switch tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!merge":
		return true
	}
	return false
}

func (d *decoder) structure(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, path, "a map of fields", "write {} for one without fields")
		return
	}
	fields := d.types.of(v.Type())
	seen := make([]bool, len(fields))
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		at := fieldAt(fields, k)
		switch {
		case at < 0 && k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge":
			d.fault(k, path, CodeUnknownField, k.Value, "merge keys (<<) are not read", "write the fields out, or refer to a whole value with an alias")
		case at < 0:
			d.unknownField(k, path, fields)
		case seen[at]:
			d.fault(k, join(path, k.Value), CodeDuplicateField, k.Value, fmt.Sprintf("the field %s is there twice", k.Value), "keep one of the two")
		default:
			seen[at] = true
			d.value(val, join(path, fields[at].name), v.Field(fields[at].index))
			if fields[at].required && isNull(val) {
				d.required(val, join(path, fields[at].name))
			}
		}
	}
	for i, f := range fields {
		if f.required && !seen[i] {
			d.required(n, join(path, f.name))
		}
	}
}

func fieldAt(fields []fieldInfo, k *yaml.Node) int {
	if k.Kind == yaml.ScalarNode {
		for i, f := range fields {
			if f.name == k.Value {
				return i
			}
		}
	}
	return -1
}

func (d *decoder) required(n *yaml.Node, path string) {
	d.fault(n, path, CodeRequired, "", "the field must be set", "see \"hansa explain "+d.explainPath(path)+"\"")
}

// explainPath turns a field path into the argument of "hansa explain".
func (d *decoder) explainPath(path string) string {
	var sb strings.Builder
	sb.WriteString(d.kind)
	for _, step := range pathSteps(path) {
		if _, err := strconv.Atoi(step); err != nil {
			sb.WriteString("." + step)
		}
	}
	return sb.String()
}

func (d *decoder) unknownField(k *yaml.Node, path string, fields []fieldInfo) {
	if k.Kind != yaml.ScalarNode {
		d.fault(k, path, CodeUnknownField, "", "the name of a field must be text, not "+describe(k), "write name: value")
		return
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	otherwise := "it takes no fields; write {}"
	if len(names) > 0 {
		otherwise = "the fields here are: " + joinWords(names)
	}
	d.fault(k, join(path, shorten(k.Value)), CodeUnknownField, k.Value, fmt.Sprintf("there is no field %q here", shorten(k.Value)), didYouMean(k.Value, names, otherwise))
}

func (d *decoder) slice(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.wrongType(n, path, "a list", "write [...] or lines that begin with \"- \"")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		if isNull(c) {
			d.wrongType(c, index(path, i), "an item", "remove it")
			continue
		}
		d.value(c, index(path, i), v.Index(i))
	}
}

func (d *decoder) stringMap(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, path, "a map of texts", "write name: value")
		return
	}
	m := make(map[string]string, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, ok := d.str(n.Content[i], path)
		if !ok {
			continue
		}
		if _, dup := m[k]; dup {
			d.fault(n.Content[i], key(path, k), CodeDuplicateField, k, fmt.Sprintf("%q is there twice", shorten(k)), "keep one of the two")
			continue
		}
		m[k], _ = d.str(n.Content[i+1], key(path, k))
	}
	v.Set(reflect.ValueOf(m))
}

// str reads a text. Numbers and truth values are refused: what a file shows as 1.10 would arrive as 1.1.
func (d *decoder) str(n *yaml.Node, path string) (string, bool) {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!str", "!!timestamp", "!!merge":
			return n.Value, true
		case "!!null":
			d.wrongType(n, path, "text", `write "" for an empty text`)
			return "", false
		}
		d.wrongType(n, path, "text", fmt.Sprintf("put it in quotes: %q", shorten(n.Value)))
		return "", false
	}
	d.wrongType(n, path, "text", "write one value")
	return "", false
}

func (d *decoder) text(n *yaml.Node, path string, u encoding.TextUnmarshaler) {
	remedy := "write a time as 2027-01-31T12:00:00Z"
	if _, ok := u.(*v1.Duration); ok {
		remedy = "write a duration as 250ms, 30s, 1h or 90d"
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" && n.ShortTag() != "!!timestamp" {
		d.wrongType(n, path, "text", remedy)
		return
	}
	if err := u.UnmarshalText([]byte(n.Value)); err != nil {
		d.fault(n, path, CodeInvalid, n.Value, fmt.Sprintf("%q cannot be read", shorten(n.Value)), remedy)
	}
}

func (d *decoder) integer(n *yaml.Node, path string, v reflect.Value) {
	// A number with more digits than 64 bits hold is a floating-point number to YAML.
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && (n.ShortTag() != "!!float" || !digits(n.Value)) {
		d.wrongType(n, path, "a whole number", "write digits, without quotes")
		return
	}
	var err error
	most := strconv.FormatUint(math.MaxUint64, 10)
	if v.CanUint() {
		var u uint64
		u, err = strconv.ParseUint(n.Value, 10, 64)
		v.SetUint(u)
	} else {
		var i int64
		i, err = strconv.ParseInt(n.Value, 10, 64)
		v.SetInt(i)
		most = strconv.FormatInt(math.MaxInt64, 10)
	}
	if err != nil {
		d.fault(n, path, CodeOutOfRange, n.Value, fmt.Sprintf("%s is not a number that fits here", shorten(n.Value)), "write a decimal number from 0 to "+most)
	}
}

// digits tells whether s is a decimal number without a fraction.
func digits(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func (d *decoder) wrongType(n *yaml.Node, path, want, remedy string) {
	d.fault(n, path, CodeWrongType, n.Value, fmt.Sprintf("it must be %s, not %s", want, describe(n)), remedy)
}

// joinWords writes a list of words.
func joinWords(words []string) string { return strings.Join(words, ", ") }
