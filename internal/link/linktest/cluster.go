package linktest

import (
	"context"
	"crypto/subtle"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/link"
)

// Cluster is a control node's keys and what enrolment needs, for tests.
type Cluster struct {
	// Control are the keys of a control node of the cluster "test".
	Control *identity.Control
	// Store is the record for enrolment.
	Store *EnrolmentStore

	mu     sync.Mutex // guards offset
	offset time.Duration
}

// NewCluster makes a cluster in a temporary folder.
func NewCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := &Cluster{Store: NewEnrolmentStore()}
	sealer, err := keys.NewSealer(keys.GenerateSealingKey())
	if err != nil {
		tb.Fatal(err)
	}
	control, err := identity.OpenControl(identity.ControlOptions{
		Dir: tb.TempDir(), Cluster: "test", Name: "control-1", Sealer: sealer,
		Now: c.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	c.Control = control
	return c
}

// Now is the clock that certificates go by: the time, plus what Advance added.
func (c *Cluster) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// Advance moves the clock of certificates.
func (c *Cluster) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// NewMember makes the data folder of a gateway that has not joined.
func (c *Cluster) NewMember(tb testing.TB) *identity.Member {
	tb.Helper()
	folder, err := identity.OpenFolder(identity.FolderOptions{Dir: filepath.Join(tb.TempDir(), "node")})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := folder.Close(); err != nil {
			tb.Error(err)
		}
	})
	sealer, err := keys.NewSealer(keys.GenerateSealingKey())
	if err != nil {
		tb.Fatal(err)
	}
	m, err := identity.OpenMember(folder, sealer)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// Gateway makes a gateway "acme/eu" of that name that has joined.
func (c *Cluster) Gateway(tb testing.TB, name string) *identity.Member {
	tb.Helper()
	m := c.NewMember(tb)
	request, err := m.Request()
	if err != nil {
		tb.Fatal(err)
	}
	public, hash, err := identity.ParseRequest(request)
	if err != nil {
		tb.Fatal(err)
	}
	node := identity.Gateway("test", "acme", "eu", name)
	chain, err := c.Control.Issue(node, public)
	if err != nil {
		tb.Fatal(err)
	}
	if err := m.Join(c.Control.Root(), c.Control.Trust().Encoded(), chain); err != nil {
		tb.Fatal(err)
	}
	c.Store.Enter(node, hash)
	return m
}

// Serve starts a server on a listener until the test ends, or stop is called. Unset options are filled in: the
// cluster's identity, clock, enrolment and list of revoked gateways.
func (c *Cluster) Serve(tb testing.TB, l net.Listener, o link.ServerOptions, register func(grpc.ServiceRegistrar)) (s *link.Server, stop func()) {
	tb.Helper()
	if o.Identity == nil {
		o.Identity = c.Control
	}
	if o.Enrolment == nil {
		o.Enrolment = new(link.Enrolment)
	}
	if o.Enrolment.Authority == nil {
		o.Enrolment.Authority, o.Enrolment.Store = c.Control, c.Store
	}
	if o.Revoked == nil {
		o.Revoked = func(p identity.Peer) bool { return c.Store.Renewable(context.Background(), p.Node, p.PublicKey) != nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	o.Now = c.Now
	s, err := link.NewServer(o)
	if err != nil {
		tb.Fatal(err)
	}
	if register != nil {
		s.Register(register)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	return s, stop
}

// Dial opens a link until the test ends. Unset options are filled in.
func (c *Cluster) Dial(tb testing.TB, o link.Options) *link.Link {
	tb.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	o.Now = c.Now
	l, err := link.Dial(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	return l
}

// EnrolmentStore is a link.EnrolmentStore in memory.
type EnrolmentStore struct {
	mu       sync.Mutex // guards the fields below
	tokens   map[string]*token
	gateways map[string]gateway // by organization/name
	err      error
}

type token struct {
	hash                string
	organization, group string
	usedBy, usedKey     string
}

type gateway struct {
	group, key string
	revoked    bool
}

var _ link.EnrolmentStore = (*EnrolmentStore)(nil)

// NewEnrolmentStore makes an empty store.
func NewEnrolmentStore() *EnrolmentStore {
	return &EnrolmentStore{tokens: make(map[string]*token), gateways: make(map[string]gateway)}
}

// AddToken enters a token.
func (s *EnrolmentStore) AddToken(id, secretHash, organization, group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[id] = &token{hash: secretHash, organization: organization, group: group}
}

// Enter enters a gateway.
func (s *EnrolmentStore) Enter(n identity.Node, publicKey string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateways[n.Organization+"/"+n.Name] = gateway{group: n.Group, key: publicKey}
}

// Revoke revokes a gateway.
func (s *EnrolmentStore) Revoke(organization, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateways[organization+"/"+name]
	g.revoked = true
	s.gateways[organization+"/"+name] = g
}

// Fail makes every Redeem fail until it is called with nil.
func (s *EnrolmentStore) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Redeem implements link.EnrolmentStore.
func (s *EnrolmentStore) Redeem(_ context.Context, tokenID, secretHash, name, publicKey string) (organization, group string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return "", "", s.err
	}
	t, ok := s.tokens[tokenID]
	if !ok || subtle.ConstantTimeCompare([]byte(t.hash), []byte(secretHash)) != 1 {
		return "", "", link.ErrTokenInvalid
	}
	if t.usedKey != "" {
		if t.usedKey != publicKey || t.usedBy != name {
			return "", "", link.ErrTokenUsed
		}
		return t.organization, t.group, nil
	}
	if g, taken := s.gateways[t.organization+"/"+name]; taken && g.key != publicKey {
		return "", "", link.ErrNameTaken
	}
	t.usedBy, t.usedKey = name, publicKey
	s.gateways[t.organization+"/"+name] = gateway{group: t.group, key: publicKey}
	return t.organization, t.group, nil
}

// Renewable implements link.EnrolmentStore.
func (s *EnrolmentStore) Renewable(_ context.Context, n identity.Node, publicKey string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.gateways[n.Organization+"/"+n.Name]
	if n.Role == identity.RoleGateway && (!ok || g.revoked || g.group != n.Group || g.key != publicKey) {
		return link.ErrRevoked
	}
	return nil
}
