package linktest

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// subscribers are the streams that Push reaches.
type subscribers struct {
	mu      sync.Mutex // guards the fields below
	all     map[chan []byte]struct{}
	changed chan struct{} // closed at the next change
}

func (s *subscribers) add() (messages chan []byte, leave func()) {
	messages = make(chan []byte, 64) // as many as a test pushes at once
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[chan []byte]struct{})
	}
	s.all[messages] = struct{}{}
	s.signalLocked()
	return messages, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, messages)
		s.signalLocked()
	}
}

func (s *subscribers) signalLocked() {
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = make(chan struct{})
}

// Push sends a message to all that have subscribed.
func (s *Service) Push(b []byte) {
	s.subscribers.mu.Lock()
	defer s.subscribers.mu.Unlock()
	for messages := range s.subscribers.all {
		messages <- b
	}
}

// WaitSubscribers waits until at least so many have subscribed, or the context ends.
func (s *Service) WaitSubscribers(ctx context.Context, n int) {
	for {
		s.subscribers.mu.Lock()
		if s.subscribers.changed == nil {
			s.subscribers.signalLocked()
		}
		have, changed := len(s.subscribers.all), s.subscribers.changed
		s.subscribers.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (s *Service) subscribe(stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
		return err
	}
	messages, leave := s.subscribers.add()
	defer leave()
	for {
		select {
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case b := <-messages:
			if err := stream.SendMsg(wrapperspb.Bytes(b)); err != nil {
				return err
			}
		}
	}
}

func download(stream grpc.ServerStream) error {
	size := new(durationpb.Duration)
	if err := stream.RecvMsg(size); err != nil {
		return err
	}
	for left := int(size.AsDuration()); left > 0; {
		n := min(left, 256<<10)
		if err := stream.SendMsg(wrapperspb.Bytes(make([]byte, n))); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
