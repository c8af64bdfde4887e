package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"

	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/content"
)

// recordsPerRead is how many records of change sets are read at once.
const recordsPerRead = 64

// view is the content at one version and the hash of the record that led to it.
type view struct {
	*content.State
	hash digest
}

// head returns the head that v is the content of.
func (v *view) head() headRecord { return headRecord{Version: v.Version(), Hash: v.hash} }

// change is the record of a change set and its hash.
type change struct {
	changeRecord
	hash digest
}

// changes yields the records of the change sets after one head up to the one with seq last, and checks that they are
// chained. It ends with ErrCompacted if the log does not reach back to after.
func (s *Store) changes(ctx context.Context, after headRecord, last uint64) iter.Seq2[change, error] {
	return func(yield func(change, error) bool) {
		for after.Seq < last {
			end := min(last, after.Seq+recordsPerRead)
			resp, err := s.get(ctx, changeKey(after.Seq+1), clientv3.WithRange(changeKey(end+1)))
			if err == nil && len(resp.Kvs) == 0 {
				err = fmt.Errorf("change set %d: %w", after.Seq+1, store.ErrCompacted)
			}
			if err != nil {
				yield(change{}, err)
				return
			}
			for _, kv := range resp.Kvs {
				c, err := parseChange(string(kv.Key), kv.Value, after)
				if !yield(c, err) || err != nil {
					return
				}
				after = headRecord{Version: c.Version, Hash: c.hash}
			}
		}
	}
}

// parseChange reads the record of the change set that follows a head.
func parseChange(key string, value []byte, after headRecord) (change, error) {
	c := change{hash: digestOf(value)}
	seq, err := parseChangeKey(key)
	if err != nil {
		return change{}, corrupt("%w", err)
	}
	if err := decode(key, value, &c.changeRecord); err != nil {
		return change{}, err
	}
	switch {
	case c.Seq != seq:
		return change{}, corrupt("%s holds change set %d", key, c.Seq)
	case c.Seq != after.Seq+1:
		return change{}, fmt.Errorf("change set %d: %w", after.Seq+1, store.ErrCompacted)
	case c.Epoch < after.Epoch:
		return change{}, corrupt("change set %d.%d follows %d.%d", c.Epoch, c.Seq, after.Epoch, after.Seq)
	case c.Previous != after.Hash:
		return change{}, corrupt("the chain is broken between the change sets %d and %d", after.Seq, c.Seq)
	}
	return c, nil
}

// apply reads the changes of c and derives the content after it from that before it.
func (s *Store) apply(ctx context.Context, base *view, c change) (*view, store.ChangeSet, error) {
	b := base.Derive(c.Version)
	cs, err := s.read(ctx, c, b.Apply)
	if err != nil {
		return nil, store.ChangeSet{}, err
	}
	next := &view{State: b.State(), hash: c.hash}
	cs.State = next
	return next, cs, nil
}

// read returns the change set that c is the record of, without a State. Every change goes through decode, which
// returns it if it is one of a resource.
func (s *Store) read(ctx context.Context, c change, decode func(content.Op) (store.Change, error)) (store.ChangeSet, error) {
	cs := store.ChangeSet{Version: c.Version, Info: c.Info, NumCredentials: c.Credentials}
	index := make(map[v1.Key]int)
	for op, err := range s.changeOps(ctx, c) {
		if err != nil {
			return store.ChangeSet{}, err
		}
		changed, err := decode(op)
		if err != nil {
			return store.ChangeSet{}, corrupt("change set %d: %w", c.Seq, err)
		}
		if op.IsCredential() {
			continue
		}
		if i, ok := index[changed.Key]; ok {
			cs.Changes[i] = changed
			continue
		}
		index[changed.Key] = len(cs.Changes)
		cs.Changes = append(cs.Changes, changed)
	}
	cs.Credentials = func(ctx context.Context) iter.Seq2[store.CredentialChange, error] {
		return s.credentialChanges(ctx, c)
	}
	return cs, nil
}

// decodeChange decodes changes of resources and passes over those of credentials.
func decodeChange(op content.Op) (store.Change, error) {
	if op.IsCredential() {
		return store.Change{}, nil
	}
	return op.Change()
}

// credentialChanges reads the changes of credentials in c.
func (s *Store) credentialChanges(ctx context.Context, c change) iter.Seq2[store.CredentialChange, error] {
	return func(yield func(store.CredentialChange, error) bool) {
		if c.Credentials == 0 {
			return
		}
		for op, err := range s.changeOps(ctx, c) {
			var changed store.CredentialChange
			if err == nil {
				if !op.IsCredential() {
					continue
				}
				if changed, err = op.CredentialChange(); err != nil {
					err = corrupt("change set %d: %w", c.Seq, err)
				}
			}
			if !yield(changed, err) || err != nil {
				return
			}
		}
	}
}

// changeOps yields the changes of c. It ends after the first error: ErrCompacted if they are no longer there.
func (s *Store) changeOps(ctx context.Context, c change) iter.Seq2[content.Op, error] {
	return func(yield func(content.Op, error) bool) {
		for op, err := range s.ops(ctx, c.Pieces) {
			var missing errMissing
			switch {
			case errors.As(err, &missing):
				err = fmt.Errorf("change set %d: %w: %w", c.Seq, store.ErrCompacted, err)
			case err != nil:
				err = fmt.Errorf("change set %d: %w", c.Seq, err)
			}
			if !yield(op, err) || err != nil {
				return
			}
		}
	}
}

// ops yields the changes that pieces hold. It ends after the first error: errMissing, ErrCorrupt, or one of etcd.
func (s *Store) ops(ctx context.Context, pieces []digest) iter.Seq2[content.Op, error] {
	return func(yield func(content.Op, error) bool) {
		r := s.newPieceReader(ctx, pieces)
		for op, err := range content.Ops(r) {
			switch {
			case err == nil:
			case r.err != nil:
				err = r.err
			default:
				err = corrupt("%w", err)
			}
			if !yield(op, err) || err != nil {
				return
			}
		}
	}
}
