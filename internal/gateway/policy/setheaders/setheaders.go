// Package setheaders is the policy setHeaders: it removes, replaces and adds header fields, of the request before it
// is forwarded or of the response before it is sent.
//
// It is the smallest policy that does something, and the one to read before writing another. New runs when
// configuration is read: it decodes the settings, refuses what cannot work and prepares all that does not depend on a
// request. Run runs for every request, from many goroutines at once, so it changes nothing but the exchange and
// allocates nothing.
package setheaders

import (
	"encoding/json"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/policyspec"
)

type step struct {
	response bool
	remove   []exchange.Name
	set, add []policy.Field
}

// New makes the step; see api/v1's SetHeadersPolicy.
func New(settings json.RawMessage, env *policy.Env) (exchange.Step, error) {
	s, err := policy.Read[v1.SetHeadersPolicy](settings)
	if err != nil {
		return nil, err
	}
	st := &step{response: env.Phase == policyspec.Response}
	for _, name := range s.Remove {
		n, err := policy.ReadFieldName(name)
		if err != nil {
			return nil, err
		}
		st.remove = append(st.remove, n)
	}
	if st.set, err = policy.ReadFields(s.Set); err != nil {
		return nil, err
	}
	if st.add, err = policy.ReadFields(s.Add); err != nil {
		return nil, err
	}
	return st, nil
}

// Run implements exchange.Step.
func (s *step) Run(x *exchange.Exchange) exchange.Verdict {
	head := &x.Req
	if s.response {
		head = policy.ResponseHead(x)
	}
	for _, name := range s.remove {
		head.Del(name)
	}
	fits := true
	for _, f := range s.set {
		fits = head.SetString(f.Name, f.Value) && fits
	}
	for _, f := range s.add {
		fits = head.AddString(f.Name, f.Value) && fits
	}
	switch {
	case fits:
		return exchange.Continue
	case s.response:
		return x.Refuse(exchange.UpstreamProtocol, "the response has too many header fields")
	default:
		return x.Refuse(exchange.BadRequestHeadersTooLarge, "")
	}
}
