package resource

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	v1 "hansa.dev/hansa/api/v1"

	"go.yaml.in/yaml/v3"
)

// Decode reads all resources of a stream of YAML or JSON documents. name is the file that faults name. A document
// whose kind is List contributes its items. apiVersion may be left out.
//
// It returns the resources without fault and the faults of the others; whoever gets a fault must not use what was
// read as if it were whole. The resources are as written: metadata.organization is filled in, other defaults are not.
// Status is passed over.
func Decode(name string, data []byte, o Options) ([]*v1.Object, []v1.Fault) {
	d := &decoder{file: name, o: o.withDefaults(), types: newTypes(), seen: map[v1.Key]int{}}
	d.stream(data, func(root *yaml.Node) {
		if obj := d.object(root); obj != nil {
			d.objects = append(d.objects, obj)
		}
	})
	return d.objects, d.faults
}

// decoder is the state of one call of Decode or Locate.
type decoder struct {
	file    string
	o       Options
	types   types
	objects []*v1.Object
	faults  []v1.Fault
	seen    map[v1.Key]int // the line of each resource
	omitted bool           // there were more faults than the limit

	// Of the document at hand: the lines before it; of its value at hand: what of it was visited.
	lines, nodes, bytes int

	// Of the resource at hand, for faults.
	root       *yaml.Node
	kind, name string
	org        string
	clean      bool     // no fault so far
	marred     []string // the fields that could not be read
}

// stream calls each with the root of every resource in data.
func (d *decoder) stream(data []byte, each func(root *yaml.Node)) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	for _, c := range split(data) {
		d.root, d.kind, d.name, d.org = nil, "", "", ""
		if d.omitted {
			break
		}
		if len(c.data) > d.o.Limits.DocumentBytes {
			d.add(v1.Fault{
				Line: c.line, Column: 1, Code: CodeTooLarge,
				Message: fmt.Sprintf("the document has %d bytes and may have %d", len(c.data), d.o.Limits.DocumentBytes),
				Remedy:  "split it into several documents, separated by a line \"---\"",
			})
			continue
		}
		if line, column, r := unreadable(c.data); line > 0 {
			f := v1.Fault{Line: c.line + line - 1, Column: column, Code: CodeEncoding, Message: "the document is not valid UTF-8", Remedy: "save it as UTF-8"}
			if r != utf8.RuneError {
				f.Code, f.Message, f.Remedy = CodeSyntax, fmt.Sprintf("the control character %U cannot be in a document", r), "remove it"
			}
			d.add(f)
			continue
		}
		d.lines = c.line - 1
		fault := parse(c.data, d.o.Limits, func(root *yaml.Node) {
			d.nodes, d.bytes = 0, 0
			if d.expand(root, 0) {
				d.items(root, each)
			}
		})
		if fault != nil {
			d.root, d.kind, d.name, d.org = nil, "", "", ""
			d.add(v1.Fault{Line: d.lines + max(fault.Line, 1), Column: max(fault.Column, 1), Code: fault.Code, Message: fault.Message, Remedy: fault.Remedy})
		}
	}
	if d.omitted {
		d.faults = append(d.faults, v1.Fault{
			File: d.file, Line: d.lines + 1, Column: 1, Code: CodeTooManyFaults,
			Message: fmt.Sprintf("there are more than %d faults; the others are not shown", d.o.Limits.Faults), Remedy: "correct those above first",
		})
	}
}

// expand replaces aliases by what they stand for, and checks the limits. Where aliases repeat a node the tree shares
// it; it counts again all the same, so that a small document cannot stand for a large one.
func (d *decoder) expand(n *yaml.Node, depth int) bool {
	if depth > d.o.Limits.Depth { // also the end of an alias within what it stands for
		return d.limit(n, tooDeep(n, d.o.Limits))
	}
	d.nodes++
	d.bytes += len(n.Value)
	if d.nodes > d.o.Limits.Nodes || d.bytes > d.o.Limits.DocumentBytes {
		return d.limit(n, tooManyNodes(d.o.Limits))
	}
	for i, c := range n.Content {
		if c.Kind == yaml.AliasNode {
			c = c.Alias
			n.Content[i] = c
		}
		if !d.expand(c, depth+1) {
			return false
		}
	}
	return true
}

func (d *decoder) limit(n *yaml.Node, e *syntaxError) bool {
	d.fault(n, "", e.Code, "", e.Message, e.Remedy)
	return false
}

// items calls each with root, or with the items of root if it is a list.
func (d *decoder) items(root *yaml.Node, each func(*yaml.Node)) {
	if isNull(root) {
		return
	}
	if k := field(root, "kind"); k == nil || k.Value != "List" {
		each(root)
		return
	}
	d.root, d.kind, d.name, d.org = root, "List", "", ""
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch k := root.Content[i]; k.Value {
		case "kind", "apiVersion", "metadata", "items", "epoch", "seq", "continue":
		default:
			d.fault(k, k.Value, CodeUnknownField, "", "a List has no such field", "write only kind and items")
		}
	}
	list := field(root, "items")
	if list == nil || list.Kind != yaml.SequenceNode {
		d.fault(cmp.Or(list, root), "items", CodeWrongType, "", "a List must have a list of items", "write items: [...]")
		return
	}
	for _, item := range list.Content {
		each(item)
	}
}

// add records a fault, with what is known of the resource at hand.
func (d *decoder) add(f v1.Fault) {
	d.clean = false
	d.marred = append(d.marred, f.Path)
	if len(d.faults) == d.o.Limits.Faults {
		d.omitted = true
		return
	}
	f.File = d.file
	f.Kind, f.Name, f.Organization = d.kind, d.name, d.org
	f.Value = shorten(f.Value)
	d.faults = append(d.faults, f)
}

// fault records a fault at a node.
func (d *decoder) fault(n *yaml.Node, path, code, value, message, remedy string) {
	d.add(v1.Fault{Line: d.lines + n.Line, Column: n.Column, Path: path, Code: code, Value: value, Message: message, Remedy: remedy})
}

// object decodes one resource, or returns nil after recording what is wrong with it.
func (d *decoder) object(root *yaml.Node) *v1.Object {
	d.root, d.kind, d.name, d.org = root, "", "", ""
	d.clean, d.marred = true, d.marred[:0]
	before := len(d.faults)
	if root.Kind != yaml.MappingNode {
		d.fault(root, "", CodeNotAResource, root.Value, "a resource is a map of fields, not "+describe(root), "begin with the fields kind, metadata and spec")
		return nil
	}
	info, ok := d.header(root)
	if !ok {
		return nil
	}
	var head struct {
		APIVersion string      `json:"apiVersion,omitempty"`
		Kind       v1.Kind     `json:"kind"`
		Metadata   v1.Metadata `json:"metadata"`
		Spec       opaque      `json:"spec,omitzero"`
		Status     opaque      `json:"status,omitzero"`
	}
	walk(d, root, "", &head)
	obj := &v1.Object{APIVersion: v1.APIVersion, Kind: info.Kind, Metadata: head.Metadata, Spec: info.NewSpec()}
	if !info.Global && obj.Metadata.Organization == "" {
		obj.Metadata.Organization = d.o.Organization
		d.org = d.o.Organization
	}
	spec := field(root, "spec")
	switch {
	case d.o.Identity:
	case spec == nil || isNull(spec):
		empty := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: root.Line, Column: root.Column}
		walk(d, empty, "spec", obj.Spec)
	default:
		walk(d, spec, "spec", obj.Spec)
	}
	d.check(obj)
	slices.SortStableFunc(d.faults[before:], func(a, b v1.Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if !d.clean {
		return nil
	}
	return obj
}

// header reads what decides how the rest is read.
func (d *decoder) header(root *yaml.Node) (v1.KindInfo, bool) {
	if m := field(root, "metadata"); m != nil {
		if n := field(m, "name"); n != nil && n.Kind == yaml.ScalarNode {
			d.name = shorten(n.Value)
		}
		if n := field(m, "organization"); n != nil && n.Kind == yaml.ScalarNode {
			d.org = shorten(n.Value)
		}
	}
	k := field(root, "kind")
	if k == nil || k.Kind != yaml.ScalarNode || k.Value == "" {
		d.fault(cmp.Or(k, root), "kind", CodeRequired, "", "the resource has no kind", "write one of: "+kindList())
		return v1.KindInfo{}, false
	}
	d.kind = shorten(k.Value)
	info, ok := v1.Lookup(v1.Kind(k.Value))
	if !ok {
		d.fault(k, "kind", CodeUnknownKind, k.Value, fmt.Sprintf("there is no kind %q", shorten(k.Value)), didYouMean(k.Value, kindNames(), "the kinds are: "+kindList()))
		return info, false
	}
	if info.System && !d.o.System {
		d.fault(k, "kind", CodeSystemKind, k.Value, fmt.Sprintf("resources of kind %s are written by Hansa alone", k.Value), "remove it")
		return info, false
	}
	if v := field(root, "apiVersion"); v != nil && !isNull(v) && v.Value != v1.APIVersion {
		d.fault(v, "apiVersion", CodeAPIVersion, v.Value, fmt.Sprintf("this version of Hansa reads %q", v1.APIVersion), "write apiVersion: "+v1.APIVersion)
		return info, false
	}
	return info, true
}

// check validates what was decoded and finds the place of every fault. What could not be read is left out, and so is what
// may only follow from that.
func (d *decoder) check(obj *v1.Object) {
	if obj.Metadata.Name != "" {
		if first, dup := d.seen[obj.Key()]; dup {
			d.add(v1.Fault{
				Line: d.lines + d.root.Line, Column: d.root.Column, Path: "metadata.name", Code: CodeDuplicate, Value: obj.Metadata.Name,
				Message: fmt.Sprintf("%s is already described in line %d", obj.Key(), first), Remedy: "keep one of the two", FirstLine: first,
			})
			return
		}
		d.seen[obj.Key()] = d.lines + d.root.Line
	}
	var faults []v1.Fault
	if d.o.Identity {
		faults = validateMetadata(obj)
	} else {
		full := Clone(obj)
		Default(full)
		faults = Validate(full)
	}
	marred := slices.Clone(d.marred)
	for _, f := range faults {
		n, there := find(d.root, f.Path)
		if len(marred) > 0 && (!there || slices.ContainsFunc(marred, func(path string) bool { return related(path, f.Path) })) {
			continue
		}
		f.Line, f.Column = d.lines+n.Line, n.Column
		d.add(f)
	}
}

// related tells whether one of two fields holds the other, or both are the same.
func related(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	return strings.HasPrefix(b, a) && (a == "" || len(a) == len(b) || b[len(a)] == '.' || b[len(a)] == '[')
}

func kindNames() []string {
	var names []string
	for _, k := range v1.Kinds() {
		if !k.System {
			names = append(names, string(k.Kind))
		}
	}
	return names
}

func kindList() string {
	names := kindNames()
	slices.Sort(names)
	return joinWords(names)
}
