// Package policytest makes what tests of policies need: an environment with real credentials, limits and products,
// and exchanges as an engine would hand them over. It is for tests only.
package policytest

import (
	"net/netip"
	"testing"
	"time"

	"hansa.dev/hansa/internal/credential"
	"hansa.dev/hansa/internal/exchange"
	"hansa.dev/hansa/internal/gateway/policy"
	"hansa.dev/hansa/internal/policyspec"
	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// Now is the time at which exchanges begin: a multiple of every window up to a day.
const Now = int64(1_800_057_600)

// World is an environment with what stands behind it.
type World struct {
	Env      *policy.Env
	Products policy.Products
	Table    *credential.Table
	creds    *snapshot.Credentials
}

// New returns the environment of the API catalog of the organization acme, with the products gold, which holds it with
// a quota of 3 an hour and a rate of 2 a second, and other, which does not hold it.
func New(t testing.TB) *World {
	t.Helper()
	subjects := quota.NewSubjects()
	describe := func(application, product string) string { return application + " " + product }
	w := &World{Products: policy.Products{}, Table: credential.New(subjects, describe, nil), creds: snapshot.NewCredentials()}
	w.Table.Apply(w.creds)
	w.Env = &policy.Env{
		Organization: "acme", Environment: "prod", API: "catalog", Phase: policyspec.Request,
		Credentials: w.Table, Engine: quota.Local{}, Clients: quota.NewClients(0),
		Subject: subjects.Acquire(quota.NewID("api", "acme", "prod", "catalog")),
	}
	for _, p := range []snapshot.Product{
		{
			Organization: "acme", Name: "gold", APIs: []string{"catalog"},
			Quota:     &snapshot.Limit{Limit: 3, WindowMillis: 3_600_000},
			RateLimit: &snapshot.Limit{Limit: 2, WindowMillis: 1000},
		},
		{Organization: "acme", Name: "plain", APIs: []string{"catalog"}},
		{Organization: "acme", Name: "other", APIs: []string{"elsewhere"}},
	} {
		product, err := policy.NewProduct(p)
		if err != nil {
			t.Fatal(err)
		}
		w.Products[credential.NewProductID(p.Organization, p.Name)] = product
	}
	return w
}

// Key adds a credential with that value. Its subscription, application and product are "<name>-sub", "<name>-app" and
// gold; edit may change them.
func (w *World) Key(value, name string, edit func(*snapshot.Credential)) {
	c := snapshot.Credential{
		Hash: snapshot.HashCredential([]byte(value)), ID: name + "-key", Organization: "acme",
		Subscription: name + "-sub", Application: name + "-app", Product: "gold", CreatedAt: Now - 1000,
	}
	if edit != nil {
		edit(&c)
	}
	w.creds = w.creds.With([]snapshot.CredentialChange{{Credential: c}})
	w.Table.Apply(w.creds)
}

// Exchange returns the exchange of a request from 192.0.2.1 with these header fields.
func (w *World) Exchange(query string, fields map[string]string) *exchange.Exchange {
	x := new(exchange.Exchange)
	copy(x.ID[:], "0123456789abcdef0123456789abcdef")
	x.Start = time.Unix(Now, 0)
	x.Method, x.Path = exchange.View("GET"), exchange.View("/catalog/v1/items/1")
	x.Host, x.Authority = exchange.View("api.example.com"), exchange.View("api.example.com")
	x.Peer = netip.MustParseAddrPort("192.0.2.1:50000")
	x.ClientIP = exchange.View("192.0.2.1")
	if query != "" {
		x.Query, x.HasQuery = exchange.View(query), true
	}
	for name, value := range fields {
		x.Req.AddString(exchange.NameOf(name), value)
	}
	x.Slots[policy.SlotProducts].Ptr = w.Products
	return x
}
