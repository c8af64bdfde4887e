package control

import (
	"context"
	"fmt"
	"slices"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/acme"
	"hansa.dev/hansa/internal/compile"
	"hansa.dev/hansa/internal/store"
)

// Issuance is what the ACME client asks of the control node: it writes how far orders are, and finds the gateways that are
// to answer the CA.
type Issuance struct{ s *Server }

var _ acme.Control = Issuance{}

// Issuance returns the part of the server that has certificates issued.
func (s *Server) Issuance() Issuance { return Issuance{s} }

// Commit implements acme.Control.
func (i Issuance) Commit(ctx context.Context, reason string, build func(store.State) ([]*v1.Object, error)) (store.Version, error) {
	who := system("acme")
	out, err := i.s.commit(ctx, change{who: who, info: store.Info{Principal: who.principal, Reason: reason}, build: func(state store.State) (edit, error) {
		puts, err := build(state)
		return edit{puts: puts}, err
	}})
	return out.version, err
}

// Serving implements acme.Control.
func (i Issuance) Serving(ctx context.Context, certificate v1.Key) (map[string][]string, error) {
	compiled, err := i.s.checker.current(ctx, i.s.store.State())
	if err != nil {
		return nil, fmt.Errorf("find who serves %s: %w", certificate, err)
	}
	return compiled.GroupsOf(certificate.Organization, certificate.Name), nil
}

// Await implements acme.Control.
func (i Issuance) Await(ctx context.Context, organization string, groups []string, v store.Version) (connected int, missing []string) {
	if i.s.opts.Gateways == nil {
		return 0, nil
	}
	views := make([]string, len(groups))
	for n, g := range groups {
		views[n] = compile.ViewName(organization, g)
	}
	missing = i.s.opts.Gateways.WaitApplied(ctx, views, v.Epoch, v.Seq)
	for _, g := range i.s.opts.Gateways.Gateways() {
		if g.Link && g.Organization == organization && slices.Contains(groups, g.Group) {
			connected++
		}
	}
	return connected, missing
}
