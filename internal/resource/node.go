package resource

import (
	"strconv"
	"strings"

	v1 "hansa.dev/hansa/api/v1"

	"go.yaml.in/yaml/v3"
)

// field returns the value of a field of a mapping, or nil.
func field(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe says in words what a node is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a truth value"
	case "!!int", "!!float":
		return "a number"
	}
	return "text"
}

// find returns the node of a field path, or the nearest one above it that exists; there tells which.
func find(root *yaml.Node, path string) (n *yaml.Node, there bool) {
	n = root
	for _, step := range pathSteps(path) {
		next := field(n, step)
		if n.Kind == yaml.SequenceNode {
			if i, err := strconv.Atoi(step); err == nil && i < len(n.Content) {
				next = n.Content[i]
			}
		}
		if next == nil {
			return n, false
		}
		n = next
	}
	return n, true
}

// pathSteps splits a field path: spec.set["a.b"][2] is spec, set, a.b, 2.
func pathSteps(path string) []string {
	var steps []string
	for path != "" {
		switch {
		case path[0] == '.':
			path = path[1:]
		case strings.HasPrefix(path, `["`):
			quoted, err := strconv.QuotedPrefix(path[1:])
			if err != nil {
				return steps
			}
			step, err := strconv.Unquote(quoted)
			if err != nil {
				return steps
			}
			steps = append(steps, step)
			path = strings.TrimPrefix(path[1+len(quoted):], "]")
		case path[0] == '[':
			step, rest, _ := strings.Cut(path[1:], "]")
			steps = append(steps, step)
			path = rest
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			steps = append(steps, path[:end])
			path = path[end:]
		}
	}
	return steps
}

// Locate fills in file, line and column of the faults whose resource stands in data, which Decode has read without
// fault. Faults of other resources stay as they are.
func Locate(name string, data []byte, faults []v1.Fault, o Options) {
	open := map[v1.Key][]*v1.Fault{}
	for i := range faults {
		if f := &faults[i]; f.Line == 0 {
			k := v1.Key{Organization: f.Organization, Kind: v1.Kind(f.Kind), Name: f.Name}
			open[k] = append(open[k], f)
		}
	}
	if len(open) == 0 {
		return
	}
	d := &decoder{file: name, o: o.withDefaults()}
	d.stream(data, func(root *yaml.Node) {
		k, meta := field(root, "kind"), field(root, "metadata")
		n := field(meta, "name")
		if k == nil || n == nil {
			return
		}
		key := v1.Key{Kind: v1.Kind(k.Value), Name: n.Value}
		if info, ok := v1.Lookup(key.Kind); ok && !info.Global {
			key.Organization = d.o.Organization
			if org := field(meta, "organization"); org != nil && org.Value != "" {
				key.Organization = org.Value
			}
		}
		for _, f := range open[key] {
			at, _ := find(root, f.Path)
			f.File, f.Line, f.Column = name, d.lines+at.Line, at.Column
		}
	})
}
