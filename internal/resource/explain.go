package resource

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
)

// Explain writes the documentation of a kind, or of one of its fields: path is "spec.operations.path", where "spec." and
// brackets may be left out.
func Explain(w io.Writer, info v1.KindInfo, path string) error {
	root, err := Schema(info)
	if err != nil {
		return err
	}
	s, at, err := root.field(path)
	if err != nil {
		return fmt.Errorf("%s has no field %q: %w", info.Kind, path, err)
	}
	var sb strings.Builder
	fmt.Fprintf(&sb, "%s\n", strings.TrimSuffix(string(info.Kind)+"."+at, "."))
	fmt.Fprintf(&sb, "type: %s\n\n", s.typeName())
	if d := s.Description; d != "" {
		sb.WriteString(wrap(d, "  "))
	}
	if inner := s.inner(); len(inner.order) > 0 {
		sb.WriteString("\nfields:\n")
		for _, name := range inner.order {
			f := inner.Properties[name]
			fmt.Fprintf(&sb, "  %s  <%s>%s\n", name, f.typeName(), inner.mark(name))
			sb.WriteString(wrap(f.Description, "      "))
		}
	}
	if at == "" {
		fmt.Fprintf(&sb, "\nThe fields of spec: hansa explain %s.spec\n", info.Kind)
	}
	_, err = io.WriteString(w, sb.String())
	return err
}

// FieldNames returns the names of the fields of a kind, or of one of its fields, in the order of the documentation; none if
// there is no such field. The path is as Explain takes it.
func FieldNames(info v1.KindInfo, path string) []string {
	root, err := Schema(info)
	if err != nil {
		return nil
	}
	s, _, err := root.field(path)
	if err != nil {
		return nil
	}
	return s.inner().order
}

// field finds a field by its path and returns the path as it is in full.
func (s *JSONSchema) field(path string) (*JSONSchema, string, error) {
	at := ""
	for i, step := range strings.FieldsFunc(path, func(r rune) bool { return strings.ContainsRune(".[]0123456789", r) }) {
		inner := s.inner()
		next := inner.Properties[step]
		if spec := inner.Properties["spec"]; next == nil && i == 0 && spec != nil && spec.Properties[step] != nil {
			next, at = spec.Properties[step], "spec"
		}
		if next == nil {
			where, names := at, inner.order
			if spec := inner.Properties["spec"]; i == 0 && spec != nil { // the path may leave it out
				where, names = "spec", spec.inner().order
			}
			otherwise := "it has none"
			if len(names) > 0 {
				otherwise = "the fields are: " + joinWords(names)
			}
			return nil, "", fmt.Errorf("there is no %q in %s; %s", step, where, didYouMean(step, names, otherwise))
		}
		s, at = next, join(at, step)
	}
	return s, at, nil
}

// inner returns the schema that holds the fields: the one of the items of a list.
func (s *JSONSchema) inner() *JSONSchema {
	for s.Items != nil {
		s = s.Items
	}
	return s
}

func (s *JSONSchema) mark(name string) string {
	if slices.Contains(s.Required, name) {
		return " required"
	}
	return ""
}

// typeName says in words what is written for a field.
func (s *JSONSchema) typeName() string {
	switch {
	case s.Items != nil:
		return "list of " + s.Items.typeName()
	case s.typ == reflect.TypeFor[v1.Duration]():
		return "duration"
	case s.Format == "date-time":
		return "time"
	case len(s.Enum) > 0:
		return strings.Join(s.Enum, " | ")
	case s.Type == "string":
		return "text"
	case s.Type == "integer":
		return "whole number"
	case s.Type == "boolean":
		return "true or false"
	}
	if values, ok := s.Additional.(*JSONSchema); ok {
		return "map of " + values.typeName()
	}
	return "fields"
}

// wrap breaks a text into indented lines of at most 100 characters.
func wrap(text, indent string) string {
	const width = 100
	var sb strings.Builder
	for para := range strings.SplitSeq(text, "\n") {
		line := indent
		for word := range strings.FieldsSeq(para) {
			if len(line) > len(indent) && len(line)+1+len(word) > width {
				sb.WriteString(line + "\n")
				line = indent
			}
			if len(line) > len(indent) {
				line += " "
			}
			line += word
		}
		if len(line) > len(indent) {
			sb.WriteString(line + "\n")
		}
	}
	return sb.String()
}
