package serve

import (
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

type syncStream = grpc.BidiStreamingServer[linkv1.SyncUp, linkv1.SyncDown]

// Sync implements the service Bulk.
func (s *Server) Sync(stream syncStream) error {
	if !s.enter() {
		return errClosing
	}
	defer s.workers.Done()
	peer, err := s.opts.Peer(stream.Context())
	if err != nil {
		return err
	}
	y := &syncCall{server: s, stream: stream, peer: peer, idle: time.NewTimer(s.opts.IdleTimeout)}
	defer y.idle.Stop()
	done := make(chan error, 1)
	s.workers.Go(func() {
		done <- y.run()
	})
	// When this function returns, gRPC ends the stream, and with it whatever y waits for.
	select {
	case err := <-done:
		if errors.Is(err, io.EOF) {
			return nil // the gateway has what it wants
		}
		return err
	case <-y.idle.C:
		return status.Error(codes.DeadlineExceeded, "the gateway neither sends nor takes anything")
	case <-s.closed:
		return errClosing
	}
}

// syncCall is one gateway fetching one version of a view.
type syncCall struct {
	server *Server
	stream syncStream
	peer   Peer
	kind   viewKind
	idle   *time.Timer
	raw    []byte // changes that are collected for the next part
}

func (y *syncCall) run() error {
	up, err := y.recv()
	if err != nil {
		return err
	}
	start := up.GetStart()
	have, err := wire.ParsePosition(start.GetHave())
	if start == nil || err != nil {
		return status.Error(codes.InvalidArgument, "the first message must be a Start with a sound position")
	}
	switch start.View {
	case linkv1.View_VIEW_CONFIGURATION:
		y.kind = configView
	case linkv1.View_VIEW_CREDENTIALS:
		y.kind = credentialView
	default:
		return status.Errorf(codes.InvalidArgument, "unknown view %d", start.View)
	}
	h, keys, ok := y.server.view(y.kind.of(y.peer)).since(have)
	switch {
	case h == nil:
		return status.Error(codes.Unavailable, "the view is not published yet")
	case have == h.position:
		return y.plan(h, linkv1.Plan_KIND_CURRENT)
	case ok && len(keys) < h.content.Len():
		return y.sendChanges(h, keys)
	}
	return y.compare(h, start.Buckets)
}

func (y *syncCall) plan(h *head, kind linkv1.Plan_Kind) error {
	y.server.metrics.synced(y.kind, kind)
	return y.down(&linkv1.SyncDown{Message: &linkv1.SyncDown_Plan{Plan: &linkv1.Plan{Kind: kind, Checkpoint: h.encoded}}})
}

func (y *syncCall) sendChanges(h *head, keys []string) error {
	if err := y.plan(h, linkv1.Plan_KIND_CHANGES); err != nil {
		return err
	}
	for _, key := range keys {
		y.raw = h.content.appendChange(y.raw, key)
		if err := y.flush(wire.PartBytes); err != nil {
			return err
		}
	}
	return y.last()
}

// compare sends what is in the buckets that differ, and then what the gateway picks of the listing.
func (y *syncCall) compare(h *head, buckets *linkv1.Buckets) error {
	if err := y.plan(h, linkv1.Plan_KIND_COMPARE); err != nil {
		return err
	}
	if buckets == nil {
		up, err := y.recv()
		if err != nil {
			return err
		}
		if buckets = up.GetBuckets(); buckets == nil {
			return status.Error(codes.InvalidArgument, "the digests of the buckets were expected")
		}
	}
	theirs, err := wire.ParseDigests(buckets.Digests)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	var listing []byte
	for i := range snapshot.Buckets {
		if theirs.Equal(i, h.content.digest(i)) {
			continue
		}
		y.raw, listing = h.content.appendBucket(y.raw, listing, i, theirs)
		if err := y.flush(wire.PartBytes); err != nil {
			return err
		}
		if len(listing) >= wire.PartBytes {
			if err := y.list(listing); err != nil {
				return err
			}
			listing = listing[:0]
		}
	}
	if len(listing) > 0 {
		if err := y.list(listing); err != nil {
			return err
		}
	}
	if err := y.last(); err != nil {
		return err
	}
	return y.serveFetches(h)
}

func (y *syncCall) list(listing []byte) error {
	packed := y.server.codec.Pack(listing)
	y.server.metrics.sent(y.kind, "listing", len(packed))
	return y.down(&linkv1.SyncDown{Message: &linkv1.SyncDown_Part{Part: &linkv1.Part{Listing: packed}}})
}

func (y *syncCall) serveFetches(h *head) error {
	for {
		up, err := y.recv()
		if err != nil {
			return err
		}
		fetch := up.GetFetch()
		if fetch == nil || len(fetch.Keys) > wire.MaxFetchKeys {
			return status.Errorf(codes.InvalidArgument, "a Fetch of at most %d keys was expected", wire.MaxFetchKeys)
		}
		for _, key := range fetch.Keys {
			if len(key) > snapshot.MaxKeyBytes {
				return status.Error(codes.InvalidArgument, "the key is too long")
			}
			y.raw = h.content.appendChange(y.raw, key)
			if err := y.flush(wire.PartBytes); err != nil {
				return err
			}
		}
		if fetch.Last {
			return y.last()
		}
	}
}

// flush sends the collected changes if they are at least that many bytes.
func (y *syncCall) flush(atLeast int) error {
	if len(y.raw) < max(1, atLeast) {
		return nil
	}
	return y.part(false)
}

// last sends what is left and ends the series.
func (y *syncCall) last() error { return y.part(true) }

func (y *syncCall) part(last bool) error {
	packed := y.server.codec.Pack(y.raw)
	if cap(y.raw) > 4*wire.PartBytes {
		y.raw = nil // it was grown by one large entry
	}
	y.raw = y.raw[:0]
	y.server.metrics.sent(y.kind, "bulk", len(packed))
	return y.down(&linkv1.SyncDown{Message: &linkv1.SyncDown_Part{Part: &linkv1.Part{Changes: packed, Last: last}}})
}

func (y *syncCall) down(m *linkv1.SyncDown) error {
	err := y.stream.Send(m)
	y.idle.Reset(y.server.opts.IdleTimeout)
	return err
}

func (y *syncCall) recv() (*linkv1.SyncUp, error) {
	m, err := y.stream.Recv()
	y.idle.Reset(y.server.opts.IdleTimeout)
	return m, err
}
