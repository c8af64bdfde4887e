package etcd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hansa.dev/hansa/internal/store"
)

// A backup is a file that holds all that the record holds, as it was at one moment:
//
//	line      "hansa backup 1\n"
//	entries   key and value, each with its length before it, in the order meta, head, image, records, pieces
//	end       a key of length zero
//	digest    32 bytes, the SHA-256 of all before it
//
// Lengths are in the form of encoding/binary.AppendUvarint.
const backupMagic = "hansa backup 1\n"

// maxBackupKey and maxBackupValue limit what a reader believes a length.
const (
	maxBackupKey   = 256
	maxBackupValue = 2 << 20
)

// piecesPerRead is how many pieces a backup reads at once.
const piecesPerRead = 8

// Backup implements store.Store. What it writes, Restore reads.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	begin := time.Now()
	bw, err := newBackupWriter(w)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	resp, err := s.get(ctx, keyHead)
	if err != nil {
		return err
	}
	rev := clientv3.WithRev(resp.Header.Revision)
	for _, key := range []string{keyMeta, keyHead, keyImage} {
		kv, err := s.getOne(ctx, key, rev)
		if err != nil {
			return err
		}
		if kv == nil {
			continue // there may be no image yet
		}
		if err := bw.entry(key, kv.Value); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
	}
	for _, part := range []struct {
		prefix string
		page   int64
	}{{prefixChange, recordsPerRead}, {prefixPiece, piecesPerRead}} {
		if err := s.backupPrefix(ctx, bw, part.prefix, part.page, rev); err != nil {
			return err
		}
	}
	if err := bw.close(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	s.log.InfoContext(ctx, "backup written", "entries", bw.entries, "bytes", bw.bytes, "took", time.Since(begin))
	return nil
}

// backupPrefix writes all keys with a prefix.
func (s *Store) backupPrefix(ctx context.Context, bw *backupWriter, prefix string, page int64, rev clientv3.OpOption) error {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), rev)
		if errors.Is(err, rpctypes.ErrCompacted) {
			return fmt.Errorf("the backup took longer than %s, for which the record keeps what it deletes: write it to something faster: %w", history, err)
		}
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := bw.entry(string(kv.Key), kv.Value); err != nil {
				return fmt.Errorf("write backup: %w", err)
			}
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// backupWriter writes the form of a backup.
type backupWriter struct {
	w       *bufio.Writer
	hash    hash.Hash
	entries int
	bytes   int64
}

func newBackupWriter(w io.Writer) (*backupWriter, error) {
	b := &backupWriter{w: bufio.NewWriterSize(w, 256<<10), hash: sha256.New()}
	return b, b.write([]byte(backupMagic))
}

func (b *backupWriter) write(p []byte) error {
	b.hash.Write(p)
	b.bytes += int64(len(p))
	_, err := b.w.Write(p)
	return err
}

func (b *backupWriter) entry(key string, value []byte) error {
	b.entries++
	head := binary.AppendUvarint(nil, uint64(len(key)))
	head = append(head, key...)
	head = binary.AppendUvarint(head, uint64(len(value)))
	if err := b.write(head); err != nil {
		return err
	}
	return b.write(value)
}

func (b *backupWriter) close() error {
	if err := b.write([]byte{0}); err != nil {
		return err
	}
	if _, err := b.w.Write(b.hash.Sum(nil)); err != nil {
		return err
	}
	return b.w.Flush()
}

// backupReader reads the form of a backup.
type backupReader struct {
	r    *bufio.Reader
	hash hash.Hash
}

// errBackup means that a file is no backup, or not a whole one.
func errBackup(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("the backup is cut short")
	}
	return err
}

func newBackupReader(r io.Reader) (*backupReader, error) {
	b := &backupReader{r: bufio.NewReaderSize(r, 256<<10), hash: sha256.New()}
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(b.r, magic); err != nil {
		return nil, errBackup(err)
	}
	if string(magic) != backupMagic {
		return nil, corrupt("this is not a backup of a record, or one in another format: it does not begin with %q", backupMagic)
	}
	b.hash.Write(magic)
	return b, nil
}

// next returns the next entry; at the end, once the digest has been found right, key is "". The value is valid until
// the next call if it was given as buf.
func (b *backupReader) next(buf []byte) (key string, value []byte, err error) {
	k, err := b.block(nil, maxBackupKey)
	if err != nil {
		return "", nil, err
	}
	if len(k) == 0 {
		return "", nil, b.end()
	}
	value, err = b.block(buf, maxBackupValue)
	return string(k), value, err
}

// block reads a length and that many bytes.
func (b *backupReader) block(buf []byte, limit uint64) ([]byte, error) {
	size, err := b.length()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, corrupt("the backup has a block of %d bytes, more than the %d that are possible", size, limit)
	}
	if uint64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(b.r, buf); err != nil {
		return nil, errBackup(err)
	}
	b.hash.Write(buf)
	return buf, nil
}

// length reads a length.
func (b *backupReader) length() (uint64, error) {
	var raw [binary.MaxVarintLen64]byte
	for i := range raw {
		c, err := b.r.ReadByte()
		if err != nil {
			return 0, errBackup(err)
		}
		raw[i] = c
		if c < 0x80 {
			b.hash.Write(raw[:i+1])
			if size, n := binary.Uvarint(raw[:i+1]); n > 0 {
				return size, nil
			}
			break
		}
	}
	return 0, corrupt("the backup has a length that is no number")
}

// end checks the digest and that nothing follows.
func (b *backupReader) end() error {
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(b.r, want); err != nil {
		return errBackup(err)
	}
	if !bytes.Equal(b.hash.Sum(nil), want) {
		return corrupt("the backup was altered: its digest is not that of its content")
	}
	if _, err := b.r.ReadByte(); !errors.Is(err, io.EOF) {
		return corrupt("something follows the end of the backup")
	}
	return nil
}

// BackupInfo says what a backup holds.
type BackupInfo struct {
	Cluster string
	Version store.Version // of the head
	Pieces  int
	Records int
	digest  digest // of the whole
}

// VerifyBackup reads a backup to its end and checks all of it: the digest over the whole, that of every piece, the
// chain of the records up to the head, and that no piece is missing. A backup that is not whole gives ErrCorrupt.
func VerifyBackup(r io.Reader) (BackupInfo, error) {
	codec, err := newCodec()
	if err != nil {
		return BackupInfo{}, err
	}
	v := backupVerifier{codec: codec, present: make(map[digest]struct{}), lists: make(map[digest][]byte)}
	br, err := newBackupReader(r)
	if err != nil {
		return BackupInfo{}, err
	}
	var buf []byte
	for {
		var key string
		key, buf, err = br.next(buf[:cap(buf)])
		if err == nil && key != "" {
			err = v.entry(key, buf)
		}
		if err != nil {
			return BackupInfo{}, err
		}
		if key == "" {
			break
		}
	}
	if err := v.finish(); err != nil {
		return BackupInfo{}, err
	}
	v.info.digest = digest(br.hash.Sum(nil))
	return v.info, nil
}
