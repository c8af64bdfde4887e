package fetch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// shared is what both followers of a gateway have in common.
type shared struct {
	opts  Options
	codec *wire.Codec
	log   *slog.Logger
	hello *linkv1.Hello // without Have

	once            sync.Once
	withCredentials chan struct{} // closed when the sink has credentials
}

func incarnation() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails, says its documentation
	return b
}

// kind is what is different between configuration and credentials. C is immutable.
type kind[C snapshot.Content] interface {
	name() string // for people and metrics
	viewName() string
	proto() linkv1.View
	empty() C
	digest(c C, bucket int) snapshot.Hash
	// merge returns base with a batch of changes.
	merge(base C, batch []byte) (C, error)
	// compare takes a listing of buckets: it returns base without what is not listed, and the keys of what base lacks.
	compare(base C, listing []byte) (next C, missing []string, err error)
	// check refuses content that this build cannot run, as far as that can be told from outside.
	check(next, old C) error
	// save puts content on the disk; old is what was there before, as far as is known. It returns the generation.
	save(c snapshot.Checkpoint, next C) (uint64, error)
	// apply hands content to the sink.
	apply(ctx context.Context, c snapshot.Checkpoint, next, old C) error
	// load offers what is on the disk, the newest first, until use takes it. Whole says that it can be verified.
	load(use func(c snapshot.Checkpoint, content C, generation uint64, whole bool) error) error
}

// follower keeps one view current. Everything but what mu guards belongs to the goroutine of run, or before that to
// whoever calls load and offer.
type follower[C snapshot.Content] struct {
	*shared
	kind kind[C]
	// before is called before content is applied, and applied after it.
	before  func(context.Context) error
	applied func()

	have    wire.Position
	content C
	pending *candidate[C] // was refused and is to be tried again
	scratch *C            // what a broken Sync left: content under way to a newer one
	unsaved bool          // content is not on the disk
	// overtaken: Sync brought a newer version than the message that led to it, so that older ones are still to come.
	overtaken bool

	mu       sync.Mutex // guards status and received
	status   ViewStatus
	received map[string]uint64 // bytes by part
	refusals map[string]uint64 // by code
}

// candidate is a version that can be applied.
type candidate[C snapshot.Content] struct {
	checkpoint snapshot.Checkpoint
	content    C
}

func newFollower[C snapshot.Content](s *shared, k kind[C]) *follower[C] {
	return &follower[C]{
		shared: s, kind: k, content: k.empty(),
		before:   func(context.Context) error { return nil },
		applied:  func() {},
		received: make(map[string]uint64),
		refusals: make(map[string]uint64),
	}
}

type (
	openFollow   func(context.Context, ...grpc.CallOption) (followStream, error)
	followStream = grpc.BidiStreamingClient[linkv1.FollowUp, linkv1.FollowDown]
)

// run follows until ctx ends.
func (f *follower[C]) run(ctx context.Context, open openFollow, bulk linkv1.BulkClient) error {
	pause := backoff{lowest: f.opts.RetryMin, highest: f.opts.RetryMax}
	for {
		welcomed, err := f.session(ctx, open, bulk)
		f.update(func(st *ViewStatus) {
			if st.Link && st.Refusal == nil && st.Have {
				st.Confirmed = f.opts.Now() // no news came until the link went
			}
			st.Link = false
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if welcomed {
			pause.reset()
		}
		d := pause.next()
		f.log.InfoContext(ctx, "the feed is interrupted", "content", f.kind.name(), "err", err, "retry_in", d)
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}

// session is one call. It reports whether the control node answered.
func (f *follower[C]) session(ctx context.Context, open openFollow, bulk linkv1.BulkClient) (welcomed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer cancel()
	f.overtaken = false
	stream, err := open(ctx, grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes))
	if err != nil {
		return false, err
	}
	hello := &linkv1.Hello{
		Protocols: f.hello.Protocols, Version: f.hello.Version, Reader: f.hello.Reader, Abilities: f.hello.Abilities,
		Role: f.hello.Role, Incarnation: f.hello.Incarnation, Have: f.have.Proto(),
	}
	if err := send(stream, &linkv1.FollowUp{Message: &linkv1.FollowUp_Hello{Hello: hello}}); err != nil {
		return false, err
	}

	messages := make(chan *linkv1.FollowDown)
	broken := make(chan error, 1)
	receiver.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				broken <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				broken <- ctx.Err()
				return
			}
		}
	})
	timeout := time.NewTimer(f.opts.WelcomeTimeout)
	defer timeout.Stop()
	select {
	case m := <-messages:
		w := m.GetWelcome()
		if w == nil || w.Protocol != wire.Protocol {
			return false, fmt.Errorf("the control node answers %T in version %d of the protocol", m.Message, w.GetProtocol())
		}
		f.learn(ctx, w.Trust)
		f.update(func(st *ViewStatus) { st.Link = true })
		return true, f.follow(ctx, stream, bulk, messages, broken, w)
	case err := <-broken:
		return false, err
	case <-timeout.C:
		return false, fmt.Errorf("no answer within %v", f.opts.WelcomeTimeout)
	}
}

// follow handles what comes, one after the other: while something is under way the flow control of the stream holds
// back the rest.
func (f *follower[C]) follow(ctx context.Context, stream followStream, bulk linkv1.BulkClient, messages <-chan *linkv1.FollowDown, broken <-chan error, w *linkv1.Welcome) error {
	interval := max(time.Second, min(time.Duration(w.StateSeconds)*time.Second, time.Hour))
	tick := time.NewTimer(jitter(interval))
	defer tick.Stop()
	for {
		select {
		case m := <-messages:
			h := m.GetHead()
			if h == nil {
				continue // of a newer control node
			}
			if err := f.head(ctx, stream, bulk, h); err != nil {
				return err
			}
		case <-tick.C:
			tick.Reset(jitter(interval))
			if err := f.again(ctx, stream); err != nil {
				return err
			}
			st := f.snapshotStatus()
			if err := send(stream, &linkv1.FollowUp{Message: &linkv1.FollowUp_State{State: &linkv1.State{
				Have: f.have.Proto(), Frozen: st.Frozen, Degraded: st.Degraded,
			}}}); err != nil {
				return err
			}
		case err := <-broken:
			return err
		}
	}
}

// head handles a new checkpoint. An error ends the session.
func (f *follower[C]) head(ctx context.Context, stream followStream, bulk linkv1.BulkClient, h *linkv1.Head) error {
	f.count("head", len(h.Checkpoint)+len(h.Trust))
	f.count("inline", len(h.Changes))
	f.learn(ctx, h.Trust)
	c, err := wire.ParseCheckpoint(h.Checkpoint)
	if err != nil {
		return err
	}
	if f.overtaken && !f.have.IsZero() && c.Compare(f.current()) < 0 {
		return nil // it was on the way when Sync brought a newer one
	}
	f.overtaken = false
	news, refusal := f.judge(c)
	if refusal == nil && news {
		if c, refusal, err = f.advance(ctx, bulk, c, h); err != nil {
			return err
		}
	}
	return f.answer(stream, c, refusal)
}

// advance gets and takes a version that was judged to be news, or a newer one: it returns which. The error is that
// of a message that makes no sense or of ctx.
func (f *follower[C]) advance(ctx context.Context, bulk linkv1.BulkClient, c snapshot.Checkpoint, h *linkv1.Head) (snapshot.Checkpoint, *snapshot.Refusal, error) {
	next, err := f.obtain(ctx, bulk, c, h)
	if r, ok := errors.AsType[*snapshot.Refusal](err); ok {
		return c, r, nil
	}
	if err != nil {
		return c, nil, err
	}
	f.overtaken = next.checkpoint.Compare(c) > 0
	refusal, err := f.take(ctx, next)
	return next.checkpoint, refusal, err
}

// answer acknowledges or refuses, and notes which.
func (f *follower[C]) answer(stream followStream, c snapshot.Checkpoint, refusal *snapshot.Refusal) error {
	f.note(c, refusal)
	if refusal != nil {
		return send(stream, &linkv1.FollowUp{Message: &linkv1.FollowUp_Refused{Refused: wire.RefusedProto(c, f.have, refusal)}})
	}
	f.update(func(st *ViewStatus) { st.Confirmed = f.opts.Now() })
	return send(stream, &linkv1.FollowUp{Message: &linkv1.FollowUp_Applied{Applied: &linkv1.Applied{
		Position: f.have.Proto(), Generation: f.snapshotStatus().Generation,
	}}})
}

// note keeps a refusal for Status and counts it, or clears the last one.
func (f *follower[C]) note(c snapshot.Checkpoint, refusal *snapshot.Refusal) {
	f.mu.Lock()
	was := f.status.Refusal
	f.status.Refusal = refusal
	if refusal != nil {
		f.refusals[refusal.Code]++
	}
	f.mu.Unlock()
	if refusal != nil && (was == nil || *was != *refusal) {
		f.log.Error("a version is refused, the one before stays in force", "content", f.kind.name(), "epoch", c.Epoch, "seq", c.Seq, "err", refusal)
	}
}

// again tries what was refused for a reason that may be gone by now, and writes to the disk what could not be written.
func (f *follower[C]) again(ctx context.Context, stream followStream) error {
	if p := f.pending; p != nil {
		if news, refusal := f.judge(p.checkpoint); news && refusal == nil {
			refusal, err := f.take(ctx, p)
			if err != nil {
				return err
			}
			return f.answer(stream, p.checkpoint, refusal)
		}
		f.pending = nil
	}
	if f.unsaved {
		f.persist(f.current(), f.content)
	}
	return nil
}

func (f *follower[C]) learn(ctx context.Context, trust []byte) {
	if len(trust) == 0 {
		return
	}
	if err := f.opts.Learn(trust); err != nil {
		f.log.ErrorContext(ctx, "the control node's trust document is refused", "err", err)
	}
}

func (f *follower[C]) update(change func(*ViewStatus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}

func (f *follower[C]) snapshotStatus() ViewStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *follower[C]) count(part string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.received[part] += uint64(n)
}

// send sends a message. An error of Send only says that the stream is over; why, Recv knows.
func send(stream followStream, m *linkv1.FollowUp) error {
	err := stream.Send(m)
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Unavailable, "the control node has ended the stream")
	}
	return err
}

// backoff is a growing pause of which a random part is taken, so that many gateways do not come at once.
type backoff struct {
	lowest, highest time.Duration
	current         time.Duration
}

func (b *backoff) reset() { b.current = 0 }

func (b *backoff) next() time.Duration {
	b.current = min(max(2*b.current, b.lowest), b.highest)
	return b.current/4 + mrand.N(b.current*3/4+1)
}

// jitter returns d give or take a fifth.
func jitter(d time.Duration) time.Duration { return d*4/5 + mrand.N(d*2/5+1) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
