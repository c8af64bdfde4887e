// Package openapi turns OpenAPI 3.0 and 3.1 documents, in JSON or YAML, into resources: an API with an operation for each
// call of the document, and the Backend that its first server names.
//
// The gateway does not serve a document but the requests that it describes, so only the skeleton of a document is read:
// paths, methods, servers and security. Everything that is left out, changed or merged on the way is in the [Report]; what
// Import returns is valid (resource.Validate), however odd the document. Import is a pure function and safe for concurrent
// use. Used by the command line.
package openapi

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/x/pathpattern"
)

// Options say what the document does not.
type Options struct {
	// Name is the name of the API. Default: the title of the document, as a name.
	Name string
	// BasePath is where the gateway serves the API. Default: the path of the first server, or "/" and Name where that
	// server has none.
	BasePath string
	// Backend is the name of the Backend that the API refers to. Default: Name.
	Backend string
	// BackendAddress is the address of the service, host:port or a URL of http or https, instead of the first server's.
	BackendAddress string
	// KeepDefinition keeps the document in the API.
	KeepDefinition bool
	// MaxBytes bounds the document. Default: 32 MiB.
	MaxBytes int
}

// Report tells what became of a document.
type Report struct {
	// Operations counts the operations of the API, Described those that the document describes.
	Operations, Described int
	// Notes are in the order of the document's paths.
	Notes []Note
}

// Note tells of one thing that is not as the document has it.
type Note struct {
	// Where is the place in the document: "paths./items/{id}.get".
	Where string `json:"where,omitempty"`
	// Code is the stable name of what happened; see the constants.
	Code string `json:"code"`
	// Message is for people.
	Message string `json:"message"`
}

// The codes of notes.
const (
	NotePathChanged      = "path-changed"      // the path is written otherwise, and matches the same requests or more
	NoteOperationMerged  = "operation-merged"  // another operation matches the same requests and serves them
	NoteOperationDropped = "operation-dropped" // cannot be served
	NoteNameChanged      = "name-changed"      // the operationId is not unique, or no name
	NoteServer           = "server"            // a server is not carried over
	NoteBackend          = "backend"           // what remains to be said about the backend
	NoteSecurity         = "security"          // what became of a security requirement
	NoteTextCut          = "text-cut"          // a text was too long
	NoteNotCarried       = "not-carried"       // a part of OpenAPI that the gateway has no use for
)

func (r *Report) note(where, code, format string, args ...any) {
	message := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ") // errors of parsers have several lines
	r.Notes = append(r.Notes, Note{Where: where, Code: code, Message: message})
}

// Import makes the resources of a document: the Backend, unless no address of it is known, and the API. An error means
// that the document cannot be read, or holds nothing that can be served.
func Import(doc []byte, o Options) ([]*v1.Object, *Report, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	d, err := read(doc, o.MaxBytes)
	if err != nil {
		return nil, nil, err
	}
	im := &importer{doc: d, opts: o, report: new(Report)}
	var about info
	if err := d.Info.decode(&about); err != nil {
		im.report.note("info", NoteNotCarried, "it cannot be read: %v", err)
	}
	im.opts.Name = cmp.Or(o.Name, slug(about.Title), "api")
	im.opts.Backend = cmp.Or(o.Backend, im.opts.Name)
	api := &v1.APISpec{DisplayName: im.cut("info.title", about.Title, 256), Description: im.cut("info.description", about.Description, 16<<10)}
	im.paths(api)
	switch {
	case im.report.Described == 0:
		return nil, im.report, errors.New("the document describes no operation: there is nothing to serve")
	case len(api.Operations) == 0:
		return nil, im.report, fmt.Errorf("none of the %d operations of the document can be served; the first note: %s", im.report.Described, im.report.Notes[0].Message)
	}
	objects := im.servers(api)
	im.secure(api)
	switch {
	case !o.KeepDefinition:
	case len(doc) > maxDefinition:
		im.report.note("", NoteTextCut, "the document is not kept in the API, since it has %d bytes and may have %d", len(doc), maxDefinition)
	default:
		api.Definition = &v1.Definition{Format: "openapi", Document: string(doc)}
	}
	if n := len(d.Webhooks); n > 0 {
		im.report.note("webhooks", NoteNotCarried, "%d webhooks: calls from the service to its consumers do not pass the gateway", n)
	}
	objects = append(objects, object(im.opts.Name, api))
	for _, obj := range objects {
		full := resource.Clone(obj)
		full.Metadata.Organization = v1.DefaultOrganization // which is not known yet, and any is as good
		resource.Default(full)
		if err := resource.AsError(resource.Validate(full)); err != nil {
			return nil, im.report, fmt.Errorf("the resources that the document gives are not valid: %w", err)
		}
	}
	im.report.Operations = len(api.Operations)
	return objects, im.report, nil
}

func object(name string, spec v1.Spec) *v1.Object {
	return &v1.Object{APIVersion: v1.APIVersion, Kind: spec.Kind(), Metadata: v1.Metadata{Name: name}, Spec: spec}
}

// importer is the state of one call of Import.
type importer struct {
	doc    *document
	opts   Options
	report *Report
	// security is what each operation of the API requires: itself, and the operations that were merged into it.
	security [][][]requirement
}

// cut makes a text fit.
func (im *importer) cut(where, text string, most int) string {
	clean := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r == 0x7f || r == '\n' && most <= 256 {
			return ' '
		}
		return r
	}, text))
	if len(clean) <= most {
		return clean
	}
	im.report.note(where, NoteTextCut, "it is cut off after %d of %d bytes", most, len(clean))
	return strings.ToValidUTF8(clean[:most], "")
}

// slug makes a name of a title.
func slug(title string) string {
	var sb strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			sb.WriteRune(r)
		case sb.Len() > 0 && !strings.HasSuffix(sb.String(), "-"):
			sb.WriteByte('-')
		}
		if sb.Len() == 60 {
			break
		}
	}
	return strings.Trim(sb.String(), "-")
}

// paths makes the operations.
func (im *importer) paths(api *v1.APISpec) {
	names := map[string]bool{}
	calls := map[string]call{} // by method and canonical path
	for _, p := range slices.Sorted(maps.Keys(im.doc.Paths)) {
		if strings.HasPrefix(p, "x-") {
			continue
		}
		where := "paths." + p
		item, err := im.doc.item(im.doc.Paths[p])
		if err != nil {
			im.report.note(where, NoteOperationDropped, "it cannot be read: %v", err)
			continue
		}
		if len(item.Servers) > 0 {
			im.report.note(where+".servers", NoteServer, "the path has servers of its own; its requests go to the backend of the API")
		}
		methods := im.methods(where, &item)
		slashes := map[string]bool{}
		im.doc.multiSegment(item.Parameters, slashes)
		for _, m := range methods {
			im.doc.multiSegment(m.Parameters, slashes)
		}
		path, changes, err := template(p, slashes)
		if err != nil {
			for _, m := range methods {
				im.report.note(m.where, NoteOperationDropped, "the path cannot be served: %v", err)
			}
			continue
		}
		for _, c := range changes {
			im.report.note(where, NotePathChanged, "%s; served as %s", c, path)
		}
		for _, m := range methods {
			if op, ok := im.operation(m, path, names, calls); ok {
				api.Operations = append(api.Operations, op)
			}
		}
	}
}

// call is an operation that the API has, and where it came from.
type call struct {
	where string
	index int
}

// operation makes one operation and notes what it requires, unless another one serves the same requests.
func (im *importer) operation(m method, path pathpattern.Template, names map[string]bool, calls map[string]call) (v1.Operation, bool) {
	key := m.name + " " + path.Canonical()
	if first, taken := calls[key]; taken {
		im.report.note(m.where, NoteOperationMerged, "it matches the same requests as %s, by method and path, and is served by that one", first.where)
		im.security[first.index] = append(im.security[first.index], m.Security)
		return v1.Operation{}, false
	}
	calls[key] = call{m.where, len(im.security)}
	im.security = append(im.security, [][]requirement{m.Security})
	if len(m.Servers) > 0 {
		im.report.note(m.where+".servers", NoteServer, "the operation has servers of its own; its requests go to the backend of the API")
	}
	if len(m.Callbacks) > 0 {
		im.report.note(m.where+".callbacks", NoteNotCarried, "calls from the service to its consumers do not pass the gateway")
	}
	name := im.name(m.where, m.OperationID, m.name+":"+path.String(), names)
	return v1.Operation{Name: name, Method: m.name, Path: path.String()}, true
}

// name makes the name of an operation unique, and a name at all.
func (im *importer) name(where, id, otherwise string, names map[string]bool) string {
	const most = 256
	name := nameOf(id)
	if strings.Trim(name, "_") == "" {
		name = nameOf(otherwise)
	}
	base := name[:min(len(name), most-8)] // room for a number
	if len(name) > most {
		name = base
	}
	for n := 2; names[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	names[name] = true
	if id != "" && name != id {
		im.report.note(where, NoteNameChanged, "the operationId %.80q is not unique or holds other characters than a name may; it is called %s", id, name)
	}
	return name
}

// nameOf replaces what the name of an operation may not hold.
func nameOf(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`"'\`, r) {
			return '_'
		}
		return r
	}, s)
}

// method is an operation of a path.
type method struct {
	name, where string
	operation
}

// methods reads the operations of a path, in a fixed order.
func (im *importer) methods(where string, it *pathItem) []method {
	var out []method
	add := func(name string, l *lazy) {
		if l == nil {
			return
		}
		im.report.Described++
		m := method{name: name, where: where + "." + strings.ToLower(name)}
		switch err := l.decode(&m.operation); {
		case err != nil:
			im.report.note(m.where, NoteOperationDropped, "it cannot be read: %v", err)
		case !plainMethod(name):
			im.report.note(m.where, NoteOperationDropped, "%.40q is not a method that gateways pass on", name)
		default:
			out = append(out, m)
		}
	}
	add("GET", it.Get)
	add("HEAD", it.Head)
	add("OPTIONS", it.Options)
	add("QUERY", it.Query)
	add("POST", it.Post)
	add("PUT", it.Put)
	add("PATCH", it.Patch)
	add("DELETE", it.Delete)
	add("TRACE", it.Trace)
	for _, name := range slices.Sorted(maps.Keys(it.Additional)) {
		l := it.Additional[name]
		add(name, &l)
	}
	return out
}

// plainMethod tells whether an additional operation of OpenAPI 3.2 has a method that an API may have.
func plainMethod(s string) bool {
	return s != "" && len(s) <= 32 && s != "CONNECT" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == "" && s[0] >= 'A' && s[0] <= 'Z'
}

// SampleRequest returns a request that op matches: its method and a path below the base path. Parameters are filled
// with text that no other operation of a sane API has as a literal, so that no other one matches better.
func SampleRequest(op v1.Operation) (method, path string, err error) {
	t, err := pathpattern.ParseTemplate(op.Path)
	if err != nil {
		return "", "", err
	}
	n := 0
	path = t.Fill(func(string) string {
		n++
		return fmt.Sprintf("Sample%dQz", n)
	})
	if method = op.Method; method == "*" {
		method = "GET"
	}
	return method, path, nil
}
