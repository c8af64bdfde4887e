package control

import (
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/control/problem"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/x/token"
)

// TokenPrefix begins every bearer token of a principal.
const TokenPrefix = "hp1_"

// allOrganizations is the organization of a role binding that holds everywhere, and the one that a decision on what
// belongs to no organization is made in.
const allOrganizations = "*"

// Role is what a principal may do; a higher one includes the lower ones.
type Role uint8

// The roles. The zero value allows nothing.
const (
	NoRole Role = iota
	Viewer      // read resources
	Editor      // and change resources and keys
	Admin       // and principals, join tokens, gateways and backups
)

// String returns the word that role bindings use.
func (r Role) String() string {
	switch r {
	case Viewer:
		return "viewer"
	case Editor:
		return "editor"
	case Admin:
		return "admin"
	}
	return "none"
}

func parseRole(s string) Role {
	for _, r := range []Role{Viewer, Editor, Admin} {
		if s == r.String() {
			return r
		}
	}
	return NoRole
}

// caller is the authenticated principal of a request.
type caller struct {
	principal string
	roles     []v1.RoleBinding
}

// may tells whether the caller has at least the role in the organization.
func (c caller) may(need Role, organization string) bool {
	if need == NoRole {
		return false
	}
	for _, b := range c.roles {
		if (b.Organization == organization || b.Organization == allOrganizations) && parseRole(b.Role) >= need {
			return true
		}
	}
	return false
}

// maySome tells whether the caller has at least the role in any organization.
func (c caller) maySome(need Role) bool {
	for _, b := range c.roles {
		if need != NoRole && parseRole(b.Role) >= need {
			return true
		}
	}
	return false
}

// require returns nil if the caller has the role in the organization, and the refusal if not.
func (c caller) require(need Role, organization string) error {
	if c.may(need, organization) {
		return nil
	}
	if organization == allOrganizations {
		return problem.New(problem.Forbidden, "principal %q needs the role %s in all organizations (\"*\")", c.principal, need)
	}
	return problem.New(problem.Forbidden, "principal %q needs the role %s in organization %q", c.principal, need, organization)
}

// kindRoles returns who may read and who may write the resources of a kind through the calls that take any kind, and
// in which organization that is decided.
func kindRoles(k v1.Key) (read, write Role, organization string) {
	switch k.Kind {
	case v1.KindOrganization:
		return Viewer, Admin, k.Name
	case v1.KindPrincipal:
		return Admin, Admin, allOrganizations
	case v1.KindJoinToken, v1.KindGroupKey, v1.KindCertificateKey, v1.KindCertificateOrder, v1.KindACMEAccount:
		return Admin, Admin, k.Organization
	case v1.KindGateway:
		return Viewer, Admin, k.Organization
	}
	return Viewer, Editor, k.Organization
}

// mayRead and requireWrite decide on one resource.
func (c caller) mayRead(k v1.Key) bool {
	read, _, organization := kindRoles(k)
	return c.may(read, organization)
}

func (c caller) requireWrite(k v1.Key) error {
	_, write, organization := kindRoles(k)
	if k.Kind == v1.KindOrganization {
		organization = allOrganizations // who could make one could name it after another's
	}
	return c.require(write, organization)
}

// authenticator finds the principal of a bearer token.
type authenticator struct {
	store store.Store
	now   func() time.Time
	index atomic.Pointer[tokenIndex]
}

// tokenIndex holds the tokens of every principal at one version of the record, by the first bytes of their hash.
// Finding one by that prefix tells nothing of the rest, which is compared in constant time.
type tokenIndex struct {
	version store.Version
	tokens  map[[8]byte][]indexedToken
}

type indexedToken struct {
	hash      [32]byte
	expiresAt time.Time
	caller    caller
}

func (a *authenticator) authenticate(r *http.Request) (caller, error) {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || value == "" {
		return caller{}, problem.New(problem.Unauthenticated, "the request carries no bearer token")
	}
	value = strings.TrimSpace(value)
	if err := token.Check(TokenPrefix, value); err != nil {
		return caller{}, problem.New(problem.Unauthenticated, "the bearer token %v", err)
	}
	hash := token.Hash(value)
	for _, t := range a.current().tokens[[8]byte(hash[:8])] {
		if subtle.ConstantTimeCompare(t.hash[:], hash[:]) != 1 {
			continue
		}
		if !t.expiresAt.IsZero() && !a.now().Before(t.expiresAt) {
			return caller{}, problem.New(problem.Unauthenticated, "the bearer token of principal %q expired at %s", t.caller.principal, t.expiresAt.UTC().Format(time.RFC3339))
		}
		return t.caller, nil
	}
	return caller{}, problem.New(problem.Unauthenticated, "the bearer token is unknown or was revoked")
}

// current returns the index of the state at the head, made anew if the record has moved on.
func (a *authenticator) current() *tokenIndex {
	state := a.store.State()
	if index := a.index.Load(); index != nil && index.version == state.Version() {
		return index
	}
	index := &tokenIndex{version: state.Version(), tokens: map[[8]byte][]indexedToken{}}
	for o := range state.List(v1.KindPrincipal, "", "") {
		spec, ok := o.Spec.(*v1.PrincipalSpec)
		if !ok {
			continue
		}
		for _, t := range spec.Tokens {
			hash, err := hex.DecodeString(t.SHA256)
			if err != nil || len(hash) != 32 {
				continue // such a token can never match
			}
			who := caller{principal: o.Metadata.Name, roles: spec.Roles}
			prefix := [8]byte(hash[:8])
			index.tokens[prefix] = append(index.tokens[prefix], indexedToken{hash: [32]byte(hash), expiresAt: t.ExpiresAt, caller: who})
		}
	}
	a.index.Store(index)
	return index
}
