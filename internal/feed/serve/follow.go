package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "hansa.dev/hansa/api/link/v1"
	"hansa.dev/hansa/internal/feed/wire"
	"hansa.dev/hansa/internal/snapshot"
)

// Why the server ends a call of its own accord.
var (
	errSuperseded = status.Error(codes.Aborted, "the gateway has called again")
	errRevoked    = status.Error(codes.PermissionDenied, "the gateway's identity is revoked")
	errClosing    = status.Error(codes.Unavailable, "the control node is shutting down")
)

// call is one gateway following one view.
type call struct {
	peer   Peer
	kind   viewKind
	cancel context.CancelCauseFunc
	rebase chan rebase // size 1: only the newest counts
}

// rebase says what a gateway has after all, since it did not take a version.
type rebase struct {
	refused version
	have    wire.Position
}

// end makes the call return with err; it does not wait.
func (c *call) end(err error) { c.cancel(err) }

type followStream = grpc.BidiStreamingServer[linkv1.FollowUp, linkv1.FollowDown]

// Follow implements the service Feed.
func (s *Server) Follow(stream followStream) error { return s.follow(stream, configView) }

// FollowCredentials implements the service Events.
func (s *Server) FollowCredentials(stream followStream) error {
	return s.follow(stream, credentialView)
}

func (s *Server) follow(stream followStream, kind viewKind) error {
	if !s.enter() {
		return errClosing
	}
	defer s.workers.Done()
	peer, err := s.opts.Peer(stream.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	c := &call{peer: peer, kind: kind, cancel: cancel, rebase: make(chan rebase, 1)}

	// Receiving ends when this function returns, for then gRPC ends the stream. It cannot be waited for before that,
	// so Close does.
	hello := make(chan *linkv1.Hello)
	s.workers.Go(func() {
		cancel(s.receive(ctx, stream, c, hello))
	})

	timeout := time.NewTimer(s.opts.IdleTimeout)
	defer timeout.Stop()
	select {
	case h := <-hello:
		return s.send(ctx, stream, c, h)
	case <-timeout.C:
		return status.Error(codes.DeadlineExceeded, "no Hello came")
	case <-ctx.Done():
		return ended(ctx)
	case <-s.closed:
		return errClosing
	}
}

// ended returns why a call is over; a gateway that closes its side or is gone is no error.
func ended(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// send greets the gateway and then sends the newest version whenever there is one and the link takes it.
func (s *Server) send(ctx context.Context, stream followStream, c *call, hello *linkv1.Hello) error {
	if !slices.Contains(hello.Protocols, wire.Protocol) {
		return status.Errorf(codes.FailedPrecondition, "this control node speaks version %d of the feed, the gateway %v", wire.Protocol, hello.Protocols)
	}
	base, err := wire.ParsePosition(hello.Have)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s.attach(c, hello, base)
	defer s.detach(c)
	s.metrics.followers.WithLabelValues(c.kind.String()).Inc()
	defer s.metrics.followers.WithLabelValues(c.kind.String()).Dec()

	given := s.currentTrust()
	if err := s.write(ctx, stream, &linkv1.FollowDown{Message: &linkv1.FollowDown_Welcome{Welcome: &linkv1.Welcome{
		Protocol: wire.Protocol, Trust: given.encoded, StateSeconds: uint32(s.opts.StateInterval / time.Second),
	}}}); err != nil {
		return err
	}
	v := s.view(c.kind.of(c.peer))
	var sent *head
	for {
		h, next, dropped := v.current()
		if dropped {
			return status.Errorf(codes.NotFound, "the view %q is gone", v.name)
		}
		trust := s.currentTrust()
		news := !bytes.Equal(trust.encoded, given.encoded)
		if h != nil && (h != sent || news) {
			m := &linkv1.Head{Checkpoint: h.encoded}
			if news {
				m.Trust = trust.encoded
			}
			if changes, ok := v.inline(h, base, s.codec); ok {
				m.Changes, m.From = changes, base.Proto()
			}
			if err := s.write(ctx, stream, &linkv1.FollowDown{Message: &linkv1.FollowDown_Head{Head: m}}); err != nil {
				return err
			}
			s.metrics.sent(c.kind, "head", len(m.Checkpoint)+len(m.Trust))
			s.metrics.sent(c.kind, "inline", len(m.Changes))
			// The next changes start from here: the gateway has taken this, or is on the way to it, by the time they come.
			sent, base, given = h, h.position, trust
			continue
		}
		select {
		case <-next:
		case <-trust.next:
		case r := <-c.rebase:
			if sent != nil && r.refused == (version{sent.position.Epoch, sent.position.Seq}) {
				base = r.have
			}
		case <-ctx.Done():
			return ended(ctx)
		case <-s.closed:
			return errClosing
		}
	}
}

// write sends one message. The stream gives up when the link is gone or ctx of the call ends.
func (s *Server) write(ctx context.Context, stream followStream, m *linkv1.FollowDown) error {
	done := make(chan error, 1)
	// A gateway that takes nothing blocks Send until its call is over. That must be seen here as well, or an older
	// call of the same gateway would stay for ever.
	s.workers.Go(func() {
		done <- stream.Send(m)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ended(ctx)
	case <-s.closed:
		return errClosing
	}
}

// receive notes what the gateway says until the stream ends.
func (s *Server) receive(ctx context.Context, stream followStream, c *call, hello chan<- *linkv1.Hello) error {
	for greeted := false; ; {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		switch m := m.Message.(type) {
		case *linkv1.FollowUp_Hello:
			if greeted {
				return status.Error(codes.InvalidArgument, "a second Hello")
			}
			greeted = true
			select {
			case hello <- m.Hello:
			case <-ctx.Done():
				return ctx.Err()
			}
		case *linkv1.FollowUp_Applied:
			err = s.applied(c, m.Applied)
		case *linkv1.FollowUp_Refused:
			err = s.refused(c, m.Refused)
		case *linkv1.FollowUp_State:
			err = s.reported(c, m.State)
		default: // of a newer gateway
		}
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
}

func (s *Server) applied(c *call, m *linkv1.Applied) error {
	p, err := wire.ParsePosition(m.Position)
	if err != nil {
		return err
	}
	s.record(c, func(f *followed) { f.position, f.refused, f.frozen = p, nil, false })
	return nil
}

func (s *Server) refused(c *call, m *linkv1.Refused) error {
	have, err := wire.ParsePosition(m.Have)
	if err != nil {
		return err
	}
	r := &Refused{Refusal: *wire.ParseRefused(m), Epoch: m.Epoch, Seq: m.Seq, At: s.opts.Now()}
	s.metrics.refused(c.kind, r.Code)
	s.log.Warn("gateway refuses a version", "organization", c.peer.Organization, "gateway", c.peer.Name, "view", c.kind.String(),
		"epoch", r.Epoch, "seq", r.Seq, "code", r.Code, "entry", r.Entry, "field", r.Field, "detail", r.Detail, "retryable", r.Retryable)
	s.record(c, func(f *followed) { f.position, f.refused, f.frozen = have, r, r.Code == snapshot.RefusedForked })
	select { // an older one that was not looked at yet is worth nothing
	case <-c.rebase:
	default:
	}
	c.rebase <- rebase{version{m.Epoch, m.Seq}, have}
	return nil
}

func (s *Server) reported(c *call, m *linkv1.State) error {
	have, err := wire.ParsePosition(m.Have)
	if err != nil {
		return err
	}
	s.record(c, func(f *followed) {
		f.position, f.frozen, f.degraded = have, m.Frozen, label(m.Degraded, snapshot.MaxKeyBytes)
	})
	return nil
}
