package credential

import (
	"strings"
	"sync"
	"sync/atomic"
	"unique"

	"hansa.dev/hansa/internal/quota"
	"hansa.dev/hansa/internal/snapshot"
)

// Subscription is what credentials of one subscription have in common, once for all of them.
type Subscription struct {
	names
	productID   ProductID
	logMembers  string
	subject     *quota.Subject
	app         atomic.Pointer[quota.Subject]
	credentials int // that share it; guarded by mu of subscriptions
}

// ProductID identifies a product.
type ProductID = unique.Handle[ProductName]

// ProductName is what a ProductID stands for.
type ProductName struct{ Organization, Name string }

// NewProductID returns the ID of a product.
func NewProductID(organization, name string) ProductID {
	return unique.Make(ProductName{organization, name})
}

// names are all of a subscription that a credential tells.
type names struct {
	Organization string
	Name         string
	Application  string
	Product      string
}

// subscriptions are those whose credentials have records.
type subscriptions struct {
	subjects *quota.Subjects
	describe func(application, product string) string

	mu  sync.Mutex
	all map[names]*Subscription // guarded by mu
}

func newSubscriptions(subjects *quota.Subjects, describe func(application, product string) string) subscriptions {
	return subscriptions{subjects: subjects, describe: describe, all: make(map[names]*Subscription)}
}

// acquire returns the subscription of a credential. Release it once for every acquire.
func (s *subscriptions) acquire(c snapshot.Credential) *Subscription {
	n := names{Organization: c.Organization, Name: c.Subscription, Application: c.Application, Product: c.Product}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.all[n]
	if sub == nil {
		n = n.clone()
		sub = &Subscription{
			names: n, productID: NewProductID(n.Organization, n.Product), logMembers: s.describe(n.Application, n.Product),
			subject: s.subjects.Acquire(n.subscriptionID()),
		}
		s.all[n] = sub
	}
	sub.credentials++
	return sub
}

// release gives up what acquire returned, which stays usable.
func (s *subscriptions) release(sub *Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.credentials--; sub.credentials > 0 {
		return
	}
	delete(s.all, sub.names)
	s.subjects.Release(sub.subscriptionID())
	if sub.app.Load() != nil {
		s.subjects.Release(sub.applicationID())
	}
}

// application is who the limits of the subscription's application count for.
func (s *subscriptions) application(sub *Subscription) *quota.Subject {
	if a := sub.app.Load(); a != nil {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := sub.app.Load(); a != nil {
		return a
	}
	a := s.subjects.Acquire(sub.applicationID())
	if sub.credentials == 0 { // released already: nobody will give it up later
		s.subjects.Release(sub.applicationID())
		return a
	}
	sub.app.Store(a)
	return a
}

// clone copies the texts into one piece of memory.
func (n names) clone() names {
	texts := strings.Join([]string{n.Organization, n.Name, n.Application, n.Product}, "")
	take := func(s string) string {
		own := texts[:len(s)]
		texts = texts[len(s):]
		return own
	}
	return names{Organization: take(n.Organization), Name: take(n.Name), Application: take(n.Application), Product: take(n.Product)}
}

func (n names) subscriptionID() quota.ID { return quota.NewID("subscription", n.Organization, n.Name) }

func (n names) applicationID() quota.ID {
	return quota.NewID("application", n.Organization, n.Application)
}
