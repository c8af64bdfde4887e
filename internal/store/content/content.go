// Package content is what the record holds at one version: resources and credentials, immutable, cheap to derive
// from the version before, and the encoding of the changes that lead from one to the next.
//
// A [State] never changes; any number of goroutines read it without a lock. A [Builder] makes the next one: it
// shares with its origin all that the changes do not touch. Resources are in a copy-on-write B-tree; the
// credentials of each organization are in a snapshot.Credentials, where a million of them take a tenth of what a
// million structs would. The package does no I/O. It is used by the implementations of the record and must not
// import them.
package content

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/google/btree"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
)

// degree is the fan-out of the B-tree: a change copies about three nodes of this many pointers.
const degree = 32

// State is the content of the record at one version. It implements store.State.
type State struct {
	version       store.Version
	organizations map[string]credentials // those that have, or had, credentials; never changed
	none          *snapshot.Credentials  // the table of everyone else
	bytes         int64                  // encoded size of all resources

	// mu guards the cloning of resources, which writes to the tree it clones; reading needs no lock.
	mu        sync.Mutex
	resources *btree.BTreeG[resource]
}

var _ store.State = (*State)(nil)

// resource is an object and the size of its encoding.
type resource struct {
	object *v1.Object
	size   int
}

// New returns the empty content with which every record begins.
func New(v store.Version) *State {
	return &State{version: v, none: snapshot.NewCredentials(), resources: btree.NewG(degree, less)}
}

// credentials are those of one organization.
type credentials struct {
	table *snapshot.Credentials
	seq   uint64 // the last change set that changed one
}

// less orders by kind, organization and name, so that every listing is one run.
func less(a, b resource) bool { return compare(a.object, b.object) < 0 }

func compare(a, b *v1.Object) int {
	if c := cmp.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Metadata.Organization, b.Metadata.Organization); c != 0 {
		return c
	}
	return cmp.Compare(a.Metadata.Name, b.Metadata.Name)
}

// pivot returns an item that stands where the resource with key k stands.
func pivot(k v1.Key) resource {
	return resource{object: &v1.Object{Kind: k.Kind, Metadata: v1.Metadata{Organization: k.Organization, Name: k.Name}}}
}

// Version returns the version that s is the content of.
func (s *State) Version() store.Version { return s.version }

// Len returns the number of resources.
func (s *State) Len() int { return s.resources.Len() }

// NumCredentials returns the number of credentials.
func (s *State) NumCredentials() int {
	n := 0
	for _, c := range s.organizations {
		n += c.table.Len()
	}
	return n
}

// Bytes returns about how much s takes when it is encoded.
func (s *State) Bytes() int64 {
	n := s.bytes
	for _, c := range s.organizations {
		n += int64(c.table.Bytes())
	}
	return n
}

// Superseded returns about how much of the credentials of s is not in next, which was derived from s: what a process
// spends on keeping s when it has next.
func (s *State) Superseded(next *State) int64 {
	n := int64(0)
	for org, c := range s.organizations {
		if t := next.CredentialTable(org); t != c.table {
			for i := range snapshot.CredentialShards {
				if old := c.table.Shard(i); old != t.Shard(i) {
					n += int64(old.Size())
				}
			}
		}
	}
	return n
}

// Get implements store.State.
func (s *State) Get(k v1.Key) (*v1.Object, bool) {
	r, ok := s.resources.Get(pivot(k))
	return r.object, ok
}

// List implements store.State.
func (s *State) List(kind v1.Kind, organization, after string) iter.Seq[*v1.Object] {
	from := v1.Key{Kind: kind, Organization: organization, Name: after}
	if org, name, ok := strings.Cut(after, "/"); ok && organization == "" {
		from.Organization, from.Name = org, name
	}
	return func(yield func(*v1.Object) bool) {
		start := pivot(from)
		s.resources.AscendGreaterOrEqual(start, func(r resource) bool {
			o := r.object
			if o.Kind != kind || organization != "" && o.Metadata.Organization != organization {
				return false
			}
			if from.Name != "" && compare(o, start.object) == 0 {
				return true
			}
			return yield(o)
		})
	}
}

// Credential implements store.State.
func (s *State) Credential(organization string, hash snapshot.CredentialHash) (snapshot.Credential, bool) {
	return s.CredentialTable(organization).Lookup(hash)
}

// CredentialTable implements store.State.
func (s *State) CredentialTable(organization string) *snapshot.Credentials {
	if c, ok := s.organizations[organization]; ok {
		return c.table
	}
	return s.none
}

// CredentialSeq implements store.State.
func (s *State) CredentialSeq(organization string) uint64 { return s.organizations[organization].seq }

// Credentials implements store.State.
func (s *State) Credentials(organization string) iter.Seq[snapshot.Credential] {
	return func(yield func(snapshot.Credential) bool) {
		for _, org := range s.credentialOrganizations(organization) {
			for c := range s.organizations[org].table.All() {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// CredentialsOf implements store.State. It reads every credential of the organization, about 0.1 µs each.
func (s *State) CredentialsOf(organization, subscription string) iter.Seq[snapshot.Credential] {
	return func(yield func(snapshot.Credential) bool) {
		c, ok := s.organizations[organization]
		if !ok {
			return
		}
		for c := range c.table.All() {
			if c.Subscription == subscription && !yield(c) {
				return
			}
		}
	}
}

// credentialOrganizations returns the one organization if it has credentials, or for "" all that have, in order.
func (s *State) credentialOrganizations(organization string) []string {
	if organization != "" {
		if _, ok := s.organizations[organization]; !ok {
			return nil
		}
		return []string{organization}
	}
	names := make([]string, 0, len(s.organizations))
	for org := range s.organizations {
		names = append(names, org)
	}
	slices.Sort(names)
	return names
}
