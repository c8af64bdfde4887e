package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/quota"
)

// By is who shares a limit.
type By uint8

// Who may share a limit.
const (
	BySubscription By = iota
	ByApplication
	ByClientIP
	ByAPI
)

// ParseBy reads the setting "by" of a limit.
func ParseBy(s string) (By, error) {
	switch s {
	case "subscription":
		return BySubscription, nil
	case "application":
		return ByApplication, nil
	case "clientIP":
		return ByClientIP, nil
	case "api":
		return ByAPI, nil
	}
	return 0, fmt.Errorf("by is %q: write subscription, application, clientIP or api", s)
}

// Limiter is a step that lets requests pass up to a limit. It is what the policies rateLimit and quota have in
// common.
type Limiter struct {
	by    By
	own   *Bound // nil: that of the product
	env   Env
	code  exchange.Code
	quota bool
}

// NewLimiter makes the step of a policy named rateLimit or quota. Without a limit of its own, that of the product
// counts.
func NewLimiter(policy string, limit uint64, window time.Duration, by string, env *Env) (*Limiter, error) {
	l := &Limiter{env: *env, code: exchange.RateLimited}
	if policy == "quota" {
		l.code, l.quota = exchange.QuotaExceeded, true
	}
	var err error
	if l.by, err = ParseBy(by); err != nil {
		return nil, err
	}
	if limit != 0 || window != 0 {
		l.own, err = NewBound(policy, limit, window,
			"api", env.Organization, env.Environment, env.API, env.Operation, strconv.Itoa(env.Ordinal))
		if err != nil {
			return nil, err
		}
	} else if l.by != BySubscription && l.by != ByApplication {
		return nil, fmt.Errorf("by is %q: the limit of a product is shared within a subscription or an application", by)
	}
	return l, nil
}

// Run implements exchange.Step.
func (l *Limiter) Run(x *exchange.Exchange) exchange.Verdict {
	b := l.own
	if b == nil {
		if b = l.ofProduct(x); b == nil {
			return exchange.Continue
		}
	}
	d, ok := l.admit(x, b)
	if !ok {
		return x.Refuse(exchange.Internal, "a limit is shared by what no policy has found out")
	}
	b.announce(x, d)
	if d.OK {
		return exchange.Continue
	}
	var digits [20]byte
	x.Own.Set(exchange.IDRetryAfter.Name(), strconv.AppendInt(digits[:0], max(1, seconds(d.Reset)), 10))
	return x.Refuse(l.code, b.detail)
}

func (l *Limiter) ofProduct(x *exchange.Exchange) *Bound {
	p := ProductOf(x)
	switch {
	case p == nil:
		return nil
	case l.quota:
		return p.Quota
	}
	return p.RateLimit
}

// admit asks the engine on behalf of whoever shares the limit. It returns false if that is a consumer and none is
// known, which compile refuses and which must not let anything pass.
func (l *Limiter) admit(x *exchange.Exchange, b *Bound) (quota.Decision, bool) {
	now := x.Start.UnixNano()
	switch l.by {
	case ByAPI:
		return l.env.Engine.Admit(l.env.Subject, &b.limit, now, 1), true
	case ByClientIP:
		return l.env.Clients.Admit(clientAddr(x), &b.limit, now, 1), true
	}
	r, ok := x.Consumer.Record.(*credential.Record)
	if !ok {
		return quota.Decision{}, false
	}
	s := r.Subject
	if l.by == ByApplication {
		s = l.env.Credentials.Application(r)
	}
	return l.env.Engine.Admit(s, &b.limit, now, 1), true
}

// announce adds the fields RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10): the limit, what
// is left of it and when it starts anew. Each limit that a request passes adds an item to the two lists.
func (b *Bound) announce(x *exchange.Exchange, d quota.Decision) {
	x.Own.AddString(exchange.IDRateLimitPolicy.Name(), b.policy)
	var buf [64]byte
	v := append(buf[:0], '"')
	v = append(v, b.name...)
	v = append(v, `";r=`...)
	v = strconv.AppendUint(v, d.Remaining, 10)
	v = append(v, ";t="...)
	v = strconv.AppendInt(v, seconds(d.Reset), 10)
	x.Own.Add(exchange.IDRateLimit.Name(), v)
}

// clientAddr returns the address of the client: the peer's, unless trusted proxies in between report another one.
func clientAddr(x *exchange.Exchange) netip.Addr {
	peer := x.Peer.Addr().Unmap()
	var buf [64]byte
	if string(peer.AppendTo(buf[:0])) == string(x.ClientIP) {
		return peer
	}
	if a, err := netip.ParseAddr(string(x.ClientIP)); err == nil {
		return a
	}
	return peer
}
