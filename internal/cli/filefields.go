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

// namedFile finds a field that names a file, from its first character on: the quotes of the field, its name, and what it is
// set to.
var namedFile = regexp.MustCompile(`^("?)(certificateFile|privateKeyFile)"?\s*:\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s,}#][^\n,}#]*)`)

// inlineFiles puts the content of the files that certificates name (certificateFile, privateKeyFile) in their place. Files
// are looked for beside the document. Every line stays the line it was, so that faults are found where they are. What is
// not YAML is left to the server to refuse.
func inlineFiles(name string, document []byte) ([]byte, error) {
	if !bytes.Contains(document, []byte("certificateFile")) && !bytes.Contains(document, []byte("privateKeyFile")) {
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

// fileFields returns the fields that name files in the certificates of a tree.
func fileFields(n *yaml.Node) []*yaml.Node {
	var out []*yaml.Node
	if n.Kind == yaml.MappingNode {
		var kind, spec *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			switch n.Content[i].Value {
			case "kind":
				kind = n.Content[i+1]
			case "spec":
				spec = n.Content[i+1]
			}
		}
		if kind != nil && kind.Value == "Certificate" && spec != nil && spec.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(spec.Content); i += 2 {
				if key := spec.Content[i]; key.Value == "certificateFile" || key.Value == "privateKeyFile" {
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
