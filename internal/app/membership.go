package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/feed/fetch"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/link"
	"hansa.dev/hansa/internal/localstore"
	"hansa.dev/hansa/internal/snapshot"
)

// home is what a gateway belongs to. It is known from its certificate, or from the first bundle, and kept on disk.
type home struct {
	Cluster      string           `json:"cluster"`
	Organization string           `json:"organization"`
	Group        string           `json:"group"`
	Root         keys.Fingerprint `json:"root"`
}

const homeDocument = "home"

// membership is a gateway's part in a cluster: where its configuration comes from and how it gets there. It knows
// three sources, in this order: the disk, a bundle, the link.
type membership struct {
	opts     *GatewayOptions
	log      *slog.Logger
	register prometheus.Registerer
	disk     *localstore.Store
	member   *identity.Member
	sink     fetch.Sink

	home    *home
	offered *bundle.Bundle // what was given with --bundle; nil: nothing

	mu      sync.Mutex     // guards what follows, for the checks of readiness
	fetcher *fetch.Fetcher // nil: it is not known yet what to fetch
	link    *link.Link     // nil: none was begun
}

// ErrForeign: what is offered belongs to another cluster, group or root than what the data folder belongs to.
var ErrForeign = errors.New("belongs to another cluster or gateway group than this data folder")

// open finds out where the gateway belongs and starts from what is at hand.
func (m *membership) open(ctx context.Context) error {
	if err := m.loadHome(); err != nil {
		return err
	}
	if err := m.readBundle(); err != nil {
		return err
	}
	if m.home == nil {
		return nil
	}
	if err := m.newFetcher(); err != nil {
		return err
	}
	if err := m.fetcher.LoadLocal(ctx); err != nil {
		return err
	}
	if b := m.offered; b != nil {
		// What is on the disk was accepted under the trust that it came with, so that of the bundle counts only from here on.
		// A bundle that was made before the trust in force is fine: its checkpoints are checked against that.
		if err := m.member.SetTrust(m.home.Root, b.Trust.Encoded()); err != nil && !errors.Is(err, keys.ErrStale) {
			return fmt.Errorf("bundle %s: %w", m.opts.Bundle, err)
		}
		if err := m.fetcher.Offer(ctx, b.Config, b.Set, b.CredentialConfig, b.Credentials); err != nil {
			return fmt.Errorf("bundle %s: %w", m.opts.Bundle, err)
		}
	}
	return nil
}

// loadHome reads where the gateway belongs, from its certificate if it has one.
func (m *membership) loadHome() error {
	node, err := m.member.Node()
	if err == nil {
		m.home = &home{Cluster: node.Cluster, Organization: node.Organization, Group: node.Group, Root: m.member.Trust().Fingerprint()}
		return nil
	}
	if !errors.Is(err, identity.ErrNotEnrolled) {
		return err
	}
	raw, err := m.disk.Document(homeDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read where the gateway belongs: %w", err)
	}
	m.home = new(home)
	return json.Unmarshal(raw, m.home)
}

// readBundle reads the bundle, if there is one, and takes over where it belongs and the keys of its group.
func (m *membership) readBundle() error {
	if m.opts.Bundle == "" {
		return nil
	}
	f, err := os.Open(m.opts.Bundle)
	if err != nil {
		return fmt.Errorf("open bundle: %w", err)
	}
	defer f.Close()
	var pinned *keys.Fingerprint
	if m.home != nil {
		pinned = &m.home.Root
	}
	b, err := bundle.Read(f, m.opts.Passphrase, pinned)
	if err != nil {
		return fmt.Errorf("bundle %s: %w", m.opts.Bundle, err)
	}
	organization, group, _ := strings.Cut(b.Config.View, "/")
	from := home{Cluster: b.Trust.Cluster, Organization: organization, Group: group, Root: b.Trust.Fingerprint()}
	switch {
	case m.home == nil:
		raw, err := json.Marshal(from)
		if err == nil {
			err = m.disk.SaveDocument(homeDocument, raw)
		}
		if err != nil {
			return fmt.Errorf("keep where the gateway belongs: %w", err)
		}
		m.home = &from
	case *m.home != from:
		return fmt.Errorf("bundle %s: %w: it is for %s/%s of %s, the folder for %s/%s of %s",
			m.opts.Bundle, ErrForeign, organization, group, from.Cluster, m.home.Organization, m.home.Group, m.home.Cluster)
	}
	if m.member.Trust() == nil { // so there is nothing on the disk that was accepted under another one
		if err := m.member.SetTrust(from.Root, b.Trust.Encoded()); err != nil {
			return fmt.Errorf("bundle %s: %w", m.opts.Bundle, err)
		}
	}
	if b.GroupKeys.Len() > 0 {
		if err := m.member.SetGroupKeys(b.GroupKeys); err != nil {
			return fmt.Errorf("bundle %s: %w", m.opts.Bundle, err)
		}
	}
	m.offered = b
	return nil
}

func (m *membership) newFetcher() error {
	f, err := fetch.New(fetch.Options{
		Cluster: m.home.Cluster, Organization: m.home.Organization, Group: m.home.Group,
		Version: m.opts.Version, Verify: m.verify(), Learn: m.member.UpdateTrust,
		Disk: m.disk, Sink: m.sink, Logger: m.log, Registerer: m.register, Now: m.opts.Now,
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.fetcher = f
	m.mu.Unlock()
	return nil
}

// verify checks the signature of a checkpoint and that the root allows its epoch. What came in a bundle is good also
// after its key has expired, as what was accepted before is.
func (m *membership) verify() func(snapshot.Checkpoint, bool) error {
	verify := fetch.TrustVerifier(m.member.Trust, m.opts.Now)
	return func(c snapshot.Checkpoint, held bool) error {
		b := m.offered
		return verify(c, held || b != nil && (c.Root == b.Config.Root || c.Root == b.CredentialConfig.Root))
	}
}

// addresses returns where control nodes are to be found.
func (m *membership) addresses() []string {
	all := slices.Clone(m.opts.Control)
	if m.offered != nil {
		all = append(all, m.offered.Control...)
	}
	if m.opts.JoinToken.Len() > 0 {
		if token, err := identity.ParseJoinToken(string(m.opts.JoinToken.Reveal())); err == nil {
			all = append(all, token.Addresses...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// run joins the cluster if need be and follows it until ctx ends. Without anything to join with it just waits: the
// gateway serves what it has.
func (m *membership) run(ctx context.Context) error {
	if _, err := m.member.Node(); errors.Is(err, identity.ErrNotEnrolled) {
		joined, err := m.join(ctx)
		if err != nil || !joined {
			switch {
			case ctx.Err() != nil:
			case err != nil:
				m.log.ErrorContext(ctx, "the gateway could not join and serves what it has", "err", err)
			case m.home == nil:
				m.log.WarnContext(ctx, "the gateway has nothing to serve: start it with --join-token-file or --bundle")
			case len(m.opts.Control) > 0:
				m.log.WarnContext(ctx, "the gateway has not joined the control node: start it with --join-token-file")
			}
			<-ctx.Done()
			return ctx.Err()
		}
	}
	addresses := m.addresses()
	if len(addresses) == 0 {
		m.log.InfoContext(ctx, "no control node is named: the gateway serves what it has")
		<-ctx.Done()
		return ctx.Err()
	}
	return m.follow(ctx, addresses)
}

// join spends a join token: the one that was given, or a slot of the bundle.
func (m *membership) join(ctx context.Context) (bool, error) {
	var tokens []string
	if m.opts.JoinToken.Len() > 0 {
		tokens = append(tokens, string(m.opts.JoinToken.Reveal()))
	}
	if m.offered != nil {
		slots := slices.Clone(m.offered.JoinTokens)
		rand.Shuffle(len(slots), func(i, k int) { slots[i], slots[k] = slots[k], slots[i] })
		tokens = append(tokens, slots...)
	}
	var faults []error
	for _, text := range tokens {
		token, err := identity.ParseJoinToken(text)
		if err != nil {
			return false, err
		}
		if m.home != nil && token.Root != m.home.Root {
			return false, fmt.Errorf("join token: %w", ErrForeign)
		}
		err = link.Enrol(ctx, link.EnrolOptions{
			Token: token, Name: m.opts.Name, Member: m.member, Addresses: m.addresses(), Logger: m.log, Now: m.opts.Now,
		})
		if err == nil {
			return true, m.settle(ctx)
		}
		faults = append(faults, err)
		// A used slot of a bundle says nothing about the next one.
		if !errors.Is(err, link.ErrTokenUsed) && !errors.Is(err, link.ErrTokenInvalid) {
			break
		}
	}
	return false, errors.Join(faults...)
}

// settle makes what the certificate says the home of the gateway.
func (m *membership) settle(ctx context.Context) error {
	before := m.home
	if err := m.loadHome(); err != nil {
		return err
	}
	if before != nil && *before != *m.home {
		return fmt.Errorf("the certificate %w", ErrForeign)
	}
	m.log.InfoContext(ctx, "joined", "cluster", m.home.Cluster, "organization", m.home.Organization, "group", m.home.Group)
	if m.fetcher != nil {
		return nil
	}
	if err := m.newFetcher(); err != nil {
		return err
	}
	return m.fetcher.LoadLocal(ctx)
}

// follow keeps the link up and the configuration current until ctx ends.
func (m *membership) follow(ctx context.Context, addresses []string) error {
	l, err := link.Dial(link.Options{
		Addresses: addresses, Identity: m.member, Logger: m.log, Registerer: m.register, Now: m.opts.Now,
	})
	if err != nil {
		return err
	}
	defer l.Close()
	m.mu.Lock()
	m.link = l
	m.mu.Unlock()
	p := newProcess(m.log)
	p.run("keeper", link.NewKeeper(l, m.member, m.log).Run)
	p.run("fetcher", func(ctx context.Context) error {
		return m.fetcher.Run(ctx, fetch.LinkConnections(l))
	})
	err = p.wait(ctx)
	return errors.Join(err, p.stop(context.WithoutCancel(ctx)))
}

// fetchGroupKeys asks a control node for the keys of the gateway's group.
func (m *membership) fetchGroupKeys(ctx context.Context) error {
	m.mu.Lock()
	l := m.link
	m.mu.Unlock()
	if l == nil {
		return errors.New("not connected to a control node")
	}
	return link.FetchGroupKeys(ctx, l, m.member)
}

// linkFault says why the gateway is not connected to a control node; nil if it is.
func (m *membership) linkFault() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.link == nil {
		return errors.New("not connected to a control node")
	}
	for _, class := range m.link.State().Classes {
		if !class.Up {
			return fmt.Errorf("not connected to a control node: %s", orDefault(class.LastErr, "connecting"))
		}
	}
	return nil
}

// diskFault says what does not work as it should with the content of the gateway; nil if all does.
func (m *membership) diskFault() error {
	m.mu.Lock()
	f := m.fetcher
	m.mu.Unlock()
	if f == nil {
		return nil
	}
	st := f.Status()
	for _, fault := range []string{st.Configuration.Degraded, st.Credentials.Degraded} {
		if fault != "" {
			return errors.New(fault)
		}
	}
	return nil
}
