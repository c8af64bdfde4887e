package openapi

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/x/pathpattern"
)

// servers decides where the API is served and what it is forwarded to. It returns the Backend, if its address is known.
func (im *importer) servers(api *v1.APISpec) []*v1.Object {
	api.Backend = im.opts.Backend
	var from *url.URL
	if len(im.doc.Servers) > 0 {
		from = im.server("servers[0]", im.doc.Servers[0])
		for i := range im.doc.Servers[1:] {
			im.report.note(fmt.Sprintf("servers[%d]", i+1), NoteServer, "only the first server is carried over")
		}
	}
	path := ""
	if from != nil {
		path = im.basePath(from.EscapedPath())
		api.BackendPath = path
	}
	api.BasePath = cmp.Or(im.opts.BasePath, path)
	if api.BasePath == "" || im.opts.BasePath == "" && api.BasePath == "/" {
		api.BasePath = "/" + im.opts.Name
		im.report.note("servers", NoteServer, "the server has no path; the API is served under %s", api.BasePath)
	}
	if api.BackendPath == "/" {
		api.BackendPath = "" // the default
	}
	if im.opts.BackendAddress != "" {
		from = im.address(im.opts.BackendAddress)
	}
	backend := im.backend(from)
	if backend == nil {
		im.report.note("servers", NoteBackend, "the document does not say where the service is; write the Backend %s, or name its address", im.opts.Backend)
		return nil
	}
	return []*v1.Object{object(im.opts.Backend, backend)}
}

// server reads the URL of a server with the defaults of its variables. nil: it cannot be used.
func (im *importer) server(where string, s server) *url.URL {
	text := s.URL
	for _, name := range slices.Sorted(maps.Keys(s.Variables)) {
		v := s.Variables[name]
		if strings.Contains(text, "{"+name+"}") {
			def := ""
			if v.Default != nil {
				def = fmt.Sprint(v.Default)
			}
			im.report.note(where, NoteServer, "the variable {%s} of %.200q has its default, %q", name, s.URL, def)
			text = strings.ReplaceAll(text, "{"+name+"}", def)
		}
	}
	if strings.HasPrefix(text, "//") {
		text = "https:" + text
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || strings.ContainsAny(text, "{}") {
		im.report.note(where, NoteServer, "%.200q is not a URL", text)
		return nil
	}
	return u
}

// address reads what the caller says about the address of the service.
func (im *importer) address(s string) *url.URL {
	if !strings.Contains(s, "://") {
		return &url.URL{Scheme: "http", Host: s}
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil
	}
	return u
}

// basePath makes a base path of the path of a server, "" if it is none.
func (im *importer) basePath(path string) string {
	if path == "" {
		return "/"
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	b, err := pathpattern.ParseBase(literal(path, func(string, ...any) {}))
	if err != nil {
		im.report.note("servers[0]", NoteServer, "its path cannot be a base path: %v", err)
		return ""
	}
	return b.String()
}

// backend makes the Backend of a URL, or nil if that does not name a service.
func (im *importer) backend(u *url.URL) *v1.BackendSpec {
	if u == nil || u.Hostname() == "" {
		return nil
	}
	b := &v1.BackendSpec{Protocol: strings.ToLower(u.Scheme), Host: strings.ToLower(u.Host)}
	port := u.Port()
	switch b.Protocol {
	case "https":
		port = cmp.Or(port, "443")
	case "http":
		port = cmp.Or(port, "80")
	default:
		im.report.note("servers[0]", NoteServer, "%s is not a protocol that the gateway speaks to backends", u.Scheme)
		return nil
	}
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	b.Endpoints = []v1.Endpoint{{Address: host + ":" + port}}
	probe := object("probe", b)
	probe = resource.Clone(probe)
	probe.Metadata.Organization = v1.DefaultOrganization
	resource.Default(probe)
	if err := resource.AsError(resource.Validate(probe)); err != nil {
		im.report.note("servers[0]", NoteServer, "%.200q is not the address of a service: %v", u.Host, err)
		return nil
	}
	return b
}
