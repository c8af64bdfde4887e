package archtest

import (
	"bytes"
	"path"
	"regexp"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
)

// heredoc is a here-document in a shell's command, such as a page uses to make a file.
var heredoc = regexp.MustCompile(`(?ms)<<'?EOF'?[^\n]*\n(.*?)^EOF$`)

// docExamples checks that resources in Markdown files and below examples are valid.
func docExamples(t *tree) []fault {
	var faults []fault
	for name, content := range t.files {
		switch {
		case strings.Contains(name, "testdata/"):
		case path.Ext(name) == ".md":
			for _, at := range mdFence.FindAllIndex(content, -1) {
				faults = append(faults, checkFence(name, content, at[0], at[1])...)
			}
		case strings.HasPrefix(name, "examples/") && path.Ext(name) == ".yaml":
			faults = append(faults, checkResources(name, 0, content)...)
		}
	}
	return faults
}

// checkFence checks the resources in one fenced block, content[begin:end]: the whole block or the here-documents in it.
func checkFence(name string, content []byte, begin, end int) []fault {
	block := content[begin:end]
	lineOf := func(offset int) int { return bytes.Count(content[:begin+offset], []byte("\n")) }
	parts := heredoc.FindAllSubmatchIndex(block, -1)
	if parts == nil {
		first, last := bytes.IndexByte(block, '\n')+1, bytes.LastIndexByte(block, '\n')+1
		parts = [][]int{{0, 0, first, last}}
	}
	var faults []fault
	for _, p := range parts {
		faults = append(faults, checkResources(name, lineOf(p[2]), block[p[2]:p[3]])...)
	}
	return faults
}

// checkResources checks a stream of resources that begins below the given line of a file; text that is something else
// passes.
func checkResources(name string, line int, text []byte) []fault {
	if !bytes.Contains(text, []byte("apiVersion: "+v1.APIVersion)) {
		return nil
	}
	objects, found := resource.Decode(name, text, resource.Options{})
	var faults []fault
	for _, f := range found {
		faults = append(faults, fault{path: name, line: line + f.Line, text: f.Path + ": " + f.Message + ": " + f.Remedy})
	}
	if len(objects)+len(found) == 0 {
		faults = append(faults, fault{path: name, line: line + 1, text: "no resource found"})
	}
	return faults
}
