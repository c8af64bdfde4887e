// Package respond is the policy respond: it answers the request in the gateway, without a backend.
package respond

import (
	"encoding/json"
	"fmt"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
)

type step struct {
	status  int
	headers []policy.Field
	body    []byte
}

// New makes the step; see api/v1's RespondPolicy. A body without a Content-Type among the headers is plain text.
func New(settings json.RawMessage, _ *policy.Env) (exchange.Step, error) {
	s, err := policy.Read[v1.RespondPolicy](settings)
	if err != nil {
		return nil, err
	}
	st := &step{status: s.Status, body: []byte(s.Body)}
	if st.status == 0 {
		st.status = 200
	}
	switch {
	case st.status < 200 || st.status > 599:
		return nil, fmt.Errorf("status is %d: write 200 to 599", st.status)
	case len(st.body) > 0 && (st.status == 204 || st.status == 304):
		return nil, fmt.Errorf("status is %d: such a response has no body", st.status)
	}
	if st.headers, err = policy.ReadFields(s.Headers); err != nil {
		return nil, err
	}
	typed := false
	for _, f := range st.headers {
		typed = typed || f.Name.ID() == exchange.IDContentType
	}
	if !typed && len(st.body) > 0 {
		st.headers = append(st.headers, policy.Field{Name: exchange.IDContentType.Name(), Value: "text/plain; charset=utf-8"})
	}
	return st, nil
}

// Run implements exchange.Step.
func (s *step) Run(x *exchange.Exchange) exchange.Verdict {
	for _, h := range s.headers {
		x.Own.SetString(h.Name, h.Value)
	}
	return x.Answer(s.status, s.body)
}
