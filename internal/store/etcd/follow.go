package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
)

const (
	// followPause is how long following waits after an error of etcd.
	followPause = 200 * time.Millisecond
	// recentCount and recentBytes limit the change sets that are kept in memory for watchers, each with the state that
	// it led to.
	recentCount = 256
	recentBytes = 32 << 20
)

// follow shows every change set that becomes visible after the revision rev of etcd, until the context ends.
func (s *Store) follow(ctx context.Context, rev int64) {
	defer close(s.done)
	for {
		rev = s.watchHead(ctx, rev)
		// What a broken watch missed is found from the head itself.
		select {
		case <-time.After(followPause):
		case <-s.failed:
			return
		case <-ctx.Done():
			return
		}
		kv, err := s.getOne(ctx, keyHead)
		switch {
		case err != nil:
			s.log.WarnContext(ctx, "read of the head failed", "err", err)
		case kv == nil:
			s.fail(corrupt("the head is gone"))
		case s.catchUp(ctx, kv.Value):
			rev = kv.ModRevision
		}
	}
}

// watchHead shows the change sets after the revision rev until the watch breaks, and returns the revision of the last
// one.
func (s *Store) watchHead(ctx context.Context, rev int64) int64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch
	for resp := range s.client.Watch(clientv3.WithRequireLeader(ctx), keyHead, clientv3.WithRev(rev+1)) {
		if err := resp.Err(); err != nil {
			if ctx.Err() == nil {
				s.log.WarnContext(ctx, "watch of the head broke", "err", err)
			}
			return rev
		}
		if len(resp.Events) == 0 {
			continue
		}
		kv := resp.Events[len(resp.Events)-1].Kv
		if !s.catchUp(ctx, kv.Value) {
			return rev
		}
		rev = kv.ModRevision
	}
	return rev
}

// catchUp shows all change sets up to the head whose value is given. It tries until that is done, or the context
// ends, or what it reads is wrong; then it makes the record fail and returns false.
func (s *Store) catchUp(ctx context.Context, value []byte) bool {
	var head headRecord
	if err := decode(keyHead, value, &head); err != nil {
		s.fail(err)
		return false
	}
	for {
		err := s.advance(ctx, head)
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil || errors.Is(err, store.ErrClosed):
			return false
		case errors.Is(err, ErrCorrupt):
			s.fail(err)
			return false
		}
		s.log.WarnContext(ctx, "change sets could not be read", "err", err)
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return false
		}
	}
}

// advance brings the state to the head.
func (s *Store) advance(ctx context.Context, head headRecord) error {
	at := s.state.Load().head()
	if head == at {
		return nil
	}
	if !at.Before(head.Version) || head.Seq <= at.Seq {
		return corrupt("the head went from %d.%d to %d.%d", at.Epoch, at.Seq, head.Epoch, head.Seq)
	}
	for c, err := range s.changes(ctx, at, head.Seq) {
		if err == nil {
			err = s.show(ctx, c)
		}
		if errors.Is(err, store.ErrCompacted) {
			return corrupt("what follows %d.%d is gone: %w", at.Epoch, at.Seq, err)
		}
		if err != nil {
			return err
		}
	}
	if s.state.Load().head() != head {
		return corrupt("the head %d.%d is not the hash of the last change set", head.Epoch, head.Seq)
	}
	return nil
}

// show makes the state that of the change set c, which follows it.
func (s *Store) show(ctx context.Context, c change) error {
	begin := time.Now()
	v, cs, err := s.apply(ctx, s.state.Load(), c)
	if err != nil {
		return err
	}
	s.metrics.applySeconds.Observe(time.Since(begin).Seconds())
	s.publish(v, cs, c.Bytes)
	if s.imageDue() {
		s.wantMaintenance()
	}
	return nil
}

// publish makes v the state of the record, and cs, which led to it, known to watchers.
func (s *Store) publish(v *view, cs store.ChangeSet, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.weights); n > 0 {
		// From now on what v replaced is only there for those who still look at the state before it.
		superseded := s.state.Load().Superseded(v.State)
		s.weights[n-1] += superseded
		s.weight += superseded
	}
	s.state.Store(v)
	s.recent, s.weights = append(s.recent, cs), append(s.weights, size)
	s.weight += size
	for len(s.recent) > 1 && (len(s.recent) > recentCount || s.weight > recentBytes) {
		s.weight -= s.weights[0]
		s.recent[0] = store.ChangeSet{}
		s.recent, s.weights = s.recent[1:], s.weights[1:]
	}
	s.sinceImage.changes++
	s.sinceImage.bytes += size
	close(s.changed)
	s.changed = make(chan struct{})
}
