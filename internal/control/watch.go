package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/store"
)

const (
	// bookmarkEvery is how long a watch is silent at most.
	bookmarkEvery = 15 * time.Second
	// streamsPerPrincipal bounds the watches and waiting calls of one principal.
	streamsPerPrincipal = 64
)

// streamLimit counts the open streams of each principal.
type streamLimit struct {
	mu   sync.Mutex
	open map[string]int // guarded by mu
}

// enter takes one stream of the principal; the caller must call leave if it returns nil.
func (l *streamLimit) enter(principal string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[principal] >= streamsPerPrincipal {
		return &problem.Error{
			Code: problem.TooManyRequests, RetryAfter: 10 * time.Second,
			Detail: fmt.Sprintf("principal %q has %d watches and waiting calls open, which is as many as it may", principal, streamsPerPrincipal),
		}
	}
	if l.open == nil {
		l.open = map[string]int{}
	}
	l.open[principal]++
	return nil
}

func (l *streamLimit) leave(principal string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[principal]--; l.open[principal] == 0 {
		delete(l.open, principal)
	}
}

// parseSince reads "EPOCH.SEQ", or "SEQ" within the present epoch.
func parseSince(s string, head store.Version) (store.Version, error) {
	epoch, seq, both := strings.Cut(s, ".")
	if !both {
		epoch, seq = strconv.FormatUint(head.Epoch, 10), s
	}
	e, err1 := strconv.ParseUint(epoch, 10, 64)
	n, err2 := strconv.ParseUint(seq, 10, 64)
	if err1 != nil || err2 != nil {
		return store.Version{}, problem.New(problem.BadRequest, "since %q must be EPOCH.SEQ or SEQ", s)
	}
	return store.Version{Epoch: e, Seq: n}, nil
}

// watch streams the changes of a kind, one JSON object a line, until the caller leaves. The authorisation is asked
// again for every event: a role that is taken away ends with the next one.
func (s *Server) watch(q *request, info v1.KindInfo) error {
	selected, err := parseSelector(q.r.URL.Query().Get("selector"))
	if err != nil {
		return problem.New(problem.BadRequest, "%v", err)
	}
	if len(selected) > 0 {
		// A resource that loses its label would have to be told as deleted; the caller can do that itself.
		return problem.New(problem.BadRequest, "a watch takes no selector: select among its events")
	}
	state := s.store.State()
	since := state.Version()
	if v := q.r.URL.Query().Get("since"); v != "" {
		if since, err = parseSince(v, state.Version()); err != nil {
			return err
		}
	}
	if state.Version().Before(since) {
		return problem.New(problem.Expired, "version %d.%d is ahead of the record, which is at %d.%d: list again", since.Epoch, since.Seq, state.Version().Epoch, state.Version().Seq)
	}
	if err := s.streams.enter(q.who.principal); err != nil {
		return err
	}
	defer s.streams.leave(q.who.principal)
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()
	q.stream = true
	return s.streamChanges(q, info, state, since)
}

func (s *Server) streamChanges(q *request, info v1.KindInfo, state store.State, since store.Version) error {
	ctx, cancel := context.WithCancel(q.ctx())
	defer cancel()
	next, stop := pull(ctx, func(ctx context.Context) iter.Seq2[store.ChangeSet, error] { return s.changesAfter(ctx, state, since) })
	defer stop()
	out := json.NewEncoder(q.w)
	started := false
	send := func(ev v1.WatchEvent) error {
		started = true
		if err := out.Encode(ev); err != nil {
			return err
		}
		return q.w.control.Flush()
	}
	q.w.Header().Set("Content-Type", "application/x-ndjson")
	last := since
	bookmark := time.NewTicker(bookmarkEvery)
	defer bookmark.Stop()
	if since == state.Version() {
		if err := send(v1.WatchEvent{Type: v1.WatchBookmark, Epoch: last.Epoch, Seq: last.Seq}); err != nil {
			return nil
		}
	}
	for {
		var err error
		select {
		case got := <-next:
			if err = got.err; err != nil {
				break
			}
			last = got.set.Version
			if err = s.stillAllowed(q, info); err != nil {
				break
			}
			if !relay(q, info, got.set, send) {
				return nil // the caller left
			}
		case <-bookmark.C:
			if err = s.stillAllowed(q, info); err != nil {
				break
			}
			if send(v1.WatchEvent{Type: v1.WatchBookmark, Epoch: last.Epoch, Seq: last.Seq}) != nil {
				return nil
			}
		case <-s.ending:
			err = problem.New(problem.Unavailable, "the control node is stopping: go on at another one, or in a moment")
		case <-ctx.Done():
			return nil
		}
		if err == nil {
			continue
		}
		if !started || q.ctx().Err() != nil {
			return err
		}
		p := problem.From(translate(err)).Body(q.id)
		_ = send(v1.WatchEvent{Type: v1.WatchError, Problem: &p}) // the last word, whether or not it is heard
		return nil
	}
}

// stillAllowed decides again whether the caller may have the list.
func (s *Server) stillAllowed(q *request, info v1.KindInfo) error {
	who, err := s.auth.authenticate(q.r)
	if err != nil {
		return err
	}
	q.who = who
	switch {
	case info.Kind == v1.KindOrganization:
		return nil // relay decides on each
	case info.Global:
		return who.require(Admin, allOrganizations)
	}
	return who.require(Viewer, q.organization)
}

// relay sends what a change set changed of the kind, and a bookmark after it. It tells whether the caller is there.
func relay(q *request, info v1.KindInfo, set store.ChangeSet, send func(v1.WatchEvent) error) bool {
	v := set.Version
	sent := false
	for _, c := range set.Changes {
		if c.Key.Kind != info.Kind || !info.Global && c.Key.Organization != q.organization || !q.who.mayRead(c.Key) {
			continue
		}
		ev := v1.WatchEvent{Type: v1.WatchPut, Epoch: v.Epoch, Seq: v.Seq, Object: visible(c.Object)}
		if c.Object == nil {
			ev = v1.WatchEvent{Type: v1.WatchDelete, Epoch: v.Epoch, Seq: v.Seq, Kind: c.Key.Kind, Organization: c.Key.Organization, Name: c.Key.Name}
		}
		if send(ev) != nil {
			return false
		}
		sent = true
	}
	return !sent || send(v1.WatchEvent{Type: v1.WatchBookmark, Epoch: v.Epoch, Seq: v.Seq}) == nil
}

// changesAfter yields every change set after since, from the log up to state and then as they are committed.
func (s *Server) changesAfter(ctx context.Context, state store.State, since store.Version) iter.Seq2[store.ChangeSet, error] {
	return func(yield func(store.ChangeSet, error) bool) {
		if since != state.Version() {
			for set, err := range s.store.Log(ctx, since, state.Version()) {
				if !yield(set, err) || err != nil {
					return
				}
			}
		}
		for set, err := range s.store.Watch(ctx, state) {
			if !yield(set, err) || err != nil {
				return
			}
		}
	}
}

type pulled struct {
	set store.ChangeSet
	err error
}

// pull runs an iterator in a goroutine of its own, so that it can be selected upon. The function that it returns ends
// the iterator and awaits it.
func pull(ctx context.Context, begin func(context.Context) iter.Seq2[store.ChangeSet, error]) (<-chan pulled, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ch := make(chan pulled)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for set, err := range begin(ctx) {
			select {
			case ch <- pulled{set, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, func() {
		cancel(errors.New("the watch has ended"))
		<-done
	}
}

// waitApplied waits until the gateways of the views that a change reaches run it.
func (s *Server) waitApplied(q *request, out outcome) (*v1.WaitResult, error) {
	if s.opts.Gateways == nil {
		return &v1.WaitResult{Complete: true}, nil
	}
	if err := s.streams.enter(q.who.principal); err != nil {
		return nil, err
	}
	defer s.streams.leave(q.who.principal)
	ctx, cancel := context.WithTimeout(q.ctx(), q.wait)
	var ending sync.WaitGroup
	ending.Go(func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	})
	defer ending.Wait()
	defer cancel()
	views := out.views
	if len(out.changes) == 0 {
		// Nothing was changed by this call; what was asked to be so may still be on its way.
		views = viewsOf(s.store.State(), out.organizations)
	}
	missing := s.opts.Gateways.WaitApplied(ctx, views, out.version.Epoch, out.version.Seq)
	return &v1.WaitResult{Complete: len(missing) == 0 && ctx.Err() == nil, Missing: missing}, nil
}

// viewsOf returns the views that a change of the organizations can reach: those of all their gateway groups.
func viewsOf(state store.State, organizations []string) []string {
	var views []string
	for _, organization := range organizations {
		for o := range state.List(v1.KindGatewayGroup, organization, "") {
			views = append(views, compile.ViewName(organization, o.Metadata.Name))
		}
	}
	return views
}
