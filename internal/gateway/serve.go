package gateway

import (
	"log/slog"

	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/accesslog"
	"hansa.dev/hansa/internal/gateway/handshake"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/x/guard"
)

var _ exchange.Handler = (*core)(nil)

// What stands in Num of the gateway's slot.
const (
	kindRequest = iota
	kindHealthCheck
)

// Serve implements exchange.Handler: health check, challenge of a CA, route, steps, backend, steps again, response.
func (g *core) Serve(x *exchange.Exchange, d exchange.Down) {
	s := serving{g: g, x: x, down: d}
	defer s.end()
	if g.health.Answer(x) {
		x.Slots[policy.SlotGateway].Num = kindHealthCheck
		s.respond(nil)
		return
	}
	p := g.plan.Load()
	if p == nil {
		x.Refuse(exchange.NotConfigured, "")
		s.respond(nil)
		return
	}
	x.Slots[policy.SlotGateway].Ptr = p
	x.Slots[policy.SlotProducts].Ptr = p.products
	if p.challenges.Answer(x) {
		g.metrics.challenges.Inc()
		s.respond(nil)
		return
	}
	if !g.route(x, p) {
		s.respond(nil)
		return
	}
	s.pass()
}

// route finds the route of a request. It returns false after a refusal.
func (g *core) route(x *exchange.Exchange, p *plan) bool {
	group, ok := p.hosts.Match(x.Host)
	var rule *handshake.Rule
	if ok {
		rule = group.rule
	}
	if handshake.Admit(x, rule) != exchange.Continue {
		return false
	}
	if ok {
		x.Route = group.find(x)
	}
	if x.Route == nil {
		x.Refuse(exchange.NoRoute, "")
		return false
	}
	return true
}

// serving is one call of Serve.
type serving struct {
	g      *core
	x      *exchange.Exchange
	down   exchange.Down
	body   exchange.Source // of the response
	stream bool            // known to the streams
	ended  bool            // Respond or Abort has been called
}

// pass takes the exchange along its route.
func (s *serving) pass() {
	x := s.x
	r := x.Route
	verdict := exchange.RunSteps(r.Request, x)
	if verdict == exchange.Continue {
		verdict = s.call(r)
	}
	// A refusal stands as it is; what the backend or a policy answers is shaped on its way out.
	if verdict != exchange.Abort && !x.Refused() && len(r.Response) > 0 {
		if v := exchange.RunSteps(r.Response, x); v != exchange.Continue {
			verdict = v
		}
	}
	switch {
	case verdict == exchange.Abort:
		s.abort()
	case verdict == exchange.Responded:
		s.closeBody()
		s.respond(nil)
	default:
		if isStream(s.body) {
			s.enlist()
		}
		s.respond(s.body)
	}
}

func (s *serving) call(r *exchange.Route) (v exchange.Verdict) {
	if r.Backend == nil {
		return s.x.Refuse(exchange.UpstreamNone, "")
	}
	if isStream(s.x.Body) {
		s.enlist()
	}
	s.body, v = r.Backend.Call(s.x, s.down)
	return v
}

// enlist makes the exchange known as a stream.
func (s *serving) enlist() {
	if l, ok := s.x.Route.Owner.(*life); ok && !s.stream {
		s.stream = true
		s.g.streams.add(s.x, l)
	}
}

func (s *serving) respond(body exchange.Source) {
	s.ended = true
	s.down.Respond(s.x, body)
}

func (s *serving) abort() {
	s.closeBody()
	s.ended = true
	s.down.Abort(s.x)
}

func (s *serving) closeBody() {
	if s.body != nil {
		s.body.Close()
		s.body = nil
	}
}

// end is deferred: it makes the exchange unknown to others and recovers from what a policy or a backend got wrong, at
// the price of this one request.
func (s *serving) end() {
	v := recover()
	if s.stream {
		s.g.streams.remove(s.x)
	}
	if v == nil {
		return
	}
	s.g.panicked(v, s.x)
	s.closeBody()
	s.x.Abandon()
	if s.ended { // in the middle of a response: the engine breaks it off
		guard.Again(v)
	}
	s.x.Refuse(exchange.Internal, "")
	s.respond(nil)
}

func (g *core) panicked(v any, x *exchange.Exchange) {
	attrs := []any{slog.String("request_id", x.ID.String())}
	if r := x.Route; r != nil {
		attrs = append(attrs, slog.String("api", r.API), slog.String("operation", r.Operation))
	}
	g.guard.Caught(v, "a request", attrs...)
}

// Done implements exchange.Handler: it counts and logs.
func (g *core) Done(x *exchange.Exchange) {
	slot := &x.Slots[policy.SlotGateway]
	if slot.Num == kindHealthCheck {
		g.metrics.healthChecks.Inc()
		return
	}
	g.metrics.count(x)
	if !g.access.Enabled() {
		return
	}
	p, ok := slot.Ptr.(*plan)
	if !ok {
		p = g.plan.Load() // the engine refused it by itself
	}
	var place accesslog.Place
	if p != nil {
		place = p.place
	}
	g.access.Write(func(dst []byte) []byte { return accesslog.Append(dst, x, place) })
}
