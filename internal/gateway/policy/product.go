package policy

import (
	"fmt"
	"strings"
	"time"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// Product is a product as policies see it.
type Product struct {
	Name string
	// Quota and RateLimit are what the policies of these names enforce when they have no limit of their own; nil
	// if the product has none either.
	Quota, RateLimit *Bound

	apis map[string]struct{}
}

// NewProduct makes a product of its entry.
func NewProduct(p snapshot.Product) (*Product, error) {
	out := &Product{Name: p.Name, apis: make(map[string]struct{}, len(p.APIs))}
	for _, api := range p.APIs {
		out.apis[api] = struct{}{}
	}
	var err error
	if out.Quota, err = productBound("quota", p, p.Quota); err != nil {
		return nil, err
	}
	out.RateLimit, err = productBound("rateLimit", p, p.RateLimit)
	return out, err
}

// productBound makes one limit of a product. All APIs of the product share its count.
func productBound(policy string, p snapshot.Product, l *snapshot.Limit) (*Bound, error) {
	if l == nil {
		return nil, nil
	}
	window := time.Duration(l.WindowMillis) * time.Millisecond
	b, err := NewBound(policy, l.Limit, window, "product", p.Organization, p.Name)
	if err != nil {
		return nil, fmt.Errorf("%s of product %q: %w", policy, p.Name, err)
	}
	return b, nil
}

// Holds tells whether the product holds an API.
func (p *Product) Holds(api string) bool {
	_, ok := p.apis[api]
	return ok
}

// Products is every product of a configuration.
type Products map[credential.ProductID]*Product

// ProductsOf returns the products that an exchange runs under.
func ProductsOf(x *exchange.Exchange) Products {
	p, _ := x.Slots[SlotProducts].Ptr.(Products)
	return p
}

// ProductOf returns the product of the consumer's key; nil if no key was asked for.
func ProductOf(x *exchange.Exchange) *Product {
	p, _ := x.Slots[SlotProduct].Ptr.(*Product)
	return p
}

// Bound is a limit with the texts that go with it.
type Bound struct {
	limit  quota.Limit
	name   string // in the RateLimit fields
	policy string // the value of RateLimit-Policy
	detail string // of a refusal
}

// NewBound makes a limit of a policy, of fixed windows for quota and of sliding ones for rateLimit. The names
// identify it among all limits of that policy.
func NewBound(policy string, limit uint64, window time.Duration, names ...string) (*Bound, error) {
	if limit == 0 {
		return nil, fmt.Errorf("limit is 0: write how many requests may pass in the window")
	}
	if window < time.Second {
		return nil, fmt.Errorf("window is %v: it must be at least 1s", window)
	}
	sliding := policy == "rateLimit"
	b := &Bound{
		limit: quota.Limit{
			Key: quota.NewKey(window, sliding, append([]string{policy}, names...)...),
			Max: min(limit, quota.MaxCount), Window: window, Sliding: sliding,
		},
		name:   policy,
		detail: fmt.Sprintf("%d requests may pass in %s", limit, short(window)),
	}
	b.policy = fmt.Sprintf(`"%s";q=%d;w=%d`, b.name, b.limit.Max, seconds(window))
	return b, nil
}

// short writes d without zero units: 1h, not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// seconds rounds d up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
