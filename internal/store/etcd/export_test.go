package etcd

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"go.uber.org/zap"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Maintain does now what maintenance would do in time, and writes an image whether or not one is due.
func (s *Store) Maintain(ctx context.Context) error {
	s.maintenance.Lock()
	defer s.maintenance.Unlock()
	if err := s.writeImage(ctx); err != nil {
		return err
	}
	if err := s.collect(ctx); err != nil {
		return err
	}
	return s.makeRoom(ctx)
}

// Wrap puts something between the record and etcd.
func (o *Options) Wrap(wrap func(clientv3.KV) clientv3.KV) { o.wrap = wrap }

// NewZapLogger returns what etcd logs to.
func NewZapLogger(l *slog.Logger) *zap.Logger { return newZapLogger(l, func(error) {}) }

// Recent returns how many change sets are kept in memory for watchers, and the bytes that they are taken for.
func (s *Store) Recent() (n int, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.recent), s.weight
}

// Client returns the client of the embedded etcd, to damage what it holds.
func (s *Store) Client() *clientv3.Client { return s.client }

// SetCommitTimeout sets how long Commit tries to learn what became of its transaction.
func (s *Store) SetCommitTimeout(d time.Duration) { s.commitTimeout = d }

// SplitBackup returns the entries of a backup in their encoded form.
func SplitBackup(file []byte) ([][]byte, error) {
	br, err := newBackupReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for {
		key, value, err := br.next(nil)
		if err != nil || key == "" {
			return entries, err
		}
		var b bytes.Buffer
		bw, err := newBackupWriter(&b)
		if err == nil {
			err = bw.entry(key, value)
		}
		if err == nil {
			err = bw.w.Flush()
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, b.Bytes()[len(backupMagic):])
	}
}
