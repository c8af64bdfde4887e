package resource

import (
	"errors"
	"fmt"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/x/pathpattern"
)

func (c *checker) api(path string, a *v1.APISpec) {
	c.short(join(path, "displayName"), a.DisplayName)
	c.long(join(path, "description"), a.Description)
	base, err := pathpattern.ParseBase(a.BasePath)
	if err != nil {
		c.pattern(join(path, "basePath"), a.BasePath, err)
	}
	c.backendPath(join(path, "backendPath"), a.BackendPath, base)
	if a.Backend != "" {
		c.ref(join(path, "backend"), a.Backend)
	}
	c.split(path, a)
	c.mirror(path, a)
	if a.MaxRequestBytes < 0 {
		c.fault(join(path, "maxRequestBytes"), CodeOutOfRange, fmt.Sprint(a.MaxRequestBytes), "it is below 0", "write 0 for no bound")
	}
	if d := a.Definition; d != nil {
		c.definition(join(path, "definition"), d)
	}
	if len(a.Operations) > maxOperations {
		c.tooMany(join(path, "operations"), len(a.Operations), maxOperations)
		return
	}
	c.policies(path, a)
	c.operations(join(path, "operations"), a.Operations)
	if a.Backend == "" && a.Split == nil {
		c.needsBackend(path, a)
	}
}

func (c *checker) split(path string, a *v1.APISpec) {
	if a.Split == nil {
		return
	}
	path, s := join(path, "split"), a.Split
	if a.Backend != "" {
		c.fault(path, CodeInvalid, "", "the field backend is set as well", "move that backend into the list of the split")
	}
	if len(s.Backends) < 2 {
		c.fault(join(path, "backends"), CodeRequired, "", "a split needs two backends", "name another one, or write backend instead of split")
	}
	if len(s.Backends) > maxSplit {
		c.tooMany(join(path, "backends"), len(s.Backends), maxSplit)
	}
	seen, sum := map[string]bool{}, 0
	for i, b := range s.Backends {
		at := index(join(path, "backends"), i)
		c.ref(join(at, "backend"), b.Backend)
		if seen[b.Backend] {
			c.duplicate(join(at, "backend"), b.Backend)
		}
		seen[b.Backend] = true
		c.number(join(at, "weight"), int64(b.Weight), 0, 1000)
		sum += b.Weight
	}
	if sum <= 0 && len(s.Backends) > 0 {
		c.fault(join(path, "backends"), CodeInvalid, "", "no backend has a weight above 0", "give one of them a weight")
	}
	if s.StickBy != nil {
		c.hashBy(join(path, "stickBy"), s.StickBy)
	}
}

func (c *checker) mirror(path string, a *v1.APISpec) {
	if a.Mirror == nil {
		return
	}
	path = join(path, "mirror")
	c.ref(join(path, "backend"), a.Mirror.Backend)
	c.number(join(path, "percent"), int64(a.Mirror.Percent), 1, 100)
	if a.Backend == "" && a.Split == nil {
		c.fault(path, CodeInvalid, a.Mirror.Backend, "the API forwards nothing that could be copied", "name a backend, or remove the mirror")
	}
}

// pattern reports what pathpattern found wrong.
func (c *checker) pattern(path, value string, err error) {
	remedy := ""
	reason := err.Error()
	if pe, ok := errors.AsType[*pathpattern.Error](err); ok {
		reason, remedy = pe.Reason, pe.Remedy
	}
	c.fault(path, nameCode(value), value, fmt.Sprintf("the path %q is wrong: %s", shorten(value), reason), remedy)
}

func (c *checker) backendPath(path, value string, base pathpattern.Base) {
	if value == "" {
		return
	}
	p, err := pathpattern.ParseBase(value)
	switch {
	case err != nil:
		c.pattern(path, value, err)
	case strings.Contains(p.String(), "*") && p.String() != base.String():
		c.fault(path, CodeInvalid, value, `it holds "*", which has a meaning only if it repeats the base path`, "write a path without it, or exactly the base path")
	}
}

func (c *checker) definition(path string, d *v1.Definition) {
	if d.Format == "" {
		c.fault(join(path, "format"), CodeRequired, "", "the format is empty", "write openapi")
	}
	c.enum(join(path, "format"), "Definition.format", d.Format)
	if len(d.Document) > maxDefinition {
		c.fault(join(path, "document"), CodeOutOfRange, "", fmt.Sprintf("the document has %d bytes and may have %d", len(d.Document), maxDefinition), "leave it out, or keep a shorter one")
	}
}

// needsBackend checks that an API without backend answers everything by itself.
func (c *checker) needsBackend(path string, a *v1.APISpec) {
	if responds(a.Policies) {
		return
	}
	remedy := "name a Backend, or let every operation answer with the policy respond"
	if len(a.Operations) == 0 {
		c.fault(join(path, "backend"), CodeRequired, "", "the API has no backend to forward to", remedy)
	}
	for i, op := range a.Operations {
		if !responds(op.Policies) {
			c.fault(join(path, "backend"), CodeRequired, "", fmt.Sprintf("operation %d (%s) has no backend to be forwarded to", i, shorten(op.Name)), remedy)
			return
		}
	}
}

func responds(p v1.Policies) bool {
	for _, step := range p.Request {
		if step.Respond != nil {
			return true
		}
	}
	return false
}

func (c *checker) operations(path string, ops []v1.Operation) {
	names := make(map[string]int, len(ops))
	calls := make(map[string]int, len(ops))
	for i, op := range ops {
		at := index(path, i)
		if !validOperationName(op.Name) {
			c.fault(join(at, "name"), CodeInvalid, op.Name, fmt.Sprintf("%q is not the name of an operation", shorten(op.Name)),
				fmt.Sprintf(`write 1 to %d visible ASCII characters without blanks, quotes and backslashes`, maxOperationName))
		}
		if first, dup := names[op.Name]; dup {
			c.fault(join(at, "name"), CodeOperationClash, op.Name, fmt.Sprintf("operation %d has the same name", first), "give each operation a name of its own")
		} else {
			names[op.Name] = i
		}
		if !validMethod(op.Method) {
			c.fault(join(at, "method"), nameCode(op.Method), op.Method, fmt.Sprintf("%q is not a method", shorten(op.Method)), `write a method in upper case, such as GET, or "*" for any; CONNECT is not served`)
		}
		t, err := pathpattern.ParseTemplate(op.Path)
		if err != nil {
			c.pattern(join(at, "path"), op.Path, err)
			continue
		}
		call := op.Method + " " + t.Canonical()
		if first, dup := calls[call]; dup {
			c.fault(join(at, "path"), CodeOperationClash, op.Path, fmt.Sprintf("operation %d (%s) matches the same requests: %s %s", first, ops[first].Name, ops[first].Method, ops[first].Path),
				"keep one of the two; the names of parameters do not tell paths apart")
		} else {
			calls[call] = i
		}
	}
}

func validOperationName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\'' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= maxOperationName
}

func validMethod(s string) bool {
	if s == "*" {
		return true
	}
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return s != "" && len(s) <= 32 && s != "CONNECT"
}
