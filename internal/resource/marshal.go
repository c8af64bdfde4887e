package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	v1 "hansa.dev/hansa/api/v1"

	"go.yaml.in/yaml/v3"
)

// What users read back is what they may write: Decode reads all of it again. The order of fields is the one of api/v1.

// Editable returns a copy of o without what Hansa wrote (seq, revision, status), as a user would keep it in a file.
func Editable(o *v1.Object) *v1.Object {
	c := Clone(o)
	c.APIVersion = v1.APIVersion
	c.Metadata.Seq, c.Metadata.Revision, c.Status = 0, 0, nil
	return c
}

// WriteYAML writes resources as YAML documents, separated by "---".
func WriteYAML(w io.Writer, objects ...*v1.Object) error {
	for i, o := range objects {
		if i > 0 {
			if _, err := io.WriteString(w, "---\n"); err != nil {
				return err
			}
		}
		n, err := toNode(o)
		if err != nil {
			return fmt.Errorf("encode %s: %w", o.Key(), err)
		}
		var buf bytes.Buffer
		enc := yaml.NewEncoder(&buf)
		enc.SetIndent(2)
		if err := enc.Encode(n); err != nil {
			return fmt.Errorf("encode %s: %w", o.Key(), err)
		}
		if err := enc.Close(); err != nil {
			return fmt.Errorf("encode %s: %w", o.Key(), err)
		}
		if _, err := w.Write(buf.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// WriteJSON writes one resource as it is, and several as the items of a List.
func WriteJSON(w io.Writer, objects ...*v1.Object) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if len(objects) == 1 {
		return enc.Encode(objects[0])
	}
	return enc.Encode(struct {
		APIVersion string       `json:"apiVersion"`
		Kind       string       `json:"kind"`
		Items      []*v1.Object `json:"items"`
	}{v1.APIVersion, "List", objects})
}

// toNode turns a value into a YAML tree by way of its JSON, which knows the names and the order of fields.
func toNode(v any) (*yaml.Node, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	const unbounded = 1 << 30
	var root *yaml.Node
	if fault := parseJSON(buf.Bytes(), Limits{Depth: unbounded, Nodes: unbounded}, func(n *yaml.Node) { root = n }); fault != nil {
		return nil, fault
	}
	plain(root)
	return root, nil
}

// plain lets the encoder choose the style of every scalar: quotes only where they are needed, and blocks for texts of
// several lines.
func plain(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		n.Style = 0
		if n.Tag == "!!str" {
			n.Style = textStyle(n.Value)
		}
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// textStyle chooses blocks for texts that a block can hold as they are.
func textStyle(s string) yaml.Style {
	if !strings.Contains(s, "\n") || strings.HasPrefix(s, " ") || strings.HasPrefix(s, "\n") {
		return 0
	}
	for line := range strings.Lines(s) {
		if t := strings.TrimSuffix(line, "\n"); strings.ContainsAny(t, "\t\r\u0085\u2028\u2029\ufeff") || strings.HasSuffix(t, " ") {
			return 0
		}
	}
	return yaml.LiteralStyle
}
