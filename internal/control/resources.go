package control

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/store"
)

const (
	// bodyTime bounds the arrival of a body of documents.
	bodyTime = 5 * time.Minute
	// maxWait bounds how long an apply waits for gateways.
	maxWait = 10 * time.Minute
)

// flag reads a boolean parameter of the query.
func (q *request) flag(name string) (bool, error) {
	switch v := q.r.URL.Query().Get(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, problem.New(problem.BadRequest, "%s %q must be true or false", name, v)
	}
}

// readParameters reads the parameters that every change has: dryRun and wait.
func (q *request) readParameters() (err error) {
	if q.dryRun, err = q.flag("dryRun"); err != nil {
		return err
	}
	v := q.r.URL.Query().Get("wait")
	if v == "" {
		return nil
	}
	d, err := v1.ParseDuration(v)
	if err != nil || d < 0 || d.Std() > maxWait {
		return problem.New(problem.BadRequest, "wait %q must be a duration up to %s, such as 30s", v, v1.Duration(maxWait))
	}
	q.wait = d.Std()
	return nil
}

// change commits what build makes of the state at the head, on behalf of the request; of a dry run it only tells.
func (s *Server) change(q *request, reason string, build func(store.State) (edit, error)) (outcome, error) {
	return s.commit(q.ctx(), change{who: q.who, info: q.info(reason), dryRun: q.dryRun, build: build})
}

// documents reads the body of a change. The memory for it is set aside until release is called.
func (s *Server) documents(q *request) (data []byte, release func(), err error) {
	if _, err := q.contentType("application/yaml", "application/json", "application/x-yaml", "text/yaml", "text/plain"); err != nil {
		return nil, nil, err
	}
	limit := s.opts.MaxBody
	if q.r.ContentLength > limit {
		return nil, nil, problem.New(problem.TooLarge, "the body has %d bytes and may have %d: send fewer resources at once", q.r.ContentLength, limit)
	}
	size := q.r.ContentLength
	if size < 0 {
		size = limit
	}
	ctx, cancel := context.WithTimeout(q.ctx(), bodyIdle)
	defer cancel()
	if err := s.bodies.Acquire(ctx, size); err != nil {
		return nil, nil, (&problem.Error{Code: problem.Busy, RetryAfter: 5 * time.Second}).Because(err)
	}
	release = func() { s.bodies.Release(size) }
	if data, err = io.ReadAll(q.body(limit, bodyTime)); err != nil {
		release()
		return nil, nil, fmt.Errorf("read body: %w", err)
	}
	return data, release, nil
}

// decode reads resources strictly, with their defaults. Nothing is returned if there is any fault.
func decode(data []byte, o resource.Options) ([]*v1.Object, error) {
	objects, faults := resource.Decode("", data, o)
	if len(faults) > 0 {
		return nil, invalid(faults)
	}
	if !o.Identity {
		for _, obj := range objects {
			resource.Default(obj)
		}
	}
	return objects, nil
}

// invalid returns the refusal of input with faults.
func invalid(faults []v1.Fault) error {
	e := &problem.Error{Code: problem.Invalid, Faults: faults, Detail: fmt.Sprintf("the input has %d faults; nothing was changed", len(faults))}
	if len(faults) == 1 {
		e.Detail = "the input has a fault; nothing was changed"
	}
	return e
}

// located returns err with the lines of data that its faults belong to.
func located(err error, data []byte, o resource.Options) error {
	faults := resource.FaultsOf(err)
	if len(faults) == 0 {
		return err
	}
	resource.Locate("", data, faults, o)
	return invalid(faults)
}

func (q *request) decodeOptions() resource.Options {
	return resource.Options{Organization: q.r.URL.Query().Get("organization")}
}

func (s *Server) apply(q *request) error { return s.applyDocuments(q, false) }

// plan is a dry run that shows both sides of every change.
func (s *Server) plan(q *request) error {
	q.dryRun = true
	return s.applyDocuments(q, true)
}

func (s *Server) applyDocuments(q *request, sides bool) error {
	data, release, err := s.documents(q)
	if err != nil {
		return err
	}
	defer release()
	o := q.decodeOptions()
	objects, err := decode(data, o)
	if err != nil {
		return err
	}
	for _, obj := range objects {
		// Decided here as well as upon each change, so that a caller without the role learns nothing from what is equal.
		if err := q.who.requireWrite(obj.Key()); err != nil {
			return err
		}
	}
	out, err := s.change(q, "apply", func(state store.State) (edit, error) {
		return edit{puts: objects}, checkTokens(state, objects)
	})
	if err != nil {
		return located(err, data, o)
	}
	return s.replyChanges(q, out, sides)
}

// checkTokens keeps the tokens of principals as they are: users cannot write them. It replaces the principals in
// objects by copies that carry them.
func checkTokens(state store.State, objects []*v1.Object) error {
	var faults []v1.Fault
	for i, o := range objects {
		spec, ok := o.Spec.(*v1.PrincipalSpec)
		if !ok {
			continue
		}
		var have []v1.TokenHash
		if before, exists := state.Get(o.Key()); exists {
			have = before.Spec.(*v1.PrincipalSpec).Tokens
		}
		if len(spec.Tokens) > 0 && !sameTokens(spec.Tokens, have) {
			faults = append(faults, v1.Fault{
				Kind: string(o.Kind), Name: o.Metadata.Name, Path: "spec.tokens", Code: "system-field",
				Message: "tokens are written by Hansa alone", Remedy: "take them out, and make tokens with \"hansa tokens create\"",
			})
			continue
		}
		c := *o
		c.Spec = &v1.PrincipalSpec{Roles: spec.Roles, Tokens: have}
		objects[i] = &c
	}
	return resource.AsError(faults)
}

func sameTokens(a, b []v1.TokenHash) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].SHA256 != b[i].SHA256 || !a[i].ExpiresAt.Equal(b[i].ExpiresAt) {
			return false
		}
	}
	return true
}

func (s *Server) deleteAll(q *request) error {
	data, release, err := s.documents(q)
	if err != nil {
		return err
	}
	defer release()
	o := q.decodeOptions()
	o.Identity = true
	objects, err := decode(data, o)
	if err != nil {
		return err
	}
	for _, obj := range objects {
		if err := q.who.requireWrite(obj.Key()); err != nil {
			return err
		}
	}
	out, err := s.change(q, "delete", func(state store.State) (edit, error) {
		var e edit
		for _, obj := range objects {
			before, exists := state.Get(obj.Key())
			if !exists {
				continue
			}
			if seq := obj.Metadata.Seq; seq != 0 && seq != before.Metadata.Seq {
				return e, staleError(obj.Key(), before, seq)
			}
			e.deletes = append(e.deletes, obj.Key())
		}
		return e, nil
	})
	if err != nil {
		return located(err, data, o)
	}
	return s.replyChanges(q, out, false)
}

// replyChanges answers with what a change set changed, after waiting for the gateways if that is asked for.
func (s *Server) replyChanges(q *request, out outcome, sides bool) error {
	answer := v1.ApplyResult{Epoch: out.version.Epoch, Seq: out.version.Seq, Changes: out.changes, DryRun: q.dryRun, Warnings: out.warnings}
	for i := range answer.Changes {
		c := &answer.Changes[i]
		if sides {
			c.Before, c.After = visible(c.Before), visible(c.After)
		} else {
			c.Before, c.After = nil, nil
		}
	}
	if answer.Changes == nil {
		answer.Changes = []v1.Change{}
	}
	if q.wait > 0 && !q.dryRun {
		result, err := s.waitApplied(q, out)
		if err != nil {
			return err
		}
		answer.Wait = result
	}
	return q.reply(http.StatusOK, answer)
}

// visible returns o as callers may see it: without the hashes of tokens and without private keys.
func visible(o *v1.Object) *v1.Object {
	if o == nil {
		return nil
	}
	switch spec := o.Spec.(type) {
	case *v1.PrincipalSpec:
		if len(spec.Tokens) > 0 {
			c := *o
			c.Spec = &v1.PrincipalSpec{Roles: spec.Roles}
			return &c
		}
	case *v1.CertificateSpec:
		if unsealed(o) { // its secrets are taken out long before
			return bare(o, spec)
		}
	}
	return o
}

// key returns the resource that the path names.
func (q *request) key(info v1.KindInfo) v1.Key {
	k := v1.Key{Kind: info.Kind, Name: q.r.PathValue("name")}
	if !info.Global {
		k.Organization = q.organization
	}
	return k
}

// etag is the entity tag of a resource at a version of the record. The epoch is part of it, since seq may repeat
// after a restore.
func etag(v store.Version, o *v1.Object) string {
	return fmt.Sprintf(`"%d.%d"`, v.Epoch, o.Metadata.Seq)
}

func (s *Server) get(q *request, info v1.KindInfo) error {
	state := s.store.State()
	k := q.key(info)
	o, ok := state.Get(k)
	if !ok || !q.who.mayRead(k) {
		return notFound(k)
	}
	tag := etag(state.Version(), o)
	q.w.Header().Set("ETag", tag)
	// The tag is that of what users write; the status of some kinds changes without it.
	restless := o.Kind == v1.KindDeployment || o.Kind == v1.KindCertificate
	if match := q.r.Header.Get("If-None-Match"); match != "" && !restless && matches(match, state.Version(), o) {
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return q.reply(http.StatusOK, s.serving(state, s.visible(o)))
}

// matches tells whether a list of entity tags has the one of o, or "*". A tag may be the seq alone.
func matches(header string, v store.Version, o *v1.Object) bool {
	seq := `"` + strconv.FormatUint(o.Metadata.Seq, 10) + `"`
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == etag(v, o) || tag == seq {
			return true
		}
	}
	return false
}

// precondition checks If-Match and If-None-Match of a change.
func (q *request) precondition(state store.State, k v1.Key) error {
	o, exists := state.Get(k)
	if match := q.r.Header.Get("If-Match"); match != "" && (!exists || !matches(match, state.Version(), o)) {
		if !exists {
			return problem.New(problem.PreconditionFailed, "%s does not exist, If-Match asks for %s", k, match)
		}
		return problem.New(problem.PreconditionFailed, "%s is at %s, If-Match asks for %s: read it again and repeat the change upon that", k, etag(state.Version(), o), match)
	}
	if match := q.r.Header.Get("If-None-Match"); match != "" && exists && matches(match, state.Version(), o) {
		return problem.New(problem.PreconditionFailed, "%s exists, If-None-Match asks that it does not", k)
	}
	return nil
}

func (s *Server) put(q *request, info v1.KindInfo) error {
	data, release, err := s.documents(q)
	if err != nil {
		return err
	}
	defer release()
	k := q.key(info)
	o := resource.Options{Organization: q.organization}
	objects, err := decode(data, o)
	if err != nil {
		return err
	}
	if len(objects) != 1 || objects[0].Key() != k {
		return problem.New(problem.BadRequest, "the body must be exactly one resource, the %s that the path names", k)
	}
	out, err := s.change(q, "put", func(state store.State) (edit, error) {
		if err := q.precondition(state, k); err != nil {
			return edit{}, err
		}
		return edit{puts: objects}, checkTokens(state, objects)
	})
	if err != nil {
		return located(err, data, o)
	}
	if o, ok := s.store.State().Get(k); ok && !q.dryRun {
		q.w.Header().Set("ETag", etag(out.version, o))
	}
	return s.replyChanges(q, out, false)
}

func (s *Server) delete(q *request, info v1.KindInfo) error {
	k := q.key(info)
	out, err := s.change(q, "delete", func(state store.State) (edit, error) {
		return edit{deletes: []v1.Key{k}}, q.precondition(state, k)
	})
	if err != nil {
		if faults := resource.FaultsOf(err); len(faults) > 0 {
			return invalid(faults)
		}
		return err
	}
	return s.replyChanges(q, out, false)
}

func (s *Server) list(q *request, info v1.KindInfo) error {
	query := q.r.URL.Query()
	if watch, err := q.flag("watch"); err != nil {
		return err
	} else if watch {
		return s.watch(q, info)
	}
	selected, err := parseSelector(query.Get("selector"))
	if err != nil {
		return problem.New(problem.BadRequest, "%v", err)
	}
	organization := q.organization
	if info.Global {
		organization = ""
	}
	id := info.Plural + "/" + organization
	p, err := parsePage(query, id)
	if err != nil {
		return err
	}
	state := s.store.State()
	w := listWriter{q: q, version: state.Version()}
	for o := range state.List(info.Kind, organization, p.after) {
		if !q.who.mayRead(o.Key()) || !selected.matches(o.Metadata.Labels) {
			continue
		}
		if w.count == p.limit || w.bytes > maxPageBytes {
			return w.end(encodeContinue(id, w.last))
		}
		if err := w.add(s.visible(o)); err != nil {
			return err
		}
	}
	return w.end("")
}
