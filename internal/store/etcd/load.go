package etcd

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/content"
)

// load reads the record up to its head, which it makes if there is none, and returns the revision of etcd at which
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

// loadMeta reads the identity of the record, or makes it and the first head.
func (s *Store) loadMeta(ctx context.Context) (metaRecord, error) {
	kv, err := s.getOne(ctx, keyMeta)
	if err != nil {
		return metaRecord{}, err
	}
	if kv == nil {
		if err := s.create(ctx); err != nil {
			return metaRecord{}, err
		}
		if kv, err = s.getOne(ctx, keyMeta); err != nil {
			return metaRecord{}, err
		}
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

// create makes a new record, unless another member has just done so.
func (s *Store) create(ctx context.Context) error {
	id := make([]byte, 16)
	rand.Read(id) // never fails
	meta, err := encode(metaRecord{Format: formatVersion, Cluster: hex.EncodeToString(id), CreatedAt: s.opts.Now().UTC()})
	if err != nil {
		return err
	}
	head, err := encode(originOf(meta))
	if err != nil {
		return err
	}
	_, err = s.txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(keyMeta), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(keyMeta, string(meta)), clientv3.OpPut(keyHead, string(head))}, nil)
	return err
}
