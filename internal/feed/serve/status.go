package serve

import (
	"cmp"
	"context"
	"slices"
	"time"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// Status is what the control node knows of one gateway that has called it.
type Status struct {
	Name         string
	Organization string
	Group        string
	Site         string // of its group, in the newest configuration
	Role         string
	Version      string // of its program
	// Epoch, Seq and Digest say which configuration it runs.
	Epoch, Seq uint64
	Digest     snapshot.Hash
	// Age is how long ago it was last heard of.
	Age time.Duration
	// Link tells whether it follows its configuration now.
	Link bool
	// Current tells whether it runs the newest configuration and the newest credentials.
	Current bool
	// Frozen: it has seen two contents of one version and takes nothing any more.
	Frozen bool
	// Degraded is what it says does not work as it should; empty: nothing.
	Degraded string
	// LastRefusal is the last refusal, until it applies what it is sent; nil if there is none.
	LastRefusal *Refused
}

// Refused is a refusal and when and of what version it came.
type Refused struct {
	snapshot.Refusal
	Epoch, Seq uint64
	At         time.Time
}

type gatewayID struct{ organization, name string }

// maxGateways bounds the memory of gateways that were here once: the least recently heard of goes first.
const maxGateways = 100_000

// gateway is what is known of one gateway. It is guarded by Server.mu.
type gateway struct {
	peer    Peer
	role    string
	version string
	heard   time.Time
	views   [2]followed // by viewKind
}

// followed is one view of a gateway.
type followed struct {
	call     *call // nil: not connected
	position wire.Position
	refused  *Refused
	frozen   bool
	degraded string
}

// viewKind tells the two views of a gateway apart.
type viewKind int

const (
	configView viewKind = iota
	credentialView
)

func (k viewKind) String() string {
	if k == credentialView {
		return "credentials"
	}
	return "configuration"
}

// of returns the name of the peer's view.
func (k viewKind) of(p Peer) string {
	if k == credentialView {
		return snapshot.CredentialView(p.Organization)
	}
	return snapshot.ConfigView(p.Organization, p.Group)
}

// Gateways returns all gateways that have called this control node since it started, in order of organization and
// name.
func (s *Server) Gateways() []Status {
	now := s.opts.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.gateways))
	for id, g := range s.gateways {
		config := &g.views[configView]
		st := Status{
			Name: id.name, Organization: id.organization, Group: g.peer.Group,
			Role: g.role, Version: g.version,
			Epoch: config.position.Epoch, Seq: config.position.Seq, Digest: config.position.Root,
			Age: now.Sub(g.heard), Link: config.call != nil, LastRefusal: config.refused, Current: true,
		}
		for kind := range g.views {
			f := &g.views[kind]
			st.Frozen = st.Frozen || f.frozen
			st.Degraded = cmp.Or(st.Degraded, f.degraded)
			if st.LastRefusal == nil {
				st.LastRefusal = f.refused
			}
			v := s.views[viewKind(kind).of(g.peer)]
			if v == nil {
				continue
			}
			h, _, _ := v.current()
			if h == nil {
				continue
			}
			st.Current = st.Current && f.position == h.position
			if kind == int(configView) {
				st.Site = siteOf(h, g.peer.Organization)
			}
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// siteOf reads the site that a configuration says its gateways are in.
func siteOf(h *head, organization string) string {
	set, ok := h.content.(configSource)
	if !ok {
		return ""
	}
	e, ok := set.Get(snapshot.EntryKey(snapshot.ClassSite, organization))
	if !ok {
		return ""
	}
	site, err := snapshot.Decode[snapshot.Site](e)
	if err != nil {
		return "" // the gateways refuse the entry and say why
	}
	return site.Name
}

// Disconnect ends all calls of a gateway whose identity was revoked, and forgets it. It may call again; whether it is
// let in is for Options.Peer.
func (s *Server) Disconnect(organization, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := gatewayID{organization, name}
	g := s.gateways[id]
	if g == nil {
		return
	}
	for kind := range g.views {
		if c := g.views[kind].call; c != nil {
			c.end(errRevoked)
		}
	}
	delete(s.gateways, id)
	s.notifyLocked()
}

// WaitApplied waits until every gateway of the views that was connected when it was called has acknowledged the version
// of the record or a newer one, for its configuration and for its credentials. It returns the names of the gateways that
// have not when ctx ends, and of those that have refused for good.
func (s *Server) WaitApplied(ctx context.Context, views []string, epoch, seq uint64) (missing []string) {
	want := version{epoch, seq}
	waiting := s.connected(views)
	for {
		s.mu.Lock()
		changed := s.changed
		if !s.advanced.before(want) { // before that nobody knows what there will be to apply
			var refused []string
			refused, waiting = s.sortOutLocked(waiting, want)
			missing = append(missing, refused...)
		}
		s.mu.Unlock()
		if len(waiting) == 0 {
			break
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		case <-s.closed:
		}
		for _, id := range waiting {
			missing = append(missing, id.name)
		}
		break
	}
	slices.Sort(missing)
	return missing
}

func (s *Server) connected(views []string) (ids []gatewayID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, g := range s.gateways {
		if g.views[configView].call != nil && slices.Contains(views, configView.of(g.peer)) {
			ids = append(ids, id)
		}
	}
	return ids
}

// sortOutLocked takes those gateways out that have applied the version, and tells which of the others never will.
func (s *Server) sortOutLocked(ids []gatewayID, want version) (refused []string, waiting []gatewayID) {
	for _, id := range ids {
		g := s.gateways[id]
		if g == nil {
			continue // revoked meanwhile
		}
		applied := true
		for kind := range g.views {
			f := &g.views[kind]
			v := s.views[viewKind(kind).of(g.peer)]
			if v == nil {
				continue
			}
			h, _, _ := v.current()
			if h == nil {
				continue
			}
			// The view is published as far as the record; what it repeats since h.changed needs no acknowledgement.
			need := want
			if h.changed.before(need) {
				need = h.changed
			}
			if !(version{f.position.Epoch, f.position.Seq}).before(need) {
				continue
			}
			applied = false
			if r := f.refused; r != nil && !r.Retryable && !(version{r.Epoch, r.Seq}).before(need) {
				refused = append(refused, id.name)
				applied = true // its answer is final
				break
			}
		}
		if !applied {
			waiting = append(waiting, id)
		}
	}
	return refused, waiting
}

// attach makes c the call that a gateway follows a view with. An older call of the same gateway is ended: its link is
// gone, only that this end has not noticed.
func (s *Server) attach(c *call, hello *linkv1.Hello, have wire.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := gatewayID{c.peer.Organization, c.peer.Name}
	g := s.gateways[id]
	if g == nil {
		s.makeRoomLocked()
		g = new(gateway)
		s.gateways[id] = g
	}
	if g.peer.Group != c.peer.Group {
		g.views = [2]followed{} // of another group: what it had says nothing any more
	}
	f := &g.views[c.kind]
	if f.call != nil {
		f.call.end(errSuperseded)
	}
	g.peer, g.role, g.version, g.heard = c.peer, label(hello.Role, 32), label(hello.Version, 64), s.opts.Now()
	*f = followed{call: c, position: have, refused: f.refused}
	s.notifyLocked()
}

// makeRoomLocked forgets the gateway that has been silent longest if there are too many.
func (s *Server) makeRoomLocked() {
	if len(s.gateways) < maxGateways {
		return
	}
	var oldest gatewayID
	var heard time.Time
	for id, g := range s.gateways {
		if g.views[configView].call == nil && (heard.IsZero() || g.heard.Before(heard)) {
			oldest, heard = id, g.heard
		}
	}
	delete(s.gateways, oldest)
}

func (s *Server) detach(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateways[gatewayID{c.peer.Organization, c.peer.Name}]
	if g != nil && g.views[c.kind].call == c {
		g.views[c.kind].call = nil
		g.heard = s.opts.Now()
		s.notifyLocked()
	}
}

// record notes what a gateway says on a call that it still follows the view with.
func (s *Server) record(c *call, note func(*followed)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateways[gatewayID{c.peer.Organization, c.peer.Name}]
	if g == nil || g.views[c.kind].call != c {
		return
	}
	g.heard = s.opts.Now()
	note(&g.views[c.kind])
	s.notifyLocked()
}

// label keeps a text of a gateway's own to a length that is fit to be shown.
func label(s string, limit int) string {
	if len(s) > limit {
		return s[:limit]
	}
	return s
}
