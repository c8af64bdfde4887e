package gateway

import (
	"fmt"
	"slices"
	"strings"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/router"
	"hansa.dev/hansa/internal/gateway/upstream"
	"hansa.dev/hansa/internal/policyspec"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/x/pathpattern"
)

// fault is what is wrong in a field of an entry.
type fault struct {
	field string
	err   error
}

func (f *fault) Error() string { return f.err.Error() }

func at(field string, err error) error { return &fault{field, err} }

// lifeOf returns the life of an API, and whether it begins here.
func (b *builder) lifeOf(e snapshot.Entry) (*life, bool) {
	if was := b.parts.apis[e.Key]; was != nil {
		return was.life, false
	}
	names := append(strings.Split(e.Key, "/"), "", "", "")
	l := &life{entry: e.Key, organization: names[1], environment: names[2], api: names[3]}
	l.subjectID = quota.NewID("api", l.organization, l.environment, l.api)
	l.subject = b.subjects.Acquire(l.subjectID)
	return l, true
}

// makeAPI makes an API of its entry. A policy that panics refuses the entry: a configuration must not end a gateway
// that serves another one.
func (b *builder) makeAPI(ch *change, e snapshot.Entry, l *life) (made *api, err error) {
	defer func() {
		if v := recover(); v != nil {
			made, err = nil, refuse(e.Key, "", fmt.Errorf("building it panicked: %v", v))
		}
	}()
	spec, err := snapshot.Decode[snapshot.API](e)
	if err != nil {
		return nil, refuse(e.Key, "", err)
	}
	if snapshot.EntryKey(snapshot.ClassAPI, spec.Organization, spec.Environment, spec.Name) != e.Key {
		return nil, refuse(e.Key, "name", fmt.Errorf("it says that it is %s/%s/%s", spec.Organization, spec.Environment, spec.Name))
	}
	a := &api{life: l}
	m := &apiMaker{builder: b, spec: &spec, api: a, was: b.parts.apis[e.Key]}
	if err := m.make(ch); err != nil {
		if f, ok := err.(*fault); ok { // made by at, and never wrapped
			return nil, refuse(e.Key, f.field, f.err)
		}
		return nil, refuse(e.Key, "", err)
	}
	return a, nil
}

// apiMaker makes one API.
type apiMaker struct {
	*builder
	spec *snapshot.API
	api  *api
	was  *api // the revision before, or nil
}

func (m *apiMaker) make(ch *change) (err error) {
	if m.api.base, err = pathpattern.ParseBase(m.spec.BasePath); err != nil {
		return at("basePath", err)
	}
	prefix, err := pathpattern.ParseBase(m.spec.BackendPath)
	if err != nil {
		return at("backendPath", err)
	}
	if m.api.forwardPrefix = prefix.String(); m.api.forwardPrefix == "/" {
		m.api.forwardPrefix = ""
	}
	if err := m.makeBackend(ch); err != nil {
		return err
	}
	if err := m.makeFlow(); err != nil {
		return err
	}
	return m.operations()
}

// makeFlow completes the flow of the API, which has its backend.
func (m *apiMaker) makeFlow() (err error) {
	f, l := &m.api.flow, m.api.life
	if f.Request, err = m.steps("request", m.spec.Request, policyspec.Request, ""); err != nil {
		return err
	}
	if f.Response, err = m.steps("response", m.spec.Response, policyspec.Response, ""); err != nil {
		return err
	}
	f.Owner, f.MaxRequestBytes = l, m.spec.MaxRequestBytes
	f.Organization, f.Environment, f.API, f.Revision = l.organization, l.environment, l.api, m.spec.Revision
	f.LogMembers = accesslog.FlowMembers(f)
	return nil
}

// makeBackend makes what the API forwards to: a backend, or several by weight, and perhaps one that gets copies.
func (m *apiMaker) makeBackend(ch *change) (err error) {
	if m.spec.Backend != "" {
		if m.api.flow.Backend, err = m.backendNamed(ch, "backend", m.spec.Backend); err != nil {
			return err
		}
	}
	if s := m.spec.Split; s != nil {
		parts := make([]upstream.Part, len(s.Backends))
		for i, part := range s.Backends {
			b, err := m.backendNamed(ch, fmt.Sprintf("split.backends[%d].backend", i), part.Backend)
			if err != nil {
				return err
			}
			parts[i] = upstream.Part{Name: part.Backend, Backend: b, Weight: part.Weight}
		}
		m.api.flow.Backend = upstream.NewSplit(parts, s.StickBy, nil)
	}
	if c := m.spec.Mirror; c != nil && m.api.flow.Backend != nil {
		to, err := m.backendNamed(ch, "mirror.backend", c.Backend)
		if err != nil {
			return err
		}
		m.api.flow.Backend = upstream.NewMirror(m.api.flow.Backend, to, c.Percent)
	}
	return nil
}

// backendNamed finds a backend that a field of the API names.
func (m *apiMaker) backendNamed(ch *change, field, name string) (exchange.Backend, error) {
	m.api.backends = append(m.api.backends, snapshot.EntryKey(snapshot.ClassBackend, m.spec.Organization, name))
	b := m.builder.backend(ch, m.spec.Organization, name)
	if b == nil {
		return nil, at(field, fmt.Errorf("there is no backend %q", name))
	}
	return b, nil
}

func (m *apiMaker) operations() error {
	specs := m.spec.Operations
	if len(specs) == 0 {
		specs = []snapshot.Operation{{Method: "*", Path: "/*"}} // all that there is below the base path
	}
	entries := make([]router.OperationEntry[exchange.Route], 0, len(specs))
	m.api.counts = make([]*operationCounts, 0, len(specs))
	for i := range specs {
		op := &specs[i]
		field := fmt.Sprintf("operations[%d]", i)
		template, err := pathpattern.ParseTemplate(op.Path)
		if err != nil {
			return at(field+".path", err)
		}
		flow, err := m.flowOf(field, op)
		if err != nil {
			return err
		}
		counts := m.countsOf(op.Name)
		m.api.counts = append(m.api.counts, counts)
		entries = append(entries, router.OperationEntry[exchange.Route]{
			Method: op.Method, Template: template, Value: exchange.Route{Flow: flow, Data: counts, Operation: op.Name},
		})
	}
	table, err := router.NewOperations(entries)
	if err != nil {
		return at("operations", err)
	}
	m.api.operations = *table
	return nil
}

// flowOf returns the flow of an operation: that of its API, if it has no policies of its own.
func (m *apiMaker) flowOf(field string, op *snapshot.Operation) (*exchange.Flow, error) {
	if len(op.Request)+len(op.Response) == 0 {
		return &m.api.flow, nil
	}
	request, err := m.steps(field+".request", op.Request, policyspec.Request, op.Name)
	if err != nil {
		return nil, err
	}
	response, err := m.steps(field+".response", op.Response, policyspec.Response, op.Name)
	if err != nil {
		return nil, err
	}
	own := m.api.flow
	own.Request, own.Response = slices.Concat(own.Request, request), slices.Concat(own.Response, response)
	return &own, nil
}

// countsOf returns the counts of the operation of that name, as they were in the revision before.
func (m *apiMaker) countsOf(operation string) *operationCounts {
	if m.was != nil {
		for _, c := range m.was.counts {
			if c.name == operation {
				return c
			}
		}
	}
	return &operationCounts{name: operation}
}

// steps makes the steps of a list of policies.
func (m *apiMaker) steps(field string, list []snapshot.Policy, phase policyspec.Phase, operation string) ([]exchange.Step, error) {
	if len(list) == 0 {
		return nil, nil
	}
	env := policy.Env{
		Organization: m.spec.Organization, Environment: m.spec.Environment, API: m.spec.Name, Operation: operation, Phase: phase,
		Credentials: m.credentials, Engine: m.engine, Clients: m.clients, Subject: m.api.life.subject,
	}
	steps := make([]exchange.Step, 0, len(list))
	for i, p := range list {
		field := fmt.Sprintf("%s[%d]", field, i)
		factory, spec := m.factories[p.Use], m.specs[p.Use]
		switch {
		case factory == nil:
			return nil, at(field+".use", fmt.Errorf("there is no policy %q in this gateway", p.Use))
		case spec.Phases&phase == 0:
			return nil, at(field+".use", fmt.Errorf("the policy %s cannot stand here", p.Use))
		}
		env.Ordinal = 0
		for _, before := range list[:i] {
			if before.Use == p.Use {
				env.Ordinal++
			}
		}
		step, err := factory(p.Config, &env)
		if err != nil {
			return nil, at(field+".config", err)
		}
		steps = append(steps, step)
	}
	return steps, nil
}
