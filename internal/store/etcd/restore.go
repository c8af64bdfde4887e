package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
)

// RestoreOptions say what becomes of a backup. Dir and Source are needed.
type RestoreOptions struct {
	// Dir is the directory of the new record; it must be empty or missing.
	Dir string
	// Source is the backup. It is read twice: all of it is checked before anything is written.
	Source io.ReadSeeker
	// Epoch is that of the new record; it must be higher than the backup's. Default: one higher. A higher one is
	// needed if another record has been restored from the same cluster meanwhile.
	Epoch uint64
	// Principal is named in the audit record of the restoration. Default: "hansa".
	Principal string
	// Logger gets what the store and its etcd have to say. Default: nothing is logged.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Restore makes a new record of the same cluster out of a backup, and returns its version: the epoch is higher, so
// that every gateway takes it for newer than whatever came after the backup, and the seq is one higher, that of a
// change set without changes whose audit record tells of the restoration.
//
// A backup that is not whole gives ErrCorrupt, and a directory that is not empty an error, before anything is
// written. The record appears in Dir at once, after it has been opened and read as a whole; until then it grows in
// Dir with ".restoring" appended, which a Restore that was killed leaves behind and the next one removes.
func Restore(ctx context.Context, opts RestoreOptions) (store.Version, error) {
	v, err := restore(ctx, opts)
	if err != nil {
		return store.Version{}, fmt.Errorf("restore record to %s: %w", opts.Dir, err)
	}
	return v, nil
}

func restore(ctx context.Context, opts RestoreOptions) (store.Version, error) {
	if opts.Principal == "" {
		opts.Principal = "hansa"
	}
	open := Options{Dir: filepath.Clean(opts.Dir) + ".restoring", Logger: opts.Logger, Now: opts.Now}
	if err := open.setDefaults(); err != nil {
		return store.Version{}, err
	}
	if opts.Dir == "" {
		return store.Version{}, errors.New("the record needs a directory: RestoreOptions.Dir is empty")
	}
	info, err := VerifyBackup(opts.Source)
	if err != nil {
		return store.Version{}, err
	}
	if opts.Epoch == 0 {
		opts.Epoch = info.Version.Epoch + 1
	}
	if opts.Epoch <= info.Version.Epoch {
		return store.Version{}, fmt.Errorf("epoch %d is not higher than that of the backup, %d", opts.Epoch, info.Version.Epoch)
	}
	if err := requireEmpty(opts.Dir); err != nil {
		return store.Version{}, err
	}
	if _, err := opts.Source.Seek(0, io.SeekStart); err != nil {
		return store.Version{}, fmt.Errorf("read the backup again: %w", err)
	}
	if err := os.RemoveAll(open.Dir); err != nil {
		return store.Version{}, err
	}
	defer os.RemoveAll(open.Dir) // what is left of it after an error
	if err := fill(ctx, open, opts, info); err != nil {
		return store.Version{}, err
	}
	// Opening reads the whole content, which the checks of the backup did not do.
	s, err := Open(ctx, open)
	if err != nil {
		return store.Version{}, err
	}
	v := s.State().Version()
	if err := s.Close(); err != nil {
		return store.Version{}, err
	}
	return v, moveDir(open.Dir, opts.Dir)
}

// requireEmpty refuses a directory that holds anything.
func requireEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("it holds %q: a record is restored to an empty directory", entries[0].Name())
	}
	return nil
}

// fill writes the entries of the backup into the etcd of open.Dir, and the change set that raises the epoch.
func fill(ctx context.Context, open Options, opts RestoreOptions, info BackupInfo) error {
	server := serverOptions{dir: filepath.Join(open.Dir, etcdDir), quota: open.Quota, logger: open.Logger}
	return withServer(ctx, server, func(client *clientv3.Client) error {
		br, err := newBackupReader(opts.Source)
		if err != nil {
			return err
		}
		b := batch{client: client}
		var head headRecord
		for {
			key, value, err := br.next(nil)
			switch {
			case err != nil:
				return err
			case key == "" && digest(br.hash.Sum(nil)) != info.digest:
				return corrupt("the backup changed while it was read")
			case key == "":
				return raiseEpoch(ctx, &b, head, open, opts)
			case key == keyHead:
				err = decode(key, value, &head)
			default:
				err = b.put(ctx, key, value)
			}
			if err != nil {
				return err
			}
		}
	})
}

// raiseEpoch writes the change set without changes that begins the new epoch.
func raiseEpoch(ctx context.Context, b *batch, head headRecord, open Options, opts RestoreOptions) error {
	now := open.Now().UTC()
	rec, err := encode(changeRecord{
		Version: store.Version{Epoch: opts.Epoch, Seq: head.Seq + 1}, Previous: head.Hash, Nonce: rand.Text(), At: now,
		Info: store.Info{
			Principal: opts.Principal, At: now,
			Reason: fmt.Sprintf("restored from a backup of %d.%d", head.Epoch, head.Seq),
		},
	})
	if err != nil {
		return err
	}
	next, err := encode(headRecord{Version: store.Version{Epoch: opts.Epoch, Seq: head.Seq + 1}, Hash: digestOf(rec)})
	if err != nil {
		return err
	}
	if err := b.put(ctx, changeKey(head.Seq+1), rec); err != nil {
		return err
	}
	if err := b.put(ctx, keyHead, next); err != nil {
		return err
	}
	return b.flush(ctx)
}

// batch puts keys, as many in one transaction as etcd takes.
type batch struct {
	client *clientv3.Client
	ops    []clientv3.Op
	bytes  int
}

func (b *batch) put(ctx context.Context, key string, value []byte) error {
	const opsPerTxn = 100
	if len(b.ops) == opsPerTxn || len(b.ops) > 0 && b.bytes+len(value) > pieceSize {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	b.ops = append(b.ops, clientv3.OpPut(key, string(value)))
	b.bytes += len(key) + len(value)
	return nil
}

func (b *batch) flush(ctx context.Context) error {
	if _, err := b.client.Txn(ctx).Then(b.ops...).Commit(); err != nil {
		return fmt.Errorf("write %d keys: %w", len(b.ops), err)
	}
	b.ops, b.bytes = nil, 0
	return nil
}
