package control

import (
	"context"
	"fmt"
	"io"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
)

// Bundles writes what a gateway group runs as a bundle.
type Bundles interface {
	// WriteBundle writes the bundle of a gateway group. It writes nothing and returns false if nothing is published
	// for the group yet.
	WriteBundle(ctx context.Context, w io.Writer, organization, group string) (bool, error)
}

// exportBundle writes the bundle of a gateway group: not sealed and without join tokens, both of which are for the
// caller to add, so that the passphrase never leaves his machine.
func (s *Server) exportBundle(q *request) error {
	k := v1.Key{Organization: q.organization, Kind: v1.KindGatewayGroup, Name: q.r.PathValue("name")}
	if _, ok := s.store.State().Get(k); !ok {
		return notFound(k)
	}
	if s.opts.Bundles == nil {
		return problem.New(problem.Unavailable, "this control node does not publish configurations")
	}
	q.w.Header().Set("Content-Type", "application/octet-stream")
	q.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", k.Name+".bundle"))
	written, err := s.opts.Bundles.WriteBundle(q.ctx(), q.w, k.Organization, k.Name)
	if err != nil {
		return fmt.Errorf("bundle of %s: %w", k, err)
	}
	if !written {
		return problem.New(problem.Unavailable, "nothing is published for gateway group %q yet: try again in a moment", k.Name)
	}
	s.log.InfoContext(q.ctx(), "bundle exported", "group", k.Name, "principal", q.who.principal, "request_id", q.id)
	return nil
}
