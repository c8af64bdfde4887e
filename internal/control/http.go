package control

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/store"
)

// The deadlines of a request.
const (
	// bodyIdle bounds the silence within a body, answerIdle the time that a client takes to accept a piece of an answer.
	bodyIdle   = 30 * time.Second
	answerIdle = 60 * time.Second
	// smallBody bounds the bodies that carry a few fields.
	smallBody = 64 << 10
)

// request is one request to the API on its way through a handler.
type request struct {
	w  *answer
	r  *http.Request
	id string // correlation id
	// who is the caller; authenticated before the handler runs.
	who caller
	// organization is the one that the route was decided in; "*" if in all.
	organization string
	// dryRun only tries a change; wait is how long its answer waits for the gateways.
	dryRun bool
	wait   time.Duration
	// stream is set when the time that the answer takes says nothing about the server.
	stream bool
}

func (q *request) ctx() context.Context { return q.r.Context() }

// answer notes what was written.
type answer struct {
	http.ResponseWriter
	status  int
	control *http.ResponseController
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(answerIdle)) // not every ResponseWriter has deadlines
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	if s.opts.Other != nil && !strings.HasPrefix(r.URL.Path, "/api/") {
		s.opts.Other.ServeHTTP(w, r)
		return
	}
	s.serve(&route{path: "_other", access: public(), handle: s.unrouted}).ServeHTTP(w, r)
}

// unrouted answers what no route takes: 404, or 405 if another method would be taken.
func (s *Server) unrouted(_ *Server, q *request) error {
	h, _ := s.mux.Handler(q.r)
	probe := &probeWriter{header: http.Header{}}
	h.ServeHTTP(probe, q.r)
	if allow := probe.header.Get("Allow"); allow != "" {
		q.w.Header().Set("Allow", allow)
		return problem.New(problem.MethodNotAllowed, "%s takes %s, not %s", q.r.URL.Path, allow, q.r.Method)
	}
	return problem.New(problem.NotFound, "there is nothing at %s", q.r.URL.Path)
}

// probeWriter keeps the header of an answer and drops the rest.
type probeWriter struct{ header http.Header }

func (p *probeWriter) Header() http.Header         { return p.header }
func (p *probeWriter) Write(b []byte) (int, error) { return len(b), nil }
func (p *probeWriter) WriteHeader(int)             {}

// serve is what happens around every handler: correlation id, deadlines, authentication, the decision, the answer to
// an error, log and metrics.
func (s *Server) serve(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		q := &request{w: &answer{ResponseWriter: w, control: http.NewResponseController(w)}, r: r, id: rand.Text()}
		w.Header().Set("X-Request-Id", q.id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			_ = q.w.control.SetReadDeadline(began.Add(bodyIdle))
		}
		err := s.guard(rt, q)
		if err != nil {
			s.refuse(q, err)
		}
		took := time.Since(began)
		s.metrics.answered(rt, q, took)
		s.log.DebugContext(r.Context(), "request", "request_id", q.id, "method", r.Method, "route", rt.label(),
			"status", q.w.status, "principal", q.who.principal, "took", took)
	})
}

// guard decides on the request, runs the handler and turns a panic into an error.
func (s *Server) guard(rt *route, q *request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { // the value itself is what net/http compares with
				panic(p)
			}
			s.metrics.panics.Inc()
			err = fmt.Errorf("panic: %v", p)
			if now := time.Now().Unix(); now-s.panicTold.Swap(now) >= 60 {
				s.log.Error("a request ended in a panic", "request_id", q.id, "route", rt.label(), "err", p, "stack", string(debug.Stack()))
			}
		}
	}()
	if err := s.decide(rt, q); err != nil {
		return err
	}
	if rt.body == noBody && q.r.ContentLength != 0 {
		q.w.Header().Set("Connection", "close")
		return problem.New(problem.BadRequest, "%s %s takes no body", q.r.Method, q.r.URL.Path)
	}
	if err := q.readParameters(); err != nil {
		return err
	}
	return rt.handle(s, q)
}

// decide authenticates the caller and asks whether it may use the route.
func (s *Server) decide(rt *route, q *request) error {
	if rt.access.scope == scopePublic {
		return nil
	}
	who, err := s.auth.authenticate(q.r)
	if err != nil {
		return err
	}
	q.who = who
	switch rt.access.scope {
	case scopeOrganization:
		q.organization = q.r.PathValue("organization")
	case scopeNamed:
		q.organization = q.r.PathValue("name")
	case scopeQuery:
		q.organization = q.r.URL.Query().Get("organization")
		if q.organization == "" {
			q.organization = allOrganizations
		}
	case scopeAll:
		q.organization = allOrganizations
	case scopeSome:
		if !who.maySome(rt.access.role) {
			return problem.New(problem.Forbidden, "principal %q needs the role %s in some organization", who.principal, rt.access.role)
		}
		return nil
	default:
		return problem.New(problem.Forbidden, "the route %s states no access", rt.label())
	}
	if err := who.require(rt.access.role, q.organization); err != nil || rt.access.scope != scopeOrganization {
		return err
	}
	// Only who has a role there learns that there is no such organization.
	k := v1.Key{Kind: v1.KindOrganization, Name: q.organization}
	if _, ok := s.store.State().Get(k); !ok {
		return notFound(k)
	}
	return nil
}

// refuse answers with err, or breaks the answer off if it has begun.
func (s *Server) refuse(q *request, err error) {
	err = translate(err)
	e := problem.From(err)
	if e.Cause != nil {
		level := s.log.WarnContext
		if e.Code == problem.Internal || e.Code == problem.StorageFull {
			level = s.log.ErrorContext
		}
		level(q.ctx(), "request refused", "request_id", q.id, "method", q.r.Method, "path", q.r.URL.Path,
			"principal", q.who.principal, "code", e.Code, "err", e.Cause)
	}
	if q.w.status != 0 {
		panic(http.ErrAbortHandler) // the client must not take what it has for whole
	}
	problem.Write(q.w, q.id, err)
}

// translate maps the errors of the record and of reading to refusals.
func translate(err error) error {
	if _, ok := errors.AsType[*problem.Error](err); ok {
		return err
	}
	switch {
	case errors.Is(err, store.ErrConflict):
		return problem.New(problem.Conflict, "the record kept moving on during every attempt: repeat the request").Because(err)
	case errors.Is(err, store.ErrStorageFull):
		return (&problem.Error{Code: problem.StorageFull}).Because(err)
	case errors.Is(err, store.ErrCompacted):
		return (&problem.Error{Code: problem.Expired}).Because(err)
	case errors.Is(err, store.ErrClosed):
		return (&problem.Error{Code: problem.Unavailable, RetryAfter: 5 * time.Second}).Because(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return (&problem.Error{Code: problem.RequestTimeout}).Because(err)
	case errors.Is(err, store.ErrUnknown), errors.Is(err, context.DeadlineExceeded):
		return (&problem.Error{Code: problem.Timeout}).Because(err)
	case errors.Is(err, context.Canceled):
		return (&problem.Error{Code: problem.Unavailable}).Because(err)
	}
	if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.New(problem.TooLarge, "the body is longer than %d bytes: send less at once", tooLong.Limit)
	}
	return err
}

// reply answers with the JSON of v.
func (q *request) reply(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	q.w.Header().Set("Content-Type", "application/json")
	q.w.WriteHeader(status)
	_, _ = q.w.Write(append(b, '\n')) // the caller may be gone; there is nobody left to tell
	return nil
}

// body returns the body of the request, bounded by limit, with a deadline that moves as long as bytes arrive, but not
// beyond total.
func (q *request) body(limit int64, total time.Duration) io.Reader {
	return &movingBody{
		r:       http.MaxBytesReader(q.w, q.r.Body, limit),
		control: q.w.control,
		end:     time.Now().Add(total),
	}
}

type movingBody struct {
	r       io.Reader
	control *http.ResponseController
	end     time.Time
}

func (b *movingBody) Read(p []byte) (int, error) {
	deadline := time.Now().Add(bodyIdle)
	if deadline.After(b.end) {
		deadline = b.end
	}
	_ = b.control.SetReadDeadline(deadline) // not every ResponseWriter has deadlines
	n, err := b.r.Read(p)
	// Between two reads the handler may take its time; then nobody is waited for but the client's leaving, which has
	// no deadline.
	_ = b.control.SetReadDeadline(time.Time{})
	return n, err
}

// contentType returns the media type of the body, and an error if it is none of those that are taken.
func (q *request) contentType(taken ...string) (string, error) {
	header := q.r.Header.Get("Content-Type")
	if header == "" {
		return taken[0], nil
	}
	t, _, err := mime.ParseMediaType(header)
	if err != nil || !slices.Contains(taken, t) {
		return "", problem.New(problem.UnsupportedMediaType, "the content type %q is not taken here: send %s", header, strings.Join(taken, " or "))
	}
	return t, nil
}

// readJSON decodes a small body into v, strictly. An empty body leaves v as it is.
func (q *request) readJSON(v any) error {
	if _, err := q.contentType("application/json"); err != nil {
		return err
	}
	b, err := io.ReadAll(q.body(smallBody, bodyIdle))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if len(b) == 0 {
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return problem.New(problem.BadRequest, "the body is not what the call takes: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return problem.New(problem.BadRequest, "the body holds more than one JSON value")
	}
	return nil
}
