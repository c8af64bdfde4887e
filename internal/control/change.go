package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

const (
	// commitTime bounds a change, from the wait for its turn to the answer of the record.
	commitTime = 2 * time.Minute
	// commitAttempts is how often a change begins again because another control node was first. Changes of this node
	// take turns and never meet.
	commitAttempts = 8
)

// edit is what a change set should change. It is derived from a state and holds for that one only.
type edit struct {
	puts    []*v1.Object
	deletes []v1.Key
	// credentials are put beside those that follow from the resources.
	credentials []snapshot.Credential
}

// change is what commit is asked to do.
type change struct {
	who    caller
	info   store.Info
	dryRun bool
	// build derives the edit from the state at the head. It may be called several times.
	build func(store.State) (edit, error)
}

// outcome is what came of a change.
type outcome struct {
	version store.Version
	changes []v1.Change // with both sides
	keys    int
	// views are those whose configuration the change reaches.
	views []string
	// warnings are for people: what was done and may not be what was meant.
	warnings []string
	// organizations are those of all resources that the change spoke of, also if they were equal already.
	organizations []string
}

// commit makes a change: derive, decide, check, write; again from the new head if the record has moved on. It is
// the only way into the record. The outcome of a change that changes nothing is the version at the head.
func (s *Server) commit(ctx context.Context, c change) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	out, err := s.commitInTurn(ctx, c)
	switch {
	case err == nil && (c.dryRun || len(out.changes) == 0 && out.keys == 0):
		s.metrics.commits.WithLabelValues("unchanged").Inc()
	case err == nil:
		s.metrics.commits.WithLabelValues("committed").Inc()
		s.metrics.changes.Add(float64(len(out.changes)))
		s.metrics.keys.Add(float64(out.keys))
		s.log.InfoContext(ctx, "change set committed", "epoch", out.version.Epoch, "seq", out.version.Seq,
			"resources", len(out.changes), "keys", out.keys, "principal", c.info.Principal, "request_id", c.info.RequestID)
	case errors.Is(err, store.ErrConflict):
		s.metrics.commits.WithLabelValues("conflict").Inc()
	case err != nil && problem.From(translate(err)).Code != problem.Internal:
		s.metrics.commits.WithLabelValues("refused").Inc()
	case err != nil:
		s.metrics.commits.WithLabelValues("failed").Inc()
	}
	return out, err
}

func (s *Server) commitInTurn(ctx context.Context, c change) (outcome, error) {
	select {
	case <-s.writing:
		defer func() { s.writing <- struct{}{} }()
	case <-ctx.Done():
		return outcome{}, fmt.Errorf("wait for the turn to write: %w", context.Cause(ctx))
	}
	for attempt := 1; ; attempt++ {
		out, err := s.attempt(ctx, c)
		if !errors.Is(err, store.ErrConflict) || attempt == commitAttempts {
			return out, err
		}
		s.metrics.conflicts.Inc()
		pause := time.NewTimer(rand.N(time.Duration(1<<attempt) * 5 * time.Millisecond)) // spreads contenders, guards nothing
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return outcome{}, context.Cause(ctx)
		}
	}
}

// attempt tries to make the change upon the state at the head.
func (s *Server) attempt(ctx context.Context, c change) (outcome, error) {
	state := s.store.State()
	e, err := c.build(state)
	if err != nil {
		return outcome{}, err
	}
	follows, err := s.takeKeys(state, &e)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{version: state.Version(), keys: len(e.credentials), organizations: e.organizations()}
	out.changes, err = e.derive(state)
	if err != nil {
		return outcome{}, err
	}
	e.puts, e.deletes = append(e.puts, follows.puts...), append(e.deletes, follows.deletes...)
	if len(e.puts)+len(e.deletes)+len(e.credentials) == 0 {
		return out, nil
	}
	out.warnings = s.expiryWarnings(out.changes)
	if s.opts.Vault != nil {
		if err := s.completeGroups(state, &e); err != nil {
			return outcome{}, err
		}
	}
	for _, ch := range out.changes {
		if err := c.who.requireWrite(v1.Key{Organization: ch.Organization, Kind: ch.Kind, Name: ch.Name}); err != nil {
			return outcome{}, err
		}
	}
	if len(e.puts)+len(e.deletes) > 0 {
		if out.views, err = s.check(ctx, state, &e); err != nil {
			return outcome{}, err
		}
	}
	if c.dryRun {
		return out, nil
	}
	if len(e.credentials) > 0 {
		c.info.Organization = e.credentials[0].Organization
	}
	out.version, out.keys, err = s.write(ctx, state, e, c.info)
	return out, err
}

// organizations returns the organizations that e speaks of, each once.
func (e *edit) organizations() []string {
	var out []string
	add := func(organization string) {
		if organization != "" && !slices.Contains(out, organization) {
			out = append(out, organization)
		}
	}
	for _, o := range e.puts {
		add(o.Metadata.Organization)
	}
	for _, k := range e.deletes {
		add(k.Organization)
	}
	return out
}

// derive completes e with what follows from it (revisions of APIs, the resources that go with a deleted one), takes
// out what changes nothing and returns the changes.
func (e *edit) derive(state store.State) ([]v1.Change, error) {
	var changes []v1.Change
	puts := e.puts
	e.puts = nil
	for _, o := range puts {
		before, exists := state.Get(o.Key())
		if seq := o.Metadata.Seq; seq != 0 && (!exists || before.Metadata.Seq != seq) {
			return nil, staleError(o.Key(), before, seq)
		}
		next := *o
		next.Status = nil
		if exists {
			next.Metadata.Revision, next.Metadata.Seq, next.Status = before.Metadata.Revision, before.Metadata.Seq, before.Status
		} else {
			next.Metadata.Revision, next.Metadata.Seq = 0, 0
		}
		if exists && resource.Equal(before, &next) {
			continue
		}
		ch := v1.Change{Kind: o.Kind, Name: o.Metadata.Name, Organization: o.Metadata.Organization, Action: v1.ActionCreated, Before: before, After: &next}
		if exists {
			ch.Action = v1.ActionUpdated
		}
		if spec, ok := next.Spec.(*v1.APISpec); ok && (!exists || !sameSpec(before, &next)) {
			next.Metadata.Revision++
			ch.Revision = next.Metadata.Revision
			e.puts = append(e.puts, newRevision(&next, spec))
		}
		e.puts = append(e.puts, &next)
		changes = append(changes, ch)
	}
	deletes := e.deletes
	e.deletes = nil
	for _, k := range deletes {
		before, exists := state.Get(k)
		if !exists {
			return nil, notFound(k)
		}
		if k.Kind == v1.KindOrganization && k.Name == v1.DefaultOrganization {
			return nil, problem.New(problem.InUse, "organization %q exists in every cluster and cannot be deleted", k.Name)
		}
		e.deletes = append(e.deletes, k)
		changes = append(changes, v1.Change{Kind: k.Kind, Name: k.Name, Organization: k.Organization, Action: v1.ActionDeleted, Before: before})
		e.deletes = append(e.deletes, owned(state, k)...)
	}
	return changes, nil
}

// revisionKey returns the identity of a revision of an API.
func revisionKey(organization, api string, revision uint64) v1.Key {
	return v1.Key{Organization: organization, Kind: v1.KindAPIRevision, Name: resource.RevisionName(api, revision)}
}

// sameSpec tells whether two states of a resource differ in their labels at most.
func sameSpec(a, b *v1.Object) bool {
	x, y := *a, *b
	x.Metadata.Labels, y.Metadata.Labels = nil, nil
	return resource.Equal(&x, &y)
}

// newRevision returns the immutable revision that o, an API, now has.
func newRevision(o *v1.Object, spec *v1.APISpec) *v1.Object {
	k := revisionKey(o.Metadata.Organization, o.Metadata.Name, o.Metadata.Revision)
	return &v1.Object{
		APIVersion: v1.APIVersion,
		Kind:       k.Kind,
		Metadata:   v1.Metadata{Name: k.Name, Organization: k.Organization},
		Spec:       &v1.APIRevisionSpec{API: o.Metadata.Name, Revision: o.Metadata.Revision, Spec: *spec},
	}
}

// owned returns what goes with a deleted resource: the revisions of an API, and what has enrolled or may enrol in a
// gateway group.
func owned(state store.State, k v1.Key) []v1.Key {
	var out []v1.Key
	switch k.Kind {
	case v1.KindAPI:
		// The revisions of an API are named "<api>.<n>", so they follow each other in the list; other names may
		// stand among them ("a.b" is the name of an API as well).
		for o := range state.List(v1.KindAPIRevision, k.Organization, k.Name) {
			if !strings.HasPrefix(o.Metadata.Name, k.Name+".") {
				if o.Metadata.Name > k.Name+"." {
					break
				}
				continue
			}
			if o.Spec.(*v1.APIRevisionSpec).API == k.Name {
				out = append(out, o.Key())
			}
		}
	case v1.KindCertificate:
		for _, own := range []v1.Key{certificateKeyOf(k), certificateOrderOf(k)} {
			if has(state, own) {
				out = append(out, own)
			}
		}
	case v1.KindOrganization:
		for o := range state.List(v1.KindACMEAccount, k.Name, "") {
			out = append(out, o.Key())
		}
	case v1.KindGatewayGroup:
		if key := groupKeyOf(k.Organization, k.Name); has(state, key) {
			out = append(out, key)
		}
		for o := range state.List(v1.KindJoinToken, k.Organization, "") {
			if o.Spec.(*v1.JoinTokenSpec).GatewayGroup == k.Name {
				out = append(out, o.Key())
			}
		}
		for o := range state.List(v1.KindGateway, k.Organization, "") {
			if o.Spec.(*v1.GatewaySpec).GatewayGroup == k.Name {
				out = append(out, o.Key())
			}
		}
	}
	return out
}

func has(state store.State, k v1.Key) bool {
	_, ok := state.Get(k)
	return ok
}

// check refuses what cannot be: a cluster that nobody can administer, broken references, what cannot be compiled. It
// seals private keys to the gateway groups that turn out to need them, and returns the views that the change reaches.
func (s *Server) check(ctx context.Context, state store.State, e *edit) ([]string, error) {
	for pass := 1; ; pass++ {
		next := newOverlay(state, e.puts, e.deletes)
		if err := checkAdmins(next, *e, s.opts.Now()); err != nil {
			return nil, err
		}
		changed := slices.Clone(e.deletes)
		for _, o := range e.puts {
			changed = append(changed, o.Key())
		}
		result, err := s.checker.check(ctx, state, next, changed)
		if err != nil {
			return nil, inUse(err, e.deletes)
		}
		if len(result.Unsealed) == 0 {
			return result.Changed, nil
		}
		if pass > 2 { // what is sealed is not missing again
			return nil, fmt.Errorf("seal certificate %q to gateway group %q: it is still not sealed", result.Unsealed[0].Certificate, result.Unsealed[0].GatewayGroup)
		}
		if err := s.sealTo(next, e, result.Unsealed); err != nil {
			return nil, err
		}
	}
}

// inUse turns faults that only say that something deleted is referred to into the refusal that says so.
func inUse(err error, deletes []v1.Key) error {
	faults := resource.FaultsOf(err)
	if len(faults) == 0 || len(deletes) == 0 {
		return err
	}
	for _, f := range faults {
		if f.Code != resource.CodeInUse {
			return err
		}
	}
	first := faults[0]
	return &problem.Error{Code: problem.InUse, Faults: faults, Detail: fmt.Sprintf("%s %q: %s; %s", first.Kind, first.Name, first.Message, first.Remedy)}
}

// checkAdmins refuses a change of principals after which none of them could administer the cluster.
func checkAdmins(next store.State, e edit, now time.Time) error {
	touched := false
	for _, o := range e.puts {
		touched = touched || o.Kind == v1.KindPrincipal
	}
	for _, k := range e.deletes {
		touched = touched || k.Kind == v1.KindPrincipal
	}
	if !touched {
		return nil
	}
	for o := range next.List(v1.KindPrincipal, "", "") {
		spec := o.Spec.(*v1.PrincipalSpec)
		if !(caller{roles: spec.Roles}).may(Admin, allOrganizations) {
			continue
		}
		for _, t := range spec.Tokens {
			if t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt) {
				return nil
			}
		}
	}
	return &problem.Error{Code: problem.LastAdmin}
}

// write commits e upon state and returns the new version and the number of changed credentials.
func (s *Server) write(ctx context.Context, state store.State, e edit, info store.Info) (store.Version, int, error) {
	tx, err := s.store.Begin(ctx, state.Version())
	if err != nil {
		return store.Version{}, 0, fmt.Errorf("begin change set: %w", err)
	}
	defer tx.Abort()
	keys := 0
	for _, o := range e.puts {
		if unsealed(o) {
			return store.Version{}, 0, fmt.Errorf("put %s: %w", o.Key(), errUnsealed)
		}
		if err := tx.Put(ctx, o); err != nil {
			return store.Version{}, 0, fmt.Errorf("put %s: %w", o.Key(), err)
		}
		if spec, ok := o.Spec.(*v1.SubscriptionSpec); ok {
			n, err := rewriteCredentials(ctx, tx, state, o.Key(), spec)
			if err != nil {
				return store.Version{}, 0, fmt.Errorf("change the keys of %s: %w", o.Key(), err)
			}
			keys += n
		}
	}
	for _, k := range e.deletes {
		if err := tx.Delete(ctx, k); err != nil {
			return store.Version{}, 0, fmt.Errorf("delete %s: %w", k, err)
		}
		if k.Kind == v1.KindSubscription {
			n, err := removeCredentials(ctx, tx, state, k)
			if err != nil {
				return store.Version{}, 0, fmt.Errorf("remove the keys of %s: %w", k, err)
			}
			keys += n
		}
	}
	for _, c := range e.credentials {
		if err := tx.PutCredential(ctx, c); err != nil {
			return store.Version{}, 0, fmt.Errorf("put key %s: %w", c.ID, err)
		}
		keys++
	}
	version, err := tx.Commit(ctx, info)
	if err != nil {
		return store.Version{}, 0, fmt.Errorf("commit change set: %w", err)
	}
	return version, keys, nil
}

// rewriteCredentials repeats in the keys of a subscription what they repeat of it.
func rewriteCredentials(ctx context.Context, tx store.Tx, state store.State, k v1.Key, spec *v1.SubscriptionSpec) (int, error) {
	n := 0
	for c := range state.CredentialsOf(k.Organization, k.Name) {
		now := c
		now.Application, now.Product = spec.Application, spec.Product
		if c.State != snapshot.StateRevoked {
			now.State = stateOf(spec)
		}
		if now == c {
			continue
		}
		if err := tx.PutCredential(ctx, now); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// stateOf is the state of the keys of a subscription that are not revoked.
func stateOf(spec *v1.SubscriptionSpec) snapshot.State {
	if spec.Suspended {
		return snapshot.StateSuspended
	}
	return snapshot.StateActive
}

func removeCredentials(ctx context.Context, tx store.Tx, state store.State, k v1.Key) (int, error) {
	n := 0
	for c := range state.CredentialsOf(k.Organization, k.Name) {
		if err := tx.RemoveCredential(ctx, k.Organization, c.Hash); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func notFound(k v1.Key) error {
	if k.Organization == "" {
		return problem.New(problem.NotFound, "there is no %s %q", k.Kind, k.Name)
	}
	return problem.New(problem.NotFound, "there is no %s %q in organization %q", k.Kind, k.Name, k.Organization)
}

func staleError(k v1.Key, before *v1.Object, seq uint64) error {
	if before == nil {
		return problem.New(problem.Conflict, "%s does not exist any more, but was sent with metadata.seq %d: take metadata.seq out to create it", k, seq)
	}
	return problem.New(problem.Conflict, "%s is at metadata.seq %d, not at %d: read it again and repeat the change upon that", k, before.Metadata.Seq, seq)
}
