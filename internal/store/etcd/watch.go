package etcd

import (
	"context"
	"fmt"
	"iter"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
)

// Watch implements store.Store. It keeps no queue: a watcher takes the change sets from the last few that are in
// memory, and if it is behind those, from the record, deriving the states itself.
func (s *Store) Watch(ctx context.Context, from store.State) iter.Seq2[store.ChangeSet, error] {
	return func(yield func(store.ChangeSet, error) bool) {
		at, ok := from.(*view)
		if !ok {
			yield(store.ChangeSet{}, fmt.Errorf("watch from %T: it is not a state of this record", from))
			return
		}
		for {
			cs, next, err := s.after(ctx, at)
			if !yield(cs, err) || err != nil {
				return
			}
			at = next
		}
	}
}

// after waits for the change set that follows at and returns it with its state.
func (s *Store) after(ctx context.Context, at *view) (store.ChangeSet, *view, error) {
	for {
		s.mu.Lock()
		changed, head := s.changed, s.state.Load()
		if oldest := head.Version().Seq - uint64(len(s.recent)) + 1; at.Version().Before(head.Version()) && at.Version().Seq+1 >= oldest {
			cs := s.recent[at.Version().Seq+1-oldest]
			s.mu.Unlock()
			return cs, cs.State.(*view), nil
		}
		s.mu.Unlock()
		if at.Version().Before(head.Version()) {
			return s.replay(ctx, at)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return store.ChangeSet{}, nil, context.Cause(ctx)
		case <-s.failed:
			return store.ChangeSet{}, nil, s.err
		case <-s.done:
			if err := s.Err(); err != nil {
				return store.ChangeSet{}, nil, err
			}
			return store.ChangeSet{}, nil, store.ErrClosed
		}
	}
}

// replay reads the change set that follows at from the record.
func (s *Store) replay(ctx context.Context, at *view) (store.ChangeSet, *view, error) {
	for c, err := range s.changes(ctx, at.head(), at.Version().Seq+1) {
		if err != nil {
			return store.ChangeSet{}, nil, err
		}
		next, cs, err := s.apply(ctx, at, c)
		return cs, next, err
	}
	return store.ChangeSet{}, nil, store.ErrCompacted
}

// Log implements store.Store.
func (s *Store) Log(ctx context.Context, after, through store.Version) iter.Seq2[store.ChangeSet, error] {
	return func(yield func(store.ChangeSet, error) bool) {
		if !after.Before(through) {
			return
		}
		head, err := s.headOf(ctx, after)
		if err != nil {
			yield(store.ChangeSet{}, err)
			return
		}
		for c, err := range s.changes(ctx, head, through.Seq) {
			var cs store.ChangeSet
			if err == nil {
				cs, err = s.read(ctx, c, decodeChange)
			}
			if !yield(cs, err) || err != nil {
				return
			}
		}
	}
}

// headOf returns what the head was at v. It is an error if the record never was there, because v is of the future or
// of an epoch that was left behind.
func (s *Store) headOf(ctx context.Context, v store.Version) (headRecord, error) {
	if v.Seq == 0 {
		return s.origin, nil
	}
	kv, err := s.getOne(ctx, changeKey(v.Seq))
	if err != nil {
		return headRecord{}, err
	}
	if kv == nil {
		return headRecord{}, fmt.Errorf("change set %d.%d: %w", v.Epoch, v.Seq, store.ErrCompacted)
	}
	var c changeRecord
	if err := decode(string(kv.Key), kv.Value, &c); err != nil {
		return headRecord{}, err
	}
	if c.Version != v {
		return headRecord{}, fmt.Errorf("the record was never at %d.%d, it has %d.%d: %w", v.Epoch, v.Seq, c.Epoch, c.Seq, store.ErrCompacted)
	}
	return headRecord{Version: v, Hash: digestOf(kv.Value)}, nil
}

// Audit implements store.Store.
func (s *Store) Audit(ctx context.Context, below uint64) iter.Seq2[store.AuditRecord, error] {
	return func(yield func(store.AuditRecord, error) bool) {
		if head := s.state.Load().Version().Seq; below == 0 || below > head+1 {
			below = head + 1
		}
		for below > 1 {
			from := below - min(below-1, recordsPerRead)
			page, err := s.recordsBelow(ctx, from, below)
			if err != nil {
				yield(store.AuditRecord{}, err)
				return
			}
			for _, c := range page {
				if !yield(store.AuditRecord{
					Version: c.Version, Info: c.Info, Changes: c.Changes, Omitted: c.Omitted, Credentials: c.Credentials,
				}, nil) {
					return
				}
			}
			if uint64(len(page)) < below-from {
				return // what is older is gone
			}
			below = from
		}
	}
}

// recordsBelow returns the records from one seq up to, not including, another, newest first.
func (s *Store) recordsBelow(ctx context.Context, from, below uint64) ([]changeRecord, error) {
	resp, err := s.get(ctx, changeKey(from), clientv3.WithRange(changeKey(below)),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return nil, err
	}
	records := make([]changeRecord, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		if err := decode(string(kv.Key), kv.Value, &records[i]); err != nil {
			return nil, err
		}
	}
	return records, nil
}
