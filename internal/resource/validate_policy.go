package resource

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/policyspec"
)

// UsedPolicy is one step of a list of policies: its name in policyspec and its settings.
type UsedPolicy struct {
	Name   string
	Config any // pointer to the policy's type in api/v1
}

// Used returns the policies that are set in one step. A valid step has exactly one.
func Used(p v1.Policy) []UsedPolicy {
	var used []UsedPolicy
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			used = append(used, UsedPolicy{Name: name, Config: f.Interface()})
		}
	}
	return used
}

// chain is what is known of the steps that a request has passed so far.
type chain struct {
	used      []string
	responded string // the path of the policy that ends the chain, "" if none does
}

func (ch chain) has(name string) bool { return slices.Contains(ch.used, name) }

// policies checks the policies of an API and of its operations, each of those as the continuation of the API's.
func (c *checker) policies(path string, a *v1.APISpec) {
	all := c.requestPolicies(join(path, "policies.request"), a.Policies.Request, chain{})
	c.responsePolicies(join(path, "policies.response"), a.Policies.Response)
	for i, op := range a.Operations {
		at := join(index(join(path, "operations"), i), "policies")
		c.requestPolicies(join(at, "request"), op.Policies.Request, chain{used: slices.Clip(all.used), responded: all.responded})
		c.responsePolicies(join(at, "response"), op.Policies.Response)
	}
}

func (c *checker) requestPolicies(path string, steps []v1.Policy, ch chain) chain {
	if len(steps) > maxPolicies {
		c.tooMany(path, len(steps), maxPolicies)
		return ch
	}
	for i, step := range steps {
		at := index(path, i)
		use, ok := c.step(at, step, policyspec.Request)
		if !ok {
			continue
		}
		at = join(at, use.Name)
		if ch.responded != "" {
			c.fault(at, CodePolicyUnreached, "", "no request comes here, since "+ch.responded+" has answered it", "put respond last, and not into the policies of the API if its operations have some")
		}
		c.order(at, use.Name, ch)
		c.settings(at, use.Config, ch)
		ch.used = append(ch.used, use.Name)
		if use.Name == "respond" {
			ch.responded = at
		}
	}
	return ch
}

func (c *checker) responsePolicies(path string, steps []v1.Policy) {
	if len(steps) > maxPolicies {
		c.tooMany(path, len(steps), maxPolicies)
		return
	}
	for i, step := range steps {
		if use, ok := c.step(index(path, i), step, policyspec.Response); ok {
			c.settings(join(index(path, i), use.Name), use.Config, chain{})
		}
	}
}

// step checks that exactly one policy is set and that it may stand in this phase.
func (c *checker) step(path string, step v1.Policy, phase policyspec.Phase) (UsedPolicy, bool) {
	used := Used(step)
	if len(used) != 1 {
		names := make([]string, len(used))
		for i, u := range used {
			names[i] = u.Name
		}
		message, remedy := "the step names no policy", `write its settings, or {} for the defaults: "apiKey: {}"`
		if len(used) > 1 {
			message, remedy = "the step names several policies: "+joinWords(names), `begin each policy with "- "`
		}
		c.fault(path, CodePolicyShape, "", message, remedy)
		return UsedPolicy{}, false
	}
	spec, ok := policyspec.Lookup(used[0].Name)
	if ok && spec.Phases&phase == 0 {
		list := "request"
		if phase == policyspec.Request {
			list = "response"
		}
		c.fault(join(path, used[0].Name), CodePolicyPhase, "", fmt.Sprintf("the policy %s cannot stand here", used[0].Name), "put it under policies."+list)
		return UsedPolicy{}, false
	}
	return used[0], true
}

// order checks that name does not come before what must come before it. It finds the fault at the later of the two.
func (c *checker) order(path, name string, ch chain) {
	for _, earlier := range ch.used {
		if spec, ok := policyspec.Lookup(earlier); ok && slices.Contains(spec.After, name) {
			c.fault(path, CodePolicyOrder, "", fmt.Sprintf("%s must stand before %s", name, earlier), fmt.Sprintf("move it up; the policies of the API come before those of an operation, so %s may have to move down there", earlier))
			return
		}
	}
	if name == "apiKey" && ch.has(name) {
		c.fault(path, CodeDuplicateItem, "", "the API key is asked for twice", "keep one of the two")
	}
}

// settings checks one policy.
func (c *checker) settings(path string, config any, ch chain) {
	switch p := config.(type) {
	case *v1.APIKeyPolicy:
		if p.Header != "" && !validToken(p.Header) {
			c.fault(join(path, "header"), CodeInvalid, p.Header, fmt.Sprintf("%q is not the name of a header field", shorten(p.Header)), "write letters, digits and -")
		}
		if p.Query != "" && (len(p.Query) > 128 || strings.Trim(p.Query, unreserved) != "") {
			c.fault(join(path, "query"), CodeInvalid, p.Query, fmt.Sprintf("%q is not the name of a query parameter", shorten(p.Query)), `write letters, digits, "-", ".", "_", "~", "[" and "]"`)
		}
	case *v1.RateLimitPolicy:
		c.enum(join(path, "by"), "RateLimitPolicy.by", p.By)
		own := c.ownLimit(path, p.Limit, p.Window, ch, "rateLimit")
		if own {
			c.between(join(path, "window"), p.Window, leastWindow, mostRateWindow)
		}
		c.sharers(path, p.By, own, ch)
	case *v1.QuotaPolicy:
		c.enum(join(path, "by"), "QuotaPolicy.by", p.By)
		own := c.ownLimit(path, p.Limit, p.Window, ch, "quota")
		if own {
			c.between(join(path, "window"), p.Window, leastWindow, mostQuotaWindow)
		}
		c.sharers(path, p.By, own, ch)
	case *v1.SetHeadersPolicy:
		c.setHeaders(path, p)
	case *v1.RespondPolicy:
		c.respond(path, p)
	}
}

const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~[]"

// ownLimit tells whether a policy has a limit of its own, and checks it. Without one it needs a key, whose product
// has one.
func (c *checker) ownLimit(path string, limit uint64, window v1.Duration, ch chain, name string) bool {
	switch {
	case limit == 0 && window == 0:
		if !ch.has("apiKey") {
			c.fault(path, CodePolicyNeedsKey, "", "it has no limit of its own, and without apiKey there is no product that has one", "put apiKey before it, or write limit and window")
		}
		return false
	case limit == 0 || window == 0:
		c.fault(path, CodePolicyShape, "", fmt.Sprintf("limit and window of %s belong together", name), "write both, or neither to take those of the product")
		return false
	}
	c.requests(join(path, "limit"), limit)
	return true
}

// sharers checks who shares a limit.
func (c *checker) sharers(path, by string, own bool, ch chain) {
	needsKey := by == "subscription" || by == "application"
	switch {
	case needsKey && own && !ch.has("apiKey"):
		c.fault(join(path, "by"), CodePolicyNeedsKey, by, fmt.Sprintf("without apiKey nobody knows the %s", by), "put apiKey before it, or write another value")
	case !needsKey && by != "" && !own && ch.has("apiKey"):
		c.fault(join(path, "by"), CodeInvalid, by, "the limit of a product is shared within a subscription or an application", "write subscription or application, or a limit and a window")
	}
}

// framing returns the fields that the gateway itself writes, in lower case; those that begin with proxy- belong to them.
func framing() []string {
	return []string{"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id"}
}

func (c *checker) setHeaders(path string, p *v1.SetHeadersPolicy) {
	if len(p.Remove)+len(p.Set)+len(p.Add) == 0 {
		c.fault(path, CodePolicyShape, "", "it changes no header field", "write set, add or remove, or leave the policy out")
	}
	for i, name := range p.Remove {
		c.fieldName(index(join(path, "remove"), i), name)
	}
	c.fields(join(path, "set"), p.Set)
	c.fields(join(path, "add"), p.Add)
}

// fields checks names and values of header fields.
func (c *checker) fields(path string, fields map[string]string) {
	if len(fields) > maxPolicies {
		c.tooMany(path, len(fields), maxPolicies)
		return
	}
	seen := map[string]bool{}
	for _, name := range sortedKeys(fields) {
		at := key(path, name)
		c.fieldName(at, name)
		if lower := strings.ToLower(name); seen[lower] {
			c.duplicate(at, name)
		} else {
			seen[lower] = true
		}
		if !validFieldValue(fields[name]) {
			c.fault(at, CodeInvalid, fields[name], "it cannot be the value of a header field", "write one line without blanks at either end, of at most 8 kB")
		}
	}
}

func (c *checker) fieldName(path, name string) {
	switch {
	case !validToken(name):
		c.fault(path, CodeInvalid, name, fmt.Sprintf("%q is not the name of a header field", shorten(name)), "write letters, digits and -")
	case slices.Contains(framing(), strings.ToLower(name)), strings.HasPrefix(strings.ToLower(name), "proxy-"):
		c.fault(path, CodeInvalid, name, fmt.Sprintf("the gateway itself decides about %s", name), "remove it; spec.host of the Backend sets Host")
	}
}

func (c *checker) respond(path string, p *v1.RespondPolicy) {
	c.number(join(path, "status"), int64(p.Status), 200, 599)
	c.fields(join(path, "headers"), p.Headers)
	if len(p.Body) > maxBody {
		c.fault(join(path, "body"), CodeOutOfRange, p.Body, fmt.Sprintf("it has %d bytes and may have %d", len(p.Body), maxBody), "shorten it, or let a backend answer")
	}
	if p.Body != "" && (p.Status == 204 || p.Status == 304) {
		c.fault(join(path, "body"), CodeInvalid, p.Body, fmt.Sprintf("an answer with status %d has no body", p.Status), "remove it, or write another status")
	}
}
