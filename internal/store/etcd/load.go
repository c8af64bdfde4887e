package etcd

import (
	"context"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/content"
)

// load reads the record up to its head, and returns the revision of etcd at which
// the head was read. Every piece, every record and the chain through them are checked.
func (s *Store) load(ctx context.Context) (rev int64, err error) {
	meta, err := s.loadMeta(ctx)
	if err != nil {
		return 0, err
	}
	resp, err := s.get(ctx, keyHead)
	if err != nil {
		return 0, err
	}
	if len(resp.Kvs) == 0 {
		return 0, corrupt("there is no head")
	}
	var head headRecord
	if err := decode(keyHead, resp.Kvs[0].Value, &head); err != nil {
		return 0, err
	}
	s.cluster = meta.Cluster
	v, err := s.loadImage(ctx)
	if err != nil {
		return 0, err
	}
	if v == nil {
		v = &view{State: content.New(s.origin.Version), hash: s.origin.Hash}
	}
	s.state.Store(v)
	if err := s.advance(ctx, head); err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// loadMeta reads the identity of the record.
func (s *Store) loadMeta(ctx context.Context) (metaRecord, error) {
	kv, err := s.getOne(ctx, keyMeta)
	if err != nil {
		return metaRecord{}, err
	}
	if kv == nil {
		return metaRecord{}, corrupt("it has no identity")
	}
	var meta metaRecord
	if err := decode(keyMeta, kv.Value, &meta); err != nil {
		return metaRecord{}, err
	}
	if err := meta.check(); err != nil {
		return metaRecord{}, err
	}
	s.origin = originOf(kv.Value)
	return meta, nil
}

// originOf returns the head of an empty record with that meta.
func originOf(meta []byte) headRecord {
	return headRecord{Version: store.Version{Epoch: 1}, Hash: digestOf(meta)}
}
