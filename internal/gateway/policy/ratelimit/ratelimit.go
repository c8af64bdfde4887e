// Package ratelimit is the policy rateLimit: it bounds the number of requests in a short window that ends now.
//
// Whoever is over the bound is refused with 429 rate-limited until enough of the window has passed. The count is
// estimated from those of the two aligned windows that the sliding one touches, so a steady stream passes at the rate
// of the limit, and a burst across their border may pass up to twice the limit.
package ratelimit

import (
	"encoding/json"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
)

// New makes the step; see api/v1's RateLimitPolicy.
func New(settings json.RawMessage, env *policy.Env) (exchange.Step, error) {
	s, err := policy.Read[v1.RateLimitPolicy](settings)
	if err != nil {
		return nil, err
	}
	return policy.NewLimiter("rateLimit", s.Limit, s.Window.Std(), s.By, env)
}
