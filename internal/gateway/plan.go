package gateway

import (
	"sync/atomic"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/gateway/challenge"
	"hansa.dev/hansa/internal/gateway/handshake"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/router"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/telemetry"
	"hansa.dev/hansa/internal/x/pathpattern"
)

// plan is all that requests run under, at one version of the configuration. It never changes; a change makes another
// one, which shares what stays, and one pointer is swapped.
type plan struct {
	checkpoint snapshot.Checkpoint
	site       string
	place      accesslog.Place
	hosts      *router.Hosts[*group]
	products   policy.Products
	challenges *challenge.Set // nil: no CA validates a hostname
}

// group is an environment group: the APIs behind some hostnames.
type group struct {
	spec  snapshot.Hosts
	rule  *handshake.Rule // nil: nothing is asked of TLS
	bases *router.Bases[*api]
}

// api is one API in one environment at one revision. What requests read comes first.
type api struct {
	operations router.Operations[exchange.Route]
	// forwardPrefix stands for the base path in what the backend sees; "" for the root.
	forwardPrefix string
	flow          exchange.Flow // of the operations without policies of their own

	base     pathpattern.Base
	backends []string // keys of their entries
	counts   []*operationCounts
	life     *life
}

// life is what an API keeps across its revisions: its counts, and whether it is still there. It is what the gateway hangs
// on a flow.
type life struct {
	durations telemetry.Histogram
	limited   [2]atomic.Uint64 // refusals by rateLimit and by quota

	entry                          string // key of the API in the configuration
	organization, environment, api string

	subject   *quota.Subject
	subjectID quota.ID
	removed   atomic.Bool
}

// operationCounts counts the requests of an operation by class of status: index 0 for those without an answer. An
// operation keeps them across revisions. It is what the gateway hangs on a route, and one line of the processor's cache.
type operationCounts struct {
	classes [6]atomic.Uint64
	name    string
}

// find returns the route of a request and sets the path that the backend sees.
func (g *group) find(x *exchange.Exchange) *exchange.Route {
	m, ok := g.bases.Match(x.Path)
	if !ok {
		return nil
	}
	a := m.Value
	route := a.operations.Match(x.Method, m.Rest)
	if route == nil {
		return nil
	}
	x.ForwardPrefix, x.ForwardPath = a.forwardPrefix, exchange.View(m.Rest)
	if len(m.Rest) == 0 && a.forwardPrefix == "" {
		x.ForwardPrefix = "/" // a path is never empty
	}
	return route
}
