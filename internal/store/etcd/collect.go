package etcd

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// How long things are kept: the changes of a change set, for watchers and gateways that come back, and its record,
// which is its audit. What is past one of the limits goes, the oldest first. Changes that no image holds stay.
const (
	keepChanges    = 64 << 10
	keepChangesFor = 7 * 24 * time.Hour
	keepQuotaShare = 4 // changes take at most one part in so many of the quota
	keepRecords    = 256 << 10
	keepRecordsFor = 400 * 24 * time.Hour
)

const (
	keysPerRead   = 1000
	deletesPerTxn = 100 // etcd's limit is 128
)

// storedPiece is a piece in the record with the revision of etcd at which it was last written.
type storedPiece struct {
	digest digest
	rev    int64
}

// collect deletes the changes and records that are past their time, and pieces that nothing names: those of change
// sets that were never committed, of old images, and of forgotten changes.
//
// It must not delete a piece that becomes named meanwhile. So it lists the pieces first, then notes which of them are
// staged by open change sets, then reads what the records name. A piece whose change set was committed before the
// second step is named in the third; one that was staged later has another revision than in the list, and the
// transaction that deletes compares that.
func (s *Store) collect(ctx context.Context) error {
	begin := time.Now()
	pieces, err := s.listPieces(ctx)
	if err != nil {
		return err
	}
	named := s.staged.all()
	s.nameImage(named)
	if err := s.nameChanges(ctx, named); err != nil {
		return err
	}
	unnamed := pieces[:0]
	for _, p := range pieces {
		if _, ok := named[p.digest]; !ok {
			unnamed = append(unnamed, p)
		}
	}
	deleted, err := s.deletePieces(ctx, unnamed)
	s.metrics.piecesCollected.Add(float64(deleted))
	if err != nil {
		return err
	}
	if err := s.deleteRecords(ctx); err != nil {
		return err
	}
	s.log.DebugContext(ctx, "pieces collected", "pieces", deleted, "left", len(named), "took", time.Since(begin))
	return nil
}

// listPieces returns all pieces.
func (s *Store) listPieces(ctx context.Context) ([]storedPiece, error) {
	var pieces []storedPiece
	end := clientv3.GetPrefixRangeEnd(prefixPiece)
	for from := prefixPiece; ; {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(keysPerRead))
		if err != nil {
			return nil, err
		}
		for _, kv := range resp.Kvs {
			d, err := parsePieceKey(string(kv.Key))
			if err != nil {
				return nil, corrupt("%w", err)
			}
			pieces = append(pieces, storedPiece{digest: d, rev: kv.ModRevision})
		}
		if !resp.More {
			return pieces, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// nameImage adds the pieces of the image.
func (s *Store) nameImage(named map[digest]struct{}) {
	for _, d := range s.image.record.List {
		named[d] = struct{}{}
	}
	for _, pieces := range s.image.parts {
		for _, d := range pieces {
			named[d] = struct{}{}
		}
	}
}

// nameChanges adds the pieces of the change sets that are kept, from the last one backwards.
func (s *Store) nameChanges(ctx context.Context, named map[digest]struct{}) error {
	kv, err := s.getOne(ctx, keyHead)
	if err != nil {
		return err
	}
	if kv == nil {
		return corrupt("there is no head")
	}
	var head headRecord
	if err := decode(keyHead, kv.Value, &head); err != nil {
		return err
	}
	kept, bytes := 0, int64(0)
	oldest := s.opts.Now().Add(-keepChangesFor)
	for below := head.Seq + 1; below > 1; {
		from := below - min(below-1, recordsPerRead)
		page, err := s.recordsBelow(ctx, from, below)
		if err != nil {
			return err
		}
		for _, c := range page {
			kept, bytes = kept+1, bytes+c.Bytes
			old := kept > keepChanges || bytes > s.opts.Quota/keepQuotaShare || c.At.Before(oldest)
			if old && c.Seq <= s.image.record.Seq {
				return nil
			}
			for _, d := range c.Pieces {
				named[d] = struct{}{}
			}
		}
		if uint64(len(page)) < below-from {
			return nil // older ones are gone
		}
		below = from
	}
	return nil
}

// deletePieces deletes pieces that have not been written since they were listed, and tells how many.
func (s *Store) deletePieces(ctx context.Context, pieces []storedPiece) (int, error) {
	deleted := 0
	for len(pieces) > 0 {
		batch := pieces[:min(len(pieces), deletesPerTxn)]
		pieces = pieces[len(batch):]
		ok, err := s.deleteUnchanged(ctx, batch)
		if err != nil {
			return deleted, err
		}
		if ok {
			deleted += len(batch)
			continue
		}
		for i := range batch { // one of them is in use again
			if ok, err = s.deleteUnchanged(ctx, batch[i:i+1]); err != nil {
				return deleted, err
			}
			if ok {
				deleted++
			}
		}
	}
	return deleted, nil
}

// deleteUnchanged deletes pieces, all or none, if none of them was written since it was listed.
func (s *Store) deleteUnchanged(ctx context.Context, pieces []storedPiece) (bool, error) {
	var unchanged []clientv3.Cmp
	var deletes []clientv3.Op
	for _, p := range pieces {
		unchanged = append(unchanged, clientv3.Compare(clientv3.ModRevision(pieceKey(p.digest)), "=", p.rev))
		deletes = append(deletes, clientv3.OpDelete(pieceKey(p.digest)))
	}
	resp, err := s.txn(ctx, unchanged, deletes, nil)
	if err != nil {
		return false, fmt.Errorf("delete pieces: %w", err)
	}
	return resp.Succeeded, nil
}

// deleteRecords deletes records that are past their time. Those that start-up needs are far younger, because the
// image is.
func (s *Store) deleteRecords(ctx context.Context) error {
	last := s.image.record.Seq // the oldest that start-up may look at comes after it
	oldest := s.opts.Now().Add(-keepRecordsFor)
	end := uint64(0)
	if head := s.state.Load().Version().Seq; head > keepRecords {
		end = min(last, head-keepRecords)
	}
	for {
		resp, err := s.get(ctx, changeKey(end+1), clientv3.WithRange(changeKey(last)), clientv3.WithLimit(recordsPerRead))
		if err != nil {
			return err
		}
		was := end
		for _, kv := range resp.Kvs {
			var c changeRecord
			if err := decode(string(kv.Key), kv.Value, &c); err != nil {
				return err
			}
			if !c.At.Before(oldest) {
				break
			}
			end = c.Seq
		}
		if end == was || !resp.More {
			break
		}
	}
	if end == 0 {
		return nil
	}
	_, err := s.txn(ctx, nil, []clientv3.Op{clientv3.OpDelete(changeKey(1), clientv3.WithRange(changeKey(end+1)))}, nil)
	return err
}
