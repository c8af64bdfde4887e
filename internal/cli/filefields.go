package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNamedFile bounds a file that a document names.
const maxNamedFile = 1 << 20

// filePlace is where fields may name a file, in a resource of a kind: under a path of mappings.
type filePlace struct {
	kind   string
	path   []string
	fields []string
}

// filePlaces returns all of them.
func filePlaces() []filePlace {
	return []filePlace{
		{"Certificate", []string{"spec"}, []string{"certificateFile", "privateKeyFile"}},
		{"Certificate", []string{"spec", "acme"}, []string{"caFile"}},
		{"EnvironmentGroup", []string{"spec", "tls", "clientCertificate"}, []string{"caFile", "crlFile"}},
	}
}

// namedFile finds a field that names a file, from its first character on: the quotes of the field, its name, and what it is
// set to.
var namedFile = regexp.MustCompile(`^("?)(certificateFile|privateKeyFile|caFile|crlFile)"?\s*:\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s,}#][^\n,}#]*)`)

// inlineFiles puts the content of the files that resources name (certificateFile and the like) in their place. Files are
// looked for beside the document. Every line stays the line it was, so that faults are found where they are. What is
// not YAML is left to the server to refuse.
func inlineFiles(name string, document []byte) ([]byte, error) {
	if !slices.ContainsFunc(filePlaces(), func(p filePlace) bool {
		return slices.ContainsFunc(p.fields, func(f string) bool { return bytes.Contains(document, []byte(f)) })
	}) {
		return document, nil
	}
	var places []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(document)); ; {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return document, nil // the server says it better, with a remedy
		}
		places = append(places, fileFields(&doc)...)
	}
	// From the end to the front, so that places stay where they are.
	slices.SortFunc(places, func(a, b *yaml.Node) int {
		if a.Line != b.Line {
			return b.Line - a.Line
		}
		return b.Column - a.Column
	})
	lines := strings.SplitAfter(string(document), "\n")
	for _, at := range places {
		line := []rune(lines[at.Line-1])
		before, rest := string(line[:at.Column-1]), string(line[at.Column-1:])
		m := namedFile.FindStringSubmatch(rest)
		if m == nil {
			return nil, withExit(ExitInvalid, fmt.Errorf("%s:%d: %s must be the name of a file, on the same line", name, at.Line, at.Value))
		}
		var path string
		if err := yaml.Unmarshal([]byte(m[3]), &path); err != nil || path == "" {
			return nil, withExit(ExitInvalid, fmt.Errorf("%s:%d: %s must be the name of a file", name, at.Line, at.Value))
		}
		content, err := readNamedFile(name, path)
		if err != nil {
			return nil, withExit(ExitInvalid, fmt.Errorf("%s:%d: %s: %w", name, at.Line, at.Value, err))
		}
		text, err := json.Marshal(string(content)) // which is YAML too, and one line
		if err != nil {
			return nil, err
		}
		lines[at.Line-1] = before + m[1] + strings.TrimSuffix(m[2], "File") + m[1] + ": " + string(text) + rest[len(m[0]):]
	}
	return []byte(strings.Join(lines, "")), nil
}

// fileFields returns the fields that name files in the resources of a tree.
func fileFields(n *yaml.Node) []*yaml.Node {
	var out []*yaml.Node
	if kind, _ := field(n, "kind"); kind != nil {
		for _, p := range filePlaces() {
			if kind.Value != p.kind {
				continue
			}
			at := n
			for _, name := range p.path {
				at, _ = field(at, name)
			}
			for _, name := range p.fields {
				if _, key := field(at, name); key != nil {
					out = append(out, key)
				}
			}
			return out
		}
	}
	for _, child := range n.Content {
		out = append(out, fileFields(child)...)
	}
	return out
}

// field returns the value of a field and the node that names it; nil if n is no mapping or has none of that name.
func field(n *yaml.Node, name string) (value, key *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1], n.Content[i]
		}
	}
	return nil, nil
}

// readNamedFile reads a file that a document names.
func readNamedFile(document, path string) ([]byte, error) {
	if !filepath.IsAbs(path) && document != stdinName {
		path = filepath.Join(filepath.Dir(document), path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only: nothing to lose
	b, err := io.ReadAll(io.LimitReader(f, maxNamedFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxNamedFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxNamedFile)
	}
	return b, nil
}
