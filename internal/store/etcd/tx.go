package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/internal/snapshot"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/content"
)

const (
	// defaultCommitTimeout is how long Commit tries to learn what became of its transaction.
	defaultCommitTimeout = 30 * time.Second
	// commitPause is how long it waits between two tries.
	commitPause = 50 * time.Millisecond
)

// tx collects one change set.
type tx struct {
	s    *Store
	base *view
	next store.Version

	buf         []byte // changes that are in no piece yet
	bytes       int64  // of changes in pieces
	pieces      []digest
	keys        []v1.Key        // changed resources, in the order of first touch
	exists      map[v1.Key]bool // whether there is one after the changes so far
	credentials int
	committed   bool
	err         error // what ended the change set early: ErrClosed after Commit and Abort
}

var errEnded = errors.New("the change set has been committed or aborted")

// Begin implements store.Store.
func (s *Store) Begin(_ context.Context, base store.Version) (store.Tx, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	st := s.state.Load()
	if at := st.Version(); at != base {
		s.metrics.changeSets.WithLabelValues(outcomeConflict).Inc()
		return nil, fmt.Errorf("%w: it is at %d.%d, not at %d.%d", store.ErrConflict, at.Epoch, at.Seq, base.Epoch, base.Seq)
	}
	return &tx{
		s: s, base: st, next: store.Version{Epoch: base.Epoch, Seq: base.Seq + 1},
		exists: make(map[v1.Key]bool),
	}, nil
}

// Put implements store.Tx.
func (t *tx) Put(ctx context.Context, o *v1.Object) error {
	if t.err != nil {
		return t.err
	}
	stored := *o
	stored.Metadata.Seq = t.next.Seq
	buf, err := content.AppendPut(t.buf, &stored)
	if err != nil {
		return err
	}
	t.touch(o.Key(), true)
	return t.grow(ctx, buf)
}

// Delete implements store.Tx.
func (t *tx) Delete(ctx context.Context, k v1.Key) error {
	if t.err != nil {
		return t.err
	}
	exists, touched := t.exists[k]
	if !touched {
		_, exists = t.base.Get(k)
	}
	if !exists {
		return fmt.Errorf("delete %s: there is none", k)
	}
	t.touch(k, false)
	return t.grow(ctx, content.AppendDelete(t.buf, k))
}

func (t *tx) touch(k v1.Key, exists bool) {
	if _, ok := t.exists[k]; !ok {
		t.keys = append(t.keys, k)
	}
	t.exists[k] = exists
}

// PutCredential implements store.Tx.
func (t *tx) PutCredential(ctx context.Context, c snapshot.Credential) error {
	return t.changeCredential(ctx, store.CredentialChange{Credential: c})
}

// RemoveCredential implements store.Tx.
func (t *tx) RemoveCredential(ctx context.Context, organization string, hash snapshot.CredentialHash) error {
	c := snapshot.Credential{Organization: organization, Hash: hash}
	return t.changeCredential(ctx, store.CredentialChange{Credential: c, Remove: true})
}

func (t *tx) changeCredential(ctx context.Context, c store.CredentialChange) error {
	if t.err != nil {
		return t.err
	}
	buf, err := content.AppendCredential(t.buf, c)
	if err != nil {
		return err
	}
	t.credentials++
	return t.grow(ctx, buf)
}

// grow takes the longer buffer and stages the pieces that it fills. After an error the change set has a hole, so
// nothing but Abort is possible.
func (t *tx) grow(ctx context.Context, buf []byte) error {
	t.buf = buf
	for len(t.buf) > pieceSize {
		if err := t.stage(ctx, t.buf[:pieceSize]); err != nil {
			t.end(err)
			return err
		}
		t.buf = append(t.buf[:0], t.buf[pieceSize:]...)
	}
	return nil
}

// stage writes a piece of the change set.
func (t *tx) stage(ctx context.Context, raw []byte) error { return t.s.stage(ctx, t.add(raw)) }

// add makes raw the next piece without writing it.
func (t *tx) add(raw []byte) encodedPiece {
	p := t.s.pieces.encode(raw)
	t.s.staged.add(p.digest)
	t.pieces = append(t.pieces, p.digest)
	t.bytes += int64(len(raw))
	return p
}

// end gives back what the change set holds.
func (t *tx) end(err error) {
	if t.err == nil {
		t.s.staged.remove(t.pieces)
		if len(t.pieces) > 0 && !t.committed {
			t.s.wantMaintenance() // to collect them
		}
		t.buf, t.exists, t.base = nil, nil, nil
		t.err = err
	}
}

// Abort implements store.Tx.
func (t *tx) Abort() {
	t.end(errEnded)
}

// Commit implements store.Tx.
func (t *tx) Commit(ctx context.Context, info store.Info) (store.Version, error) {
	if t.err != nil {
		return store.Version{}, t.err
	}
	defer t.end(errEnded)
	begin := time.Now()
	err := t.commit(ctx, info)
	switch {
	case err == nil:
		t.committed = true
		t.s.metrics.commitSeconds.Observe(time.Since(begin).Seconds())
		t.s.metrics.changeSets.WithLabelValues(outcomeCommitted).Inc()
		return t.next, nil
	case errors.Is(err, store.ErrConflict):
		t.s.metrics.changeSets.WithLabelValues(outcomeConflict).Inc()
	case errors.Is(err, store.ErrStorageFull):
		t.s.wantMaintenance() // to make room
		t.s.metrics.changeSets.WithLabelValues(outcomeFull).Inc()
	case errors.Is(err, store.ErrUnknown):
		t.s.metrics.changeSets.WithLabelValues(outcomeUnknown).Inc()
	default:
		t.s.metrics.changeSets.WithLabelValues(outcomeFailed).Inc()
	}
	return store.Version{}, fmt.Errorf("commit change set %d.%d: %w", t.next.Epoch, t.next.Seq, err)
}

func (t *tx) commit(ctx context.Context, info store.Info) error {
	var then []clientv3.Op
	if len(t.buf) > 0 {
		// The last piece rides in the deciding transaction, so that a small change set costs one write.
		then = append(then, t.add(t.buf).put())
	}
	rec, err := t.record(info)
	if err != nil {
		return err
	}
	if err := t.s.room(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	base, err := encode(t.base.head())
	if err != nil {
		return err
	}
	head, err := encode(headRecord{Version: t.next, Hash: digestOf(rec)})
	if err != nil {
		return err
	}
	then = append(then, clientv3.OpPut(changeKey(t.next.Seq), string(rec)), clientv3.OpPut(keyHead, string(head)))
	return t.decide(ctx, base, rec, then)
}

// record returns the encoded record of the change set.
func (t *tx) record(info store.Info) ([]byte, error) {
	now := t.s.opts.Now().UTC()
	if info.At.IsZero() {
		info.At = now
	}
	info.At = info.At.UTC()
	r := changeRecord{
		Version: t.next, Previous: t.base.hash, Nonce: rand.Text(), At: now, Info: info,
		Pieces: t.pieces, Bytes: t.bytes, Credentials: t.credentials,
	}
	for _, k := range t.keys {
		action := ""
		switch _, was := t.base.Get(k); {
		case was && t.exists[k]:
			action = "updated"
		case t.exists[k]:
			action = "created"
		case was:
			action = "deleted"
		default:
			continue // made and deleted again
		}
		if len(r.Changes) == maxAuditEntries {
			r.Omitted++
			continue
		}
		r.Changes = append(r.Changes, store.AuditEntry{Key: k, Action: action})
	}
	b, err := encode(r)
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("the change set takes %d bytes in %d pieces, more than one may: split it", t.bytes, len(t.pieces))
	}
	return b, err
}

// decide moves the head from base. If the answer is lost it asks again: the transaction is such that it succeeds
// once, and that the record under the key of the change set tells whose it was.
func (t *tx) decide(ctx context.Context, base, rec []byte, then []clientv3.Op) error {
	key := changeKey(t.next.Seq)
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.s.commitTimeout)
	defer cancel()
	unknown := false
	for {
		resp, err := t.s.txn(ask, []clientv3.Cmp{clientv3.Compare(clientv3.Value(keyHead), "=", string(base))}, then,
			[]clientv3.Op{clientv3.OpGet(key)})
		switch {
		case err == nil && resp.Succeeded:
			t.s.waitFor(ctx, t.next)
			return nil
		case err == nil:
			kvs := resp.Responses[0].GetResponseRange().Kvs
			if len(kvs) == 1 && string(kvs[0].Value) == string(rec) {
				t.s.waitFor(ctx, t.next)
				return nil
			}
			t.s.waitFor(ctx, t.next) // whoever tries again is to see what was first
			return store.ErrConflict
		case !unknown && (errors.Is(err, store.ErrStorageFull) || errors.Is(err, store.ErrClosed)):
			return err
		}
		unknown = true
		select {
		case <-time.After(commitPause):
		case <-ask.Done():
			return fmt.Errorf("%w: %w", store.ErrUnknown, err)
		case <-t.s.failed:
			return fmt.Errorf("%w: %w", store.ErrUnknown, t.s.err)
		}
	}
}

// waitFor waits until the state shows v, which is committed. It also returns when the caller leaves or the state will
// never show it, because v is durable all the same.
func (s *Store) waitFor(ctx context.Context, v store.Version) {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if !s.state.Load().Version().Before(v) {
			return
		}
		select {
		case <-changed:
		case <-s.failed:
			return
		case <-s.done:
			return
		case <-ctx.Done():
			return
		}
	}
}
