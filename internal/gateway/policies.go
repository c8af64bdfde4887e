package gateway

import (
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/gateway/policy/apikey"
	"hansa.dev/hansa/internal/gateway/policy/quota"
	"hansa.dev/hansa/internal/gateway/policy/ratelimit"
	"hansa.dev/hansa/internal/gateway/policy/respond"
	"hansa.dev/hansa/internal/gateway/policy/setheaders"
)

// policies is the table of all policies by their names in policyspec.
func policies() map[string]policy.Factory {
	return map[string]policy.Factory{
		"apiKey":     apikey.New,
		"quota":      quota.New,
		"rateLimit":  ratelimit.New,
		"respond":    respond.New,
		"setHeaders": setheaders.New,
	}
}
