package control

import (
	"crypto/rand"
	"iter"
	"net/http"
	"strings"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/x/token"
)

const (
	// KeyPrefix begins every key that Hansa mints. Imported keys keep their form.
	KeyPrefix = "hk1_"
	// defaultOverlap is how long a rotated key stays valid.
	defaultOverlap = 24 * time.Hour
)

// newID returns an identifier that is not secret and will not occur twice: 65 random bits after a prefix.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()[:13]) }

func slotName(s snapshot.Slot) string {
	return [...]string{snapshot.SlotPrimary: v1.SlotPrimary, snapshot.SlotSecondary: v1.SlotSecondary, snapshot.SlotImported: v1.SlotImported}[s]
}

func stateName(s snapshot.State) string {
	return [...]string{snapshot.StateActive: "active", snapshot.StateRevoked: "revoked", snapshot.StateSuspended: "suspended"}[s]
}

// parseSlot reads the name of a slot that keys can be made in; "" is the default.
func parseSlot(name string, def snapshot.Slot) (snapshot.Slot, error) {
	switch name {
	case "":
		return def, nil
	case v1.SlotPrimary:
		return snapshot.SlotPrimary, nil
	case v1.SlotSecondary:
		return snapshot.SlotSecondary, nil
	}
	return 0, problem.New(problem.BadRequest, "slot %q must be %s or %s", name, v1.SlotPrimary, v1.SlotSecondary)
}

// keyOf returns what callers see of a credential.
func keyOf(c snapshot.Credential) v1.SubscriptionKey {
	k := v1.SubscriptionKey{
		Subscription: c.Subscription, Slot: slotName(c.Slot), KeyID: c.ID, State: stateName(c.State),
		CreatedAt: time.Unix(c.CreatedAt, 0).UTC(),
	}
	if c.ExpiresAt != 0 {
		k.ExpiresAt = time.Unix(c.ExpiresAt, 0).UTC()
	}
	return k
}

// valid tells whether a credential takes its slot: it is neither revoked nor over.
func valid(c snapshot.Credential, now time.Time) bool {
	return c.State != snapshot.StateRevoked && (c.ExpiresAt == 0 || c.ExpiresAt > now.Unix())
}

// subscription returns the subscription that the path names.
func (q *request) subscription(state store.State) (v1.Key, *v1.SubscriptionSpec, error) {
	return subscription(state, q.organization, q.r.PathValue("name"))
}

func subscription(state store.State, organization, name string) (v1.Key, *v1.SubscriptionSpec, error) {
	k := v1.Key{Organization: organization, Kind: v1.KindSubscription, Name: name}
	o, ok := state.Get(k)
	if !ok {
		return k, nil, notFound(k)
	}
	return k, o.Spec.(*v1.SubscriptionSpec), nil
}

func (s *Server) listKeys(q *request) error {
	state := s.store.State()
	k, _, err := q.subscription(state)
	if err != nil {
		return err
	}
	p, err := parsePage(q.r.URL.Query(), "keys/"+k.String())
	if err != nil {
		return err
	}
	out := v1.KeyList{Items: []v1.SubscriptionKey{}}
	found := p.after == ""
	for c := range state.CredentialsOf(k.Organization, k.Name) {
		if !found {
			found = c.ID == p.after
			continue
		}
		if len(out.Items) == p.limit {
			out.Continue = encodeContinue("keys/"+k.String(), out.Items[p.limit-1].KeyID)
			break
		}
		out.Items = append(out.Items, keyOf(c))
	}
	if !found {
		return problem.New(problem.Expired, "the key that the continue token points to is gone: list again from the beginning")
	}
	return q.reply(http.StatusOK, out)
}

// readKeyRequest reads and checks the body of the calls that mint keys.
func (s *Server) readKeyRequest(q *request) (v1.KeyRequest, error) {
	var r v1.KeyRequest
	if err := q.readJSON(&r); err != nil {
		return r, err
	}
	if !r.ExpiresAt.IsZero() && !r.ExpiresAt.After(s.opts.Now()) {
		return r, problem.New(problem.BadRequest, "expiresAt %s is in the past", r.ExpiresAt.Format(time.RFC3339))
	}
	return r, nil
}

func (s *Server) createKey(q *request) error {
	r, err := s.readKeyRequest(q)
	if err != nil {
		return err
	}
	if r.Overlap != nil {
		return problem.New(problem.BadRequest, "overlap belongs to a rotation, not to a new key")
	}
	return s.mint(q, r, func(state store.State, k v1.Key) (snapshot.Slot, []snapshot.Credential, error) {
		slot, err := freeSlot(state.CredentialsOf(k.Organization, k.Name), r.Slot, s.opts.Now())
		return slot, nil, err
	})
}

// freeSlot returns the slot for a new key: the one that is asked for or the first that holds no valid key.
func freeSlot(credentials iter.Seq[snapshot.Credential], asked string, now time.Time) (snapshot.Slot, error) {
	want, err := parseSlot(asked, snapshot.SlotPrimary)
	if err != nil {
		return 0, err
	}
	var taken [snapshot.SlotImported + 1]bool
	for c := range credentials {
		if valid(c, now) {
			taken[c.Slot] = true
		}
	}
	if asked == "" && taken[want] {
		want = snapshot.SlotSecondary
		if taken[want] {
			return 0, problem.New(problem.SlotTaken, "both slots hold a valid key: rotate one, or revoke it first")
		}
	}
	if taken[want] {
		return 0, problem.New(problem.SlotTaken, "slot %s holds a valid key: rotate it, revoke it first, or take the other slot", slotName(want))
	}
	return want, nil
}

func (s *Server) rotateKey(q *request) error {
	r, err := s.readKeyRequest(q)
	if err != nil {
		return err
	}
	slot, err := parseSlot(r.Slot, snapshot.SlotPrimary)
	if err != nil {
		return err
	}
	overlap := defaultOverlap
	if r.Overlap != nil {
		overlap = r.Overlap.Std()
	}
	if overlap < 0 {
		return problem.New(problem.BadRequest, "overlap %s is negative", r.Overlap)
	}
	return s.mint(q, r, func(state store.State, k v1.Key) (snapshot.Slot, []snapshot.Credential, error) {
		now := s.opts.Now()
		var ending []snapshot.Credential
		for c := range state.CredentialsOf(k.Organization, k.Name) {
			if c.Slot != slot || !valid(c, now) {
				continue
			}
			end := now.Add(overlap).Unix()
			switch {
			case overlap == 0:
				c.State = snapshot.StateRevoked
			case c.ExpiresAt == 0 || end < c.ExpiresAt:
				c.ExpiresAt = end
			default:
				continue // ends earlier by itself
			}
			ending = append(ending, c)
		}
		return slot, ending, nil
	})
}

// mint makes a key in the slot that choose returns, together with the changes of other keys.
func (s *Server) mint(q *request, r v1.KeyRequest, choose func(store.State, v1.Key) (snapshot.Slot, []snapshot.Credential, error)) error {
	value := token.New(KeyPrefix)
	var made snapshot.Credential
	out, err := s.change(q, "mint key of "+q.r.PathValue("name"), func(state store.State) (edit, error) {
		k, spec, err := q.subscription(state)
		if err != nil {
			return edit{}, err
		}
		slot, others, err := choose(state, k)
		if err != nil {
			return edit{}, err
		}
		made = snapshot.Credential{
			Hash: snapshot.HashCredential([]byte(value)), ID: newID("key-"), Organization: k.Organization, Subscription: k.Name,
			Application: spec.Application, Product: spec.Product, Slot: slot, State: stateOf(spec), CreatedAt: s.opts.Now().Unix(),
		}
		if !r.ExpiresAt.IsZero() {
			made.ExpiresAt = r.ExpiresAt.Unix()
		}
		return edit{credentials: append(others, made)}, nil
	})
	if err != nil {
		return err
	}
	answer := keyOf(made)
	if !q.dryRun {
		answer.Key = value
	}
	answer.Wait = s.keysArrived(q, out.version)
	return q.reply(http.StatusCreated, answer)
}

func (s *Server) revokeKey(q *request) error {
	id := q.r.PathValue("key")
	var revoked snapshot.Credential
	out, err := s.change(q, "revoke key "+id+" of "+q.r.PathValue("name"), func(state store.State) (edit, error) {
		k, _, err := q.subscription(state)
		if err != nil {
			return edit{}, err
		}
		for c := range state.CredentialsOf(k.Organization, k.Name) {
			if c.ID != id {
				continue
			}
			revoked = c
			if c.State == snapshot.StateRevoked {
				return edit{}, nil
			}
			revoked.State = snapshot.StateRevoked
			return edit{credentials: []snapshot.Credential{revoked}}, nil
		}
		return edit{}, problem.New(problem.NotFound, "subscription %q has no key %q: \"hansa keys list\" shows those that it has", k.Name, id)
	})
	if err != nil {
		return err
	}
	answer := keyOf(revoked)
	answer.Wait = s.keysArrived(q, out.version)
	return q.reply(http.StatusOK, answer)
}

// keysArrived waits, if that is asked for, until the gateways of the organization have its keys of that version. The keys
// are made already, so that whatever keeps it from waiting is only told.
func (s *Server) keysArrived(q *request, version store.Version) *v1.WaitResult {
	if q.wait <= 0 || q.dryRun {
		return nil
	}
	result, err := s.waitApplied(q, outcome{version: version, organizations: []string{q.organization}})
	if err != nil {
		return &v1.WaitResult{}
	}
	return result
}

// info is the audit record of a change by this request.
func (q *request) info(reason string) store.Info {
	if asked := q.r.URL.Query().Get("reason"); asked != "" {
		reason = asked[:min(len(asked), 500)]
	}
	return store.Info{Principal: q.who.principal, Reason: strings.ToValidUTF8(reason, ""), RequestID: q.id}
}
