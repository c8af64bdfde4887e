package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// obtain gets the content of a checkpoint that was judged to be news: from what is at hand, from the changes in the
// message, or by Sync, which may lead to a still newer one.
func (f *follower[C]) obtain(ctx context.Context, bulk linkv1.BulkClient, c snapshot.Checkpoint, h *linkv1.Head) (*candidate[C], error) {
	if c.Matches(f.content) == nil {
		return &candidate[C]{c, f.content}, nil // only the number is new
	}
	from, err := wire.ParsePosition(h.From)
	if err != nil {
		return nil, err
	}
	compare := f.scratch != nil || f.have.IsZero() // nobody knows what is lacking
	if !from.IsZero() && from == f.have {
		next, err := f.merge(f.content, h.Changes)
		if err == nil {
			err = c.Matches(next)
		}
		if err == nil {
			return &candidate[C]{c, next}, nil
		}
		// The changes do not lead where they should. The entries are compared instead of believing either end.
		f.log.WarnContext(ctx, "pushed changes are discarded", "content", f.kind.name(), "seq", c.Seq, "err", err)
		compare = true
	}
	return f.sync(ctx, bulk, compare)
}

func (f *follower[C]) merge(base C, packed []byte) (C, error) {
	batch, err := f.codec.Unpack(packed)
	if err != nil {
		return base, err
	}
	return f.kind.merge(base, batch)
}

// sync fetches what is lacking until it is complete. It goes on through broken connections with what has arrived.
func (f *follower[C]) sync(ctx context.Context, bulk linkv1.BulkClient, compare bool) (*candidate[C], error) {
	pause := backoff{lowest: f.opts.RetryMin, highest: f.opts.RetryMax}
	for {
		if f.scratch == nil {
			content := f.content
			f.scratch = &content
		}
		before := (*f.scratch).Root()
		c, err := f.syncOnce(ctx, bulk, compare)
		if err == nil {
			if err = c.Matches(*f.scratch); err == nil {
				return &candidate[C]{c, *f.scratch}, nil
			}
			if compare { // everything was compared and still does not fit: begin with what is in force
				f.scratch = nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if r, ok := errors.AsType[*snapshot.Refusal](err); ok {
			f.scratch = nil
			return nil, r
		}
		// After a broken stream only comparing tells what of the changes has arrived.
		compare = true
		if f.scratch != nil && (*f.scratch).Root() != before {
			pause.reset()
		}
		d := pause.next()
		f.log.InfoContext(ctx, "fetching is interrupted", "content", f.kind.name(), "err", err, "retry_in", d)
		if err := sleep(ctx, d); err != nil {
			return nil, err
		}
	}
}

type syncStream = grpc.BidiStreamingClient[linkv1.SyncUp, linkv1.SyncDown]

// syncOnce is one call. It moves scratch towards the checkpoint that it returns.
func (f *follower[C]) syncOnce(ctx context.Context, bulk linkv1.BulkClient, compare bool) (c snapshot.Checkpoint, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	stream, err := bulk.Sync(ctx, grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(wire.MaxMessageBytes))
	if err != nil {
		return c, err
	}
	start := &linkv1.Start{View: f.kind.proto()}
	if compare {
		start.Buckets = f.buckets()
	} else {
		start.Have = f.have.Proto()
	}
	if err := sendUp(stream, &linkv1.SyncUp{Message: &linkv1.SyncUp_Start{Start: start}}); err != nil {
		return c, err
	}
	m, err := stream.Recv()
	if err != nil {
		return c, err
	}
	plan := m.GetPlan()
	if c, err = wire.ParseCheckpoint(plan.GetCheckpoint()); err != nil {
		return c, err
	}
	switch news, refusal := f.judge(c); {
	case refusal != nil:
		return c, refusal
	case !news:
		return c, fmt.Errorf("the control node has version %d.%d for bulk transfer, which is in force already", c.Epoch, c.Seq)
	}
	switch plan.Kind {
	case linkv1.Plan_KIND_CHANGES:
		_, err = f.parts(stream, c)
	case linkv1.Plan_KIND_COMPARE:
		err = f.compareWith(stream, c, start.Buckets != nil, &sender)
	default:
		err = fmt.Errorf("the control node plans %v for a version that is not in force here", plan.Kind)
	}
	return c, err
}

func (f *follower[C]) buckets() *linkv1.Buckets {
	content := *f.scratch
	return &linkv1.Buckets{Digests: wire.DigestsOf(func(i int) snapshot.Hash { return f.kind.digest(content, i) }).Encoded()}
}

// compareWith sends digests, merges what comes back and fetches what it says is missing. It leaves a sender behind that
// ends with the stream.
func (f *follower[C]) compareWith(stream syncStream, c snapshot.Checkpoint, sent bool, sender *sync.WaitGroup) error {
	if !sent {
		if err := sendUp(stream, &linkv1.SyncUp{Message: &linkv1.SyncUp_Buckets{Buckets: f.buckets()}}); err != nil {
			return err
		}
	}
	missing, err := f.parts(stream, c)
	if err != nil || len(missing) == 0 {
		return err
	}
	// Both directions at once: either end may stop taking while its own sending is held up.
	sender.Go(func() {
		for len(missing) > 0 {
			n := min(len(missing), wire.MaxFetchKeys)
			err := stream.Send(&linkv1.SyncUp{Message: &linkv1.SyncUp_Fetch{Fetch: &linkv1.Fetch{Keys: missing[:n], Last: n == len(missing)}}})
			if err != nil {
				return // what broke the stream comes out of Recv
			}
			missing = missing[n:]
		}
	})
	_, err = f.parts(stream, c)
	return err
}

// parts merges one series of parts into scratch and returns the keys that listings show to be missing.
func (f *follower[C]) parts(stream syncStream, c snapshot.Checkpoint) (missing []string, err error) {
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		p := m.GetPart()
		if p == nil {
			return nil, fmt.Errorf("the control node sends %T instead of a part", m.Message)
		}
		f.count("bulk", len(p.Changes))
		f.count("listing", len(p.Listing))
		next, err := f.merge(*f.scratch, p.Changes)
		if err != nil {
			return nil, err
		}
		listing, err := f.codec.Unpack(p.Listing)
		if err != nil {
			return nil, err
		}
		next, keys, err := f.kind.compare(next, listing)
		if err != nil {
			return nil, err
		}
		missing = append(missing, keys...)
		// The checkpoint is signed and says how much there is, so that nobody can fill the memory.
		if next.Bytes() > f.content.Bytes()+c.Bytes || len(missing) > int(c.Count) {
			return nil, fmt.Errorf("more content than the checkpoint's %d bytes and %d pieces", c.Bytes, c.Count)
		}
		f.scratch = &next
		if p.Last {
			return missing, nil
		}
	}
}

func sendUp(stream syncStream, m *linkv1.SyncUp) error {
	err := stream.Send(m)
	if errors.Is(err, io.EOF) { // Recv knows why the stream is over
		_, err = stream.Recv()
	}
	return err
}
