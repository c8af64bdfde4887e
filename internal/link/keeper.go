package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
)

// Keeper keeps a gateway's certificate and trust document good: it renews the certificate when a third of its life is
// left, also when it has expired long ago, and gets the trust document when a control node shows a certificate that
// the document in force cannot explain.
type Keeper struct {
	link   *Link
	member *identity.Member
	log    *slog.Logger
}

const (
	keeperRetryMin = 5 * time.Second
	keeperRetryMax = 10 * time.Minute
	// keeperLook bounds how long the keeper sleeps, because clocks are set and machines sleep.
	keeperLook = time.Hour
)

// NewKeeper makes a keeper for the member that the link proves itself with.
func NewKeeper(l *Link, m *identity.Member, log *slog.Logger) *Keeper {
	return &Keeper{link: l, member: m, log: log.With("component", "link.keeper")}
}

// Run works until the context ends, and returns its cause.
func (k *Keeper) Run(ctx context.Context) error {
	// A renewal may wait for a link that only a newer trust document brings up.
	var wg sync.WaitGroup
	wg.Go(func() { k.keepTrust(ctx) })
	defer wg.Wait()
	retry := keeperRetryMin
	for {
		pause, err := k.step(ctx)
		if err != nil {
			k.log.WarnContext(ctx, "certificate is not renewed yet", "err", err)
			pause = min(pause, retry*3/4+rand.N(retry/2))
			retry = min(2*retry, keeperRetryMax)
		} else {
			retry = keeperRetryMin
		}
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

func (k *Keeper) keepTrust(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.link.untrusted:
		}
		if err := k.refreshTrust(ctx); err != nil {
			k.log.WarnContext(ctx, "trust document is not renewed yet", "err", err)
		}
		// The link goes on trying, and asks again if need be; it is not to be asked for more than that.
		if !sleep(ctx, keeperRetryMin/2+rand.N(keeperRetryMin)) {
			return
		}
	}
}

// step renews the certificate if it is due and returns when to look again.
func (k *Keeper) step(ctx context.Context) (time.Duration, error) {
	due := k.member.RenewAt()
	if due.IsZero() {
		return keeperLook, nil // not enrolled; Enrol is not the keeper's
	}
	if wait := due.Sub(k.link.o.Now()); wait > 0 {
		return min(wait, keeperLook), nil
	}
	t := k.link.o.Timeouts
	callCtx, cancel := context.WithTimeoutCause(ctx, t.Dial+t.Handshake+2*t.KeepaliveTimeout, errors.New("no answer in time"))
	defer cancel()
	answer, err := linkv1.NewEnrolmentClient(k.link.Conn(Control)).Renew(callCtx, &linkv1.RenewRequest{})
	if err != nil {
		return keeperLook, fmt.Errorf("renew certificate: %w", known(err))
	}
	if err := k.member.Renew(answer.GetTrust(), answer.GetChain()); err != nil {
		return keeperLook, err
	}
	if err := takeGroupKeys(k.member, answer.GetGroupKeys()); err != nil {
		k.log.ErrorContext(ctx, "the keys of the gateway group cannot be taken over", "err", err)
	}
	k.link.Reset()
	k.log.InfoContext(ctx, "certificate renewed", "renew_at", k.member.RenewAt())
	return min(max(k.member.RenewAt().Sub(k.link.o.Now()), time.Second), keeperLook), nil
}

// FetchGroupKeys asks the control node for the keys of the gateway's group and keeps them.
func FetchGroupKeys(ctx context.Context, l *Link, m *identity.Member) error {
	t := l.o.Timeouts
	ctx, cancel := context.WithTimeoutCause(ctx, t.Dial+t.Handshake+2*t.KeepaliveTimeout, errors.New("no answer in time"))
	defer cancel()
	answer, err := linkv1.NewEnrolmentClient(l.Conn(Control)).GroupKeys(ctx, &linkv1.GroupKeysRequest{})
	if err != nil {
		return fmt.Errorf("fetch group keys: %w", known(err))
	}
	return takeGroupKeys(m, answer.GetGroupKeys())
}

// refreshTrust gets the trust document from whoever answers and tries the connections again.
func (k *Keeper) refreshTrust(ctx context.Context) error {
	held := k.member.Trust()
	if held == nil {
		return identity.ErrNotEnrolled
	}
	trust, err := fetchTrust(ctx, k.link.o.Addresses, held.Fingerprint(), k.link.o.Dial, k.link.o.Timeouts)
	if err != nil {
		return err
	}
	if err := k.member.UpdateTrust(trust.Encoded()); err != nil && !errors.Is(err, keys.ErrStale) {
		return err
	}
	k.log.InfoContext(ctx, "trust document renewed", "serial", k.member.Trust().Serial)
	k.link.Reset()
	return nil
}
