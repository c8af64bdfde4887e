package etcd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// etcdDir is the directory of etcd in that of the record.
	etcdDir = "etcd"
	// newSuffix marks a directory that is not finished.
	newSuffix = ".new"
)

// create makes an empty record if there is none in the directory. A member of etcd that is interrupted in its first
// moments can have a log in which not even it itself is a member, and would wait for a leader for ever; so the
// record is made under another name, which it changes once it is whole.
func create(ctx context.Context, opts Options) error {
	dir := filepath.Join(opts.Dir, etcdDir)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	id := make([]byte, 16)
	rand.Read(id) // never fails
	meta, err := encode(metaRecord{Format: formatVersion, Cluster: hex.EncodeToString(id), CreatedAt: opts.Now().UTC()})
	if err != nil {
		return err
	}
	head, err := encode(originOf(meta))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir + newSuffix); err != nil {
		return err
	}
	// What etcd says in its first moments is of no use to anybody.
	server := serverOptions{dir: dir + newSuffix, quota: opts.Quota, logger: slog.New(slog.DiscardHandler)}
	err = withServer(ctx, server, func(c *clientv3.Client) error {
		_, err := c.Txn(ctx).Then(clientv3.OpPut(keyMeta, string(meta)), clientv3.OpPut(keyHead, string(head))).Commit()
		return err
	})
	if err != nil {
		return fmt.Errorf("make an empty record: %w", err)
	}
	return moveDir(dir+newSuffix, dir)
}

// withServer runs an etcd while use is running.
func withServer(ctx context.Context, opts serverOptions, use func(*clientv3.Client) error) error {
	died := make(chan error, 1)
	opts.onDeath = func(err error) {
		select {
		case died <- err:
		default: // the first one tells the cause
		}
	}
	s, err := startServer(ctx, opts)
	if err != nil {
		return err
	}
	err = use(s.client)
	select {
	case dead := <-died: // parts of it hang, so it cannot be stopped
		return errors.Join(err, dead)
	default:
		s.stop()
		return err
	}
}

// moveDir makes the directory from appear as to, which is missing or empty, and makes that durable.
func moveDir(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it is not empty
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}
