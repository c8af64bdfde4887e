package etcd

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
)

// enter lets a caller use etcd until it calls leave; Close waits for that. It returns why the record cannot be used,
// if it cannot.
func (s *Store) enter() (leave func(), err error) {
	select {
	case <-s.failed:
		return nil, s.err
	default:
	}
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return nil, store.ErrClosed
	}
	return s.gate.RUnlock, nil
}

func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	resp, err := s.client.Get(ctx, key, opts...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, s.translate(err))
	}
	return resp, nil
}

// getOne reads the value of a key; it is nil if there is none.
func (s *Store) getOne(ctx context.Context, key string, opts ...clientv3.OpOption) (*mvccpb.KeyValue, error) {
	resp, err := s.get(ctx, key, opts...)
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return resp.Kvs[0], nil
}

// txn makes puts and deletes if the conditions hold, and otherwise reads.
func (s *Store) txn(ctx context.Context, conditions []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	resp, err := s.client.Txn(ctx).If(conditions...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return nil, s.translate(err)
	}
	return resp, nil
}
