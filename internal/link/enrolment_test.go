package link_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/link/linktest"
)

func (f *fixture) token(t *testing.T, id string) identity.JoinToken {
	t.Helper()
	token, err := identity.MintJoinToken("test", id, f.Control.Root(), address)
	if err != nil {
		t.Fatal(err)
	}
	f.Store.AddToken(id, token.SecretHash(), "acme", "eu")
	return token
}

func (f *fixture) enrol(t *testing.T, m *identity.Member, token identity.JoinToken, name string) error {
	t.Helper()
	return link.Enrol(soon(t), link.EnrolOptions{
		Token: token, Name: name, Member: m, Dial: f.network.Dial,
		Logger: slog.New(slog.DiscardHandler), Now: f.Now,
	})
}

func TestEnrol(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	m, token := f.NewMember(t), f.token(t, "jt-1")
	for try := range 3 { // an answer that was lost costs nothing
		if err := f.enrol(t, m, token, "gw-1"); err != nil {
			t.Fatalf("try %d: %v", try, err)
		}
	}
	if n, err := m.Node(); err != nil || n != identity.Gateway("test", "acme", "eu", "gw-1") {
		t.Errorf("Node = %v, %v", n, err)
	}
	wantCode(t, "call of the new gateway", echo(t, f.dial(t, m)), 0)
}

func TestEnrolIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	used := f.token(t, "jt-used")
	if err := f.enrol(t, f.NewMember(t), used, "gw-1"); err != nil {
		t.Fatal(err)
	}
	unknown, err := identity.MintJoinToken("test", "jt-unknown", f.Control.Root(), address)
	if err != nil {
		t.Fatal(err)
	}
	wrongSecret := f.token(t, "jt-2")
	wrongSecret.Secret = unknown.Secret
	nowhere := f.token(t, "jt-3")
	nowhere.Addresses = nil
	otherCluster := f.token(t, "jt-4")
	otherCluster.Cluster = "other"
	for name, tt := range map[string]struct {
		token identity.JoinToken
		name  string
		want  error // nil: any
		text  string
	}{
		"used by another key": {used, "gw-1", link.ErrTokenUsed, ""},
		"unknown":             {unknown, "gw-2", link.ErrTokenInvalid, ""},
		"wrong secret":        {wrongSecret, "gw-2", link.ErrTokenInvalid, ""},
		"name taken":          {f.token(t, "jt-5"), "gw-1", link.ErrNameTaken, ""},
		"bad name":            {f.token(t, "jt-6"), "GW 1", nil, "InvalidArgument"},
		"no address":          {nowhere, "gw-2", nil, "names no control node"},
		"another cluster":     {otherCluster, "gw-2", keys.ErrForeignRoot, ""},
	} {
		m := f.NewMember(t)
		err := f.enrol(t, m, tt.token, tt.name)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %v %s", name, err, tt.want, tt.text)
		}
		if _, err := m.Node(); !errors.Is(err, identity.ErrNotEnrolled) {
			t.Errorf("%s: the gateway has joined", name)
		}
	}
	// What a refusal leaves unused can still be used.
	f.Store.Fail(errors.New("record is away"))
	late := f.token(t, "jt-7")
	done := make(chan error, 1)
	m := f.NewMember(t)
	go func() { done <- f.enrol(t, m, late, "gw-7") }()
	select {
	case err := <-done:
		t.Errorf("enrolment ended although the record was only away for a moment: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	f.Store.Fail(nil)
	if err := <-done; err != nil {
		t.Errorf("enrolment after the record came back: %v", err)
	}
}

// TestEnrolGivesNoSecretToStrangers puts others in place of the control node and looks at every byte that the
// gateway sends to them, decrypted.
func TestEnrolGivesNoSecretToStrangers(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	foreign := linktest.NewCluster(t)
	token := f.token(t, "jt-1")
	const middleAddr, otherAddr, rogueAddr = "middle:1", "other:1", "rogue:1"

	// middle takes the real cluster's trust document, which anybody can get, but has no certificate of it.
	middle := &spy{EnrolmentStore: linktest.NewEnrolmentStore()}
	f.Serve(t, f.network.Listen(middleAddr), link.ServerOptions{
		Identity:  foreign.Control,
		Enrolment: &link.Enrolment{Authority: authority{foreign.Control, f.Control}, Store: middle},
	}, nil)
	// other is another cluster altogether.
	other := &spy{EnrolmentStore: linktest.NewEnrolmentStore()}
	f.Serve(t, f.network.Listen(otherAddr), link.ServerOptions{
		Identity:  foreign.Control,
		Enrolment: &link.Enrolment{Authority: foreign.Control, Store: other},
	}, nil)
	// gateway is a node of the right cluster that is no control node.
	rogue := &spy{EnrolmentStore: linktest.NewEnrolmentStore()}
	f.Serve(t, f.network.Listen(rogueAddr), link.ServerOptions{
		Identity:  f.Gateway(t, "gw-rogue"),
		Enrolment: &link.Enrolment{Authority: f.Control, Store: rogue},
	}, nil)

	for addr, tt := range map[string]struct {
		spy  *spy
		want string
	}{
		middleAddr: {middle, "unknown authority"},
		otherAddr:  {other, keys.ErrForeignRoot.Error()},
		rogueAddr:  {rogue, "not a control node"},
	} {
		token := token
		token.Addresses = []string{addr}
		m := f.NewMember(t)
		// Enrol would try for ever: it is ended when it tells of its third try.
		ctx, cancel := context.WithCancel(t.Context())
		err := link.Enrol(ctx, link.EnrolOptions{
			Token: token, Name: "gw-1", Member: m, Dial: f.network.Dial,
			Logger: slog.New(&cancelling{Handler: slog.DiscardHandler, cancel: cancel, after: 3}), Now: f.Now,
		})
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", addr, err, tt.want)
		}
		if n := tt.spy.count(); n != 0 {
			t.Errorf("%s was given the secret %d times", addr, n)
		}
	}
	// The token is still good.
	if err := f.enrol(t, f.NewMember(t), token, "gw-1"); err != nil {
		t.Errorf("afterwards at the real control node: %v", err)
	}
}

// cancelling is a log that ends something after some lines.
type cancelling struct {
	slog.Handler
	cancel context.CancelFunc
	after  int
}

// Enabled implements slog.Handler.
func (*cancelling) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (c *cancelling) Handle(context.Context, slog.Record) error {
	if c.after--; c.after == 0 {
		c.cancel()
	}
	return nil
}

// spy is a store that counts the secrets that reach it.
type spy struct {
	*linktest.EnrolmentStore
	mu sync.Mutex
	n  int
}

func (s *spy) Redeem(ctx context.Context, id, hash, name, key string) (string, string, error) {
	s.mu.Lock()
	s.n++
	s.mu.Unlock()
	return s.EnrolmentStore.Redeem(ctx, id, hash, name, key)
}

func (s *spy) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// authority issues with one control node's keys and shows the trust document of another's.
type authority struct {
	*identity.Control
	shown *identity.Control
}

func (a authority) Trust() *keys.Trust { return a.shown.Trust() }

// TestEnrolOverABadNetwork joins over a network that refuses, swallows, delays and cuts.
func TestEnrolOverABadNetwork(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	token, m := f.token(t, "jt-1"), f.NewMember(t)
	f.network.Refuse(true)
	f.network.SetDelay(5 * time.Millisecond)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(60 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				f.network.Refuse(n < 3)
				f.network.Blackhole(n%5 == 4)
				if n < 12 {
					f.network.Cut()
				}
			}
		}
	})
	if err := f.enrol(t, m, token, "gw-1"); err != nil {
		t.Error(err)
	}
	close(stop)
	wg.Wait()
	if _, err := m.Node(); err != nil {
		t.Error(err)
	}
}

// TestServerSurvivesGarbage sends what is no TLS, and less than that.
func TestServerSurvivesGarbage(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, garbage := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff" + strings.Repeat("x", 100), strings.Repeat("\x00", 1000)} {
		c, err := f.network.Dial(soon(t), address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, garbage); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Logf("write: %v", err) // the server may have hung up
		}
		_ = c.Close()
	}
	wantCode(t, "call afterwards", echo(t, f.dial(t, f.Gateway(t, "gw-1"))), 0)
}

// groupKeySource hands out the same keys to every group.
type groupKeySource struct {
	mu   sync.Mutex
	keys keys.GroupKeys
}

func (s *groupKeySource) GroupKeys(context.Context, string, string) (keys.GroupKeys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, nil
}

func (s *groupKeySource) rotate(t *testing.T) *keys.GroupKey {
	t.Helper()
	next, err := keys.GenerateGroupKey()
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = s.keys.After(keys.NewGroupKeys(next))
	return next
}

func TestGatewaysGetTheKeysOfTheirGroup(t *testing.T) {
	t.Parallel()
	source := &groupKeySource{}
	first := source.rotate(t)
	f := newFixture(t, func(o *link.ServerOptions) { o.Enrolment = &link.Enrolment{Keys: source} })
	m := f.NewMember(t)
	if err := f.enrol(t, m, f.token(t, "jt-1"), "gw-1"); err != nil {
		t.Fatal(err)
	}
	if got := m.GroupKeys(); got.Len() != 1 || got.Current().ID() != first.ID() {
		t.Fatalf("a gateway that has joined holds %d keys, want the one of its group", got.Len())
	}
	second := source.rotate(t)
	l := f.dial(t, m)
	if err := link.FetchGroupKeys(soon(t), l, m); err != nil {
		t.Fatal(err)
	}
	if got := m.GroupKeys(); got.Len() != 2 || got.Current().ID() != second.ID() {
		t.Errorf("after a rotation %d keys, want the new one first", got.Len())
	}
	source.rotate(t)
	f.Store.Revoke("acme", "gw-1")
	if err := link.FetchGroupKeys(soon(t), l, m); !errors.Is(err, link.ErrRevoked) {
		t.Errorf("a revoked gateway asks for keys: %v, want ErrRevoked", err)
	}
	if got := m.GroupKeys(); got.Current().ID() != second.ID() {
		t.Error("a revoked gateway was given the new key")
	}
}
