// Package quota is the policy quota: it bounds the number of requests in windows that start at multiples of their
// length since 1970 UTC, a day at midnight.
//
// Whoever has used the bound up is refused with 429 quota-exceeded until the next window starts.
package quota

import (
	"encoding/json"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
)

// New makes the step; see api/v1's QuotaPolicy.
func New(settings json.RawMessage, env *policy.Env) (exchange.Step, error) {
	s, err := policy.Read[v1.QuotaPolicy](settings)
	if err != nil {
		return nil, err
	}
	return policy.NewLimiter("quota", s.Limit, s.Window.Std(), s.By, env)
}
